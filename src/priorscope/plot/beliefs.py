"""Pictures of functions, modes, spectra and similarities."""

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from ..beliefs.gaussian import Gaussian
from ..beliefs.modes import Spectrum
from ..beliefs.process import Posterior
from ..beliefs.samples import Samples
from ..beliefs.similarity import Neighbours
from ..errors import DataError
from ..training.ensemble import TrainedEnsemble
from ..training.function_trajectory import FunctionTrajectory
from ..training.relinearise import RelinearisedTrajectory
from ..training.run import Run
from ..training.runs import Runs
from ..training.sampled import SampledEnsemble
from ..training.trajectory import Trajectory
from . import style

NUMBERED = 400
"""The most cells of a picture of neighbours that still carry their number."""

SHOWN = 100
"""Samples that are drawn as curves."""
ASKED = (Posterior, Trajectory, FunctionTrajectory, RelinearisedTrajectory, TrainedEnsemble, SampledEnsemble)
"""Results that are called with points."""


def functions(
    result: Any,
    x: Tensor | None = None,
    ax: Axes | None = None,
    *,
    data: tuple[Tensor, Tensor] | None = None,
    label: str | None = None,
    colour: str = style.BLUE,
    band: float = 1.96,
) -> Axes:
    """Functions of one variable and one output: a Gaussian as its mean and band, anything else as curves.

    Args:
        result: a Gaussian over the points x; values (m,) or (s, m), one curve a row; a Run or Runs, whose last
            recorded outputs are drawn; Samples, up to 100 of them; or a posterior, trajectory or ensemble of any kind,
            which is asked at x.
        x: (m,) or (m, 1) positions; default 0..m−1.
        data: training points (x, y) drawn as dots.
        band: half-width of a Gaussian's band in standard deviations (1.96: 95 %).

    Raises:
        DataError: several outputs; a result that is none of these; one that needs x, without it.
    """
    result = _curves(result, x)
    values = result.mean if isinstance(result, Gaussian) else result
    m = values.shape[-1]
    position = torch.arange(m) if x is None else x.reshape(-1)
    if len(position) != m:
        raise DataError("x", f"has {len(position)} positions for {m} values", "Give one position per value")
    ax = style.axes(ax, xlabel="input x", ylabel="output f(x)")
    order = position.argsort()
    position = style.array(position[order])
    if isinstance(result, Gaussian):
        mean, spread = result.mean[order], band * result.variance.clamp_min(0).sqrt()[order]
        low, high = style.array(mean - spread), style.array(mean + spread)
        ax.fill_between(position, low, high, color=colour, alpha=0.18, lw=0, label=f"±{band:g} standard deviations")
        ax.plot(position, style.array(mean), color=colour, lw=2, label=label or "mean")
    else:
        curves = style.array(values[..., order].reshape(-1, m))
        strength = 1.0 if len(curves) == 1 else max(0.12, min(0.6, 6 / len(curves)))
        for i, curve in enumerate(curves):
            ax.plot(position, curve, color=colour, lw=1.2, alpha=strength, label=label if i == 0 else None)
    if data is not None:
        ax.plot(
            style.array(data[0]).reshape(-1), style.array(data[1]), "o", color=style.BLACK, ms=5, label="data", zorder=5
        )
    if ax.get_legend_handles_labels()[1]:
        style.legend(ax)
    return ax


def _curves(result: Any, x: Tensor | None) -> Gaussian | Tensor:
    """What a result says of functions of one output: a Gaussian over (m,), or values (m,) or (s, m)."""
    if isinstance(result, Run):
        return _one_output(result.outputs[-1])
    if isinstance(result, Runs):
        return _one_output(result.final)
    if isinstance(result, ASKED):
        name = type(result).__name__
        if x is None:
            raise DataError(f"plot.functions({name})", "has no positions", f"Give x, (m, 1): functions({name}, x)")
        answer = result(x[:, None] if x.ndim == 1 else x)
        result = _one_output(answer) if isinstance(answer, Tensor) and answer.ndim == 2 else answer
    if isinstance(result, Samples):
        return result.values[:SHOWN] if result.values.ndim == 2 else _one_output(result.values[:SHOWN])
    if isinstance(result, Gaussian):
        flat = result.mean.ndim == 1
        return result if flat else Gaussian(_one_output(result.mean), result.matrix, result.tolerance)
    if isinstance(result, Tensor):
        if result.ndim not in (1, 2):
            raise DataError("the functions", f"have shape {tuple(result.shape)}", "Draw one output: (m,) or (s, m)")
        return result
    raise DataError(
        f"plot.functions({type(result).__name__})",
        "says nothing of functions",
        "Give a Gaussian, Samples, a posterior, trajectory or ensemble, a Run, Runs, or values (m,) or (s, m)",
    )


