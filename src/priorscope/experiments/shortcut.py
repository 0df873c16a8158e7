"""Which of two predictive features is taken: over a grid of the shortcut's predictivity and availability.

The core feature is right in nine training points of ten and shows with strength 1. New points have both features at
odds: a network follows the core, the shortcut, or in a group of points neither.

Networks are trained at two rates, with momentum. At the fast one they leave their linearisation, at both widths, and
the prediction fails: measured first, and kept. The gentle one was asked afterwards, as a case of its own.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from tqdm import tqdm

from ..network.initialization import Initialization
from ..plot import style
from . import choice, counted
from .choice import Points, Question, question
from .choice_picture import draw_groups
from .counted import Counted
from .experiment import Config, Criterion, Outcome, experiment
from .features import DIRECTIONS, NOISE, SPREAD, Features, features

RULES = ("core", "shortcut")
OUTCOMES = choice.outcomes(RULES)
INIT = Initialization(2.0, 0.1, "ntk")
CORE_PREDICTIVITY, CORE_AVAILABILITY = 0.9, 1.0
PREDICTIVITIES = (0.6, 0.75, 0.9, 1.0)
AVAILABILITIES = (0.5, 1.0, 2.0, 4.0)
TRAIN, NEW, GROUP = 60, 30, 3
MOMENTUM = 0.9
DARK = 0.3
"""How far from ½ a share's colour is so dark that its number is white."""
QUICK: dict[str, Any] = {"widths": [32, 64], "networks": 12}
FAST, GENTLE = "fast", "gentle"
DRAWN = (
    "each cell of the grid has data of its own, drawn with the cell's number as seed: two cells differ by their draw, "
    "too"
)


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


@dataclass(frozen=True)
class Cell:
    """A predictivity and an availability of the shortcut; the cell's number is the seed of its data, too."""

    number: int
    predictivity: float
    availability: float

    @cached_property
    def data(self) -> Features:
        predictivity, availability = (CORE_PREDICTIVITY, self.predictivity), (CORE_AVAILABILITY, self.availability)
        return features(predictivity, availability, TRAIN, NEW, self.number)

    def points(self) -> Points:
        return Points.of(network, INIT, self.data.x)

    def question(self, points: Points, arm: str) -> Question:
        data, how = self.data, ARMS[arm]
        rules = {"core": data.core[data.new], "shortcut": data.shortcut[data.new]}
        return question(points, data.train, data.y, data.new, rules, how.rate, MOMENTUM, how.steps, GROUP)

    def trained(self, asked: Question, arm: str, settings: dict[str, Any], i: int, config: Config) -> Tensor:
        """The outputs of its networks of the i-th width."""
        width, networks = settings["widths"][i], settings["networks"]
        first = config.first(choice.BETWEEN_CELLS * (ARMS[arm].first + 2 * self.number + i + 1))
        path = None
        if config.keep is not None:
            place = f"predictivity-{self.predictivity}_availability-{self.availability}"
            path = config.keep / f"{arm}_{place}_width-{width}_networks-{networks}_seed-{first}.npz"
        return choice.trained(network, INIT, asked, width, networks, first, path, config.progress)


def grid(predictivities: Sequence[float], availabilities: Sequence[float]) -> list[Cell]:
    pairs = itertools.product(predictivities, availabilities)
    return [Cell(number, *pair) for number, pair in enumerate(pairs)]


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
        "between_first_seeds": choice.BETWEEN_CELLS,
        "samples": choice.SAMPLES,
        "null_draws": counted.DRAWS,
        "criterion": {
            "bias": counted.BIAS,
            "in_words": counted.in_words("points", OUTCOMES, "is below 0.03 for each outcome"),
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
    found: dict[str, dict[int, list[Counted]]] = {
        name: {width: [] for width in own["widths"]} for name, own in settings.items()
    }
    cells = grid(predictivities, availabilities)
    for cell in tqdm(cells, desc="shortcut", disable=not config.progress):
        points = cell.points()
        for name, own in settings.items():
            asked = cell.question(points, name)
            for i, width in enumerate(own["widths"]):
                found[name][width].append(Counted.of(asked, cell.trained(asked, name, own, i, config)))
    arms = {name: _arm(name, cells, own, settings[name]["widths"]) for name, own in found.items()}
    criteria = tuple(criterion for found, _, _ in arms.values() for criterion in found)
    notes = (*(note for _, _, found in arms.values() for note in found), DRAWN)
    return Outcome(
        criteria, {"settings": settings, "arms": {name: found for name, (_, found, _) in arms.items()}}, notes
    )


def _arm(
    name: str, grid: Sequence[Cell], cells: dict[int, list[Counted]], widths: Sequence[int]
) -> tuple[list[Criterion], dict[str, Any], list[str]]:
    """One arm's criteria, numbers, and notes."""
    narrow, wide = widths
    judgement = counted.judged("share − probability, root mean square", cells[narrow], cells[wide], (narrow, wide))
    biases = counted.biases(cells[wide], OUTCOMES)
    gap = judgement.criterion
    criteria = [
        Criterion(f"{name}: share − probability, root mean square", gap.at_wide, "<=", gap.threshold, exact=False),
        *counted.bias_criteria(biases, f"{name}: "),
    ]
    total = sum(len(cell.taken) for cell in cells[wide])
    notes = [
        *(f"{name}: {words}" for words in judgement.words()),
        f"{name}: bias, predicted − measured, ± its standard error by network, {total} networks of width {wide}: "
        + counted.told(biases),
        *counted.lost_in_words(name, cells[wide]),
    ]
    numbers = {
        "bias": {outcome: vars(b) for outcome, b in biases.items()},
        "gap": {"narrow": gap.at_narrow, "wide": gap.at_wide, "quantile": gap.quantile},
        "other_laws": judgement.others,
        "cells": [
            {"predictivity": place.predictivity, "availability": place.availability, **cell.numbers()}
            for place, cell in zip(grid, cells[wide], strict=True)
        ],
    }
    return criteria, numbers, notes


def draw(outcome: Outcome) -> Figure:
    """An arm a row: the share of new points that follow the shortcut, predicted and measured; every group."""
    arms = outcome.numbers["arms"]
    figure, axes = plt.subplots(len(arms), 3, figsize=(14.4, 4.9 * len(arms)), layout="constrained", squeeze=False)
    for row, (name, found) in zip(axes, arms.items(), strict=True):
        rate = f"{name} rate, {ARMS[name].rate:g}/λ_max"
        for ax, kind in zip(row, ("predicted", "measured"), strict=False):
            image = _draw_map(ax, found["cells"], f"agreement_{kind}", f"{kind.capitalize()}, {rate}")
        # Below: beside the maps, its label would stand at the third panel's.
        label = "share of new points that follow the shortcut"
        figure.colorbar(image, ax=row[:2].tolist(), label=label, location="bottom", shrink=0.5, pad=0.02, aspect=40)
        draw_groups(row[2], found["cells"], found["bias"], OUTCOMES, f", {rate}")
    figure.suptitle("Each cell of a map has data of its own draw; cells differ by that, too", fontsize=10)
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
            colour = "white" if abs(value - 0.5) > DARK else style.BLACK
            ax.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=9, color=colour)
    ax.set_xticks(range(len(columns)), [f"{column:g}" for column in columns])
    ax.set_yticks(range(len(rows)), [f"{row:g}" for row in rows])
    return image
