"""Which of two predictive features is taken: over a grid of the shortcut's predictivity and availability.

The core feature is right in nine training points of ten and shows with strength 1. New points have both features at
odds: a network follows the core, the shortcut, or in a group of points neither.

Networks are trained at two rates, with momentum. At the fast one they leave their linearisation, however wide they are
here, and the prediction fails: measured first, and kept. The gentle one was asked afterwards, as a case of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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
MOMENTUM = 0.9
BIAS = 0.03
SEEDS = 100_000
QUICK: dict[str, Any] = {"widths": [32, 64], "networks": 12}
FAST, GENTLE = "fast", "gentle"


@dataclass(frozen=True)
class Arm:
    """How networks are trained, and how many of which widths in a full run.

    rate: in units of 1/λ_max. first: how many cells' seeds lie before its own.
    """

    rate: float
    steps: int
    full: dict[str, Any]
    first: int


ARMS = {
    FAST: Arm(1.5, 60, {"widths": [128, 256], "networks": 64}, 0),
    GENTLE: Arm(0.3, 300, {"widths": [256, 512], "networks": 64}, 1000),
}


def network(width: int, seed: int) -> nn.Module:
    layers = (nn.Linear(DIRECTIONS, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
    return INIT.apply_(nn.Sequential(*layers), seed)


def cases(arm: str = FAST) -> dict[str, Any]:
    """All that decides a result: of the fast arm in `cases/shortcut.json`, of the gentle one in its own file."""
    claim = "which of two features networks follow is predicted over the grid of predictivity and availability"
    how = ARMS[arm]
    found = {
        "name": "shortcut",
        "claim": claim,
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
        "training": {"loss": "half_sse", "rate over 1/λ_max": how.rate, "momentum": MOMENTUM, "steps": how.steps},
        "full": how.full,
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
    if arm == GENTLE:
        later = {
            "name": "shortcut-gentle",
            "claim": f"{claim}, where the learning rate is gentle",
            "cells_before_the_first_seed": how.first,
            "chosen_after_results": "the rate, the steps and the widths, after the fast arm had failed: at the gentle "
            "rate, four cells of other data and networks came nearer to the prediction. This grid's networks were "
            "not trained before.",
        }
        found.update(later)
    return found


@experiment(
    "shortcut",
    "which of two predictive features networks follow, by predictivity and availability, is known beforehand",
    "Hermann et al. 2024 (2310.16228) (the grid); Lee et al. 2019 (1902.06720) (the prediction)",
    draw=lambda outcome: draw(outcome),
)
def run(config: Config) -> Outcome:
    """The whole grid, at both rates; few and narrow networks by default."""
    settings = {name: arm.full if config.full else QUICK for name, arm in ARMS.items()}
    return measure(settings, PREDICTIVITIES, AVAILABILITIES, config)


def measure(
    settings: dict[str, dict[str, Any]],
    predictivities: tuple[float, ...],
    availabilities: tuple[float, ...],
    config: Config,
) -> Outcome:
    """What `run` reports, on a grid of the shortcut's predictivities and availabilities.

    settings: {arm: {"widths": [narrow, wide], "networks": of each cell}}.
    """
    grid = [(p, a) for p in predictivities for a in availabilities]
    cells: dict[str, dict[int, list[Counted]]] = {
        name: {width: [] for width in own["widths"]} for name, own in settings.items()
    }
    for number, (predictivity, availability) in enumerate(tqdm(grid, desc="shortcut", disable=not config.progress)):
        data = features((CORE_PREDICTIVITY, predictivity), (CORE_AVAILABILITY, availability), TRAIN, NEW, number)
        points = Points.of(network, INIT, data.x)
        rules = {"core": data.core[data.new], "shortcut": data.shortcut[data.new]}
        for name, own in settings.items():
            arm, networks = ARMS[name], own["networks"]
            asked = question(points, data.train, data.y, data.new, rules, arm.rate, MOMENTUM, arm.steps, GROUP)
            for i, width in enumerate(own["widths"]):
                first = SEEDS * (arm.first + 2 * number + i + 1) + config.seed
                path = None
                if config.keep is not None:
                    place = f"predictivity-{predictivity}_availability-{availability}"
                    path = config.keep / f"{name}_{place}_width-{width}_networks-{networks}_seed-{first}.npz"
                outputs = choice.trained(network, INIT, asked, width, networks, first, path, config.progress)
                cells[name][width].append(Counted.of(asked, outputs))
    arms = {name: _arm(name, grid, own, settings[name]["widths"]) for name, own in cells.items()}
    criteria = tuple(criterion for found, _, _ in arms.values() for criterion in found)
    notes = tuple(note for _, _, found in arms.values() for note in found)
    return Outcome(
        criteria, {"settings": settings, "arms": {name: found for name, (_, found, _) in arms.items()}}, notes
    )


def _arm(
    name: str, grid: list[tuple[float, float]], cells: dict[int, list[Counted]], widths: Sequence[int]
) -> tuple[list[Criterion], dict[str, Any], list[str]]:
    """One arm's criteria, numbers, and notes."""
    narrow, wide = widths
    judgement = choice.judged("share − probability, root mean square", cells[narrow], cells[wide], (narrow, wide))
    biases = {outcome: choice.bias(cells[wide], i) for i, outcome in enumerate(OUTCOMES)}
    gap = judgement.criterion
    criteria = [
        Criterion(f"{name}: share − probability, root mean square", gap.at_wide, "<=", gap.threshold, exact=False),
        *(
            Criterion(f"{name}: bias of the probability of {outcome}", abs(b.value), "<=", BIAS, exact=False)
            for outcome, b in biases.items()
        ),
    ]
    total = sum(len(cell.taken) for cell in cells[wide])
    told = ", ".join(f"{outcome} {b.value:+.4f} ± {b.error:.4f}" for outcome, b in biases.items())
    notes = [
        *(f"{name}: {words}" for words in judgement.words()),
        f"{name}: bias, predicted − measured, ± its standard error by network, {total} networks of width {wide}: "
        + told,
    ]
    numbers = {
        "bias": {outcome: vars(b) for outcome, b in biases.items()},
        "gap": {"narrow": gap.at_narrow, "wide": gap.at_wide, "quantile": gap.quantile},
        "other_laws": judgement.others,
        "cells": [
            {"predictivity": p, "availability": a, **cell.numbers()}
            for (p, a), cell in zip(grid, cells[wide], strict=True)
        ],
    }
    return criteria, numbers, notes


def draw(outcome: Outcome) -> Figure:
    """An arm a row: the share of new points that follow the shortcut, predicted and measured; every group."""
    arms = outcome.numbers["arms"]
    figure, axes = plt.subplots(len(arms), 3, figsize=(14.0, 4.2 * len(arms)), layout="constrained", squeeze=False)
    for row, (name, found) in zip(axes, arms.items(), strict=True):
        rate = f"{name} rate, {ARMS[name].rate:g}/λ_max"
        for ax, kind in zip(row, ("predicted", "measured"), strict=False):
            image = _draw_map(ax, found["cells"], f"agreement_{kind}", f"{kind.capitalize()}, {rate}")
        label = "share of new points that follow the shortcut"
        figure.colorbar(image, ax=row[:2].tolist(), label=label, shrink=0.85, pad=0.02)
        draw_groups(row[2], found["cells"], found["bias"], OUTCOMES, COLOURS)
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
