"""Question 1: what the network finds simple. The spectrum, and the first modes by the data at their extremes."""

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from ..plot import beliefs as draw
from ..plot import data as draw_data
from ..plot import style
from .answer import Answer, Picture, percent
from .study import Study

SHOWN = 4
EXTREMES = 5
GRID = 60


def simple(study: Study) -> Answer:
    modes = study.modes
    shares = modes.values / modes.values.sum()
    half = int((shares.cumsum(0) < 0.5).sum()) + 1
    first_four = float(shares[:SHOWN].sum())
    rank = len(modes.values)
    slowest = float(modes.values[0] / modes.values[-1])
    simplest = "one mode" if half == 1 else f"{half} modes"
    sentences: tuple[str, ...] = (
        f"A network finds a function simple when the function lies in the first modes of its kernel: of {rank:,} modes "
        f"that it can tell apart on these {study.n:,} points, the first carries {percent(float(shares[0]))} of the "
        f"kernel's total and the first {min(SHOWN, rank)} carry {percent(first_four)}.",
        f"Half of the total lies in {simplest}: what resembles these is easy for this network, and a function in the "
        f"last mode needs {_times(slowest)} as long to learn.",
    )
    if modes.dropped:
        directions = "1 further direction lies" if modes.dropped == 1 else f"{modes.dropped} further directions lie"
        sentences += (f"{directions} below rounding: no training that can be computed moves it there.",)
    pictures = [
        Picture(
            "spectrum",
            "Eigenvalues of the kernel on the training points, simplest mode first, both axes logarithmic.",
            _spectrum(study),
        ),
        Picture("modes", _modes_caption(study), _modes(study)),
    ]
    numbers = {
        "values": modes.values,
        "rank": rank,
        "dropped": modes.dropped,
        "modes_with_half_of_the_trace": half,
        "extremes": [_extremes(study, i) for i in range(min(SHOWN, rank))],
    }
    return Answer("What does the network find simple?", sentences, tuple(pictures), numbers)


def _times(ratio: float) -> str:
    return f"about {float(f'{ratio:.1g}'):,.0f} times" if ratio < 1e6 else "more than a million times"


def _spectrum(study: Study) -> Figure:
    figure, ax = plt.subplots(figsize=style.SIZE, layout="constrained")
    draw.spectrum(study.modes, ax=ax)
    ax.set_title(f"{len(study.modes.values)} modes on {study.n} training points", fontsize=10)
    return figure


def _extremes(study: Study, mode: int) -> dict[str, list[int]]:
    order = study.modes.vectors[:, mode].argsort()
    return {"lowest": order[:EXTREMES].tolist(), "highest": order.flip(0)[:EXTREMES].tolist()}


def _dimension(study: Study) -> int:
    return study.points.x[0].numel() if study.points.x.ndim == 2 else 0


def _modes_caption(study: Study) -> str:
    if _dimension(study) == 1:
        return f"The first {SHOWN} modes as functions of the input."
    if _dimension(study) == 2:
        return f"The first {SHOWN} modes as functions of the two inputs; dots are the training points."
    return (
        f"The first {SHOWN} modes, each by the {EXTREMES} training points where it is lowest (left) and highest "
        "(right): what differs between the two sides is what the mode measures."
    )


def _modes(study: Study) -> Figure:
    count = min(SHOWN, len(study.modes.values))
    if _dimension(study) == 1:
        figure, ax = plt.subplots(figsize=style.SIZE, layout="constrained")
        x = study.points.x
        grid = torch.linspace(float(x.min()), float(x.max()), 200, dtype=x.dtype)[:, None]
        draw.modes(study.modes, grid, ax=ax, count=count)
        return figure
    if _dimension(study) == 2:
        return _planes(study, count)
    if study.points.raw.ndim > 2:
        return _strips(study, count)
    return _tables(study, count)


def _planes(study: Study, count: int) -> Figure:
    """Each mode as a function of both inputs, extended to a grid, the training points over it."""
    figure, axes = plt.subplots(1, count, figsize=(2.5 * count, 2.9), layout="constrained", squeeze=False, sharey=True)
    x = study.points.x
    sides = [
        torch.linspace(float(low), float(high), GRID, dtype=x.dtype)
        for low, high in zip(x.amin(0), x.amax(0), strict=True)
    ]
    values = study.modes.extend(torch.cartesian_prod(*sides))[:, :count].reshape(GRID, GRID, count)
    names = study.points.features or ("x₁", "x₂")
    size = float(values.abs().max())
    for i, ax in enumerate(axes[0]):
        style.axes(ax, title=f"mode {i + 1}", xlabel=names[0])
        first, second = (style.array(side) for side in sides)
        colours = {"cmap": style.DIVERGING, "vmin": -size, "vmax": size}
        image = ax.pcolormesh(
            first, second, style.array(values[..., i]).T, shading="nearest", rasterized=True, **colours
        )
        ax.plot(style.array(x[:, 0]), style.array(x[:, 1]), ".", color=style.BLACK, ms=2.5, alpha=0.6)
    axes[0][0].set_ylabel(names[1])
    figure.colorbar(image, ax=axes[0], label="mode v(x)", shrink=0.85)
    return figure


def _strips(study: Study, count: int) -> Figure:
    figure, axes = plt.subplots(count, 2, figsize=(7.4, 1.25 * count), layout="constrained", squeeze=False)
    for i in range(count):
        extremes = _extremes(study, i)
        for ax, side in zip(axes[i], ("lowest", "highest"), strict=True):
            chosen = extremes[side]
            titles = [study.points.caption(j) for j in chosen]
            draw_data.images(study.points.raw[chosen], ax, titles)
        axes[i][0].text(
            -0.04, 0.5, f"mode {i + 1}", transform=axes[i][0].transAxes, ha="right", va="center", fontsize=9.5
        )
    axes[0][0].set_title("where it is lowest", fontsize=9.5, pad=14)
    axes[0][1].set_title("where it is highest", fontsize=9.5, pad=14)
    return figure


def _tables(study: Study, count: int) -> Figure:
    features = study.points.features or tuple(f"x{j}" for j in range(study.points.x.shape[1]))
    size = (7.4, 1.0 + 1.15 * count)
    figure, axes = plt.subplots(count, 1, figsize=size, layout="constrained", squeeze=False, sharex=True)
    for i, ax in enumerate(axes[:, 0]):
        extremes = _extremes(study, i)
        chosen = extremes["lowest"][:3] + extremes["highest"][:3][::-1]
        sides = ["low"] * 3 + ["high"] * 3
        labels = [f"{side}: {study.points.caption(j)}" for side, j in zip(sides, chosen, strict=True)]
        draw_data.rows(study.points.x[chosen].flatten(1), ax, features, labels)
        ax.axhline(2.5, color="white", lw=3)
        ax.set_title(f"mode {i + 1}", fontsize=9, loc="left")
    figure.colorbar(axes[0, 0].images[0], ax=axes[:, 0], label="standardised value", shrink=0.6)
    return figure
