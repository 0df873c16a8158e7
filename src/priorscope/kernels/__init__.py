"""What makes a kernel. Everything above this floor only spends one."""

from .classical import RBF, ArcCosine, Linear, Periodic
from .kernel import Kernel, KernelMatrices, KernelPair, OnData, Origin
from .own import FunctionKernel, PrecomputedKernel

__all__ = [
    "RBF",
    "ArcCosine",
    "FunctionKernel",
    "Kernel",
    "KernelMatrices",
    "KernelPair",
    "Linear",
    "OnData",
    "Origin",
    "Periodic",
    "PrecomputedKernel",
]
