"""Pictures of training: curves of the loss, modes learned one after the other, drift."""

import math
from collections.abc import Mapping

import torch
from matplotlib.axes import Axes

from ..errors import DataError
from ..training.drift import Drift
from ..training.function_trajectory import FunctionTrajectory
from ..training.relinearise import RelinearisedTrajectory
from ..training.run import Run
from ..training.runs import Runs
from ..training.trajectory import Trajectory
from . import style

Predicted = Trajectory | FunctionTrajectory | RelinearisedTrajectory


def trajectory(result: Predicted | Run | Runs, ax: Axes | None = None, *, label: str | None = None) -> Axes:
    """The training loss against time or steps.

    A predicted trajectory, of whatever kind, is a line, a really trained Run are dots, and of Runs every network is a
    thin line, their median (of those that have not diverged) a thick one.
    """
    if not isinstance(result, (Trajectory, FunctionTrajectory, RelinearisedTrajectory, Run, Runs)):
        cause = "has no training loss over time"
        raise DataError(f"plot.trajectory({type(result).__name__})", cause, "Give a Trajectory, a Run or Runs")
    is_flow = not isinstance(result, (Run, Runs)) and result.training.is_flow
    unit = "time of gradient flow" if is_flow else "training step"
    ax = style.axes(ax, xlabel=unit, ylabel="training loss")
    if isinstance(result, Run):
        at, losses = style.array(result.steps), style.array(result.losses)
        ax.plot(at, losses, "o", color=style.VERMILION, ms=3.5, label=label or "really trained")
    elif isinstance(result, Runs):
        at, losses = style.array(result.steps), style.array(result.losses)
        strength = max(0.12, min(0.6, 6 / len(losses)))
        for one in losses:
            ax.plot(at, one, color=style.VERMILION, lw=0.8, alpha=strength)
        name = label or f"median of {len(losses)} trained networks"
        ax.plot(at, style.array(result.losses.nanmedian(0).values), color=style.VERMILION, lw=1.8, label=name)
    else:
        times = moments(result)
        losses = result.losses(times)
        again = isinstance(result, RelinearisedTrajectory)
        colour, name = (style.GREEN, "re-linearised") if again else (style.BLUE, "predicted")
        ax.plot(style.array(times), style.array(losses), color=colour, lw=1.8, label=label or name)
    ax.set_xscale("symlog", linthresh=_first(result))
    ax.set_yscale("log")
    style.legend(ax)
    return ax


def learned(result: Trajectory | FunctionTrajectory, ax: Axes | None = None, *, count: int = 8) -> Axes:
    """How much of each of the first modes is learned, against time or steps: 1 − the residual of the mode."""
    times = moments(result)
    residuals = result.residuals(times)
    unit = "time of gradient flow" if result.training.is_flow else "training step"
    ax = style.axes(ax, xlabel=unit, ylabel="share of the mode that is learned")
    shown = min(count, residuals.shape[1])
    for i in range(shown):
        colour = style.plt.get_cmap("cividis")(0.9 * i / max(1, shown - 1))
        ax.plot(style.array(times), style.array(1 - residuals[:, i]), color=colour, lw=1.6, label=f"mode {i + 1}")
    ax.set_xscale("symlog", linthresh=_first(result))
    style.legend(ax, ncols=2)
    return ax


def moments(path: Predicted, count: int = 200) -> torch.Tensor:
    """Log-spaced moments: from a tenth of the first half-life to the end, or to ten times the last half-life."""
    first, last = (1.0, 1.0) if isinstance(path, RelinearisedTrajectory) else _half_lives(path)
    end = path.training.end if math.isfinite(path.training.end) else 10 * last
    if path.training.is_flow:
        low = min(0.1 * first, end / 10)
        return torch.logspace(math.log10(low), math.log10(end), count, dtype=torch.float64)
    steps = torch.logspace(0, math.log10(max(2, end)), count, dtype=torch.float64).round()
    return torch.unique(torch.cat([torch.zeros(1, dtype=torch.float64), steps])).clamp_max(end).to(torch.int64)


def _half_lives(path: Trajectory | FunctionTrajectory) -> tuple[float, float]:
    """The first and the last half-life of a mode; of a loss that is not squared, at its largest curvature."""
    if isinstance(path, FunctionTrajectory):
        if not len(path.values) or not path.curvature > 0:
            raise DataError("this trajectory", "learns no mode", "Check the loss and the kernel")
        first = math.log(2) / path.curvature
        return first, first * float(path.values[0] / path.values[-1])
    finite = path.half_lives[torch.isfinite(path.half_lives)]
    if not len(finite):
        raise DataError("this trajectory", "learns no mode", "Check the learning rate and the kernel")
    return float(finite.min()), float(finite.max())


def _first(result: Predicted | Run | Runs) -> float:
    """Where a symmetric logarithmic axis begins to be logarithmic."""
    if isinstance(result, (Run, Runs)) or not result.training.is_flow:
        return 1.0
    return float(moments(result).min())


def drift(results: Drift | Mapping[str, Drift], ax: Axes | None = None) -> Axes:
    """Relative change of the functions and of the kernel between two snapshots, one group of bars a name.

    Args:
        results: one Drift, or {name: Drift}.
    """
    if isinstance(results, Drift):
        results = {"the network": results}
    if not isinstance(results, Mapping) or not results:
        raise DataError(f"plot.drift({type(results).__name__})", "holds no Drift", "Give a Drift, or {name: Drift}")
    ax = style.axes(ax, ylabel="relative change during training")
    names = list(results)
    for offset, (field, colour) in enumerate([("functions", style.BLUE), ("kernels", style.ORANGE)]):
        moved = [getattr(results[name], field) for name in names]
        heights = [math.nan if one is None else one.relative for one in moved]  # no bar, rather than one of height 0
        positions = [i + 0.4 * (offset - 0.5) for i in range(len(names))]
        ax.bar(positions, heights, width=0.36, color=colour, label=field)
    ax.set_xticks(range(len(names)), names)
    style.legend(ax)
    return ax
