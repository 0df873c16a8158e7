"""Question 4: whether to believe it. How far the real network and its kernel drifted from the prediction, by width."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import nn

from ..kernels.empirical import EmpiricalNTK
from ..plot import style
from ..training.band import WRONG, outside
from ..training.drift import kernel_drift
from .answer import Answer, Picture, percent
from .study import Study

KERNEL_POINTS = 100
LOOSE = 0.25
"""A single network's course counts as predicted where at most this share of its change was not."""


@dataclass(frozen=True)
class Distance:
    """How far one really trained network came from the prediction.

    functions: ‖f − f_predicted‖ / ‖f − f₀‖ at the test points, f_predicted from the network's own start: the share of
        what training did that was not predicted. kernel: ‖K₁ − K₀‖_F / ‖K₀‖_F of its own kernel. alignment: the cosine
        of the two. outside: share of test outputs outside the ensemble's 99 % band; None without a limit.
    """

    width: int | None
    functions: float
    kernel: float
    alignment: float
    outside: float | None


def believe(study: Study, make: Callable[[int], nn.Module] | None = None, widths: tuple[int, ...] = ()) -> Answer:
    others = [_at_width(study, make, width) for width in widths] if make is not None else []
    own = _distance(study)
    distances = sorted([*others, own], key=lambda d: d.width or 0)
    sentences = (_judgement(study, own), _drift(study, own, distances))
    numbers = {
        "own": vars(own),
        "by_width": [vars(d) for d in distances],
        "kernel_points": _points(study),
    }
    caption = (
        "How much of what training did to the functions was not predicted, and how much the network's kernel changed"
        + (", against width: the theory holds where both are small." if others else ".")
    )
    return Answer("Should you believe it?", sentences, (Picture("believe", caption, _figure(distances)),), numbers)


def _at_width(study: Study, make: Callable[[int], nn.Module], width: int) -> Distance:
    """The same study of a narrower or wider network; its learning rate keeps its ratio to the step limit."""
    model = make(width)
    other = replace(study, model=model, stated_width=width, warned=[])
    if not study.training.is_flow and study.training.optimizer == "sgd":
        ratio = float(study.kernel.eigen.values[0] / other.kernel.eigen.values[0])
        other = replace(other, asked=study.training.scaled(ratio))
    else:
        other = replace(other, asked=study.training)
    return _distance(other)


def _points(study: Study) -> int:
    return min(KERNEL_POINTS, study.n)


def _distance(study: Study) -> Distance:
    n = study.n
    start, end = study.run.outputs[0, n:].to(torch.float64), study.run.outputs[-1, n:].to(torch.float64)
    moved = (end - start).norm().clamp_min(1e-300)
    expected = study.from_start()(study.points.x_test, at=study.last_step).to(torch.float64)
    functions = float((end - expected).norm() / moved)
    x = study.points.x[: _points(study)]
    before = EmpiricalNTK(study.model, rates=study.rates, progress=study.progress)
    assert study.run.model is not None
    after = EmpiricalNTK(study.run.model, rates=study.rates, progress=study.progress)
    change = kernel_drift(before, after, x)
    beyond = None
    if study.ensemble is not None:
        law = study.ensemble(study.points.x_test, at=study.last_step)
        beyond = float(outside(law, end.reshape(len(end), -1)))
    return Distance(study.width(), functions, change.relative, change.alignment, beyond)


def _judgement(study: Study, own: Distance) -> str:
    if study.run.diverged_at is not None:
        return f"No: the real training diverged at step {study.run.diverged_at}. Train with a smaller learning rate."
    if study.diverges:
        limit = f"{study.path.step_limit:.3g}"
        return f"No: the learning rate is beyond the step limit {limit}, where the prediction diverges."
    return verdict(own, study.outside)


def verdict(own: Distance, outside_theory: list[str]) -> str:
    """What the distances of one trained network say, in words."""
    unpredicted = f"{percent(own.functions)} of what training did to its functions was not predicted from its start"
    if own.outside is None:
        return (
            "Here the model has no infinite-width limit (the notes say why), so the predictions use its own kernel at "
            f"its start, without a band: {unpredicted}."
        )
    inside = f"{percent(1 - own.outside)} of the trained network's test outputs lie inside the predicted 99 % band"
    if outside_theory:
        named = ", ".join(outside_theory)
        return f"With care: the training ({named}) is outside the theory of this page. {inside}; {unpredicted}."
    if own.outside > WRONG and own.functions > LOOSE:
        return (
            f"No: only {inside}, and {unpredicted}. This network is too narrow, or is trained too hard, for its kernel "
            "at the start to describe it."
        )
    if own.outside > WRONG:
        return (
            f"In its course, yes: only {unpredicted}. But only {inside}: this draw of the weights is unusual for the "
            "stated initialization, or does not have its law (see the notes)."
        )
    if own.functions > LOOSE:
        return f"In its statistics, yes: {inside}. The course of this one network, less: {unpredicted}."
    return f"Yes: {inside}, and only {unpredicted}."


def _drift(study: Study, own: Distance, distances: list[Distance]) -> str:
    text = (
        f"Training changed the network's own kernel by {percent(own.kernel)} on {_points(study)} points (the cosine to "
        f"its start is {own.alignment:.3f}, so {'its shape' if own.alignment < 0.99 else 'mostly its size'} changed)."
    )
    if len(distances) > 1:
        narrow, wide = distances[0], distances[-1]
        text += (
            f" From width {narrow.width} to {wide.width} the kernel's change goes from {percent(narrow.kernel)} to "
            f"{percent(wide.kernel)}, the unpredicted share from {percent(narrow.functions)} to "
            f"{percent(wide.functions)}."
        )
    return text


def _figure(distances: list[Distance]) -> Figure:
    figure, ax = plt.subplots(figsize=style.SIZE, layout="constrained")
    series = [
        ("functions", "functions: share not predicted", style.BLUE, "o"),
        ("kernel", "own kernel: relative change", style.ORANGE, "s"),
    ]
    if all(d.outside is not None for d in distances):
        series.append(("outside", "test outputs outside the 99 % band", style.GREEN, "^"))
    if len(distances) > 1:
        style.axes(ax, xlabel="width of the hidden layers", ylabel="distance from the prediction")
        widths = [d.width or 0 for d in distances]
        for name, label, colour, marker in series:
            ax.plot(widths, [getattr(d, name) for d in distances], marker=marker, color=colour, lw=1.6, label=label)
        ax.set_xscale("log", base=2)
        ax.set_xticks(widths, [str(w) for w in widths])
        ax.minorticks_off()
        ax.set_ylim(bottom=0)
        style.legend(ax)
        return figure
    style.axes(ax, xlabel="distance from the prediction")
    values = [getattr(distances[0], name) for name, *_ in series]
    ax.barh(range(len(series)), values, color=[colour for _, _, colour, _ in series], height=0.5)
    for i, value in enumerate(values):
        ax.text(value, i, f" {value:.3f}", va="center", fontsize=9)
    ax.set_yticks(range(len(series)), [label for _, label, _, _ in series])
    ax.set_xlim(0, 1.2 * max([*values, 0.05]))
    ax.invert_yaxis()
    return figure
