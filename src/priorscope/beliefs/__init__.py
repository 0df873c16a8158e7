"""A kernel on data -> its modes, Gaussians, processes, similarity."""

from .gaussian import Gaussian, Probability, clopper_pearson
from .law import Law
from .modes import Sinusoids, Spectrum, eigenmodes, sinusoid_r2
from .process import GaussianProcess, Posterior
from .samples import Samples
from .similarity import Neighbours, cosine, indistinguishable, indistinguishable_pairs, influence, most_similar

__all__ = [
    "Gaussian",
    "GaussianProcess",
    "Law",
    "Neighbours",
    "Posterior",
    "Probability",
    "Samples",
    "Sinusoids",
    "Spectrum",
    "clopper_pearson",
    "cosine",
    "eigenmodes",
    "indistinguishable",
    "indistinguishable_pairs",
    "influence",
    "most_similar",
    "sinusoid_r2",
]
