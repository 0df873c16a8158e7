"""A kernel on data -> its modes, Gaussians, processes, similarity."""

from .gaussian import Gaussian, Probability, clopper_pearson
from .law import Law
from .modes import Sinusoids, Spectrum, eigenmodes, sinusoid_r2
from .process import GaussianProcess, Posterior
from .removal import LeftOut, leave_out
from .samples import Samples
from .shares import GroupShares, Similar
from .similarity import Neighbours, cosine, indistinguishable, indistinguishable_pairs, influence, most_similar
from .symmetry import Commutator, commutator

__all__ = [
    "Commutator",
    "Gaussian",
    "GaussianProcess",
    "GroupShares",
    "Law",
    "LeftOut",
    "Neighbours",
    "Posterior",
    "Probability",
    "Samples",
    "Similar",
    "Sinusoids",
    "Spectrum",
    "clopper_pearson",
    "commutator",
    "cosine",
    "eigenmodes",
    "indistinguishable",
    "indistinguishable_pairs",
    "influence",
    "leave_out",
    "most_similar",
    "sinusoid_r2",
]
