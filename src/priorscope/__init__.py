"""priorscope shows what a neural network wants to learn, before it is trained."""

from . import kernels
from .kernels import FunctionKernel, Kernel, KernelPair, PrecomputedKernel
from .network.initialization import Initialization
from .training.training import Training
from .version import __version__

__all__ = [
    "FunctionKernel",
    "Initialization",
    "Kernel",
    "KernelPair",
    "PrecomputedKernel",
    "Training",
    "__version__",
    "kernels",
]
