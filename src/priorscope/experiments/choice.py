"""Which of two rules networks take at points where they differ: predicted before training, and counted after it.

The points are asked in small groups. A network takes a rule in a group if it has the rule's sign at every point of it,
and neither if it takes none. Predicted from the trained ensemble, as `compare` does (realised, and neither), but for
many groups at once; measured by networks that `train_many` trains the same way.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..beliefs.gaussian import Gaussian
from ..beliefs.process import GaussianProcess
from ..beliefs.similarity import indistinguishable
from ..generalization.candidates import distinguishable
from ..generalization.trust import Trust, trust
from ..kernels.infinite import infinite_width
from ..kernels.own import PrecomputedKernel
from ..kernels.pair import KernelPair
from ..network.initialization import Initialization
from ..training.ensemble import trained_ensemble
from ..training.runs import train_many
from ..training.training import Training
from .kept import kept
from .statistics import QUANTILE, Criterion

SAMPLES = 100_000
"""Networks that a prediction samples."""
DRAWS, AT_ONCE = 2000, 100
"""Repetitions of an experiment under the predicted law, and how many of them are simulated at once."""
BIAS = 0.03
"""What the absolute mean of predicted − measured is to be below."""
BETWEEN_CELLS = 100_000
"""Between the first seeds of two cells."""
DEAD = 1e-6
"""Of its largest output, or of 1: a network whose outputs differ by no more says the same everywhere."""
TINY = torch.finfo(torch.float64).tiny

Maker = Callable[[int, int], nn.Module]
"""(width, seed) -> a network drawn from its initialization."""


def outcomes(rules: Sequence[str]) -> tuple[str, ...]:
    """What a network may do in a group: take one of the rules, or neither."""
    return (*rules, "neither")


@dataclass(frozen=True, eq=False)
class Points:
    """All points of some questions, and both kernels of a network between them, evaluated once.

    x: (n, ...). pair: of precomputed kernels, whose points are rows of x.
    """

    x: Tensor
    pair: KernelPair

    @classmethod
    def of(cls, make: Maker, init: Initialization, x: Tensor) -> "Points":
        """The kernels of infinitely wide networks."""
        limit = infinite_width(make(8, 0).to(torch.float64), init)(x)
        return cls(x, KernelPair(PrecomputedKernel(limit.nngp.detach()), PrecomputedKernel(limit.ntk.detach())))


@dataclass(frozen=True, eq=False)
class Question:
    """What networks are trained on, where they are asked, and what is predicted.

    points: all points. train, y: rows to train on, and their labels ±1. new: (m,), rows to ask. training: how.
    rules: names of both. signs: (2, m), what they say.
    groups: columns of `new`, those that the kernel can tell from all training points.
    law: of trained networks at the kept points, group after group.
    dropped: points that were asked in vain. contradicted: training points that the kernel cannot tell from one with the
    other label; networks learn the mean of both.
    """

    points: Points
    train: Int[Tensor, " n"]
    y: Float[Tensor, " n"]
    new: Int[Tensor, " m"]
    training: Training
    rules: tuple[str, ...]
    signs: Float[Tensor, "2 m"]
    groups: tuple[Tensor, ...]
    law: Gaussian
    dropped: int
    contradicted: int

    @cached_property
    def probability(self) -> Float[Tensor, "g 3"]:
        """That a trained network takes each rule in each group, and neither; `compare`'s realised and neither."""
        return self.chances(self.law)

    @cached_property
    def agreement(self) -> Float[Tensor, " 2"]:
        """The expected share of all kept points at which a trained network has each rule's sign."""
        above = torch.special.ndtr(self.law.mean / self.law.variance.sqrt().clamp_min(TINY))
        return torch.where(self.signs[:, self.kept] > 0, above, 1 - above).mean(-1)

    @property
    def kept(self) -> Int[Tensor, " k"]:
        """Columns of `new`, group after group."""
        return torch.cat(self.groups)

    def taken(self, outputs: Float[Tensor, "... m"]) -> Bool[Tensor, "... g 3"]:
        """Whether each network takes each rule in each group, and neither."""
        return taken([(outputs[..., group], self.signs[:, group]) for group in self.groups])

    def agreeing(self, outputs: Float[Tensor, "s m"]) -> Float[Tensor, "s 2"]:
        """Each network's share of the kept points at which it has each rule's sign."""
        kept = self.kept
        same = torch.sign(outputs[:, None, kept]) == self.signs[:, kept]
        return same.to(torch.float64).mean(-1)

    def chances(self, law: Gaussian, samples: int = SAMPLES, seed: int = 0) -> Float[Tensor, "g 3"]:
        """The probabilities of a law at the kept points."""
        return self._of_kept(law.sample(samples, seed=seed).to(torch.float64)).to(torch.float64).mean(0)

    def null(self, networks: int, draws: int, seed: int) -> Float[Tensor, "d g 3"]:
        """Shares less probability when `networks` functions are drawn from the predicted law itself."""
        parts = []
        for start in range(0, draws, AT_ONCE):
            number = min(AT_ONCE, draws - start)
            drawn = self.law.sample(number * networks, seed=seed + start).to(torch.float64)
            share = self._of_kept(drawn).to(torch.float64).reshape(number, networks, -1, 3).mean(1)
            parts.append(share - self.probability)
        return torch.cat(parts)

    def posteriors(self) -> dict[str, Float[Tensor, "g 3"]]:
        """`probability` under the two laws that trained networks do not follow."""
        rows = self.new[self.kept]
        kernels = {"NNGP posterior": self.points.pair.nngp, "NTK posterior": self.points.pair.ntk}
        return {
            name: self.chances(GaussianProcess(kernel).condition(self.train, self.y)(rows))
            for name, kernel in kernels.items()
        }

    def _of_kept(self, outputs: Float[Tensor, "s k"]) -> Bool[Tensor, "s g 3"]:
        sizes = [len(group) for group in self.groups]
        return taken(list(zip(outputs.split(sizes, -1), self.signs[:, self.kept].split(sizes, -1), strict=True)))


