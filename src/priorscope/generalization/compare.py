"""Candidate generalisations, ranked: with which probability does a trained network take each, or none of them?

Every probability is of what trained networks do, so it comes from the trained ensemble (Lee et al. 2019), not from a
Gaussian process with the NTK as covariance.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from numbers import Integral
from typing import Any, Literal

import torch
from torch import Tensor

from ..beliefs.gaussian import Gaussian, Probability
from ..beliefs.law import Law
from ..beliefs.rare import rare_probability
from ..data.inputs import Inputs, check_inputs, count
from ..errors import DataError, NotCoveredError, PriorscopeError, PriorscopeWarning, SingularKernelError
from ..kernels.frozen import takes_kernel_on_data
from ..kernels.kernel import Kernel
from ..kernels.pair import KernelPair
from ..training.ensemble import trained_ensemble
from ..training.noise import has_noise
from ..training.prediction import beyond_limit
from ..training.training import Training
from ..training.trajectory import trajectory
from .candidates import (
    Candidate,
    Hypotheses,
    check_candidates,
    check_different,
    contradictions,
    distinguishable,
    hypotheses,
    kept_points,
)
from .counting import FEW_HITS, counted, drawn, nearest_of_two, realised
from .trust.assess import UNASSESSED, assessed
from .verdict import Verdict

OF_ONE = f"{UNASSESSED}the score is of networks drawn from a pair of infinite_width, and this is one given network"

__all__ = ["Verdict", "compare", "probability_of"]

TRAINING_POINTS = "training points"


@takes_kernel_on_data
def compare(
    kernel: Kernel | KernelPair,
    x: Inputs,
    y: Tensor,
    x_new: Inputs,
    candidates: Mapping[str, Candidate],
    training: Training = Training(),
    start: Any = None,
    *,
    duplicates: Literal["raise", "drop"] = "raise",
    samples: int = 100_000,
    seed: int = 0,
    trust: bool = True,
) -> Verdict:
    """Ranks candidate labels of the test points by what trained networks do.

    For two candidates, d = y_A − y_B, `nearest` is Φ((dᵀμ − (|y_A|² − |y_B|²)/2) / √(dᵀΣd)), where μ and Σ are the
    trained ensemble's at the test points; everything else is sampled from it. What fewer than 10 sampled networks
    realise is found by samples that are led there (`rare_probability`), down to 1e-9; the notes say so.

    Args:
        kernel: a KernelPair (networks drawn from an initialisation); or, with `start`, the NTK of one network.
        x, y: n training points and their labels, (n,), (n, o), or integer classes.
        x_new: m test points.
        candidates: {name: labels of the test points}, each like y; or functions x_new -> such labels.
        training: the training really used.
        start: one given network; its outcome is deterministic, or with mini-batches random by their draw alone.
        duplicates: test points that the kernel cannot tell from a training point raise, or are dropped.
        samples: number of networks sampled from the ensemble; of a loss that is not squared, whose networks are
            trained one by one, at most 2000.
        trust: whether to assess how far the verdict deserves belief (`ps.trust`), which a pair from `infinite_width`
            allows: five networks are drawn and looked at.

    Raises:
        IndistinguishableError: for test points that the kernel cannot tell from training points.
        DataError: for candidates that do not match, are equal, or are called "neither"; for a single one of numbers,
            which every network would realise.
        NotCoveredError: for one kernel without `start`, and for a descent that diverges beyond all finite numbers.
    """
    _check_arguments(candidates, training, duplicates, samples)
    check_inputs(x, "x")
    check_inputs(x_new, "x_new")
    kernel = kernel.on(x)
    ntk = kernel.ntk if isinstance(kernel, KernelPair) else kernel
    known = hypotheses(y, count(x), candidates, x_new, ntk.outputs(x))
    kept, notes = distinguishable(kernel, x, x_new, duplicates)
    chosen, points = check_different(known.at(kept)), kept_points(x_new, kept)
    notes += chosen.notes
    if start is not None:
        path = trajectory(ntk, x, chosen.targets, training, start=start)
        outputs = path(points)
        check_finite(training, path.step_limit, outputs)
        notes += (
            *beyond_note(training, path.step_limit),
            *contradictions(ntk, x, chosen.labels.values, TRAINING_POINTS),
        )
        if has_noise(training, count(x)):
            notes += (*path.notes, "one given network: its mini-batches alone are random")
            verdict = judged(replace(path.noise(points), mean=outputs), chosen, kept, notes, samples, seed)
            return replace(verdict, trust_reason=OF_ONE)
        notes += (*path.notes, "one given network: its outcome is deterministic")
        verdict = _deterministic(chosen, outputs.reshape(1, *chosen.values.shape[1:]), kept, notes)
        return replace(verdict, trust_reason=OF_ONE)
    law, told = trained_law(kernel, x, chosen.targets, points, training)
    told += contradictions(ntk, x, chosen.labels.values, TRAINING_POINTS)
    verdict = judged(law, chosen, kept, notes + told, samples, seed)
    if not trust:
        return replace(verdict, trust_reason=f"{UNASSESSED}trust=False was given")
    assert isinstance(kernel, KernelPair)  # or `trained_law` has raised
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PriorscopeWarning)  # `trained_law` has warned of the same
        found = assessed(kernel, chosen.targets, points, training, seed=seed)
    notes = (*verdict.notes, *(f"trust: {note}" for note in found.notes))
    return replace(verdict, trust=found.score, trust_reason=found.words, notes=notes)


@takes_kernel_on_data
def probability_of(
    pair: KernelPair | Kernel,
    x: Inputs,
    y: Tensor,
    x_new: Inputs,
    predicate: Callable[[Tensor], Tensor],
    training: Training = Training(),
    *,
    score: Callable[[Tensor], Tensor] | None = None,
    samples: int = 100_000,
    seed: int = 0,
) -> Probability:
    """With which probability a trained network does what a predicate says, with an interval that is never zero wide.

    Args:
        pair: both kernels of the network.
        x, y: n training points and their labels, (n,), (n, o), or integer classes (one-hot − 1/C is then trained).
        x_new: m test points.
        predicate: gets sampled networks' outputs at x_new, (s, m) or (s, m, o), like y; returns (s,) booleans.
        training: the training really used.
        score: gets the same and returns (s,) numbers, at least 0 exactly where the predicate holds, and the larger
            the nearer to that; where fewer than 10 samples hold, it leads further ones there.
        samples: number of networks sampled from the ensemble; of a loss that is not squared, whose networks are
            trained one by one, at most 2000.

    Returns:
        A `Probability`: unpacks as (p, standard error); `.interval` is the 99 % interval.

    Raises:
        DataError: a predicate or a score of another shape, or that contradict each other.
        NotCoveredError: for a lone kernel, and for a training that predictions do not cover.

    >>> from priorscope.kernels import RBF
    >>> x, y, x_new = torch.tensor([[0.0], [1.0]]), torch.tensor([1.0, -1.0]), torch.tensor([[0.1], [0.2]])
    >>> falls = probability_of(KernelPair(RBF(), RBF()), x, y, x_new, lambda f: f[:, 0] > f[:, 1])
    >>> falls.p > 0.99
    True
    """
    if not callable(predicate):
        raise DataError("predicate", f"is a {type(predicate).__name__}", "Give a function of samples, (s, m) -> (s,)")
    _check_training(training, samples)
    check_inputs(x_new, "x_new")
    law, _ = trained_law(pair, x, y, x_new, training)
    plain = law.probability(predicate, samples=samples, seed=seed)
    if score is None or plain.p * plain.samples >= FEW_HITS or not isinstance(law, Gaussian):
        return plain
    for part in drawn(law, 1000, seed, law.mean.numel()):
        outputs = part.to(law.mean.dtype)
        if not torch.equal(predicate(outputs), score(outputs) >= 0):
            raise DataError("the score", "is not at least 0 exactly where the predicate holds", "Make them agree")
    return rare_probability(law, score, seed=seed)


def trained_law(
    kernel: Kernel | KernelPair, x: Inputs, y: Tensor, x_new: Inputs, training: Training
) -> tuple[Law, tuple[str, ...]]:
    """The law of trained networks at new points, finite, and what a reader of it should know."""
    if not isinstance(kernel, KernelPair):
        raise NotCoveredError(
            "compare",
            "has one kernel and no network: the NTK alone does not say how networks are drawn",
            "Give a KernelPair (infinite_width(model)), or start=model for one given network",
        )
    ensemble = trained_ensemble(kernel, x, y, training)
    law = ensemble(x_new)
    check_finite(training, ensemble.step_limit, law.mean, law.variance)
    return law, (*beyond_note(training, ensemble.step_limit), *ensemble.notes)


def beyond_note(training: Training, limit: float) -> tuple[str, ...]:
    """What the warning of a learning rate beyond the limit says, as a note."""
    text = beyond_limit(training, limit)
    return (text.removesuffix("."),) if text else ()


def check_finite(training: Training, limit: float, *values: Tensor) -> None:
    """Raises NotCoveredError for predictions of a descent that has left all finite numbers."""
    if not all(bool(torch.isfinite(each).all()) for each in values):
        rate = training.learning_rate if training.schedule is None else training.largest_rate
        raise NotCoveredError(
            f"Training(learning_rate={rate})",
            f"diverges beyond all finite numbers: the step limit of this kernel is {limit:.4g}",
            "Use a learning rate below the limit",
        )


def judged(law: Law, chosen: Hypotheses, kept: Tensor, notes: tuple[str, ...], samples: int, seed: int) -> Verdict:
    """The verdict of a law on hypotheses at its points."""
    counts = counted(law, chosen, samples, seed)
    found, told = realised(law, chosen, counts, seed)
    nearest = counts.nearest / counts.samples
    total = min(counts.samples, int(counts.realised.sum()))
    intervals = {
        "nearest": _intervals(chosen.names, counts.nearest, counts.samples),
        "realised": {name: each.interval for name, each in found.items()},
        "neither": {"neither": Probability.counted(counts.samples - total, counts.samples).interval},
    }
    if len(chosen.names) == 2 and isinstance(law, Gaussian):
        first, decided = nearest_of_two(law, chosen)
        nearest = torch.tensor([first, 1 - first])
        del intervals["nearest"]
        notes += ("nearest of two candidates: in closed form", *decided)
    density, without = _log_density(law, chosen)
    return Verdict(
        nearest=_by_name(chosen.names, nearest),
        realised={name: each.p for name, each in found.items()},
        neither=max(0.0, 1.0 - sum(each.p for each in found.values())),
        agreement=_by_name(chosen.names, counts.at_points.mean(-1) / counts.samples),
        per_point=dict(zip(chosen.names, counts.at_points / counts.samples, strict=True)),
        log_density=density,
        intervals=intervals,
        rule=chosen.rule,
        kept=kept,
        deterministic=False,
        notes=(*notes, *without, f"{counts.samples} networks sampled from the ensemble", *told),
    )


def _deterministic(chosen: Hypotheses, outputs: Tensor, kept: Tensor, notes: tuple[str, ...]) -> Verdict:
    outputs = outputs.to(torch.float64)
    at_points = chosen.realises(outputs)[0].to(torch.float64)
    distances = chosen.distances(outputs)[0]
    winners = distances <= distances.min()
    realised = (at_points == 1).all(-1).to(torch.float64)
    return Verdict(
        nearest=_by_name(chosen.names, winners.to(torch.float64) / winners.sum()),
        realised=_by_name(chosen.names, realised),
        neither=max(0.0, 1.0 - float(realised.sum())),
        agreement=_by_name(chosen.names, at_points.mean(-1)),
        per_point=dict(zip(chosen.names, at_points, strict=True)),
        log_density=None,
        intervals={},
        rule=chosen.rule,
        kept=kept,
        deterministic=True,
        notes=notes,
    )


def _log_density(law: Law, chosen: Hypotheses) -> tuple[dict[str, float] | None, tuple[str, ...]]:
    if not isinstance(law, Gaussian):
        return None, ("no log-density: the law is known by samples alone",)
    try:
        values = (float(law.log_prob(each.reshape(law.mean.shape))) for each in chosen.values)
        return dict(zip(chosen.names, values, strict=True)), ()
    except SingularKernelError as error:
        return None, (f"no log-density: {error.cause}",)


def _check_arguments(candidates: Any, training: Any, duplicates: Any, samples: Any) -> None:
    check_candidates(candidates)
    _check_training(training, samples)
    if duplicates not in ("raise", "drop"):
        raise DataError("duplicates", f"is {duplicates!r}", 'Give "raise" or "drop"')


def _check_training(training: Any, samples: Any) -> None:
    if not isinstance(training, Training):
        raise PriorscopeError("training", f"is a {type(training).__name__}", "Give a Training(...)")
    check_whole("samples", samples)


def check_whole(name: str, value: Any, least: int = 1) -> None:
    """Raises DataError for what is no whole number of at least `least`."""
    if not isinstance(value, Integral) or value < least:
        raise DataError(name, f"is {value!r}", f"Give a whole number of at least {least}")


def _intervals(names: tuple[str, ...], hits: Tensor, samples: int) -> dict[str, tuple[float, float]]:
    return {n: Probability.counted(int(k), samples).interval for n, k in zip(names, hits, strict=True)}


def _by_name(names: tuple[str, ...], values: Tensor) -> dict[str, float]:
    return {name: float(value) for name, value in zip(names, values, strict=True)}
