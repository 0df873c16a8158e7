"""How many disambiguating examples it takes until one generalisation beats another."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..beliefs.gaussian import Gaussian
from ..data.inputs import Inputs, count
from ..errors import DataError, PriorscopeWarning
from ..kernels.frozen import takes_kernel_on_data
from ..kernels.kernel import Kernel
from ..kernels.pair import KernelPair
from ..results import Result
from ..training.ensemble import trained_ensemble
from ..training.filters import check_one_mean, check_training
from ..training.training import Training
from .candidates import (
    Candidate,
    Hypotheses,
    check_candidates,
    check_different,
    contradictions,
    encode_like,
    hypotheses,
)
from .compare import check_finite, check_whole
from .counting import counted, nearest_of_two
from .table import Table, table_of
from .verdict import html_table

Kind = Literal["realised", "nearest"]
BOOTSTRAPS = 2000
FEWEST_DATA_SETS = 10
"""With fewer, a bootstrap over data sets says too little of how the mean varies."""
POINTS = "training points (those of extra_x follow those of x)"


@dataclass(frozen=True)
class Crossing(Result):
    """Where two curves cross.

    number: of added examples, interpolated, at which the mean curves cross; None where the one that is behind at
        first never gets ahead (equal curves, 0 = 0 among them, do not cross).
    interval: the 95 % interval of `number`, the crossing of the mean curves, by bootstrap over data sets; not of where
        a single data set crosses. None of fewer than 10 data sets, and where no bootstrapped mean crosses. An end at
        the largest count says that some did not cross by then.
    share: of the bootstrapped mean curves that cross.
    spread: the first and third quartile of where single data sets cross, those that do not at the largest count;
        None of a single data set, and where none crosses.
    crossed: the share of the data sets that cross.
    notes: why there is no number, or no interval.
    """

    number: float | None
    interval: tuple[float, float] | None
    share: float
    spread: tuple[float, float] | None = None
    crossed: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Crossover(Result):
    """The probability of each generalisation as a function of how many disambiguating examples are added.

    names: of the j candidates. counts: (k,), examples added.
    realised, nearest: (r, k, j), as in `Verdict`, for each of r data sets. neither: (r, k).
    notes: what a reader should know.
    """

    names: tuple[str, ...]
    counts: Int[Tensor, " k"]
    realised: Float[Tensor, "r k j"]
    nearest: Float[Tensor, "r k j"]
    neither: Float[Tensor, "r k"]
    notes: tuple[str, ...] = ()

    def crossing(
        self, first: str | None = None, second: str | None = None, kind: Kind = "realised", seed: int = 0
    ) -> Crossing:
        """The number of added examples at which the mean probability of two candidates is equal.

        Args:
            first, second: names, in any order; by default the first two.
            kind: which probability, "realised" or "nearest".
            seed: of the bootstrap over data sets.
        """
        if kind not in ("realised", "nearest"):
            raise DataError("kind", f"is {kind!r}", 'Give "realised" or "nearest"')
        a, b = self._index(first, 0), self._index(second, 1)
        gaps = getattr(self, kind)[..., b] - getattr(self, kind)[..., a]  # (r, k)
        mean = gaps.mean(0)
        ordered = mean.nonzero()[:, 0]
        ahead = len(ordered) > 0 and float(mean[ordered[0]]) > 0
        gaps, mean = (-gaps, -mean) if ahead else (gaps, mean)  # of the one that is behind at first
        number = _crossing(mean, self.counts)
        notes: tuple[str, ...] = () if number is not None else (self._no_crossing(mean, self.names[b if ahead else a]),)
        single, crossed = self._quartiles(gaps)
        if len(gaps) < FEWEST_DATA_SETS:
            notes += (f"no interval: of {len(gaps)} data sets, it takes at least {FEWEST_DATA_SETS}",)
        generator = torch.Generator().manual_seed(seed)
        resampled = torch.randint(len(gaps), (BOOTSTRAPS, len(gaps)), generator=generator)
        found = [_crossing(curve, self.counts) for curve in gaps[resampled].mean(1)]
        interval = None if len(gaps) < FEWEST_DATA_SETS else self._range(found, 0.025, 0.975)
        return Crossing(number, interval, _share(found), single, crossed, notes)

    def _quartiles(self, gaps: Float[Tensor, "r k"]) -> tuple[tuple[float, float] | None, float]:
        """Of the crossings of single data sets, and how many cross."""
        found = [_crossing(gap, self.counts) for gap in gaps]
        return (self._range(found, 0.25, 0.75) if len(gaps) > 1 else None), _share(found)

    def _range(self, found: list[float | None], low: float, high: float) -> tuple[float, float] | None:
        """Quantiles of crossings; what does not cross stands at the largest count. None where nothing crosses."""
        if all(one is None for one in found):
            return None
        at = torch.tensor([float(self.counts[-1]) if one is None else one for one in found], dtype=torch.float64)
        least, most = at.quantile(torch.tensor([low, high], dtype=torch.float64)).tolist()
        return least, most

    def _no_crossing(self, mean: Float[Tensor, " k"], leader: str) -> str:
        """Why the mean curves do not cross."""
        equal = self.counts[mean == 0].tolist()
        if len(equal) == len(self.counts):
            return "no crossing: the mean probabilities are equal at every count, which does not order the two"
        told = f"; at {', '.join(map(str, equal))} they are equal, which does not order the two" if equal else ""
        return f"no crossing: {leader!r} is never behind{told}"

    def _index(self, name: str | None, default: int) -> int:
        if name is None and len(self.names) > default:
            return default
        if name not in self.names:
            raise DataError(f"the candidate {name!r}", f"is none of {', '.join(self.names)}", "Name two of them")
        return self.names.index(name)

    def rows(self) -> tuple[tuple[str, ...], ...]:
        """Mean probabilities over data sets as a table of words, one row a count; ± is the standard deviation."""
        head = ("added", *(f"{name} realised" for name in self.names), "neither", *(f"{n} nearest" for n in self.names))
        parts = torch.cat([self.realised, self.neither[..., None], self.nearest], -1)
        mean, spread = parts.mean(0), parts.std(0, correction=min(1, len(parts) - 1))
        return head, *(
            (str(int(k)), *(f"{m:.3f} ± {s:.3f}" for m, s in zip(means, spreads, strict=True)))
            for k, means, spreads in zip(self.counts, mean, spread, strict=True)
        )

    def _repr_html_(self) -> str:
        return html_table(f"Crossover, {len(self.realised)} data sets", self.rows())


@takes_kernel_on_data
def crossover(
    pair: KernelPair | Kernel,
    x: Inputs,
    y: Tensor,
    x_new: Inputs,
    candidates: Mapping[str, Candidate],
    extra_x: Inputs,
    extra_y: Tensor,
    counts: Sequence[int],
    training: Training = Training(),
    *,
    base: int | None = None,
    repeats: int = 20,
    samples: int = 10_000,
    seed: int = 0,
) -> Crossover:
    """Probability of each generalisation, and of neither, as disambiguating examples are added to the training data.

    The kernels are evaluated once on all points; every data set takes rows of them. Within a data set the examples
    are nested: more are the same ones and further ones.

    Args:
        pair, x, y, x_new, candidates, training: as in `compare`. A fixed learning rate and number of steps stay as
            they are.
        extra_x, extra_y: the pool of p examples and their labels, like y.
        counts: how many are added, each from 0 to p, ascending.
        base: so many of the n training points are drawn anew for each data set; None: all, always.
        repeats: data sets.
        samples: networks sampled from the ensemble, for each data set and count.
        seed: of the data sets and the networks.

    Returns:
        A `Crossover`: curves for every data set, and `.crossing()`.

    Raises:
        DataError: counts that are none, or larger than the pool; an empty pool; labels that do not match.
        IndistinguishableError: test points that the kernel cannot tell from training points or the pool's.
        NotCoveredError: what `compare` does not cover, and kernels of coupled outputs.

    A PriorscopeWarning says for how many data sets the learning rate is beyond the limit.

    >>> from priorscope.kernels import RBF
    >>> x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([1.0, 1.0])
    >>> extra, x_new = torch.linspace(2, 3, 6)[:, None], torch.tensor([[2.1], [2.7]])
    >>> ways = {"same": torch.ones(2), "turns": -torch.ones(2)}
    >>> curve = crossover(KernelPair(RBF(), RBF()), x, y, x_new, ways, extra, -torch.ones(6), [0, 1, 6])
    >>> 0 < curve.crossing().number < 6
    True
    """
    check_candidates(candidates)
    training = check_training(training, "crossover")
    for name, value in (("repeats", repeats), ("samples", samples)):
        check_whole(name, value)
    table = table_of(pair, x, extra_x, x_new, "extra_x", "crossover")
    known = check_different(hypotheses(y, count(x), candidates, x_new, table.outputs))
    check_one_mean(training, known.labels.outputs, table.outputs)
    pooled = encode_like(known.labels, extra_y, count(extra_x), "extra_y")
    added = _checked_counts(counts, count(extra_x))
    size = count(x) if base is None else base
    check_whole("base", size)
    if size > count(x):
        raise DataError("base", f"is {size}, there are {count(x)} training points", "Ask for at most that many")
    values = torch.cat([known.labels.values, pooled])
    parts, beyond = [], 0
    with warnings.catch_warnings():
        # One warning for all data sets, below.
        warnings.simplefilter("ignore", PriorscopeWarning)
        for repeat in range(repeats):
            generator = torch.Generator().manual_seed(seed + repeat)
            chosen = table.train[torch.randperm(count(x), generator=generator)[:size].sort().values]
            order = table.pool[torch.randperm(count(extra_x), generator=generator)]
            for k in added:
                rows = torch.cat([chosen, order[:k]])
                numbers, is_beyond = _one(table, rows, values, known, training, samples, seed + repeat)
                parts.append(numbers)
                beyond += is_beyond
    if beyond:
        cause = f"learning_rate={training.largest_rate:g} is beyond the step limit for {beyond} of {len(parts)}"
        warnings.warn(f"{cause} training sets: descent diverges there", PriorscopeWarning, stacklevel=3)
    realised, nearest = (torch.stack(each).reshape(repeats, len(added), -1) for each in zip(*parts, strict=True))
    notes = (f"{samples} networks sampled for each of {len(parts)} training sets", *known.notes)
    if beyond:
        notes += (f"{cause} training sets: descent diverges there",)
    notes += contradictions(table.pair.ntk, torch.cat([table.train, table.pool]), values, POINTS)
    neither = (1 - realised.sum(-1)).clamp_min(0)
    return Crossover(known.names, torch.tensor(added), realised, nearest, neither, notes)


def _one(
    table: Table, rows: Tensor, values: Tensor, known: Hypotheses, training: Training, samples: int, seed: int
) -> tuple[tuple[Tensor, Tensor], bool]:
    """Realised and nearest (j,) for one training set, and whether the learning rate is beyond its limit."""
    labels = values[rows][:, 0] if known.labels.flat else values[rows]
    ensemble = trained_ensemble(table.pair, rows, labels, training, samples=max(2, samples), seed=seed)
    law = ensemble(table.new)
    check_finite(training, ensemble.step_limit, law.mean, law.variance)
    seen = counted(law, known, samples, seed)
    nearest = seen.nearest / seen.samples
    if len(known.names) == 2 and isinstance(law, Gaussian):
        first, _ = nearest_of_two(law, known)
        nearest = torch.tensor([first, 1 - first], dtype=torch.float64)
    beyond = not training.is_flow and training.largest_rate > ensemble.step_limit
    return (seen.realised / seen.samples, nearest), beyond


def _checked_counts(counts: Sequence[int], pool: int) -> list[int]:
    try:
        found = [int(k) for k in counts]
        whole = found == [float(k) for k in counts]
    except (TypeError, ValueError):
        found, whole = [], False
    if not found or not whole or found != sorted(set(found)) or found[0] < 0:
        raise DataError("counts", f"are {counts!r}", "Give whole numbers, ascending, like [0, 5, 12]")
    if found[-1] > pool:
        raise DataError("counts", f"ask for {found[-1]} examples, the pool has {pool}", "Ask for at most that many")
    return found


def _crossing(gap: Float[Tensor, " k"], counts: Int[Tensor, " k"]) -> float | None:
    """Where a curve that gets above 0 has reached 0, interpolated; None where it never is above 0."""
    above = (gap > 0).nonzero()
    if not len(above):
        return None
    below = (gap[: int(above[0, 0])] < 0).nonzero()
    i = int(below[-1, 0]) + 1 if len(below) else 0  # where it is 0 for a while, the first of these
    if i == 0:
        return float(counts[0])
    low, high, before, after = float(gap[i - 1]), float(gap[i]), float(counts[i - 1]), float(counts[i])
    return before + (after - before) * (-low / (high - low))


def _share(found: list[float | None]) -> float:
    """Of those that cross."""
    return sum(one is not None for one in found) / len(found)
