"""Module structure -> kernels: the NNGP and NTK of infinitely wide networks, derived from the user's own module."""

from . import duals, rules
from .check import Mismatch, mismatches
from .duals.kernel_map import kernel_map
from .explain import Explanation
from .finite import FiniteWidth, FiniteWidthKernels, finite_width
from .limit import Limit, LimitKernel, infinite_width
from .moments import Moments, Refused
from .registry import Expectations, dual, rule

__all__ = [
    "Expectations",
    "Explanation",
    "FiniteWidth",
    "FiniteWidthKernels",
    "Limit",
    "LimitKernel",
    "Mismatch",
    "Moments",
    "Refused",
    "dual",
    "duals",
    "finite_width",
    "infinite_width",
    "kernel_map",
    "mismatches",
    "rule",
    "rules",
]
