"""Question 2: what it learns first. The target's share in each mode, and when each mode is learned."""

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from ..plot import style
from ..training import filters
from .answer import Answer, Picture, percent
from .study import Study


def first(study: Study) -> Answer:
    power = study.modes.power(study.points.labels.values)
    half_lives = modes_half_lives(study)
    unit = "time" if study.covered.is_flow else "steps"
    order = half_lives.argsort(stable=True)
    learned = power[order].cumsum(0)

    def when(share: float) -> float | None:
        reached = (learned >= share).nonzero()
        return float(half_lives[order][int(reached[0])]) if len(reached) else None

    half, most = when(0.5), when(0.9)
    end = float(study.covered.end)
    by_the_end = float(power[half_lives <= end].sum())
    off = max(0.0, 1 - float(power.sum()))
    opening = "Each mode is learned at its own rate, the simplest first."
    if half is None:
        opening += " Less than half of the target lies in modes that this network can see."
    else:
        opening += f" The modes that hold half of the target are half learned after {_amount(half, unit)}"
        opening += "." if most is None else f", those that hold 90 % of it after {_amount(most, unit)}."
    sentences = (
        opening,
        f"By the end of this training ({_amount(end, unit)}) the modes already half learned hold {percent(by_the_end)} "
        f"of the target; {percent(off)} lies in directions that this network cannot see, to rounding.",
    )
    numbers = {
        "power": power,
        "half_lives": half_lives,
        "unit": unit,
        "half_of_the_target": half,
        "nine_tenths_of_the_target": most,
        "half_learned_by_the_end": by_the_end,
    }
    picture = Picture(
        "first",
        f"Left: the target's share in each mode, simplest mode first. Right: the {unit} after which a mode is half "
        "learned; the dashed line is the end of this training.",
        _figure(power, half_lives, end, unit),
    )
    return Answer("What does it learn first?", sentences, (picture,), numbers)


def modes_half_lives(study: Study) -> torch.Tensor:
    """When each of the modes is half learned, (r,)."""
    scale = study.covered.mean_scale(study.n, study.points.labels.outputs)
    return filters.half_lives(study.modes.values.to(torch.float64), study.covered, scale)


def _amount(value: float, unit: str) -> str:
    if value == float("inf"):
        return "an endless training"
    if unit == "time":
        return f"time {value:.3g}"
    return f"{value:,.0f} steps" if value >= 10 else f"{value:.2g} steps"


def _figure(power: torch.Tensor, half_lives: torch.Tensor, end: float, unit: str) -> Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.2, 3.3), layout="constrained")
    rank = torch.arange(1, len(power) + 1)
    style.axes(left, xlabel="mode (1 = simplest)", ylabel="share of the target", xscale="log")
    left.plot(style.array(rank), style.array(power), "o", color=style.ORANGE, ms=3.5, label="in this mode")
    left.plot(style.array(rank), style.array(power.cumsum(0)), color=style.BLUE, lw=1.8, label="up to this mode")
    left.set_ylim(-0.03, 1.05)
    style.legend(left)
    label = "steps until half learned" if unit == "steps" else "time until half learned"
    style.axes(right, xlabel="mode (1 = simplest)", ylabel=label, xscale="log", yscale="log")
    finite = torch.isfinite(half_lives) & (half_lives > 0)
    right.plot(style.array(rank[finite]), style.array(half_lives[finite]), color=style.BLUE, lw=1.8)
    if end > 0 and end != float("inf"):
        right.axhline(end, color=style.BLACK, ls="--", lw=1)
        right.annotate(
            "end of training",
            (1, end),
            (-3, 3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            fontsize=8.5,
        )
    return figure
