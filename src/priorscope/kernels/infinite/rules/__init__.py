"""One file per family of layers; importing them registers them."""

from . import (
    arithmetic,
    attention,
    convolution,
    embedding,
    identity,
    linear,
    normalization,
    pooling,
    products,
    recurrent,
    shapes,
    transposed,
)

__all__ = [
    "arithmetic",
    "attention",
    "convolution",
    "embedding",
    "identity",
    "linear",
    "normalization",
    "pooling",
    "products",
    "recurrent",
    "shapes",
    "transposed",
]
