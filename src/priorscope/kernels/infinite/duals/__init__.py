"""One file per family of pointwise functions; importing them registers them."""

from . import closed, exponential, homogeneous, kernel_map, kinked, piecewise, polynomial, smooth

__all__ = ["closed", "exponential", "homogeneous", "kernel_map", "kinked", "piecewise", "polynomial", "smooth"]