def taken(groups: Sequence[tuple[Tensor, Tensor]]) -> Bool[Tensor, "... g 3"]:
    """Outputs (..., k) and signs (2, k) of each group: which rule is taken, neither last."""
    found = []
    for outputs, signs in groups:
        rules = (torch.sign(outputs)[..., None, :] == signs).all(-1)
        found.append(torch.cat([rules, ~rules.any(-1, keepdim=True)], -1))
    return torch.stack(found, -2)


def question(
    points: Points,
    train: Tensor,
    y: Tensor,
    new: Tensor,
    rules: Mapping[str, Tensor],
    rate: float,
    momentum: float,
    steps: int,
    size: int,
) -> Question:
    """Predicts what networks trained on rows of points do at other rows, in groups of `size`.

    Args:
        rules: {name: (m,) signs at the new points}, two of them.
        rate: the learning rate in units of 1/λ_max of the NTK on the training rows.

    Raises:
        IndistinguishableError: where the kernel takes all new points for training points.
    """
    largest = float(points.pair.ntk.on(train).eigen.values[0])
    training = Training(learning_rate=rate / largest, momentum=momentum, steps=steps)
    signs = torch.stack(list(rules.values())).to(torch.float64)
    columns, _ = distinguishable(points.pair, train, new, "drop")
    groups = tuple(each[torch.isin(each, columns)] for each in torch.arange(len(new)).split(size))
    groups = tuple(group for group in groups if len(group))
    law = trained_ensemble(points.pair, train, y, training)(new[torch.cat(groups)])
    dropped, contradicted = len(new) - len(columns), _contradicted(points.pair, train, y)
    return Question(points, train, y, new, training, tuple(rules), signs, groups, law, dropped, contradicted)


def trained(
    make: Maker,
    init: Initialization,
    question: Question,
    width: int,
    networks: int,
    first_seed: int,
    path: Path | None = None,
    progress: bool = False,
) -> Float[Tensor, "s m"]:
    """The outputs of really trained networks at all new points; float32.

    path: a file that keeps them.
    """
    x = question.points.x.to(torch.float32)
    y = question.y.to(torch.float32)

    def run(seeds: list[int]) -> Tensor:
        if not seeds:
            return torch.zeros(0, len(question.new))
        runs = train_many(
            lambda seed: make(width, seed),
            seeds,
            x[question.train],
            y,
            question.training,
            rates=init,
            record=x[question.new],
            at=[0],
            progress=progress,
        )
        return runs.final[..., 0]

    def draw(count: int) -> dict[str, Tensor]:
        # The first alone: it is drawn again to know the kept file, and in another stack float32 would round otherwise.
        rest = list(range(first_seed + 1, first_seed + count))
        return {"outputs": torch.cat([run([first_seed]), run(rest)])}

    return kept(path, draw, networks)["outputs"].to(torch.float64)


