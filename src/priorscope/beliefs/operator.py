"""The spectrum of a kernel's integral operator: what is left of a kernel when only its modes' sizes are asked for.

(T f)(x) = E_x'[κ(x, x') f(x')] under the inputs' density. Its eigenvalues do not grow with the data; those of a Gram
matrix on n points are about n times as large.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import DataError
from ..results import Result
from .modes import Spectrum


@dataclass(frozen=True, eq=False)
class OperatorSpectrum(Result):
    """Eigenvalues of a kernel's integral operator, each with its multiplicity.

    Args:
        values: (r,), operator eigenvalues, at least 0, in any order (a spectrum by degree keeps the degrees' order).
        multiplicity: (r,), how many modes have each.
        trace: E[κ(x, x)], the sum over all modes. What is missing in the values to it lies in modes not listed.
        population: how many points there are in all, where these are finitely many and equally likely; None for a
            density. Samples of a finite population hold no point twice, and errors are those at the other points.
    """

    values: Float[Tensor, " r"]
    multiplicity: Float[Tensor, " r"]
    trace: float
    population: int | None = None

    def __post_init__(self) -> None:
        values, multiplicity = self.values, self.multiplicity
        if values.shape != multiplicity.shape or values.ndim != 1 or not len(values):
            cause = f"has values of shape {tuple(values.shape)} and multiplicities of {tuple(multiplicity.shape)}"
            raise DataError("the spectrum", cause, "Give (r,) of both, at least one")
        if not bool(torch.isfinite(values).all()) or bool((values < 0).any()) or not float(values.max()) > 0:
            cause = "has eigenvalues that are negative, not finite, or all zero"
            raise DataError("the spectrum", cause, "Give operator eigenvalues of a positive semi-definite kernel")
        if bool((multiplicity <= 0).any()):
            raise DataError("the spectrum", "has multiplicities that are not positive", "Leave those modes out")
        if self.population is not None and float(multiplicity.sum()) > self.population:
            cause = f"has {float(multiplicity.sum()):g} modes on {self.population} points"
            raise DataError("the spectrum", cause, "A population has at most as many modes as points")

    @property
    def rest(self) -> float:
        """The eigenvalues of all modes that are not listed, summed."""
        listed = float((self.multiplicity * self.values).to(torch.float64).sum())
        left = self.trace - listed
        return left if left > 1e-12 * max(self.trace, listed) else 0.0

    @property
    def rank(self) -> float:
        """The number of listed modes whose eigenvalue is not 0."""
        return float(self.multiplicity[self.values > 0].sum())


def operator_spectrum(modes: Spectrum) -> OperatorSpectrum:
    """The operator's spectrum where the data themselves are the population: the Gram matrix's values over n.

    Args:
        modes: of a kernel on n points.

    Returns:
        Values / n, each once. Modes that `rank=` cut are left to `rest`.

    >>> from priorscope.beliefs.modes import eigenmodes
    >>> from priorscope.kernels import RBF
    >>> spectrum = operator_spectrum(eigenmodes(RBF(0.3), torch.linspace(0, 1, 5)[:, None]))
    >>> round(float(spectrum.values.sum()), 6)  # E[κ(x, x)]
    1.0
    """
    n = len(modes.vectors)
    values = modes.values.to(torch.float64) / n
    # Cut modes are known by the trace alone, which loaded modes do not have.
    if modes.cut and modes.kernel is None:
        raise DataError("these modes", "were cut, and loaded without their kernel", "Load them with kernel=")
    trace = float(modes.kernel.gram.diagonal().mean()) if modes.cut and modes.kernel else float(values.sum())
    return OperatorSpectrum(values, torch.ones_like(values), trace, population=n)
