"""Which generalisation a trained network takes, with what probability; how much of a target n samples teach."""
