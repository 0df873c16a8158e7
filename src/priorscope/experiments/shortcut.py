"""Which of two predictive features is taken: over a grid of the shortcut's predictivity and availability.

The core feature is right in nine training points of ten and shows with strength 1. New points have both features at
odds: a network follows the core, the shortcut, or in a group of points neither.
"""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn
from tqdm import tqdm

from ..network.initialization import Initialization
from ..plot import style
from . import choice
from .choice import Counted, Points, question
from .choice_picture import draw_groups
from .experiment import Config, Criterion, Outcome, experiment
from .features import DIRECTIONS, NOISE, SPREAD, features

RULES = ("core", "shortcut")
OUTCOMES = (*RULES, "neither")
COLOURS = (style.BLUE, style.VERMILION, style.BLACK)
INIT = Initialization(2.0, 0.1, "ntk")
CORE_PREDICTIVITY, CORE_AVAILABILITY = 0.9, 1.0
PREDICTIVITIES = (0.6, 0.75, 0.9, 1.0)
AVAILABILITIES = (0.5, 1.0, 2.0, 4.0)
TRAIN, NEW, GROUP = 60, 30, 3
RATE, MOMENTUM, STEPS = 1.5, 0.9, 60
BIAS = 0.03
SEEDS = 100_000
QUICK: dict[str, Any] = {"widths": [32, 64], "networks": 12}
FULL: dict[str, Any] = {"widths": [128, 256], "networks": 64}


