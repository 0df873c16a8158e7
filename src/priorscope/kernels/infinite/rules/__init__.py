"""One file per family of layers; importing them registers them."""

from . import arithmetic, convolution, identity, linear, normalization, pooling, shapes

__all__ = ["arithmetic", "convolution", "identity", "linear", "normalization", "pooling", "shapes"]
