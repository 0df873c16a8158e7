"""A kernel on data -> its modes, Gaussians, processes, similarity."""
