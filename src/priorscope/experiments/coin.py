"""Go to the coin, or go to the corner? Predicted before training, and counted among really trained networks.

In training the coin always lies in the far corner, so that both rules say the same. Coordinates go into a fully
connected network; pictures of the grid into convolutional networks with global pooling, with zero padding, which leaks
the place, and with circular padding, which sees no more than the way from agent to coin, modulo the grid.
"""

from functools import partial
from pathlib import Path
from typing import Any, Literal

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from tqdm import tqdm

from ..network.initialization import Initialization
from ..plot import style
from . import choice
from .choice import Counted, Points, question
from .choice_picture import described, draw_groups
from .experiment import Config, Criterion, Outcome, experiment
from .grid import SIDE, World, coordinates, pictures, world

RULES = ("coin", "corner")
OUTCOMES = (*RULES, "neither")
COLOURS = (style.BLUE, style.VERMILION, style.BLACK)
INITS = {
    "coordinates, fully connected": Initialization(2.0, 0.1, "ntk"),
    "pictures, zero padding": Initialization(2.0, 0.0, "ntk"),
    "pictures, circular padding": Initialization(2.0, 0.0, "ntk"),
}
TRAIN, NEW, GROUP = 24, 36, 3
COUNTS = (0, 5, 12, 40)
RATE, MOMENTUM, STEPS = 1.5, 0.9, 120
BIAS, NETWORKS = 0.03, 2000
SEEDS = 100_000
"""Between the first seeds of two cells."""
QUICK: dict[str, Any] = {
    "worlds": [0],
    "widths": {"fully connected": 256, "convolutional": 16},
    "networks": {"fully connected": 24, "convolutional": 8},
}
FULL: dict[str, Any] = {
    "worlds": [0, 1],
    "widths": {"fully connected": 256, "convolutional": 64},
    "networks": {"fully connected": 220, "convolutional": 16},
}


def kind(architecture: str) -> str:
    return "fully connected" if "fully" in architecture else "convolutional"


def inputs(architecture: str, world: World) -> Tensor:
    return coordinates(world) if "fully" in architecture else pictures(world)


