"""A Gaussian over functions' values: density, samples, and the probability of any set, with an interval."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from scipy.stats import beta
from torch import Tensor

from ..errors import DataError, SingularKernelError
from ..linalg.memory import check_memory
from ..linalg.symmetric import Eigendecomposition, decompose
from ..results import Result, live

CONFIDENCE = 0.99


def clopper_pearson(hits: int, samples: int) -> tuple[float, float]:
    """The exact 99 % interval of a probability from hits among independent samples; never of zero width.

    Source: Clopper and Pearson 1934.
    """
    tail = (1 - CONFIDENCE) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, samples - hits + 1))
    high = 1.0 if hits == samples else float(beta.ppf(1 - tail, hits + 1, samples - hits))
    return low, high


@dataclass(frozen=True)
class Probability(Result):
    """A probability from samples. It unpacks as (p, standard error).

    Args:
        p: hits / samples, where it was counted.
        standard_error: √(p(1 − p)/samples); 0 where p is 0 or 1, which is why there is an interval.
        interval: the 99 % interval, never of zero width; of a count that of Clopper and Pearson (1934).
        samples: how many were drawn.
        effective: where samples were led to a rare set (`rare_probability`): how many hits a plain count would have
            had to see to be as sure. None where it was counted.

    >>> certain = Probability.counted(100, 100)
    >>> certain.p, round(certain.interval[0], 3), certain.interval[1]
    (1.0, 0.948, 1.0)
    """

    p: float
    standard_error: float
    interval: tuple[float, float]
    samples: int
    effective: float | None = None

    @classmethod
    def counted(cls, hits: int, samples: int) -> "Probability":
        """From the number of hits among independent samples."""
        interval = clopper_pearson(hits, samples)
        p = hits / samples
        return cls(p, math.sqrt(p * (1 - p) / samples), interval, samples)

    def __iter__(self) -> Iterator[float]:
        return iter((self.p, self.standard_error))


def holding(predicate: Callable[[Tensor], Tensor], drawn: Float[Tensor, "s ..."]) -> Probability:
    """How probable a set is, from independent samples: the predicate gets all, and returns (s,) booleans."""
    holds, samples = predicate(drawn), len(drawn)
    if not isinstance(holds, Tensor) or tuple(holds.shape) != (samples,) or holds.dtype != torch.bool:
        given = f"{tuple(holds.shape)} {holds.dtype}" if isinstance(holds, Tensor) else type(holds).__name__
        raise DataError("the predicate", f"returned {given}", f"Return ({samples},) booleans, one a sample")
    return Probability.counted(int(holds.sum()), samples)


@dataclass(frozen=True, eq=False)
class Gaussian(Result):
    """N(mean, covariance) over the values of a function at m points, singular covariances included.

    Args:
        mean: (m,) or (m, o); its dtype is that of the answers.
        matrix: (m, m), float64: the covariance, and for (m, o) that of each output, independent and equal; or the
            (m·o, m·o) covariance of coupled outputs, points first.
        tolerance: eigenvalues of `matrix` at or under it are what rounding leaves of zero; None for the usual
            m · eps · λ_max.
        factored: the eigendecomposition of `matrix`, where it is known already.

    >>> g = Gaussian(torch.zeros(2), torch.eye(2))
    >>> round(float(g.log_prob(torch.zeros(2))), 6) == round(-math.log(2 * math.pi), 6)
    True
    """

    mean: Tensor
    matrix: Tensor
    tolerance: float | None = None
    factored: Eigendecomposition | None = live()

    def __post_init__(self) -> None:
        sizes = {len(self.mean), self.mean.numel()} if self.mean.ndim in (1, 2) else set()
        if self.matrix.ndim != 2 or self.matrix.shape[0] != self.matrix.shape[1] or len(self.matrix) not in sizes:
            raise DataError(
                "Gaussian",
                f"got a mean {tuple(self.mean.shape)} and a covariance {tuple(self.matrix.shape)}",
                "Give (m,) or (m, o) with (m, m), or (m, o) with (m·o, m·o)",
            )

    @cached_property
    def covariance(self) -> Float[Tensor, "..."]:
        """(m, m) for a mean (m,); (m, o, m, o) for a mean (m, o), built when asked for."""
        matrix = self.matrix.to(self.mean.dtype)
        if self.mean.ndim == 1:
            return matrix
        m, o = self.mean.shape
        if self._shared:
            matrix = torch.kron(matrix, torch.eye(o).to(matrix))
        return matrix.reshape(m, o, m, o)

    @cached_property
    def variance(self) -> Float[Tensor, "..."]:
        """The variance of every value, like the mean. What rounding makes negative is 0."""
        diagonal = self.matrix.diagonal().clamp_min(0).to(self.mean.dtype)
        if self._shared and self.mean.ndim == 2:
            diagonal = diagonal[:, None].expand(self.mean.shape)
        return diagonal.reshape(self.mean.shape)

    @cached_property
    def eigen(self) -> Eigendecomposition:
        """Of `matrix`."""
        if self.factored is not None:
            return self.factored
        return decompose(self.matrix.to(torch.float64), tolerance=self.tolerance)

    @cached_property
    def rank(self) -> int:
        """The rank of the covariance, over all outputs."""
        return self.eigen.rank * self._copies

    def log_prob(self, y: Tensor) -> Float[Tensor, "*batch"]:
        """The log-density, −½ (y − μ)ᵀ Σ⁻¹ (y − μ) − ½ log det Σ − ½ m log 2π.

        Args:
            y: like the mean; leading axes are a batch.

        Returns:
            One number for each y of the batch.

        Raises:
            SingularKernelError: where the covariance is singular, so that there is no density.
        """
        if tuple(y.shape[y.ndim - self.mean.ndim :]) != tuple(self.mean.shape) or y.ndim < self.mean.ndim:
            raise DataError("y", f"has shape {tuple(y.shape)}", f"Give it like the mean: {tuple(self.mean.shape)}")
        if self.eigen.is_singular:
            raise SingularKernelError(
                "log_prob",
                f"the covariance has rank {self.rank} of {self.mean.numel()}, so there is no density",
                "Ask for the .probability of a set, or add noise",
            )
        deviation = y.to(torch.float64) - self.mean.to(torch.float64)
        batch = deviation.shape[: y.ndim - self.mean.ndim]
        columns = deviation.reshape(-1, len(self.matrix), self._copies)
        squares = torch.einsum("ki,bko->bio", self.eigen.vectors, columns).square().sum(-1) / self.eigen.values
        constant = self._copies * self.eigen.values.log().sum() + self.mean.numel() * math.log(2 * math.pi)
        return (-(squares.sum(-1) + constant) / 2).reshape(batch).to(self.mean.dtype)

    def sample(self, n: int, seed: int) -> Float[Tensor, "..."]:
        """n independent samples, (n, m) or (n, m, o). Singular covariances are no obstacle.

        Args:
            n: how many.
            seed: the same seed gives the same samples.
        """
        if n < 1:
            raise DataError("n", f"is {n}", "Ask for at least one sample")
        size, copies = len(self.matrix), self._copies
        check_memory(3 * n * size * copies * 8, f"{n} samples of {self.mean.numel()} values")
        noise = torch.randn(n, copies, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        root = self.eigen.vectors * self.eigen.values.clamp_min(0).sqrt()
        drawn = (noise.to(root.device) @ root.T).transpose(1, 2).reshape(n, *self.mean.shape)
        return (self.mean.to(torch.float64) + drawn).to(self.mean.dtype)

    def probability(self, predicate: Callable[[Tensor], Tensor], samples: int = 100_000, seed: int = 0) -> Probability:
        """The probability of the set where the predicate holds, counted in samples.

        Args:
            predicate: gets all samples at once, (s, m) or (s, m, o), and returns (s,) booleans.
            samples: how many are drawn.
            seed: of the draw.

        Returns:
            A `Probability`: unpacks as (p, standard error), and has an interval of positive width.
        """
        return holding(predicate, self.sample(samples, seed))

    def project(self, d: Tensor) -> tuple[float, float]:
        """Mean and variance of the linear functional Σ d·f.

        Args:
            d: like the mean.
        """
        columns = d.to(torch.float64).reshape(len(self.matrix), self._copies)
        mean = float((d.to(torch.float64) * self.mean.to(torch.float64)).sum())
        return mean, max(0.0, float((columns * (self.matrix @ columns)).sum()))

    @property
    def _shared(self) -> bool:
        return len(self.matrix) == len(self.mean)

    @property
    def _copies(self) -> int:
        """How many independent outputs share `matrix`."""
        return self.mean.numel() // len(self.matrix)