def _one_output(values: Tensor) -> Tensor:
    """(..., m, 1) -> (..., m)."""
    if values.shape[-1] != 1:
        remedy = "Choose one output and draw its values: (m,) or (s, m)"
        raise DataError("the functions", f"have {values.shape[-1]} outputs", remedy)
    return values[..., 0]


def modes(result: Spectrum, x: Tensor | None = None, ax: Axes | None = None, *, count: int = 4) -> Axes:
    """The first modes of a kernel on one-dimensional data, at its points or, with x (m, 1), extended to others."""
    shown = min(count, len(result.values))
    values = result.vectors[:, :shown] if x is None else result.extend(x)[:, :shown]
    if x is None and result.kernel is None:
        raise DataError("modes", "were loaded without their data", "Give positions x, (m, 1)")
    position = (result.kernel.x if x is None else x).reshape(-1)  # type: ignore[union-attr]
    if len(position) != len(values):
        raise DataError("the data of these modes", "are not one-dimensional", "Give positions x, (m, 1)")
    ax = style.axes(ax, xlabel="input x", ylabel="mode v(x), unit length on the data")
    order = position.argsort()
    for i in range(shown):
        ax.plot(
            style.array(position[order]),
            style.array(values[order, i]),
            color=style.COLOURS[i % len(style.COLOURS)],
            lw=1.8,
            label=f"mode {i + 1}, λ = {float(result.values[i]):.3g}",
        )
    style.legend(ax, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))  # above: no corner is always free
    return ax


def spectrum(result: Spectrum, y: Tensor | None = None, ax: Axes | None = None) -> Axes:
    """The eigenvalues of a Gram matrix, descending; with labels y, the target's share in each mode beside them."""
    ax = style.axes(ax, xlabel="mode (1 = simplest)", ylabel="eigenvalue of the Gram matrix")
    rank = range(1, len(result.values) + 1)
    ax.loglog(rank, style.array(result.values), color=style.BLUE, lw=1.8, marker="o", ms=3, label="eigenvalue")
    if y is not None:
        twin = ax.twinx()
        twin.spines[["top", "left"]].set_visible(False)
        twin.bar(
            rank, style.array(result.power(y)), color=style.ORANGE, alpha=0.6, width=0.6, label="share of the target"
        )
        twin.set_ylabel("share of the target's power")
        twin.set_ylim(bottom=0)
        handles = ax.get_legend_handles_labels(), twin.get_legend_handles_labels()
        ax.legend(handles[0][0] + handles[1][0], handles[0][1] + handles[1][1], frameon=False, fontsize=8.5)
    return ax


def similarity(result: Tensor | Neighbours, ax: Axes | None = None, *, label: str = "cosine of the kernel") -> Axes:
    """Similarities or dual weights between points, (m, n), or Neighbours, as a picture, its colours centred on 0.

    Of Neighbours, (m, k), each cell carries the number of the training point, where there is room for it.
    """
    near = isinstance(result, Neighbours)
    values = result.cosine if isinstance(result, Neighbours) else result
    if values.ndim != 2:
        raise DataError("the similarities", f"have shape {tuple(values.shape)}", "Draw a matrix: (m, n)")
    ax = style.axes(ax, xlabel="rank (1 = most similar)" if near else "training point", ylabel="point")
    size = float(values.abs().max()) or 1.0
    image = ax.imshow(style.array(values), cmap=style.DIVERGING, vmin=-size, vmax=size, aspect="auto")
    if isinstance(result, Neighbours):
        ax.set_xticks(range(values.shape[1]), [str(i + 1) for i in range(values.shape[1])])
        for (row, column), number in np.ndenumerate(style.array(result.index)):
            if values.numel() <= NUMBERED:
                ax.text(column, row, str(number), ha="center", va="center", fontsize=7)
    ax.figure.colorbar(image, ax=ax, label=label)
    return ax
