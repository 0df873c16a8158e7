"""One file per family of layers; importing them registers them."""

from . import arithmetic, identity, linear, shapes

__all__ = ["arithmetic", "identity", "linear", "shapes"]
