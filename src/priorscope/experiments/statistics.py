"""What a statistical criterion is: a statistic, its null law simulated, and an allowance for finite width.

A law passes where its statistic is at most `threshold` = the 99.9 % quantile of the statistic under that null, plus
b/width of the fit a + b/width over two widths (b < 0 counts as 0; at most the quantile itself). A wrong law fails
clearly where its statistic exceeds twice that threshold. All of it is printed by `str`.
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

QUANTILE = 0.999
ROUNDING, AGREE = 1e-12, 1e-9
"""Relative to its mean: the standard error of an entry that all samples have alike, and how near it is to be to a law.
"""
AT_ONCE = 500
"""Repetitions that are simulated at once."""


def covariance_statistic(samples: Tensor, covariance: Tensor) -> Tensor:
    """‖Ĉ − C‖_F / ‖C‖_F for samples (..., s, m): Ĉ is their covariance, C the law's own."""
    centred = samples - samples.mean(-2, keepdim=True)
    found = centred.mT @ centred / (samples.shape[-2] - 1)
    return (found - covariance).flatten(-2).norm(dim=-1) / covariance.norm()


def covariance_quantile(covariance: Tensor, networks: int, draws: int, seed: int) -> float:
    """The 99.9 % quantile of the covariance's statistic when `networks` functions are drawn from the law itself."""
    generator = torch.Generator().manual_seed(seed)
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors * values.clamp_min(0).sqrt()
    null = []
    for start in range(0, draws, AT_ONCE):
        shape = (min(AT_ONCE, draws - start), networks, len(covariance))
        noise = torch.randn(shape, generator=generator, dtype=root.dtype)
        null.append(covariance_statistic(noise @ root.T, covariance))
    return float(torch.cat(null).quantile(QUANTILE))


@functools.lru_cache(maxsize=4)
def _resamplings(size: int, draws: int, seed: int) -> Tensor:
    """(draws, size): how often each of `size` samples is drawn, with replacement."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randint(size, (size,), generator=generator) for _ in range(draws)]
    return torch.stack([one.bincount(minlength=size) for one in drawn])


@dataclass(frozen=True)
class BootstrappedMean:
    """The mean over networks of samples (s, m), its bootstrap standard errors, and the quantile of their null.

    The null is the bootstrap centred on its own mean: the largest deviation of a resampled mean from the mean.
    """

    mean: Tensor
    error: Tensor
    quantile: float

    @classmethod
    def of(cls, samples: Tensor, draws: int, seed: int) -> "BootstrappedMean":
        s = len(samples)
        mean = samples.mean(0)
        deviations = _resamplings(s, draws, seed).to(samples) @ samples / s - mean
        error = deviations.square().mean(0).sqrt()
        random = error > ROUNDING * mean.abs()
        null = deviations.abs()[:, random] / error[random]
        quantile = float(null.amax(1).quantile(QUANTILE)) if bool(random.any()) else 0.0
        return cls(mean, error, quantile)

    def statistic(self, law: Tensor) -> float:
        """The largest deviation from a law's mean, in standard errors; of an entry that is the same in all samples
        (the square of a sign), 0 where it is the law's, else infinite."""
        deviation = (self.mean - law).abs()
        random = self.error > ROUNDING * self.mean.abs()
        equal = deviation <= AGREE * self.mean.abs()
        return float(torch.where(random, deviation / self.error, torch.where(equal, 0.0, torch.inf)).max())


@dataclass(frozen=True)
class TwoWidths:
    """A statistic at two widths, judged at the wider one."""

    name: str
    narrow: int
    wide: int
    at_narrow: float
    at_wide: float
    quantile: float

    @property
    def allowance(self) -> float:
        """b/width at the wider width, of the fit a + b/width; b < 0 counts as 0, and at most the quantile."""
        b = (self.at_narrow - self.at_wide) / (1 / self.narrow - 1 / self.wide)
        return min(max(b, 0.0) / self.wide, self.quantile)

    @property
    def threshold(self) -> float:
        return self.quantile + self.allowance

    @property
    def passes(self) -> bool:
        return self.at_wide <= self.threshold

    def refutes(self, statistic: float) -> bool:
        """Whether another law's statistic, on the same samples, exceeds twice the threshold."""
        return statistic > 2 * self.threshold

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.at_wide:.3g} at width {self.wide} ({self.at_narrow:.3g} at {self.narrow}); "
            f"threshold {self.threshold:.3g} = 99.9 % quantile {self.quantile:.3g} + allowance {self.allowance:.3g}"
        )
