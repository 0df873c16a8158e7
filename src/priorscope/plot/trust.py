"""Pictures of whether to believe a prediction: what makes a trust score, and a real run beside its prediction."""

from matplotlib.axes import Axes

from ..errors import DataError
from ..generalization.trust import Trust
from ..training.follow import Course
from . import style


def trust(result: Trust, ax: Axes | None = None) -> Axes:
    """What each feature adds to the score's log-odds, the score and its meaning above."""
    if result.score is None:
        raise DataError("plot.trust", f"has no score to show: {result.reason}", "Ask with a pair from infinite_width")
    ax = style.axes(ax, xlabel="added to the log-odds of the score", title=f"Trust {result.score:.2f}")
    shown = {name: value for name, value in result.contributions.items() if value}
    colours = [style.BLUE if value > 0 else style.VERMILION for value in shown.values()]
    ax.barh(range(len(shown)), list(shown.values()), color=colours, height=0.6)
    ax.axvline(0, color=style.BLACK, lw=0.8)
    ax.set_yticks(range(len(shown)), list(shown))
    ax.invert_yaxis()
    return ax


def course(result: Course, ax: Axes | None = None) -> Axes:
    """How far a real run is from its prediction at each step: functions, kernel, band, alignment with the target."""
    ax = style.axes(ax, xlabel="training step", ylabel="relative size, share or cosine")
    at = style.array(result.steps)
    curves = [
        ("functions: share not predicted", result.share, style.BLUE, "o"),
        ("own kernel: relative change", result.drift, style.ORANGE, "s"),
        ("own kernel: alignment with the target", result.alignment, style.PURPLE, "D"),
    ]
    if result.outside is not None:
        curves.append(("outputs outside the 99 % band", result.outside, style.GREEN, "^"))
    for label, values, colour, marker in curves:
        ax.plot(at, style.array(values), marker=marker, ms=4, lw=1.6, color=colour, label=label)
    ax.set_xscale("symlog", linthresh=1)
    ax.set_xlim(left=0)
    ax.set_ylim(bottom=0)
    style.legend(ax)
    return ax
