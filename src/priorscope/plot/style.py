"""One look for all pictures: colours that colour-blind people can tell apart, and plain axes."""

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from torch import Tensor

# Okabe and Ito 2008, darkest first after black.
BLACK, BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, YELLOW = (
    "#222222",
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#F0E442",
)
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
DIVERGING = LinearSegmentedColormap.from_list("priorscope", [BLUE, "#f7f7f7", VERMILION])
SIZE = (5.6, 3.6)


def axes(ax: Axes | None = None, **labels: Any) -> Axes:
    """The given axes, or new ones, with light spines; labels go to Axes.set."""
    if ax is None:
        ax = plt.subplots(figsize=SIZE, layout="constrained")[1]
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=9)
    ax.set(**labels)
    return ax


def array(values: Any) -> Any:
    """A numpy array for matplotlib."""
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else values


def legend(ax: Axes, **options: Any) -> None:
    ax.legend(frameon=False, fontsize=8.5, **options)