@dataclass(frozen=True, eq=False)
class Counted:
    """A question's prediction beside what its networks did.

    taken: (s, g, 3), 0 or 1. agreement: (s, 2). diverged: networks whose outputs are no numbers; they take neither.
    dead: those that say the same at all new points.
    """

    question: Question
    taken: Float[Tensor, "s g 3"]
    agreement: Float[Tensor, "s 2"]
    diverged: int
    dead: int

    @classmethod
    def of(cls, question: Question, outputs: Float[Tensor, "s m"]) -> "Counted":
        finite = outputs.isfinite().all(-1)
        span = outputs.amax(-1) - outputs.amin(-1)
        dead = finite & (span <= DEAD * outputs.abs().amax(-1).clamp_min(1.0))
        outputs = torch.where(finite[..., None], outputs, torch.nan)  # the sign of what is infinite says nothing
        took = question.taken(outputs).to(torch.float64)
        return cls(question, took, question.agreeing(outputs), int((~finite).sum()), int(dead.sum()))

    @property
    def gaps(self) -> Float[Tensor, "g 3"]:
        """Share less probability."""
        return self.taken.mean(0) - self.question.probability

    def numbers(self) -> dict[str, Any]:
        """Means over groups; errors are standard errors over networks."""
        s = len(self.taken)
        by_network = self.taken.mean(1)
        return {
            "networks": s,
            "groups": len(self.question.groups),
            "group_sizes": [len(group) for group in self.question.groups],
            "diverged": self.diverged,
            "dead": self.dead,
            "dropped": self.question.dropped,
            "contradicted": self.question.contradicted,
            "predicted": self.question.probability.mean(0).tolist(),
            "measured": by_network.mean(0).tolist(),
            "error": (by_network.std(0) / s**0.5).tolist(),
            "agreement_predicted": self.question.agreement.tolist(),
            "agreement_measured": self.agreement.mean(0).tolist(),
            "agreement_error": (self.agreement.std(0) / s**0.5).tolist(),
            "group_predicted": self.question.probability.tolist(),
            "group_measured": self.taken.mean(0).tolist(),
        }


def lost_in_words(name: str, cells: Sequence[Counted]) -> tuple[str, ...]:
    """How many networks came to nothing in training; none, if none did."""
    total, diverged, dead = sum(len(c.taken) for c in cells), sum(c.diverged for c in cells), sum(c.dead for c in cells)
    if not diverged and not dead:
        return ()
    told = f"{diverged} of {total} networks diverged (no numbers; they take neither), {dead} died"
    return (f"{name}: {told} (the same output at all new points)",)


def trust_in_words(name: str, make: Maker, init: Initialization, asked: Question, width: int) -> tuple[Trust, str]:
    """How far the prediction of networks of this width deserves belief, known before any is trained."""
    limit = infinite_width(make(width, 0).to(torch.float64), init)
    x = asked.points.x
    belief = trust(limit, x[asked.train], asked.y, x[asked.new[asked.kept]], asked.training)
    told = belief.words if belief.score is None else f"{belief.score:.3f}; {belief.words}"
    return belief, f"{name}: trust known before training, width {width}: {told}"


@dataclass(frozen=True)
class Bias:
    """The mean of predicted − measured over all groups of all networks; its standard error is clustered by network."""

    value: float
    error: float
    networks: int


def bias(cells: Sequence[Counted], outcome: int, others: Sequence[Tensor] | None = None) -> Bias:
    """Of the probability of one outcome: Σᵢ dᵢ / Σᵢ gᵢ, dᵢ = Σ_groups (p − taken) of network i, asked in gᵢ groups.

    Args:
        others: other probabilities than the predicted ones, (g, 3) for each cell.
    """
    laws = [c.question.probability for c in cells] if others is None else others
    deviations = torch.cat([(p - c.taken)[..., outcome].sum(1) for p, c in zip(laws, cells, strict=True)])
    asked = torch.cat([torch.full((len(c.taken),), float(c.taken.shape[1]), dtype=torch.float64) for c in cells])
    value = deviations.sum() / asked.sum()
    error = (deviations - value * asked).square().sum().sqrt() / asked.sum()
    return Bias(float(value), float(error), len(deviations))


