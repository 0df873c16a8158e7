"""Trust: how far predictions of trained networks deserve belief, from what is cheap and known before training."""

from .assess import Trust, trust

__all__ = ["Trust", "trust"]
