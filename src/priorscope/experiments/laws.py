"""The laws that trained networks are held against: that of the trained ensemble, and two posteriors."""

from torch import Tensor

from ..beliefs.gaussian import Gaussian
from ..beliefs.process import GaussianProcess
from ..kernels.pair import KernelPair

ENSEMBLE = "trained ensemble"
POSTERIORS = ("NNGP posterior", "NTK posterior")
LAWS = (ENSEMBLE, *POSTERIORS)


def posteriors(pair: KernelPair, x: Tensor, y: Tensor, x_new: Tensor) -> dict[str, Gaussian]:
    """Of functions drawn from each kernel that pass through the labels: laws that trained networks do not follow."""
    return {
        name: GaussianProcess(kernel).condition(x, y)(x_new)
        for name, kernel in zip(POSTERIORS, (pair.nngp, pair.ntk), strict=True)
    }
