"""Results -> matplotlib Axes."""
