"""Which further example would tell one generalisation from another best."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from ..beliefs.gaussian import Gaussian
from ..beliefs.law import Law
from ..beliefs.similarity import indistinguishable_pairs
from ..data.inputs import Inputs, count
from ..errors import DataError
from ..kernels.frozen import takes_kernel_on_data
from ..kernels.kernel import Kernel
from ..kernels.pair import KernelPair
from ..results import Result
from ..training.ensemble import TrainedEnsemble, trained_ensemble
from ..training.filters import check_one_mean, check_training
from ..training.sampled import SampledEnsemble
from ..training.training import Training
from .candidates import (
    Candidate,
    Hypotheses,
    check_candidates,
    check_different,
    contradictions,
    encode_like,
    hypotheses,
    labels_of,
    told_of,
)
from .compare import TRAINING_POINTS, beyond_note, check_finite, check_whole
from .counting import counted, drawn, nearest_of_two
from .table import Table, table_of
from .verdict import html_table

Ensemble = TrainedEnsemble | SampledEnsemble


@dataclass(frozen=True, eq=False)
class Diagnostic(Result):
    """What each further example of a pool would tell.

    names: of the j candidates. before: (j,), the probability of each as things are.
    after: (p, j, j): [i, a, b] is the probability of b once the pool's point i was added with a's label.
    gain: (p,), the mean over a of after[i, a, a] − before[a]: how much the example is expected to raise the
        probability of the candidate whose label it has, all being equally likely to be the right one. For two
        candidates it is half of what the answer moves the probability of either.
    information: (p,), bits that the label that a trained network gives at this point, as things are, carries about
        which candidate it takes at the test points, or none of them (plug-in estimate, of `samples` networks).
    by: what "takes" means, "nearest" or "realised".
    """

    names: tuple[str, ...]
    before: Float[Tensor, " j"]
    after: Float[Tensor, "p j j"]
    gain: Float[Tensor, " p"]
    information: Float[Tensor, " p"]
    by: str
    notes: tuple[str, ...] = ()

    @property
    def ranking(self) -> Int[Tensor, " p"]:
        """Rows of the pool, the one that tells most first."""
        return self.gain.argsort(descending=True, stable=True)

    def rows(self, most: int = 10) -> tuple[tuple[str, ...], ...]:
        """The first of the ranking as a table of words."""
        told = [(f"P({b}) after {a}'s label") for a in self.names for b in self.names]
        body = []
        for i in self.ranking[:most].tolist():
            numbers = (f"{p:.3f}" for p in self.after[i].flatten())
            body.append((f"#{i}", f"{self.gain[i]:.3f}", f"{self.information[i]:.3f}", *numbers))
        return ("example", "gain", "information (bits)", *told), *body

    def _repr_html_(self) -> str:
        return html_table(f"Diagnostic, by {self.by}", self.rows())


@takes_kernel_on_data
def most_diagnostic(
    pair: KernelPair | Kernel,
    x: Inputs,
    y: Tensor,
    x_new: Inputs,
    candidates: Mapping[str, Candidate],
    pool_x: Inputs,
    pool_labels: Mapping[str, Candidate],
    training: Training = Training(),
    *,
    by: Literal["nearest", "realised"] = "nearest",
    samples: int = 20_000,
    seed: int = 0,
) -> Diagnostic:
    """Which further example of a pool would tell the candidates apart best.

    Each point of the pool is added with each candidate's label, and the ensemble is computed anew: one factorisation
    a point, from kernels that were evaluated once.

    Args:
        pair, x, y, x_new, candidates, training: as in `compare`; at least two candidates.
        pool_x: p points. pool_labels: {name of a candidate: its labels of the pool, or a function that gives them}.
        by: which probability: "nearest" (in closed form for two candidates) or "realised" (sampled).
        samples: networks sampled from each ensemble.
        seed: of the networks: the same for each, so that differences are not of the draw.

    Returns:
        A `Diagnostic`: `.ranking`, `.gain`, `.information`.

    Raises:
        DataError: a single candidate; an empty pool; labels that do not match it; names that are not those of the
            candidates.
        IndistinguishableError: test points that the kernel cannot tell from training points or the pool's.
        NotCoveredError: what `compare` does not cover, and kernels of coupled outputs.

    >>> from priorscope.kernels import RBF
    >>> x, y, x_new = torch.tensor([[0.0]]), torch.tensor([1.0]), torch.tensor([[3.0], [3.3]])
    >>> ways = {"stays": lambda x: torch.ones(len(x)), "falls": lambda x: -torch.ones(len(x))}
    >>> pool = torch.tensor([[0.3], [2.9], [9.0]])
    >>> most_diagnostic(KernelPair(RBF(), RBF()), x, y, x_new, ways, pool, ways).ranking.tolist()
    [1, 0, 2]
    """
    check_candidates(candidates)
    if len(candidates) < 2:
        cause = "are a single one, from which no example tells anything"
        raise DataError("candidates", cause, "Give at least two")
    training = check_training(training, "most_diagnostic")
    check_whole("samples", samples)
    if by not in ("nearest", "realised"):
        raise DataError("by", f"is {by!r}", 'Give "nearest" or "realised"')
    table = table_of(pair, x, pool_x, x_new, "pool_x", "most_diagnostic")
    known = check_different(hypotheses(y, count(x), candidates, x_new, table.outputs))
    check_one_mean(training, known.labels.outputs, table.outputs)
    pooled = _pool_labels(known, pool_labels, pool_x)
    ensemble = _ensemble(table.pair.on(table.train), known, known.labels.values, training, samples, seed)
    before = _taken(_at(ensemble, table.new), known, by, samples, seed)
    after = []
    for i, row in enumerate(table.pool):
        frozen = table.pair.on(torch.cat([table.train, row[None]]))  # one factorisation for all labels
        with_label = [torch.cat([known.labels.values, pooled[a, i][None]]) for a in range(len(known.names))]
        laws = [_at(_ensemble(frozen, known, values, training, samples, seed), table.new) for values in with_label]
        after.append(torch.stack([_taken(law, known, by, samples, seed) for law in laws]))
    probabilities = torch.stack(after)
    gain = (probabilities.diagonal(dim1=1, dim2=2) - before).mean(-1)
    joint = _at(ensemble, torch.cat([table.new, table.pool]))
    information = _information(joint, known, pooled, by, samples, seed)
    notes = (f"{samples} networks sampled from each ensemble", *known.notes)
    notes += beyond_note(training, ensemble.step_limit)
    notes += contradictions(table.pair.ntk, table.train, known.labels.values, TRAINING_POINTS)
    notes += _known_already(table, known, pooled)
    return Diagnostic(known.names, before, probabilities, gain, information, by, notes)


def _pool_labels(known: Hypotheses, given: Any, pool_x: Inputs) -> Float[Tensor, "j p o"]:
    """The candidates' labels of the pool, in the candidates' order."""
    if not isinstance(given, Mapping) or set(given) != set(known.names):
        cause = (
            f"are of {', '.join(map(str, given))}" if isinstance(given, Mapping) else f"are a {type(given).__name__}"
        )
        raise DataError("pool_labels", cause, f"Give the labels that {', '.join(known.names)} would give to the pool")
    encoded = []
    for name in known.names:
        place = f"pool_labels[{name!r}]"
        encoded.append(encode_like(known.labels, labels_of(given[name], pool_x, place), count(pool_x), place))
    return torch.stack(encoded)


def _known_already(table: Table, known: Hypotheses, pooled: Float[Tensor, "j p o"]) -> tuple[str, ...]:
    """A note on points of the pool that are training points, where a candidate gives another label."""
    again, of = indistinguishable_pairs(table.pair.ntk, table.train, table.pool).cpu().T
    differ = (pooled[:, again] != known.labels.values[of]).any(-1).any(0)
    return told_of(again, of, differ, "points of pool_x and training points")


def _ensemble(
    pair: KernelPair, known: Hypotheses, values: Tensor, training: Training, samples: int, seed: int
) -> Ensemble:
    labels = values[:, 0] if known.labels.flat else values
    return trained_ensemble(pair, pair.x, labels, training, samples=max(2, samples), seed=seed)


def _at(ensemble: Ensemble, rows: Tensor) -> Law:
    law = ensemble(rows)
    check_finite(ensemble.training, ensemble.step_limit, law.mean, law.variance)
    return law


def _taken(law: Law, known: Hypotheses, by: str, samples: int, seed: int) -> Float[Tensor, " j"]:
    """The probability of each candidate, nearest or realised."""
    if by == "nearest" and len(known.names) == 2 and isinstance(law, Gaussian):
        first, _ = nearest_of_two(law, known)
        return torch.tensor([first, 1 - first], dtype=torch.float64)
    seen = counted(law, known, samples, seed)
    return getattr(seen, by) / seen.samples


def _information(
    law: Law, known: Hypotheses, pooled: Float[Tensor, "j p o"], by: str, samples: int, seed: int
) -> Float[Tensor, " p"]:
    """Bits that the label at each point of the pool carries about the candidate taken, over networks of the law."""
    j, m, o = known.values.shape
    labels = o if known.rule == "classes" else max(2, j)
    table = torch.zeros(pooled.shape[1], j + 1, labels, dtype=torch.float64)
    for part in drawn(law, samples, seed, (m + pooled.shape[1]) * o * labels):
        outputs = part.reshape(len(part), -1, o)
        outcome = one_hot(_outcome(known, outputs[:, :m], by), j + 1).to(torch.float64)
        label = one_hot(_label(known, outputs[:, m:], pooled), labels).to(torch.float64)
        table += torch.einsum("sk,spl->pkl", outcome, label)
    joint = table / table.sum((1, 2), keepdim=True)
    alone = joint.sum(2, keepdim=True) * joint.sum(1, keepdim=True)
    return torch.xlogy(joint, joint / alone.clamp_min(1e-300)).sum((1, 2)).clamp_min(0) / math.log(2)


def _outcome(known: Hypotheses, outputs: Float[Tensor, "s m o"], by: str) -> Int[Tensor, " s"]:
    """The index of the candidate that each network takes; j for none."""
    if by == "nearest":
        return known.distances(outputs).argmin(1)
    does = known.realises(outputs).all(-1)
    return torch.where(does.any(1), does.to(torch.int8).argmax(1), len(known.names))


def _label(known: Hypotheses, outputs: Float[Tensor, "s p o"], pooled: Float[Tensor, "j p o"]) -> Int[Tensor, "s p"]:
    """The label that each network gives: its sign, its class, or the nearest of the candidates' labels."""
    if known.rule == "signs":
        return (outputs[..., 0] > 0).to(torch.int64)
    if known.rule == "classes":
        return outputs.argmax(-1)
    return (outputs[:, None] - pooled).square().sum(-1).argmin(1)
