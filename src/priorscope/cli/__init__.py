"""The command line: parses arguments, prints; nothing else does."""

from .main import main

__all__ = ["main"]
