"""The picture of similarities between inputs that have groups."""

from collections.abc import Sequence
from itertools import groupby

import torch
from matplotlib.axes import Axes
from torch import Tensor

from ..errors import DataError
from . import style

MOST_NAMED = 24
"""More groups than this stay without names."""


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
