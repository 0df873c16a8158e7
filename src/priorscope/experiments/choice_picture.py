"""What the experiments on choices share beside their mathematics: groups as a picture, networks as a case says them."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.transforms import ScaledTranslation
from torch import nn

from ..network.initialization import Initialization
from ..plot import style

COLOURS = (style.BLUE, style.VERMILION, style.BLACK)
"""Of the first rule, of the second, and of neither."""
BELOW = -0.45
"""Inches from a panel to the legend beneath it: past the axis label."""


def draw_groups(
    ax: Axes, cells: list[dict[str, Any]], biases: dict[str, Any], outcomes: Sequence[str], words: str = ""
) -> None:
    """Each group's measured share against its predicted probability, one colour an outcome, its bias in the legend.

    words: what the title says beside the number of networks.
    """
    networks = sum(cell["networks"] for cell in cells)
    style.axes(ax, xlabel="predicted probability of a group", ylabel="share of the trained networks", aspect="equal")
    ax.set_title(f"{networks:,} trained networks{words}", fontsize=9.5)
    ax.plot([0, 1], [0, 1], color=style.BLACK, lw=0.8)
    for j, (outcome, colour) in enumerate(zip(outcomes, COLOURS, strict=True)):
        predicted = [group[j] for cell in cells for group in cell["group_predicted"]]
        measured = [group[j] for cell in cells for group in cell["group_measured"]]
        found = biases[outcome]
        label = f"{outcome}: bias {found['value']:+.3f} ± {found['error']:.3f}"
        ax.plot(predicted, measured, "o", color=colour, ms=3.5, alpha=0.6, mew=0, label=label)
    ax.set_anchor("N")
    below(ax)


def below(ax: Axes, columns: int = 1) -> None:
    """The legend beneath the panel, where it covers no point."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    # In inches, not in shares of the panel: the layout then knows how much room it takes.
    away = ax.transAxes + ScaledTranslation(0, BELOW, figure.dpi_scale_trans)
    style.legend(ax, loc="upper center", bbox_to_anchor=(0.5, 0.0), bbox_transform=away, ncols=columns)


def sizes_in_words(sizes: Sequence[int]) -> str:
    """How many groups have how many points."""
    counts = Counter(sizes)
    return ", ".join(f"{counts[size]} of {size}" for size in sorted(counts, reverse=True))


def described(inits: Mapping[str, Initialization], network: Callable[[str, int, int], nn.Module]) -> dict[str, Any]:
    """Architectures and their laws, as a case file has them."""
    return {
        name: {
            "layers": [str(layer) for layer in network(name, 32, 0).children()],
            "width": "32 here",
            "weight_variance": init.weight_variance,
            "bias_variance": init.bias_variance,
            "parameterization": init.parameterization,
        }
        for name, init in inits.items()
    }
