"""How often networks from a law take each of several hypotheses: counted, in closed form, or led to where none fell."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.stats import norm
from torch import Tensor

from ..beliefs.gaussian import Gaussian, Probability
from ..beliefs.law import Law
from ..beliefs.rare import FEWEST, rare_probability
from ..beliefs.samples import Samples
from ..errors import DataError
from .candidates import Hypotheses

CHUNK = 20_000_000
"""Sampled numbers held at once."""
FEW_HITS = 10
"""Candidates that fewer sampled networks realise are looked for where they are."""
LED = 20_000
"""Samples that are led there at one time, fewer where each is dear."""
DEAR = 30_000
"""Multiplications that make a sample dear: then all of the search takes about ten seconds."""
LEAST = 1e-9
"""Candidates that are realised more rarely are not looked for."""


@dataclass(frozen=True, eq=False)
class Counts:
    """Among `samples` networks: nearest (j,), realised (j,), and at_points (j, m), how many do what is said there."""

    nearest: Float[Tensor, " j"]
    realised: Float[Tensor, " j"]
    at_points: Float[Tensor, "j m"]
    samples: int


def drawn(law: Law, samples: int, seed: int, width: int) -> Iterator[Tensor]:
    """Networks of a law, float64, (s, m) or (s, m, o), so many at a time as fit; of samples, no more than there are.

    Args:
        width: how many numbers each network takes, with what is computed of it.
    """
    size = max(1, CHUNK // max(1, width))
    if isinstance(law, Samples):
        chosen = law.sample(min(samples, len(law.values)), seed)
        yield from (part.to(torch.float64) for part in chosen.split(size))
        return
    for done in range(0, samples, size):
        yield law.sample(min(size, samples - done), seed=seed + done).to(torch.float64)


def counted(law: Law, hypotheses: Hypotheses, samples: int, seed: int) -> Counts:
    """Counts among networks sampled from a law."""
    j, m, o = hypotheses.values.shape
    nearest, realised = torch.zeros(2, j, dtype=torch.float64)
    at_points, done = torch.zeros(j, m, dtype=torch.float64), 0
    for part in drawn(law, samples, seed, m * o * j):
        outputs = part.reshape(len(part), m, o)
        does = hypotheses.realises(outputs)
        realised += does.all(-1).sum(0)
        at_points += does.sum(0)
        nearest += torch.bincount(hypotheses.distances(outputs).argmin(1), minlength=j)
        done += len(part)
    return Counts(nearest, realised, at_points, done)


def nearest_of_two(law: Gaussian, hypotheses: Hypotheses) -> tuple[float, tuple[str, ...]]:
    """P(nearer to the first of two candidates), and what was decided by the mean.

    Φ((dᵀμ − (|y_A|² − |y_B|²)/2) / √(dᵀΣd)) with d = y_A − y_B.
    """
    first, second = hypotheses.values
    d = first - second
    mean, variance = law.project(d.reshape(law.mean.shape))
    margin = mean - float(first.square().sum() - second.square().sum()) / 2
    scale = float(d.square().sum()) * float(law.variance.abs().max().clamp_min(torch.finfo(torch.float64).tiny))
    if variance > 1e-13 * scale:
        return float(norm.cdf(margin / variance**0.5)), ()
    return (
        0.5 if margin == 0 else float(margin > 0),
        ("the ensemble does not vary between the two candidates: decided by its mean",),
    )


def realised(
    law: Law, hypotheses: Hypotheses, counts: Counts, seed: int
) -> tuple[dict[str, Probability], tuple[str, ...]]:
    """The probability that each candidate is realised; where few samples did, from samples led towards it."""
    found, notes = {}, []
    for i, name in enumerate(hypotheses.names):
        found[name] = Probability.counted(int(counts.realised[i]), counts.samples)
        if counts.realised[i] >= FEW_HITS or not isinstance(law, Gaussian):
            continue
        counted_in = f"realised of {name!r}: {int(counts.realised[i])} of {counts.samples} samples"
        try:
            found[name] = rare = led_to(law, hypotheses, i, seed)
            notes.append(f"{counted_in}; from samples led there, as sure as {rare.effective:.0f} hits")
        except DataError as error:
            notes.append(f"{counted_in}, not led there: {error.place} {error.cause}")
    return found, tuple(notes)


def led_to(law: Gaussian, hypotheses: Hypotheses, index: int, seed: int) -> Probability:
    """The probability that one candidate is realised, down to 1e-9: its score is the least margin over the points."""
    shape = hypotheses.values.shape[1:]

    def score(functions: Tensor) -> Tensor:
        return hypotheses.margins(functions.reshape(len(functions), *shape), index).amin(-1)

    cost = law.mean.numel() * law.eigen.rank
    samples = int(LED * min(1.0, DEAR / max(1, cost)))
    if samples < 2 * FEWEST:
        cause = f"of {law.mean.numel()} values are too many to look for it"
        raise DataError("its labels", cause, "Compare fewer test points, or ask rare_probability")
    return rare_probability(law, score, samples, seed, LEAST)