def network(width: int, seed: int) -> nn.Module:
    layers = (nn.Linear(DIRECTIONS, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
    return INIT.apply_(nn.Sequential(*layers), seed)


def cases() -> dict[str, Any]:
    """All that decides a result, as `cases/shortcut.json` has it."""
    return {
        "name": "shortcut",
        "claim": "which of two features networks follow is predicted over the grid of predictivity and availability",
        "data": {
            "directions": DIRECTIONS,
            "spread": SPREAD,
            "noise": NOISE,
            "training points": TRAIN,
            "new points": NEW,
            "group": GROUP,
            "core": {"predictivity": CORE_PREDICTIVITY, "availability": CORE_AVAILABILITY},
            "shortcut": {"predictivity": list(PREDICTIVITIES), "availability": list(AVAILABILITIES)},
            "seed": "the cell's number",
        },
        "layers": [str(layer) for layer in network(32, 0).children()],
        "width": "32 here",
        "initialization": {
            "weight_variance": INIT.weight_variance,
            "bias_variance": INIT.bias_variance,
            "parameterization": INIT.parameterization,
        },
        "training": {"loss": "half_sse", "rate over 1/λ_max": RATE, "momentum": MOMENTUM, "steps": STEPS},
        "full": FULL,
        "quick": QUICK,
        "between_first_seeds": SEEDS,
        "samples": choice.SAMPLES,
        "null_draws": choice.DRAWS,
        "criterion": {
            "bias": BIAS,
            "in_words": "at the wider width: (1) the root mean square, over cells, groups of three new points, and "
            "outcomes (core, shortcut, neither), of share − probability is at most its 99.9 % quantile when as many "
            "functions are drawn from each cell's predicted law, + b/width of the fit a + b/width over both widths "
            "(b < 0 counts as 0, at most the quantile itself); (2) the absolute mean of predicted − measured is below "
            "0.03 for each outcome. The case speaks for the ensemble only where the same gap of the NNGP posterior and "
            "of the NTK posterior exceeds twice the threshold of (1).",
        },
    }


@experiment(
    "shortcut",
    "which of two predictive features networks follow, by predictivity and availability, is known beforehand",
    "Hermann et al. 2024 (2310.16228) (the grid); Lee et al. 2019 (1902.06720) (the prediction)",
    draw=lambda outcome: draw(outcome),
)
def run(config: Config) -> Outcome:
    """The whole grid; few and narrow networks by default."""
    return measure(FULL if config.full else QUICK, PREDICTIVITIES, AVAILABILITIES, config)


def measure(
    settings: dict[str, Any],
    predictivities: tuple[float, ...],
    availabilities: tuple[float, ...],
    config: Config,
) -> Outcome:
    """What `run` reports, on a grid of the shortcut's predictivities and availabilities."""
    cells: dict[int, list[Counted]] = {width: [] for width in settings["widths"]}
    grid = [(p, a) for p in predictivities for a in availabilities]
    for number, (predictivity, availability) in enumerate(tqdm(grid, desc="shortcut", disable=not config.progress)):
        data = features((CORE_PREDICTIVITY, predictivity), (CORE_AVAILABILITY, availability), TRAIN, NEW, number)
        points = Points.of(network, INIT, data.x)
        rules = {"core": data.core[data.new], "shortcut": data.shortcut[data.new]}
        asked = question(points, data.train, data.y, data.new, rules, RATE, MOMENTUM, STEPS, GROUP)
        for i, width in enumerate(settings["widths"]):
            first = SEEDS * (2 * number + i + 1) + config.seed
            path = None
            if config.keep is not None:
                name = f"predictivity-{predictivity}_availability-{availability}_width-{width}"
                path = config.keep / Path(f"{name}_networks-{settings['networks']}_seed-{first}.npz")
            outputs = choice.trained(network, INIT, asked, width, settings["networks"], first, path, config.progress)
            cells[width].append(Counted.of(asked, outputs))
    return _outcome(grid, cells, settings)


def _outcome(grid: list[tuple[float, float]], cells: dict[int, list[Counted]], settings: dict[str, Any]) -> Outcome:
    narrow, wide = settings["widths"]
    judgement = choice.judged("share − probability, root mean square", cells[narrow], cells[wide], (narrow, wide))
    biases = {name: choice.bias(cells[wide], i) for i, name in enumerate(OUTCOMES)}
    criterion = judgement.criterion
    criteria = (
        Criterion("share − probability, root mean square", criterion.at_wide, "<=", criterion.threshold, exact=False),
        *(
            Criterion(f"bias of the probability of {name}", abs(b.value), "<=", BIAS, exact=False)
            for name, b in biases.items()
        ),
    )
    total = sum(len(cell.taken) for cell in cells[wide])
    told = ", ".join(f"{name} {b.value:+.4f} ± {b.error:.4f}" for name, b in biases.items())
    notes = (
        *judgement.words(),
        f"bias, predicted − measured, ± its standard error by network, {total} networks of width {wide}: {told}",
    )
    numbers = {
        "settings": settings,
        "bias": {name: vars(b) for name, b in biases.items()},
        "gap": {"narrow": criterion.at_narrow, "wide": criterion.at_wide, "quantile": criterion.quantile},
        "other_laws": judgement.others,
        "cells": [
            {"predictivity": p, "availability": a, **cell.numbers()}
            for (p, a), cell in zip(grid, cells[wide], strict=True)
        ],
    }
    return Outcome(criteria, numbers, notes)


def draw(outcome: Outcome) -> Figure:
    """The share of new points that follow the shortcut, predicted and measured; and every group's probabilities."""
    figure, axes = plt.subplots(1, 3, figsize=(14.0, 4.2), layout="constrained")
    cells = outcome.numbers["cells"]
    for ax, kind, title in zip(axes, ("predicted", "measured"), ("Predicted", "Measured"), strict=False):
        image = _draw_map(ax, cells, f"agreement_{kind}", title)
    figure.colorbar(
        image, ax=axes[:2].tolist(), label="share of new points that follow the shortcut", shrink=0.85, pad=0.02
    )
    draw_groups(axes[2], cells, outcome.numbers["bias"], OUTCOMES, COLOURS)
    return figure


def _draw_map(ax: Axes, cells: list[dict[str, Any]], key: str, title: str) -> Any:
    style.axes(ax, title=title, xlabel="availability of the shortcut (core: 1)")
    ax.set_ylabel(f"predictivity of the shortcut (core: {CORE_PREDICTIVITY})")
    rows = sorted({cell["predictivity"] for cell in cells})
    columns = sorted({cell["availability"] for cell in cells})
    values = torch.full((len(rows), len(columns)), torch.nan)
    for cell in cells:
        values[rows.index(cell["predictivity"]), columns.index(cell["availability"])] = cell[key][1]
    image = ax.imshow(values.numpy(), cmap=style.DIVERGING, vmin=0, vmax=1, origin="lower", aspect="auto")
    for i, row in enumerate(values.tolist()):
        for j, value in enumerate(row):
            ax.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=9)
    ax.set_xticks(range(len(columns)), [f"{column:g}" for column in columns])
    ax.set_yticks(range(len(rows)), [f"{row:g}" for row in rows])
    return image
