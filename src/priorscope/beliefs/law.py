"""What every law of a function's values answers, be it a Gaussian in closed form or a set of samples."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from torch import Tensor

from .gaussian import Probability


@runtime_checkable
class Law(Protocol):
    """The law of a function's values at m points, (m,) or (m, o).

    mean, variance: like the values. covariance: (m, m) or (m, o, m, o).
    """

    @property
    def mean(self) -> Tensor: ...

    @property
    def variance(self) -> Tensor: ...

    @property
    def covariance(self) -> Tensor: ...

    def sample(self, n: int, seed: int) -> Tensor:
        """n functions from the law, (n, m) or (n, m, o)."""
        ...

    def probability(self, predicate: Callable[[Tensor], Tensor], samples: int = 100_000, seed: int = 0) -> Probability:
        """The probability of the set where the predicate holds, with an interval that is never of zero width."""
        ...

    def project(self, d: Tensor) -> tuple[float, float]:
        """Mean and variance of the linear functional Σ d·f, for d like the mean."""
        ...
