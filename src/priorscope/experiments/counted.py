"""What networks did beside what was predicted of them: biases, the gap between shares and probabilities, its null law.

Predictions and trainings are those of `choice`; a cell is one question and its networks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..generalization.trust import Trust, trust
from ..kernels.infinite import infinite_width
from ..network.initialization import Initialization
from .choice import Maker, Question
from .experiment import Criterion
from .statistics import QUANTILE, TwoWidths

DRAWS = 2000
"""Repetitions of an experiment under the predicted law."""
BIAS = 0.03
"""What the absolute mean of predicted − measured is to be below."""
DEAD = 1e-6
"""Of its largest output, or of 1: a network whose outputs differ by no more says the same everywhere."""


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


def bias_criteria(found: Mapping[str, Bias], of: str = "") -> list[Criterion]:
    """That each bias is small. of: whose, before the name."""
    return [
        Criterion(f"{of}bias of the probability of {name}", abs(b.value), "<=", BIAS, exact=False)
        for name, b in found.items()
    ]


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

    criterion: TwoWidths
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
    criterion = TwoWidths(name, *widths, gap(narrow), gap(wide), gap_quantile(wide))
    found = [cell.question.posteriors() for cell in wide]
    others = {law: gap_of(wide, [each[law] for each in found]) for law in found[0]}
    return Judgement(criterion, others)
