"""The version, in one place (semantic versions)."""

__version__ = "0.1.0"
