"""A law that is known by independent samples alone: what a non-linear training leaves of a Gaussian start."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import DataError
from ..results import Result
from .gaussian import Probability, holding


@dataclass(frozen=True, eq=False)
class Samples(Result):
    """Independent samples of a function's values at m points. It answers what a `Gaussian` answers but the density.

    Args:
        values: (s, m) or (s, m, o), s ≥ 2 independent samples.

    >>> law = Samples(torch.tensor([[1.0, 2.0], [3.0, 2.0]]))
    >>> law.mean.tolist(), law.variance.tolist()
    ([2.0, 2.0], [2.0, 0.0])
    """

    values: Tensor

    def __post_init__(self) -> None:
        if self.values.ndim not in (2, 3) or len(self.values) < 2:
            raise DataError("Samples", f"got the shape {tuple(self.values.shape)}", "Give (s, m) or (s, m, o), s ≥ 2")

    @cached_property
    def mean(self) -> Float[Tensor, "..."]:
        """(m,) or (m, o)."""
        return self.values.mean(0)

    @cached_property
    def variance(self) -> Float[Tensor, "..."]:
        """The variance of every value, unbiased, like the mean."""
        return self.values.var(0)

    @cached_property
    def covariance(self) -> Float[Tensor, "..."]:
        """(m, m) or (m, o, m, o), unbiased."""
        flat = (self.values - self.mean).flatten(1)
        return (flat.T @ flat / (len(flat) - 1)).reshape(*self.mean.shape, *self.mean.shape)

    def sample(self, n: int, seed: int) -> Float[Tensor, "..."]:
        """n of the samples themselves, (n, m) or (n, m, o), each at most once; so n is at most s.

        Args:
            n: how many.
            seed: which ones.

        Raises:
            DataError: for more than there are: drawing some twice would feign certainty.
        """
        if not 1 <= n <= len(self.values):
            raise DataError("n", f"is {n}, there are {len(self.values)} samples", "Ask for 1 to that many")
        return self.values[torch.randperm(len(self.values), generator=torch.Generator().manual_seed(seed))[:n]]

    def probability(
        self, predicate: Callable[[Tensor], Tensor], samples: int | None = None, seed: int = 0
    ) -> Probability:
        """The probability of the set where the predicate holds, counted in the samples.

        Args:
            predicate: gets the samples at once, (s, m) or (s, m, o), and returns (s,) booleans.
            samples: at most so many of them; None for all. seed: which ones.
        """
        count = len(self.values) if samples is None else min(samples, len(self.values))
        return holding(predicate, self.values if count == len(self.values) else self.sample(count, seed))

    def project(self, d: Tensor) -> tuple[float, float]:
        """Mean and variance of the linear functional Σ d·f.

        Args:
            d: like the mean.
        """
        projected = self.values.to(torch.float64).flatten(1) @ d.to(torch.float64).flatten()
        return float(projected.mean()), float(projected.var())
