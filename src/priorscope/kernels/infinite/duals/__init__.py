"""One file per family of pointwise functions; importing them registers them."""

from . import closed, piecewise, smooth

__all__ = ["closed", "piecewise", "smooth"]