def network(architecture: str, width: int, seed: int) -> nn.Module:
    """Two hidden layers of this width, drawn from the architecture's initialization."""
    if kind(architecture) == "fully connected":
        layers: list[nn.Module] = [nn.Linear(4, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
    else:
        padding: Literal["zeros", "circular"] = "zeros" if "zero" in architecture else "circular"
        first = nn.Conv2d(2, width, 5, padding=2, padding_mode=padding)
        second = nn.Conv2d(width, width, 3, padding=1, padding_mode=padding)
        layers = [first, nn.ReLU(), second, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return INITS[architecture].apply_(nn.Sequential(*layers, nn.Linear(width, 1)), seed)


def cases() -> dict[str, Any]:
    """All that decides a result, as `cases/coin.json` has it."""
    return {
        "name": "coin",
        "claim": "the probability of coin, corner and neither is predicted without bias, for 0 to 40 telling examples",
        "grid": {"side": SIDE, "training states": TRAIN, "new states": NEW, "group": GROUP, "added": list(COUNTS)},
        "architectures": described(INITS, network),
        "training": {"loss": "half_sse", "rate over 1/λ_max": RATE, "momentum": MOMENTUM, "steps": STEPS},
        "full": FULL,
        "quick": QUICK,
        "between_first_seeds": SEEDS,
        "samples": choice.SAMPLES,
        "criterion": {
            "bias": BIAS,
            "networks": NETWORKS,
            "in_words": "over all groups of three new states that the kernel can tell from all training states, of all "
            "networks of all architectures, worlds and counts: the absolute mean of predicted − measured, of coin, of "
            "corner and of neither, each below 0.03, over at least 2,000 networks. Standard errors are clustered by "
            "network and printed. A network takes a rule in a group if it has its sign at all states of it.",
        },
    }


@experiment(
    "coin",
    "whether networks go to the coin or to the corner, and how many telling examples turn them, is known beforehand",
    "Langosco et al. 2022 (2105.14111) (the coin); Lee et al. 2019 (1902.06720) (the prediction)",
    draw=lambda outcome: draw(outcome),
)
def run(config: Config) -> Outcome:
    """Every architecture, world and number of added examples; few and narrow networks by default."""
    return measure(FULL if config.full else QUICK, COUNTS, config)


def measure(settings: dict[str, Any], counts: tuple[int, ...], config: Config) -> Outcome:
    """What `run` reports, with these widths, worlds and numbers of networks."""
    cells: dict[tuple[str, int, int], Counted] = {}
    order = [(a, w, k) for a in INITS for w in settings["worlds"] for k in counts]
    points: dict[tuple[str, int], Points] = {}
    for place, (architecture, number, added) in enumerate(tqdm(order, desc="coin", disable=not config.progress)):
        of = world(TRAIN, max(COUNTS), NEW, number)
        make = partial(network, architecture)
        if (architecture, number) not in points:
            points[architecture, number] = Points.of(make, INITS[architecture], inputs(architecture, of))
        rows = torch.cat([of.train, of.added[:added]])
        rules = {"coin": of.coin[of.new], "corner": of.corner[of.new]}
        asked = question(points[architecture, number], rows, of.coin[rows], of.new, rules, RATE, MOMENTUM, STEPS, GROUP)
        width, networks = (settings[each][kind(architecture)] for each in ("widths", "networks"))
        first = SEEDS * (place + 1) + config.seed
        name = f"{architecture.replace(', ', '-').replace(' ', '-')}_world-{number}_added-{added}"
        path = None if config.keep is None else config.keep / _file(name, width, networks, first)
        outputs = choice.trained(make, INITS[architecture], asked, width, networks, first, path, config.progress)
        cells[architecture, number, added] = Counted.of(asked, outputs)
    return _outcome(cells, settings, counts)


def _file(name: str, width: int, networks: int, seed: int) -> Path:
    return Path(f"{name}_width-{width}_networks-{networks}_seed-{seed}.npz")


def _outcome(cells: dict[tuple[str, int, int], Counted], settings: dict[str, Any], counts: tuple[int, ...]) -> Outcome:
    every = list(cells.values())
    biases = {name: choice.bias(every, i) for i, name in enumerate(OUTCOMES)}
    total = sum(len(cell.taken) for cell in every)
    criteria = [
        Criterion(f"bias of the probability of {name}", abs(b.value), "<=", BIAS, exact=False)
        for name, b in biases.items()
    ]
    criteria.append(Criterion("networks in all", total, ">=", NETWORKS, exact=False))
    by_architecture = {a: {name: vars(choice.bias(_of(cells, a), i)) for i, name in enumerate(OUTCOMES)} for a in INITS}
    told = ", ".join(f"{name} {b.value:+.4f} ± {b.error:.4f}" for name, b in biases.items())
    gap, quantile = choice.gap(every), choice.gap_quantile(every)
    inside = "inside" if gap <= quantile else "beyond"
    notes = (
        f"bias, predicted − measured, ± its standard error clustered by network, {total} networks: {told}",
        *(
            f"{a}: " + ", ".join(f"{name} {b['value']:+.4f} ± {b['error']:.4f}" for name, b in found.items())
            for a, found in by_architecture.items()
        ),
        f"root mean square of share − probability over all groups and outcomes: {gap:.4f}, {inside} the 99.9 % "
        f"quantile {quantile:.4f} of the predicted law (no criterion: these widths are finite)",
        *_seen_alike(cells),
    )
    numbers = {
        "settings": settings,
        "counts": counts,
        "bias": {name: vars(b) for name, b in biases.items()},
        "bias_by_architecture": by_architecture,
        "gap": gap,
        "gap_quantile": quantile,
        "cells": [{"architecture": a, "world": w, "added": k, **cell.numbers()} for (a, w, k), cell in cells.items()],
    }
    return Outcome(tuple(criteria), numbers, notes)


def _of(cells: dict[tuple[str, int, int], Counted], architecture: str) -> list[Counted]:
    return [cell for (a, _, _), cell in cells.items() if a == architecture]


def _seen_alike(cells: dict[tuple[str, int, int], Counted]) -> tuple[str, ...]:
    """What an architecture cannot tell apart, in words."""
    notes = []
    for architecture in INITS:
        own = _of(cells, architecture)
        dropped, contradicted = sum(c.question.dropped for c in own), sum(c.question.contradicted for c in own)
        if dropped:
            asked = sum(len(c.question.new) for c in own)
            notes.append(f"{architecture}: {dropped} of {asked} new states dropped that it takes for training states")
        if contradicted:
            total = sum(len(c.question.train) for c in own)
            cause = "that it cannot tell from one with the other label; no network can fit both, it learns their mean"
            notes.append(f"{architecture}: {contradicted} of {total} training states {cause}")
    return tuple(notes)


def draw(outcome: Outcome) -> Figure:
    """Above: probabilities against added examples, an architecture a panel. Below: every group, and the biases."""
    names = list(INITS)
    figure, axes = plt.subplots(2, len(names), figsize=(12.4, 7.4), layout="constrained")
    for i, name in enumerate(names):
        cells = [cell for cell in outcome.numbers["cells"] if cell["architecture"] == name]
        _draw_curves(axes[0, i], name, cells, outcome.numbers["counts"])
        draw_groups(axes[1, i], cells, outcome.numbers["bias_by_architecture"][name], OUTCOMES, COLOURS)
    style.legend(axes[0, 0], loc="upper left", bbox_to_anchor=(0.0, 0.93))
    return figure


def _draw_curves(ax: Axes, name: str, cells: list[dict[str, Any]], counts: tuple[int, ...]) -> None:
    style.axes(
        ax, title=name, xlabel="telling examples added", ylabel="probability, mean over groups", ylim=(-0.03, 1.03)
    )
    places = range(len(counts))
    for j, (outcome, colour) in enumerate(zip(OUTCOMES, COLOURS, strict=True)):
        own = [[cell for cell in cells if cell["added"] == k] for k in counts]
        predicted = [_mean([cell["predicted"][j] for cell in each]) for each in own]
        measured = [_mean([cell["measured"][j] for cell in each]) for each in own]
        error = [_mean([cell["error"][j] ** 2 for cell in each]) ** 0.5 / len(each) ** 0.5 for each in own]
        shown = ("predicted", "measured, ± 2 standard errors") if outcome == "neither" else (None, None)
        ax.plot(places, predicted, color=colour, lw=1.6, label=outcome)
        if shown[1]:
            ax.errorbar([], [], [], fmt="o", color=style.BLACK, capsize=3, label=shown[1])
        ax.errorbar(places, measured, [2 * e for e in error], fmt="o", color=colour, capsize=3, ms=5)
    ax.set_xticks(list(places), [str(k) for k in counts])


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
