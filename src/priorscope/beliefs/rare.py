"""Sets that plain sampling never meets: their probability under a Gaussian, by samples that are led there in stages.

The set is where a score is at least 0. Levels rise towards 0; at each, the samples above it are drawn anew from among
themselves and moved by steps that leave the Gaussian, conditioned on the level, as it is. The probability is the
product of the shares that pass. In many dimensions this holds where one shifted and stretched Gaussian as a proposal
does not: for the orthant of 27 independent values (p = 2⁻²⁷) the best such proposal keeps one effective sample of 8000.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from scipy.stats import t as student
from torch import Tensor

from ..errors import DataError
from .gaussian import CONFIDENCE, Gaussian, Probability

Score = Callable[[Tensor], Tensor]

PASSING = 0.2
"""The share of samples that a level lets pass."""
MOVES = 12
"""Steps of every sample at each level."""
REPLICATES = 20
"""Independent estimates: their spread is the error, whatever the samples of one have in common."""
FEWEST = 100 * REPLICATES
"""Samples, over all estimates."""
LEAST = 1e-15
"""Smaller probabilities are not looked for, unless the caller says so."""
ENOUGH = 20.0
"""Estimates worth fewer hits of a plain count than this are refused."""


@dataclass(frozen=True)
class _Stage:
    """A level, and the size of the steps that mix the samples above it."""

    level: float
    step: float


def rare_probability(
    law: Gaussian, score: Score, samples: int = 20_000, seed: int = 0, least: float = LEAST
) -> Probability:
    """P(score ≥ 0) under a Gaussian, however small: a product of shares over rising levels of the score.

    A first run finds the levels; 20 independent ones with these fixed levels each give an unbiased estimate. The
    interval is that of their mean, by Student's t on the logarithm; `effective` says how many hits a plain count
    would have had to see to be as sure.

    Args:
        law: a Gaussian, singular ones included.
        score: gets samples, (s, m) or (s, m, o), and returns (s,): at least 0 on the set, and the larger the nearer to
            it. Where it leads into one of several far parts of the set only, the others are missed.
        samples: how many move at one time, over all estimates.
        seed: of the draw.
        least: smaller probabilities are not looked for.

    Raises:
        DataError: a score that does not lead to the set, or not within `least`; estimates too far apart to be believed.

    Source: Au and Beck 2001 (subset simulation); fixed levels make it unbiased, Cérou, Del Moral, Furon and Guyader
    2012; steps of Neal 1999 (autoregressive proposals that keep a Gaussian).

    >>> law = Gaussian(torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64))
    >>> beyond = rare_probability(law, lambda f: f.amin(-1) - 1.5)
    >>> low, high = beyond.interval
    >>> low < 0.0668072013**3 < high  # Φ(−1.5)³ = 0.000298
    True
    """
    if samples < FEWEST:
        raise DataError("samples", f"is {samples}", f"Give at least {FEWEST}")
    walk = _Walk(law, score, torch.Generator().manual_seed(seed), samples // REPLICATES)
    stages = walk.explore(least)
    estimates = torch.tensor([walk.estimate(stages) for _ in range(REPLICATES)], dtype=torch.float64)
    p, error = float(estimates.mean()), float(estimates.std()) / math.sqrt(REPLICATES)
    effective = math.inf if error == 0 else (p / error) ** 2
    if p == 0 or effective < ENOUGH:
        raise DataError(
            "the probability of this set",
            f"is about {p:.2g}, by estimates worth {effective if p else 0:.2g} hits of a plain count",
            "Give more samples, or a score that says better how near a function is to the set",
        )
    # Equal estimates (no level was needed, all samples hit) are as sure as their number of samples, no more.
    relative = max(error / p, 1 / math.sqrt(REPLICATES * walk.size))
    factor = math.exp(float(student.ppf((1 + CONFIDENCE) / 2, REPLICATES - 1)) * relative)
    drawn = REPLICATES * walk.size * (1 + MOVES * len(stages))
    return Probability(p, error, (p / factor, min(1.0, p * factor)), drawn, min(effective, 1 / relative**2))


@dataclass(eq=False)
class _Walk:
    """Samples in the whitened coordinates of a Gaussian, `size` at one time."""

    law: Gaussian
    score: Score
    generator: torch.Generator
    size: int
    mean: Tensor = field(init=False)
    root: Tensor = field(init=False)

    def __post_init__(self) -> None:
        eigen = self.law.eigen
        self.mean = self.law.mean.detach().to(torch.float64)
        self.root = eigen.vectors[:, : eigen.rank] * eigen.values[: eigen.rank].sqrt()
        if eigen.rank == 0:
            raise DataError("the Gaussian", "does not vary at all", "Look at its mean: it is in the set, or is not")

    def explore(self, least: float) -> list[_Stage]:
        """The levels, each passed by a share of the samples, and steps of which about a third are accepted."""
        z, stages, passed, step = self.noise(), list[_Stage](), 1.0, 1.0
        scores = self.scores(z)
        while float((scores >= 0).double().mean()) < PASSING:
            level = self.next_level(scores, stages[-1].level if stages else -math.inf)
            above = scores >= level
            passed *= float(above.double().mean())
            if passed < least:
                cause = f"has a probability below {least:g}, or the score does not lead there"
                raise DataError("the set", cause, "Take it for 0, or give a smaller `least`")
            z, scores = self.resample(z, scores, above)
            for _ in range(MOVES):
                z, scores, accepted = self.move(z, scores, level, step)
                step = min(1.0, step * math.exp(accepted - 0.3))
            stages.append(_Stage(level, step))
        return stages

    def next_level(self, scores: Tensor, last: float) -> float:
        level = float(scores.quantile(1 - PASSING))
        if level > last:
            return level
        higher = scores[scores > last]
        if not len(higher):
            cause = f"is {last:.4g} at best among {self.size} samples, and rises no further"
            raise DataError("the score", cause, "Give a score that tells how near a function is to the set")
        return float(higher.min())

    def estimate(self, stages: list[_Stage]) -> float:
        """An unbiased estimate: the product over levels of the share of samples that reach the next."""
        z, p = self.noise(), 1.0
        scores = self.scores(z)
        for stage in stages:
            above = scores >= stage.level
            p *= float(above.double().mean())
            if p == 0:
                return 0.0
            z, scores = self.resample(z, scores, above)
            for _ in range(MOVES):
                z, scores, _ = self.move(z, scores, stage.level, stage.step)
        return p * float((scores >= 0).double().mean())

    def resample(self, z: Tensor, scores: Tensor, above: Tensor) -> tuple[Tensor, Tensor]:
        survivors = above.nonzero()[:, 0]
        chosen = survivors[torch.randint(len(survivors), (self.size,), generator=self.generator)]
        return z[chosen], scores[chosen]

    def move(self, z: Tensor, scores: Tensor, level: float, step: float) -> tuple[Tensor, Tensor, float]:
        proposed = math.sqrt(1 - step * step) * z + step * self.noise()
        reached = self.scores(proposed)
        accepted = reached >= level
        z = torch.where(accepted[:, None, None], proposed, z)
        return z, torch.where(accepted, reached, scores), float(accepted.double().mean())

    def noise(self) -> Float[Tensor, "s c r"]:
        shape = (self.size, self.mean.numel() // len(self.root), self.root.shape[1])
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def scores(self, z: Float[Tensor, "s c r"]) -> Float[Tensor, " s"]:
        functions = self.mean + (z @ self.root.T).transpose(1, 2).reshape(len(z), *self.mean.shape)
        scores = self.score(functions)
        if not isinstance(scores, Tensor) or tuple(scores.shape) != (len(z),) or scores.dtype == torch.bool:
            given = f"{tuple(scores.shape)} {scores.dtype}" if isinstance(scores, Tensor) else type(scores).__name__
            raise DataError("the score", f"returned {given}", f"Return ({len(z)},) numbers, at least 0 on the set")
        if bool(scores.isnan().any()):
            raise DataError("the score", "is NaN somewhere", "Return a number for every function")
        return scores.to(torch.float64)