def biases(cells: Sequence[Counted], names: Sequence[str], others: Sequence[Tensor] | None = None) -> dict[str, Bias]:
    """The bias of each outcome, by its name."""
    return {name: bias(cells, i, others) for i, name in enumerate(names)}


def told(found: Mapping[str, Bias]) -> str:
    """Biases in words."""
    return ", ".join(f"{name} {b.value:+.4f} ± {b.error:.4f}" for name, b in found.items())


def root_mean_square(gaps: Sequence[Tensor]) -> Tensor:
    """Over all groups and outcomes of all cells; gaps (..., g, 3)."""
    return torch.cat([gap.flatten(-2) for gap in gaps], -1).square().mean(-1).sqrt()


def gap(cells: Sequence[Counted]) -> float:
    """The root mean square of share − probability."""
    return float(root_mean_square([cell.gaps for cell in cells]))


def gap_of(cells: Sequence[Counted], others: Sequence[Tensor]) -> float:
    """The same for other probabilities, (g, 3) for each cell."""
    return float(root_mean_square([c.taken.mean(0) - other for c, other in zip(cells, others, strict=True)]))


def nulls(cells: Sequence[Counted], seed: int = 0) -> list[Float[Tensor, "d _ 3"]]:
    """`gaps` of each cell when as many functions are drawn from its predicted law, so many times."""
    return [c.question.null(len(c.taken), DRAWS, seed + 10 * DRAWS * i) for i, c in enumerate(cells)]


def quantile(null: Sequence[Float[Tensor, "d _ 3"]]) -> float:
    """The 99.9 % quantile of `gap` under `nulls`."""
    return float(root_mean_square(null).quantile(QUANTILE))


def gap_quantile(cells: Sequence[Counted], seed: int = 0) -> float:
    """The 99.9 % quantile of `gap` when as many functions are drawn from each predicted law."""
    return quantile(nulls(cells, seed))


@dataclass(frozen=True)
class Judgement:
    """Whether the predicted law passes at two widths, and what other laws' gaps are, at the wider one."""

    criterion: Criterion
    others: dict[str, float]

    def words(self) -> tuple[str, ...]:
        """The criterion, and whether the case speaks for the ensemble: both posteriors beyond twice its threshold."""
        found = ", ".join(f"{name} {value:.3g}" for name, value in self.others.items())
        if not all(self.criterion.refutes(value) for value in self.others.values()):
            verdict = "not both are beyond twice the threshold: no evidence against them"
        else:
            verdict = "both are refuted" + ("" if self.criterion.passes else ", and so is the ensemble")
        return f"{self.criterion}", f"the same gap for other laws: {found}; {verdict}"


def in_words(points: str, names: Sequence[str], biased: str) -> str:
    """The criterion of a case at two widths, as its file has it.

    Args:
        points: what is asked. names: of the outcomes. biased: of which outcomes the bias is judged.
    """
    return (
        f"at the wider width: (1) the root mean square, over cells, groups of three new {points}, and outcomes "
        f"({', '.join(names)}), of share − probability is at most its 99.9 % quantile when as many functions are drawn "
        "from each cell's predicted law, + b/width of the fit a + b/width over both widths (b < 0 counts as 0, at most "
        f"the quantile itself); (2) the absolute mean of predicted − measured {biased}. The case speaks for the "
        "ensemble only where the same gap of the NNGP posterior and of the NTK posterior exceeds twice the threshold "
        "of (1)."
    )


def judged(name: str, narrow: Sequence[Counted], wide: Sequence[Counted], widths: tuple[int, int]) -> Judgement:
    """The gap between shares and probabilities against its null law."""
    criterion = Criterion(name, *widths, gap(narrow), gap(wide), gap_quantile(wide))
    found = [cell.question.posteriors() for cell in wide]
    others = {law: gap_of(wide, [each[law] for each in found]) for law in found[0]}
    return Judgement(criterion, others)


def _contradicted(pair: KernelPair, train: Tensor, y: Tensor) -> int:
    above, below = train[y > 0], train[y < 0]
    if not len(above) or not len(below):
        return 0
    return int(indistinguishable(pair.ntk, above, below).sum() + indistinguishable(pair.ntk, below, above).sum())
