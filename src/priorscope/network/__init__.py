"""The user's nn.Module as a function of its parameters; this floor knows no kernel."""
