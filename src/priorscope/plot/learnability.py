"""Pictures of what is learned from how many samples."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from torch import Tensor

from ..errors import DataError
from ..generalization.learnability import Learnability
from . import style


def learning_curve(
    result: Learnability | Mapping[str, Learnability],
    ax: Axes | None = None,
    *,
    measured: tuple[Sequence[int], Sequence[float], Sequence[float]] | None = None,
) -> Axes:
    """Expected test error against the number of training samples, and what was measured, with standard errors.

    Args:
        result: one result of several n, or {name: result}.
        measured: (n, mean test error, its standard error).
    """
    results = {"predicted": result} if isinstance(result, Learnability) else dict(result)
    ax = style.axes(ax, xlabel="training samples n", ylabel="test error (mean square)", xscale="log", yscale="log")
    for colour, (name, one) in zip(style.COLOURS, results.items(), strict=False):
        if one.n.ndim == 0:
            raise DataError("this learning curve", "has one n", "Give several: learning_curve(..., n=[10, 100])")
        ax.plot(style.array(one.n), style.array(one.error), color=colour, lw=1.8, label=name)
    if measured is not None:
        n, error, spread = measured
        label = "measured (± standard error)"
        ax.errorbar(n, error, spread, fmt="o", color=style.BLACK, ms=4, capsize=3, label=label, zorder=5)
    style.legend(ax)
    return ax


def learnability(
    result: Learnability,
    ax: Axes | None = None,
    *,
    modes: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
) -> Axes:
    """The learnability of each mode: against n for some of them, or for one n against the mode.

    Args:
        modes: which, by their place from 0; default the first nine.
        names: of these modes.
    """
    values: Tensor = result.learnability
    ax = style.axes(ax, ylabel="learnability L = λ/(λ + κ)", ylim=(-0.03, 1.03))
    if values.ndim == 1:
        ax.set_xlabel("mode (1 = first)")
        ax.plot(range(1, len(values) + 1), style.array(values), "o-", ms=3.5, color=style.BLUE, lw=1.2)
        return ax
    ax.set(xlabel="training samples n", xscale="log")
    shown = list(range(min(values.shape[1], 9))) if modes is None else list(modes)
    labels = [f"mode {mode + 1}" for mode in shown] if names is None else names
    for i, (mode, label) in enumerate(zip(shown, labels, strict=True)):
        colour = style.plt.get_cmap("cividis")(0.9 * i / max(1, len(shown) - 1))
        ax.plot(style.array(result.n), style.array(values[:, mode]), color=colour, lw=1.6, label=label)
    style.legend(ax)
    return ax
