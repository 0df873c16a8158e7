"""Pictures of data points themselves: images as images, rows as rows."""

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from torch import Tensor

from . import style


def images(points: Tensor, ax: Axes, titles: Sequence[str] = (), gap: int = 1) -> Axes:
    """A strip of images (n, c, h, w) or (n, h, w), side by side, each on its own grey scale."""
    pictures = points.mean(1) if points.ndim == 4 else points
    n, height, width = pictures.shape
    strip = torch.full((height, n * (width + gap) - gap), float("nan"), dtype=torch.float64)
    for i, picture in enumerate(pictures.to(torch.float64)):
        low, high = picture.min(), picture.max()
        strip[:, i * (width + gap) : i * (width + gap) + width] = (picture - low) / (high - low).clamp_min(1e-12)
    ax.imshow(style.array(strip), cmap="gray_r", interpolation="nearest", vmin=0, vmax=1)
    ax.set_axis_off()
    for i, title in enumerate(titles):
        ax.text(i * (width + gap) + (width - 1) / 2, -0.09 * height - 0.5, title, ha="center", va="bottom", fontsize=8)
    return ax


def rows(points: Tensor, ax: Axes, features: Sequence[str], labels: Sequence[str] = ()) -> Axes:
    """Standardised rows (n, d) as a heat map: one line a point, one column a feature, colours centred on 0."""
    size = 2.5
    ax.imshow(style.array(points), cmap=style.DIVERGING, vmin=-size, vmax=size, aspect="auto")
    ax.set_xticks(range(points.shape[1]), [name[:18] for name in features], rotation=40, ha="right", fontsize=7)
    ax.set_yticks(range(len(labels)), labels, fontsize=7)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return ax
