"""Predicting against counting where the choices are: go to the coin or the corner, follow the core or the shortcut.

The networks are those of the experiments `coin` and `shortcut`, cell by cell, kept where these keep theirs. Each is
held out in turn, and m of the others are counted; convolutional ones are few.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor
from tqdm import tqdm

from . import coin, shortcut
from .choice import Points, Question
from .experiment import Config
from .scores import COUNTED, JUDGED, REPEATS, SMOOTHING, criterion, row, score_of_others, seconds

COORDINATES, CONVOLUTIONS = "coin, coordinates", "coin, convolutions"
FAST, GENTLE = "shortcut, fast", "shortcut, gentle"
ARMS = {FAST: shortcut.FAST, GENTLE: shortcut.GENTLE}
FULL: dict[str, Any] = {
    COORDINATES: {"worlds": [0, 1], "added": [0, 5, 12, 40]},
    CONVOLUTIONS: {"worlds": [0], "added": [0, 12]},
    FAST: {"predictivities": list(shortcut.PREDICTIVITIES), "availabilities": list(shortcut.AVAILABILITIES)},
    GENTLE: {"predictivities": [0.75, 0.9], "availabilities": [1.0, 2.0]},
}
QUICK: dict[str, Any] = {
    COORDINATES: {"worlds": [0], "added": [12]},
    FAST: {"predictivities": [0.75], "availabilities": [1.0, 2.0]},
}
TIMED = {"fully connected": 10, "convolutional": 2}
"""Networks trained to know what one costs."""


def cases() -> dict[str, Any]:
    """All that decides a result, as `cases/counting-choices.json` has it."""
    return {
        "name": "counting-choices",
        "claim": "predicted probabilities score better than training 50 networks and counting, at a tenth of the cost: "
        "in each family of tasks by itself",
        "networks": "those of coin.json, shortcut.json and shortcut-gentle.json, of the wider width; of the Boolean "
        "tasks and of two features, those of counting.json",
        "full": FULL,
        "quick": QUICK,
        "timed": TIMED,
        "criterion": criterion(
            "for each family (the Boolean tasks, two features, the coin from coordinates, the coin from "
            "pictures, the shortcut's grid at the fast rate, the middle of it at the gentle one): the prediction's "
            "mean log score is at least that of counting 50 networks by the better of the two smoothing rules; and a "
            "prediction takes at most a tenth of the CPU seconds of training these. A statement is what a network does "
            "in a group of points: one rule, the other, or neither. Each network is held out in turn; in expectation "
            "over which of the others are counted. Where there are not 50 others, all of them are counted. Networks "
            "are trained in float32."
        ),
        "chosen_after_results": "the families, after networks of the coin and of the shortcut had been seen, and after "
        "an estimate from them with Jeffreys' rule: predicted against counted, coin from coordinates −0.439 against "
        "−0.440 with 50 networks; zero padding −0.967 against −0.768 with 1; circular padding −0.985 against −0.770 "
        "with 1; shortcut, fast, −0.394 against −0.388 with 20. Not known were the gentle rate's scores and any costs.",
    }


@dataclass(frozen=True, eq=False)
class Asked:
    """One cell of a family: how its prediction is made, and how its networks are trained.

    trained: from a question, settings and config. brief: the settings with as few networks as are timed.
    keeper: the experiment that keeps the networks.
    """

    family: str
    name: str
    points: Callable[[], Points]
    question: Callable[[Points], Question]
    trained: Callable[[Question, dict[str, Any], Config], Tensor]
    settings: dict[str, Any]
    brief: dict[str, Any]
    keeper: str
    timed: int

    def predict(self) -> Tensor:
        """All of it, from the kernels on."""
        return self.question(self.points()).probability

    def networks(self, question: Question, config: Config) -> Tensor:
        """Kept where the experiment that they are of keeps them: whoever comes first trains them."""
        keep = None if config.keep is None else config.keep.with_name(f"{self.keeper}-kept")
        return self.trained(question, self.settings, replace(config, keep=keep))

    def train(self, question: Question, config: Config) -> Tensor:
        """As few networks as are timed."""
        return self.trained(question, self.brief, replace(config, keep=None, progress=False))


def asked(full: bool) -> list[Asked]:
    """All cells, family after family."""
    found = []
    for family, chosen in (FULL if full else QUICK).items():
        found += _of_coin(family, chosen, full) if family.startswith("coin") else _of_shortcut(family, chosen, full)
    return found


def _of_coin(family: str, chosen: dict[str, Any], full: bool) -> list[Asked]:
    settings = coin.FULL if full else coin.QUICK
    kind = "fully connected" if family == COORDINATES else "convolutional"
    brief = {**settings, "networks": TIMED}
    found = []
    for cell in coin.every_cell(settings["worlds"], coin.COUNTS):
        if coin.kind(cell.architecture) == kind and cell.world in chosen["worlds"] and cell.added in chosen["added"]:
            name = f"{cell.architecture}, world {cell.world}, {cell.added} telling examples"
            how = cell.points, cell.question, cell.trained
            found.append(Asked(family, name, *how, settings, brief, "coin", TIMED[kind]))
    return found


def _of_shortcut(family: str, chosen: dict[str, Any], full: bool) -> list[Asked]:
    settings = shortcut.ARMS[ARMS[family]].full if full else shortcut.QUICK
    timed = TIMED["fully connected"]
    brief = {**settings, "networks": timed}
    found = []
    for cell in shortcut.grid(shortcut.PREDICTIVITIES, shortcut.AVAILABILITIES):
        if cell.predictivity in chosen["predictivities"] and cell.availability in chosen["availabilities"]:
            name = f"{family}, predictivity {cell.predictivity:g}, availability {cell.availability:g}"
            how = cell.points, partial(cell.question, arm=ARMS[family]), partial(_wider, cell, ARMS[family])
            found.append(Asked(family, name, *how, settings, brief, "shortcut", timed))
    return found


def _wider(cell: shortcut.Cell, arm: str, question: Question, settings: dict[str, Any], config: Config) -> Tensor:
    return cell.trained(question, arm, settings, 1, config)


def measured(config: Config) -> list[dict[str, Any]]:
    """A row of numbers for each cell."""
    cells = asked(config.full)
    return [measure(cell, config) for cell in tqdm(cells, desc="choices", disable=not config.progress)]


def measure(cell: Asked, config: Config) -> dict[str, Any]:
    """One cell: both scores, both costs."""
    question = cell.question(cell.points())
    done = question.taken(cell.networks(question, config)).to(question.probability)
    sizes = tuple(m for m in COUNTED if m < len(done))
    counts = {rule: score_of_others(done, sizes, a) for rule, a in SMOOTHING.items()}
    repeats = REPEATS if config.full else 1
    costs = seconds(cell.predict, repeats), seconds(lambda: cell.train(question, config), repeats) / cell.timed
    judged = max(m for m in sizes if m <= JUDGED)
    return row(cell.family, cell.name, question.probability, done, counts, sizes, judged, costs)
