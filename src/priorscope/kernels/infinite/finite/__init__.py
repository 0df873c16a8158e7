"""Networks of real widths before any training: what 1/width adds to mean and variance of their kernels."""

from .corrections import FiniteWidth, FiniteWidthKernels, finite_width

__all__ = ["FiniteWidth", "FiniteWidthKernels", "finite_width"]
