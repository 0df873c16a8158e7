"""What makes a kernel. Everything above this floor only spends one."""

from .classical import RBF, ArcCosine, Linear, Periodic
from .kernel import Kernel, Origin
from .on_data import OnData
from .own import FunctionKernel, PrecomputedKernel
from .pair import KernelMatrices, KernelPair
from .sampled import SampledKernel

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
    "SampledKernel",
]
