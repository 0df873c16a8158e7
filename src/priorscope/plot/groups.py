"""Pictures of inputs that have groups: who is similar to whom, and which group carries a prediction."""

from collections.abc import Sequence
from itertools import groupby

import torch
from matplotlib.axes import Axes
from torch import Tensor

from ..beliefs.shares import GroupShares, Similar
from ..errors import DataError
from . import style

MOST_NAMED = 24
"""More groups than this stay without names."""

MOST_COLOURED = len(style.COLOURS)


def by_group(
    similarity: Tensor, groups: Sequence[str] | None = None, ax: Axes | None = None, *, label: str = "cosine"
) -> Axes:
    """Similarities between inputs (n, n) as a heat map, a frame around each group.

    The colours, light to dark in any kind of colour vision, span the 1st to the 99th percentile of different inputs,
    so that pictures of two similarities are compared by pattern, not by level.

    Args:
        similarity: (n, n), in the order of drawing.
        groups: n names, those of a group in a row; or None.

    Raises:
        DataError: no square matrix of at least 2 inputs, or groups that do not fit it.
    """
    if similarity.ndim != 2 or similarity.shape[0] != similarity.shape[1] or len(similarity) < 2:
        shape = tuple(similarity.shape)
        raise DataError("the similarities", f"have shape {shape}", "Draw a square matrix of at least 2 inputs")
    n = len(similarity)
    if groups is not None and len(groups) != n:
        raise DataError("groups", f"has {len(groups)} names for {n} inputs", "Give one each")
    off = similarity[~torch.eye(n, dtype=torch.bool, device=similarity.device)].detach().to(torch.float64).cpu()
    low, high = torch.quantile(off, torch.tensor([0.01, 0.99], dtype=torch.float64)).tolist()
    ax = style.axes(ax)
    ax.spines[:].set_visible(False)
    image = ax.imshow(style.array(similarity), cmap="cividis", vmin=low, vmax=max(high, low + 1e-9))
    ax.tick_params(length=0)
    ax.set_xticks([])
    ax.set_yticks([])
    if groups is not None:
        _frames(ax, groups)
    bar = ax.figure.colorbar(image, ax=ax, label=label, extend="both", location="bottom", shrink=0.85, pad=0.03)
    bar.ax.tick_params(labelsize=8)
    return ax


def _frames(ax: Axes, groups: Sequence[str]) -> None:
    start, centres, names = 0, [], []
    for name, members in groupby(groups):
        size = len(list(members))
        x = start - 0.5
        ax.plot([x, x + size, x + size, x, x], [x, x, x + size, x + size, x], color="white", lw=0.9)
        centres.append(start + (size - 1) / 2)
        names.append(name if len(name) <= 16 else f"{name[:15]}…")
        start += size
    if len(names) <= MOST_NAMED:
        ax.set_yticks(centres, names, fontsize=7.5)


def similar(
    result: Similar | GroupShares,
    factor: str | None = None,
    ax: Axes | None = None,
    *,
    names: Sequence[str] | None = None,
    output: int | None = None,
) -> Axes:
    """What each group of training points adds to each prediction, as bars; a line where they add up to.

    Without labels the bars are sums of dual weights.

    Args:
        result: of `similar`, or its `.by(factor)`.
        factor: which groups; None where there is one factor alone.
        names: m names of the new points; None for their numbers.
        output: which of several outputs; None for the one where the sum of each point is largest.

    Raises:
        DataError: names, an output or a factor that do not fit; more groups than colours.
    """
    shares = result.by(factor) if isinstance(result, Similar) else result
    bars, label = _bars(shares, output)
    m, g = bars.shape
    if names is not None and len(names) != m:
        raise DataError("names", f"has {len(names)} for {m} points", "Give one each")
    if g > MOST_COLOURED:
        raise DataError("groups", f"are {g}, there are {MOST_COLOURED} colours", "Draw similar.by(...).contributions")
    ax = style.axes(ax, ylabel=label)
    width, handles, lines = 0.8 / g, [], []
    for i, name in enumerate(shares.names):
        place = [row + (i - (g - 1) / 2) * width for row in range(m)]
        text = f"{name} ({int(shares.sizes[i])})"
        handles.append(ax.bar(place, style.array(bars[:, i]), width * 0.92, color=style.COLOURS[i], label=text))
    for row, total in enumerate(bars.sum(1).tolist()):
        lines = ax.plot([row - 0.42, row + 0.42], [total, total], color=style.BLACK, lw=1.6, label="sum")
    ax.axhline(0, color=style.BLACK, lw=0.8)
    ax.set_xticks(range(m), [str(i) for i in range(m)] if names is None else list(names), fontsize=8.5)
    style.legend(
        ax,
        handles=[*handles, *lines],
        title=f"{shares.factor} (training points)",
        title_fontsize=8.5,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=2 if max(map(len, shares.names)) > 8 else min(g + 1, 4),
    )
    return ax


def _bars(shares: GroupShares, output: int | None) -> tuple[Tensor, str]:
    """(m, g) and what it is."""
    put = shares.contributions
    if put is None:
        return shares.weights, "sum of dual weights"
    if put.ndim == 2:
        return put, "contribution to the output"
    if output is not None and not 0 <= output < put.shape[2]:
        raise DataError("output", f"is {output} of {put.shape[2]}", f"Give 0 to {put.shape[2] - 1}, or None")
    if output is not None:
        return put[:, :, output], f"contribution to output {output}"
    best = put.sum(1).argmax(1)
    return put[torch.arange(len(best), device=best.device), :, best], "contribution to the largest output"
