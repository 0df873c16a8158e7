"""The picture of a verdict."""

from matplotlib.axes import Axes

from ..generalization.compare import Verdict
from . import style


def verdict(result: Verdict, ax: Axes | None = None) -> Axes:
    """Each candidate's probability to be nearest and to be realised, with 99 % intervals, and the share of neither."""
    ax = style.axes(ax, ylabel="probability", ylim=(0, 1.08))
    names = [*result.names, "neither"]
    for offset, (field, colour) in enumerate([("nearest", style.BLUE), ("realised", style.ORANGE)]):
        values = [getattr(result, field)[name] for name in result.names]
        if field == "realised":
            values.append(result.neither)
        intervals = {
            **result.intervals.get(field, {}),
            **(result.intervals.get("neither", {}) if field == "realised" else {}),
        }
        positions = [i + 0.4 * (offset - 0.5) if i < len(result.names) else i for i in range(len(values))]
        errors = [
            [max(0.0, v - intervals[n][0]) if n in intervals else 0.0 for n, v in zip(names, values, strict=False)],
            [max(0.0, intervals[n][1] - v) if n in intervals else 0.0 for n, v in zip(names, values, strict=False)],
        ]
        colours = [colour] * len(result.names) + ["#999999"] * (len(values) - len(result.names))
        ax.bar(positions, values, width=0.36, color=colours, yerr=errors, ecolor=style.BLACK, label=field)
        for position, value in zip(positions, values, strict=True):
            ax.text(position, value + 0.03, f"{value:.2f}", ha="center", va="bottom", fontsize=8)
    ax.set_xticks(range(len(names)), names)
    style.legend(ax, loc="upper center", ncols=2, bbox_to_anchor=(0.5, 1.12))
    return ax
