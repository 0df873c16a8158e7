"""Candidate generalisations, ranked: with which probability does a trained network take each, or none of them?

Every probability is of what trained networks do, so it comes from the trained ensemble (Lee et al. 2019), not from a
Gaussian process with the NTK as covariance.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from scipy.stats import norm
from torch import Tensor

from ..beliefs.gaussian import Gaussian, Probability
from ..beliefs.similarity import indistinguishable
from ..data.inputs import Inputs, Labels, check_inputs, count, encode, take
from ..errors import DataError, IndistinguishableError, NotCoveredError, PriorscopeError, SingularKernelError
from ..kernels.frozen import takes_kernel_on_data
from ..kernels.kernel import Kernel
from ..kernels.pair import KernelPair
from ..results import Result
from ..training.ensemble import trained_ensemble
from ..training.noise import has_noise
from ..training.training import Training
from ..training.trajectory import trajectory

Rule = Literal["regression", "signs", "classes"]
Interval = tuple[float, float]
CHUNK = 20_000_000
"""Sampled numbers held at once."""


@dataclass(frozen=True, eq=False)
class Verdict(Result):
    """Which of several candidate labellings of the test points a trained network takes.

    nearest: probability that this candidate is the nearest to the network in the joint test labels; sums to 1.
    realised: probability that the network realises it: at every test point it is at least as near to it as to
        every other candidate; for classes: the same argmax; for candidates that are all ±1: the same sign.
    neither: 1 − the sum of `realised`.
    agreement: expected share of test points at which the network has the candidate's class or sign, or is at least
        as near to it as to every other candidate.
    log_density: of the candidate under the trained ensemble; None for one given network, or a singular ensemble.
    intervals: 99 % Clopper-Pearson intervals of what was sampled, {"realised": {name: (low, high)}, ...}.
    rule: by what a candidate is realised. kept: the test points compared. deterministic: one given network's verdict.
    trust: how far the verdict deserves belief, in [0, 1]; None, with `trust_reason`, until it is assessed.
    notes: what was decided on the way, in words.
    """

    nearest: dict[str, float]
    realised: dict[str, float]
    neither: float
    agreement: dict[str, float]
    log_density: dict[str, float] | None
    intervals: dict[str, dict[str, Interval]]
    rule: str
    kept: Tensor
    deterministic: bool
    notes: tuple[str, ...]
    trust: float | None = None
    trust_reason: str = "not assessed: no measure of the network's distance from the theory was taken"

    @property
    def probability(self) -> dict[str, float]:
        """An alias of `nearest`."""
        return self.nearest

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.nearest)


@takes_kernel_on_data
def compare(
    kernel: Kernel | KernelPair,
    x: Inputs,
    y: Tensor,
    x_new: Inputs,
    candidates: Mapping[str, Tensor],
    training: Training = Training(),
    start: Any = None,
    *,
    duplicates: Literal["raise", "drop"] = "raise",
    samples: int = 100_000,
    seed: int = 0,
) -> Verdict:
    """Ranks candidate labels of the test points by what trained networks do.

    For two candidates, d = y_A − y_B, `nearest` is Φ((dᵀμ − (|y_A|² − |y_B|²)/2) / √(dᵀΣd)), where μ and Σ are the
    trained ensemble's at the test points; everything else is sampled from it.

    Args:
        kernel: a KernelPair (networks drawn from an initialisation); or, with `start`, the NTK of one network.
        x, y: n training points and their labels, (n,), (n, o), or integer classes.
        x_new: m test points.
        candidates: {name: labels of the test points}, each like y.
        training: the training really used.
        start: one given network; its outcome is deterministic.
        duplicates: test points that the kernel cannot tell from a training point raise, or are dropped.
        samples: number of networks sampled from the ensemble.

    Raises:
        IndistinguishableError: for test points that the kernel cannot tell from training points.
        DataError: for candidates that do not match, or are equal.
        NotCoveredError: for one kernel without `start`, and for a descent that diverges beyond all finite numbers.
    """
    _check_arguments(candidates, training, duplicates, samples)
    check_inputs(x, "x")
    check_inputs(x_new, "x_new")
    ntk = kernel.ntk if isinstance(kernel, KernelPair) else kernel
    labels, encoded, rule = _encode(y, count(x), candidates, count(x_new), ntk.outputs(x))
    kept, notes = _kept(kernel, x, x_new, duplicates)
    chosen = torch.stack([each.values for each in encoded.values()])[:, kept]  # (j, m, o)
    _check_different(list(candidates), chosen)
    targets = labels.values[:, 0] if labels.flat else labels.values
    if start is not None:
        path = trajectory(ntk, x, targets, training, start=start)
        outputs = path(take(x_new, kept)).reshape(1, *chosen.shape[1:])
        _check_finite(training, path.step_limit, outputs)
        kind = "that of the mean over mini-batches" if has_noise(training, count(x)) else "deterministic"
        notes += (*path.notes, f"one given network: its outcome is {kind}")
        return _deterministic(list(candidates), outputs, chosen, rule, kept, notes)
    if not isinstance(kernel, KernelPair):
        raise NotCoveredError(
            "compare",
            "has one kernel and no network: the NTK alone does not say how networks are drawn",
            "Give a KernelPair (infinite_width(model)), or start=model for one given network",
        )
    ensemble = trained_ensemble(kernel, x, targets, training)
    law = ensemble(take(x_new, kept))
    _check_finite(training, ensemble.step_limit, law.mean, law.matrix)
    return _sampled(list(candidates), law, chosen, rule, kept, notes + ensemble.notes, samples, seed)


def _check_arguments(candidates: Any, training: Any, duplicates: Any, samples: Any) -> None:
    if not isinstance(candidates, Mapping):
        cause = f"are a {type(candidates).__name__}, not a mapping"
        raise DataError("candidates", cause, "Give {name: labels of the test points}")
    if not candidates:
        raise DataError("candidates", "are empty", "Give {name: labels of the test points}")
    if not isinstance(training, Training):
        raise PriorscopeError("training", f"is a {type(training).__name__}", "Give a Training(...)")
    if duplicates not in ("raise", "drop"):
        raise DataError("duplicates", f"is {duplicates!r}", 'Give "raise" or "drop"')
    if not isinstance(samples, Integral) or samples < 1:
        raise DataError("samples", f"is {samples!r}", "Give a whole number of at least 1")


def _check_finite(training: Training, limit: float, *values: Tensor) -> None:
    if not all(bool(torch.isfinite(each).all()) for each in values):
        rate = training.learning_rate if training.schedule is None else training.largest_rate
        raise NotCoveredError(
            f"Training(learning_rate={rate})",
            f"diverges beyond all finite numbers: the step limit of this kernel is {limit:.4g}",
            "Use a learning rate below the limit",
        )


def _encode(
    y: Tensor, points: int, candidates: Mapping[str, Tensor], new_points: int, outputs: int | None
) -> tuple[Labels, dict[str, Labels], Rule]:
    classes = None
    labels = encode(y, points)
    if labels.classes is not None:
        integers = [
            c for c in candidates.values() if isinstance(c, Tensor) and c.ndim == 1 and not c.is_floating_point()
        ]
        named = max([labels.classes, *(int(c.max()) + 1 for c in integers if len(c))])
        if outputs is not None and named > outputs:
            raise DataError(
                "y and the candidates", f"name {named} classes, the model has {outputs} outputs", "Match them"
            )
        classes = named if outputs is None else outputs
        labels = encode(y, points, classes)
    signs = _are_signs(labels)
    encoded = {
        name: encode(candidate, new_points, classes, name=f"the candidate {name!r}", signs=signs)
        for name, candidate in candidates.items()
    }
    for name, candidate in encoded.items():
        if candidate.outputs != labels.outputs or (candidate.classes is None) != (labels.classes is None):
            raise DataError(
                f"the candidate {name!r}",
                f"has {candidate.outputs} outputs{' of classes' if candidate.classes else ''}, y has {labels.outputs}",
                "Give labels of the same kind as y",
            )
    if labels.classes is not None:
        return labels, encoded, "classes"
    return labels, encoded, "signs" if all(map(_are_signs, encoded.values())) else "regression"


def _are_signs(labels: Labels) -> bool:
    return labels.outputs == 1 and bool((labels.values.abs() == 1).all())


def _kept(kernel: Kernel | KernelPair, x: Inputs, x_new: Inputs, duplicates: str) -> tuple[Tensor, tuple[str, ...]]:
    ntk = kernel.ntk if isinstance(kernel, KernelPair) else kernel
    same = indistinguishable(ntk, x, x_new)
    points = torch.arange(count(x_new))
    if not bool(same.any()):
        return points, ()
    listed = ", ".join(str(int(i)) for i in points[same][:6]) + (" ..." if int(same.sum()) > 6 else "")
    if duplicates == "raise":
        raise IndistinguishableError(
            f"x_new[{listed}]",
            "the kernel cannot tell these test points from training points, so any other label is impossible",
            'Remove them, or give duplicates="drop"',
        )
    if bool(same.all()):
        raise IndistinguishableError("x_new", "holds only training points", "Give test points outside the training set")
    return points[~same], (f"{int(same.sum())} test points dropped that the kernel cannot tell from training points",)


def _check_different(names: list[str], chosen: Float[Tensor, "j m o"]) -> None:
    for i, a in enumerate(names):
        for j in range(i):
            if torch.equal(chosen[i], chosen[j]):
                raise DataError(
                    f"the candidates {names[j]!r} and {a!r}", "are equal at every test point", "Give different labels"
                )


def _realises(outputs: Float[Tensor, "s m o"], chosen: Float[Tensor, "j m o"], rule: Rule) -> Bool[Tensor, "s j m"]:
    """Whether each network, at each test point, does what each candidate says."""
    if rule == "signs":
        return torch.sign(outputs)[:, None, :, 0] == chosen[None, :, :, 0]
    if rule == "classes":
        return outputs.argmax(-1)[:, None] == chosen.argmax(-1)[None]
    distances = (outputs[:, None] - chosen[None]).square().sum(-1)
    return distances <= distances.amin(1, keepdim=True)


def _squared_distances(outputs: Float[Tensor, "s m o"], chosen: Float[Tensor, "j m o"]) -> Float[Tensor, "s j"]:
    """Of each network to each candidate, up to what is common to all candidates."""
    return chosen.square().sum((1, 2)) - 2 * torch.einsum("smo,jmo->sj", outputs, chosen)


def _deterministic(
    names: list[str], outputs: Tensor, chosen: Tensor, rule: Rule, kept: Tensor, notes: tuple[str, ...]
) -> Verdict:
    outputs = outputs.to(torch.float64)
    at_points = _realises(outputs, chosen, rule)[0]
    distances = _squared_distances(outputs, chosen)[0]
    winners = distances <= distances.min()
    nearest = winners.to(torch.float64) / winners.sum()
    realised = at_points.all(-1).to(torch.float64)
    return Verdict(
        nearest=_by_name(names, nearest),
        realised=_by_name(names, realised),
        neither=max(0.0, 1.0 - float(realised.sum())),
        agreement=_by_name(names, at_points.to(torch.float64).mean(-1)),
        log_density=None,
        intervals={},
        rule=rule,
        kept=kept,
        deterministic=True,
        notes=notes,
    )


def _sampled(
    names: list[str],
    law: Gaussian,
    chosen: Tensor,
    rule: Rule,
    kept: Tensor,
    notes: tuple[str, ...],
    samples: int,
    seed: int,
) -> Verdict:
    j, m, o = chosen.shape
    (won, realised, agreed), done = torch.zeros(3, j, dtype=torch.float64), 0
    chunk = max(1, min(samples, CHUNK // (m * o * j)))
    while done < samples:
        size = min(chunk, samples - done)
        outputs = law.sample(size, seed=seed + done).reshape(size, m, o).to(torch.float64)
        at_points = _realises(outputs, chosen, rule)
        realised += at_points.all(-1).sum(0)
        agreed += at_points.to(torch.float64).mean(-1).sum(0)
        won += torch.bincount(_squared_distances(outputs, chosen).argmin(1), minlength=j)
        done += size
    intervals = {
        "nearest": {n: Probability.counted(int(k), samples).interval for n, k in zip(names, won, strict=True)},
        "realised": {n: Probability.counted(int(k), samples).interval for n, k in zip(names, realised, strict=True)},
        "neither": {"neither": Probability.counted(max(0, samples - int(realised.sum())), samples).interval},
    }
    nearest = won / samples
    if j == 2:
        first, decided = _closed_form(law, chosen)
        nearest = torch.tensor([first, 1 - first])
        del intervals["nearest"]
        notes += ("nearest of two candidates: in closed form", *decided)
    try:
        density = {n: float(law.log_prob(c.reshape(law.mean.shape))) for n, c in zip(names, chosen, strict=True)}
    except SingularKernelError as error:
        density, notes = None, (*notes, f"no log-density: {error.cause}")
    return Verdict(
        nearest=_by_name(names, nearest),
        realised=_by_name(names, realised / samples),
        neither=max(0.0, 1.0 - float(realised.sum()) / samples),
        agreement=_by_name(names, agreed / samples),
        log_density=density,
        intervals=intervals,
        rule=rule,
        kept=kept,
        deterministic=False,
        notes=(*notes, f"{samples} networks sampled from the ensemble"),
    )


def _closed_form(law: Gaussian, chosen: Tensor) -> tuple[float, tuple[str, ...]]:
    """P(nearer to the first of two candidates), and what was decided by the mean."""
    d = chosen[0] - chosen[1]
    mean, variance = law.project(d.reshape(law.mean.shape))
    margin = mean - float(chosen[0].square().sum() - chosen[1].square().sum()) / 2
    scale = float(d.square().sum()) * float(law.variance.abs().max().clamp_min(torch.finfo(torch.float64).tiny))
    if variance > 1e-13 * scale:
        return float(norm.cdf(margin / variance**0.5)), ()
    return (
        0.5 if margin == 0 else float(margin > 0),
        ("the ensemble does not vary between the two candidates: decided by its mean",),
    )


def _by_name(names: list[str], values: Tensor) -> dict[str, float]:
    return {name: float(value) for name, value in zip(names, values, strict=True)}
