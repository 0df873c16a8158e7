"""A kernel on data -> its modes, Gaussians, processes, similarity."""

from .gaussian import Gaussian, Probability, clopper_pearson
from .hermite import HermiteModes, TargetPower, hermite_modes
from .law import Law
from .modes import Sinusoids, Spectrum, eigenmodes, sinusoid_r2
from .operator import OperatorSpectrum, operator_spectrum
from .process import GaussianProcess, Posterior
from .removal import LeftOut, leave_out
from .samples import Samples
from .shares import GroupShares, Similar
from .similarity import Neighbours, cosine, indistinguishable, indistinguishable_pairs, influence, most_similar
from .spheres import cube_spectrum, sphere_spectrum
from .symmetry import Commutator, commutator

__all__ = [
    "Commutator",
    "Gaussian",
    "GaussianProcess",
    "GroupShares",
    "HermiteModes",
    "Law",
    "LeftOut",
    "Neighbours",
    "OperatorSpectrum",
    "Posterior",
    "Probability",
    "Samples",
    "Similar",
    "Sinusoids",
    "Spectrum",
    "TargetPower",
    "clopper_pearson",
    "commutator",
    "cosine",
    "cube_spectrum",
    "eigenmodes",
    "hermite_modes",
    "indistinguishable",
    "indistinguishable_pairs",
    "influence",
    "leave_out",
    "most_similar",
    "operator_spectrum",
    "sinusoid_r2",
    "sphere_spectrum",
]
