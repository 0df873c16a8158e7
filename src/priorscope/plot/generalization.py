"""Pictures of verdicts: of one, of many architectures, and along added examples."""

import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from ..errors import DataError
from ..generalization.audit import Audit
from ..generalization.compare import Verdict
from ..generalization.crossover import Crossover, Kind
from . import style

SHARE = LinearSegmentedColormap.from_list("share", ["#ffffff", style.BLUE])
GREY = "#999999"


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
        colours = [colour] * len(result.names) + [GREY] * (len(values) - len(result.names))
        ax.bar(positions, values, width=0.36, color=colours, yerr=errors, ecolor=style.BLACK, label=field)
        for position, value in zip(positions, values, strict=True):
            ax.text(position, value + 0.03, _short(value, 2), ha="center", va="bottom", fontsize=8)
    ax.set_xticks(range(len(names)), names)
    style.legend(ax, loc="upper center", ncols=2, bbox_to_anchor=(0.5, 1.12))
    return ax


def audit(result: Audit, ax: Axes | None = None) -> Axes:
    """Architectures × hypotheses: the probability that each is realised, or none, with its 99 % interval."""
    names = (*result.names, "neither")
    if ax is None:
        size = (2.2 + 1.35 * len(names), 1.3 + 0.55 * len(result.architectures))
        ax = style.plt.subplots(figsize=size, layout="constrained")[1]
    ax = style.axes(ax, title="Probability that a trained network realises it (99 % interval)")
    ax.imshow(style.array(result.realised), cmap=SHARE, vmin=0, vmax=1, aspect="auto")
    for i, architecture in enumerate(result.architectures):
        for j, name in enumerate(names):
            p, (low, high) = float(result.realised[i, j]), result.interval(architecture, name)
            colour = "white" if p > 0.55 else style.BLACK
            text = f"{_short(p)}\n"
            ax.text(j, i, text, ha="center", va="center", color=colour, fontsize=9)
            interval = f"\n[{_short(low)}, {_short(high)}]"
            ax.text(j, i, interval, ha="center", va="center", color=colour, fontsize=7)
    ax.set_xticks(range(len(names)), names)
    ax.set_yticks(range(len(result.architectures)), result.architectures)
    ax.tick_params(length=0)
    ax.title.set_fontsize(9)
    ax.spines[:].set_visible(False)
    return ax


def _short(p: float, digits: int = 3) -> str:
    """So many digits behind the point; of what is smaller, its size."""
    return f"{p:.{digits}f}" if p >= 10.0**-digits or p == 0 else f"{p:.1e}"


def crossover(result: Crossover, ax: Axes | None = None, *, kind: Kind = "realised") -> Axes:
    """The probability of each generalisation against the examples added: mean and middle 90 % of the data sets.

    With two candidates or more, the crossing of the first two is marked, with its 95 % interval of ten
    data sets or more.
    """
    if kind not in ("realised", "nearest"):
        raise DataError("kind", f"is {kind!r}", 'Give "realised" or "nearest"')
    label = {"realised": "probability to be realised", "nearest": "probability to be nearest"}[kind]
    ax = style.axes(ax, xlabel="disambiguating examples added", ylabel=label, ylim=(-0.02, 1.05))
    at = style.array(result.counts)
    curves = [(name, getattr(result, kind)[..., i], style.COLOURS[i % 7]) for i, name in enumerate(result.names)]
    if kind == "realised":
        curves.append(("neither", result.neither, GREY))
    for name, values, colour in curves:
        low, high = (style.array(q) for q in values.quantile(torch.tensor([0.05, 0.95]).to(values), dim=0))
        ax.fill_between(at, low, high, color=colour, alpha=0.15, lw=0)
        ax.plot(at, style.array(values.mean(0)), "o-", color=colour, ms=3.5, lw=1.6, label=name)
    if len(result.names) > 1:
        crossing = result.crossing(kind=kind)
        if crossing.number is not None:
            told = f"{' and '.join(result.names[:2])} cross at {crossing.number:.1f} examples"
            if crossing.interval is not None:
                low, high = crossing.interval
                ax.axvspan(low, high, color=style.BLACK, alpha=0.08, lw=0)
                told += f" (95 %: {low:.1f} to {high:.1f})"
            ax.axvline(crossing.number, color=style.BLACK, lw=1, ls="--")
            ax.set_title(told, fontsize=9)
    style.legend(ax)
    return ax
