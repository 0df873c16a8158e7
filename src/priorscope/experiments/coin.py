"""Go to the coin, or go to the corner? Predicted before training, and counted among really trained networks.

In training the coin always lies in the far corner, so that both rules say the same. Coordinates go into a fully
connected network; pictures of the grid into convolutional networks with global pooling, with zero padding, which leaks
the place, and with circular padding, which sees no more than the way from agent to coin, modulo the grid.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from tqdm import tqdm

from ..errors import SingularKernelError
from ..network.initialization import Initialization
from ..plot import style
from . import choice, counted
from .choice import Points, Question, question
from .choice_picture import COLOURS, below, described, draw_groups, sizes_in_words
from .counted import Counted
from .experiment import Config, Criterion, Outcome, experiment
from .grid import SIDE, World, coordinates, pictures, world

RULES = ("coin", "corner")
OUTCOMES = choice.outcomes(RULES)
INITS = {
    "coordinates, fully connected": Initialization(2.0, 0.1, "ntk"),
    "pictures, zero padding": Initialization(2.0, 0.0, "ntk"),
    "pictures, circular padding": Initialization(2.0, 0.0, "ntk"),
}
TRAIN, NEW, GROUP = 24, 36, 3
COUNTS = (0, 5, 12, 40)
RATE, MOMENTUM, STEPS = 1.5, 0.9, 120
NETWORKS = 2000
TRUSTED = 12
"""Telling examples of the cell, in world 0, whose prediction's trust is noted."""
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


@dataclass(frozen=True)
class Cell:
    """An architecture in a world, with so many telling examples; its place among all cells says which seeds it has."""

    place: int
    architecture: str
    world: int
    added: int

    @cached_property
    def states(self) -> World:
        return world(TRAIN, max(COUNTS), NEW, self.world)

    def points(self) -> Points:
        return Points.of(self.make, INITS[self.architecture], inputs(self.architecture, self.states))

    def make(self, width: int, seed: int) -> nn.Module:
        return network(self.architecture, width, seed)

    def question(self, points: Points) -> Question:
        of = self.states
        rows = torch.cat([of.train, of.added[: self.added]])
        rules = {"coin": of.coin[of.new], "corner": of.corner[of.new]}
        return question(points, rows, of.coin[rows], of.new, rules, RATE, MOMENTUM, STEPS, GROUP)

    def trained(self, asked: Question, settings: dict[str, Any], config: Config) -> Tensor:
        """The outputs of its networks."""
        width, networks = (settings[each][kind(self.architecture)] for each in ("widths", "networks"))
        first = config.first(choice.BETWEEN_CELLS * self.place)
        words = self.architecture.replace(", ", "-").replace(" ", "-")
        name = f"{words}_world-{self.world}_added-{self.added}"
        file = f"{name}_width-{width}_networks-{networks}_seed-{first}.npz"
        path = None if config.keep is None else config.keep / file
        return choice.trained(self.make, INITS[self.architecture], asked, width, networks, first, path, config.progress)


def every_cell(worlds: Sequence[int], counts: Sequence[int]) -> list[Cell]:
    """In the order of their seeds."""
    return [Cell(i + 1, *each) for i, each in enumerate(itertools.product(INITS, worlds, counts))]


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
        "between_first_seeds": choice.BETWEEN_CELLS,
        "samples": choice.SAMPLES,
        "criterion": {
            "bias": counted.BIAS,
            "networks": NETWORKS,
            "in_words": "over all groups of three new states that the kernel can tell from all training states, of all "
            "networks of all architectures, worlds and counts: the absolute mean of predicted − measured, of coin, of "
            "corner and of neither, each below 0.03, over at least 2,000 networks. Standard errors are clustered by "
            "network and printed. A network takes a rule in a group if it has its sign at all states of it.",
        },
    }


def further_cases() -> dict[str, Any]:
    """What is asked of the same networks beside, as `cases/coin-architectures.json` has it."""
    return {
        "name": "coin-architectures",
        "claim": "the probability of coin, corner and neither is predicted of each architecture by itself",
        "networks": "all of the coin's own, at their one width",
        "criterion": {
            "bias": counted.BIAS,
            "null_draws": counted.DRAWS,
            "in_words": "for each architecture: (1) the root mean square, over worlds, counts, groups and outcomes "
            "(coin, corner, neither), of share − probability is at most its 99.9 % quantile when as many functions are "
            "drawn from each cell's predicted law; there is one width, so that no allowance for it can be measured, "
            "and none is made; (2) the absolute mean of predicted − measured is at most 0.03 for each outcome.",
        },
        "trust": {"world": 0, "added": TRUSTED, "in_words": "noted for each architecture; no criterion"},
        "chosen_after_results": "all of it. Known were: that each convolutional architecture, of width 64, fails by "
        "itself (biases of neither −0.047 and −0.042) and weighs little in the mean over all networks, which passes; "
        "that the NNGP posterior passes as well in the mean, where it exists; the trust in world 0 without telling "
        "examples. The gaps of each architecture and their quantiles had not been looked at.",
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
    found: list[Found] = []
    points: dict[tuple[str, int], Points] = {}
    for cell in tqdm(every_cell(settings["worlds"], counts), desc="coin", disable=not config.progress):
        group = cell.architecture, cell.world
        if group not in points:
            points[group] = cell.points()
        asked = cell.question(points[group])
        networks = Counted.of(asked, cell.trained(asked, settings, config))
        (null,) = counted.nulls([networks], 10 * counted.DRAWS * len(found))
        found.append(Found(cell, networks, null, *_posteriors(asked)))
    return _outcome(found, settings, counts)


@dataclass(frozen=True, eq=False)
class Found:
    """A cell's prediction beside its networks.

    null: (d, g, 3), the gaps under the predicted law. posteriors: the laws that trained networks do not follow; empty
    where they do not exist, and `why` says it.
    """

    cell: Cell
    counted: Counted
    null: Tensor
    posteriors: dict[str, Tensor]
    why: str


def _posteriors(asked: Question) -> tuple[dict[str, Tensor], str]:
    try:
        return asked.posteriors(), ""
    except SingularKernelError as error:
        return {}, error.cause


def _outcome(found: list[Found], settings: dict[str, Any], counts: tuple[int, ...]) -> Outcome:
    every = [each.counted for each in found]
    biases = counted.biases(every, OUTCOMES)
    total = sum(len(cell.taken) for cell in every)
    architectures = {a: _judged([each for each in found if each.cell.architecture == a], settings) for a in INITS}
    criteria = counted.bias_criteria(biases)
    criteria.append(Criterion("networks in all", total, ">=", NETWORKS, exact=False))
    criteria += [criterion for own, _, _ in architectures.values() for criterion in own]
    gap, quantile = counted.gap(every), counted.quantile([each.null for each in found])
    inside = "inside" if gap <= quantile else "beyond"
    connected = sum(len(each.counted.taken) for each in found if kind(each.cell.architecture) == "fully connected")
    notes = (
        f"bias, predicted − measured, ± its standard error clustered by network, {total} networks: "
        + counted.told(biases),
        f"{connected} of the {total} networks are fully connected: what all networks say together, mostly these say; "
        "each architecture by itself follows",
        *_biases_beside(found),
        f"root mean square of share − probability over all groups and outcomes: {gap:.4f}, {inside} the 99.9 % "
        f"quantile {quantile:.4f} of the predicted law",
        *(note for _, _, notes in architectures.values() for note in notes),
        *_seen_alike(found),
    )
    numbers = {
        "settings": settings,
        "counts": counts,
        "bias": {name: vars(b) for name, b in biases.items()},
        "gap": gap,
        "gap_quantile": quantile,
        "architectures": {a: numbers for a, (_, numbers, _) in architectures.items()},
        "cells": [
            {"architecture": e.cell.architecture, "world": e.cell.world, "added": e.cell.added, **e.counted.numbers()}
            for e in found
        ],
    }
    return Outcome(tuple(criteria), numbers, notes)


def _judged(found: list[Found], settings: dict[str, Any]) -> tuple[list[Criterion], dict[str, Any], tuple[str, ...]]:
    """One architecture's criteria, numbers, and notes."""
    architecture = found[0].cell.architecture
    width = settings["widths"][kind(architecture)]
    cells = [each.counted for each in found]
    biases = counted.biases(cells, OUTCOMES)
    gap, quantile = counted.gap(cells), counted.quantile([each.null for each in found])
    criteria = [
        Criterion(f"{architecture}: share − probability, root mean square", gap, "<=", quantile, exact=False),
        *counted.bias_criteria(biases, f"{architecture}: "),
    ]
    trusted = next((e for e in found if (e.cell.world, e.cell.added) == (0, TRUSTED)), found[0])
    where = f"{architecture}, world {trusted.cell.world}, {trusted.cell.added} telling examples"
    cell, asked = trusted.cell, trusted.counted.question
    belief, told = counted.trust_in_words(where, cell.make, INITS[architecture], asked, width)
    notes = (
        f"{architecture}: bias, {sum(len(c.taken) for c in cells)} networks of width {width}: {counted.told(biases)}",
        _beside(found),
        told,
        *counted.lost_in_words(architecture, cells),
        f"{architecture}: groups by their number of states: "
        + sizes_in_words([len(group) for c in cells for group in c.question.groups]),
    )
    numbers = {
        "bias": {name: vars(b) for name, b in biases.items()},
        "gap": gap,
        "gap_quantile": quantile,
        "trust": belief.score,
    }
    return criteria, numbers, notes


def _beside(found: list[Found]) -> str:
    """The gaps of both posteriors beside the ensemble's, where they exist, and why not elsewhere."""
    name, having = found[0].cell.architecture, [each for each in found if each.posteriors]
    missing = [each for each in found if not each.posteriors]
    words = []
    if having:
        cells = [each.counted for each in having]
        gaps = {"trained ensemble": counted.gap(cells)}
        for law in having[0].posteriors:
            gaps[law] = counted.gap_of(cells, [each.posteriors[law] for each in having])
        limit = counted.quantile([each.null for each in having])
        told = ", ".join(f"{law} {value:.4f}" for law, value in gaps.items())
        words.append(f"gaps in {len(having)} of {len(found)} cells: {told} (99.9 % quantile {limit:.4f})")
    if missing:
        words.append(f"in {len(missing)} cells the posteriors do not exist; in the first {missing[0].why}")
    return f"{name}: {'; '.join(words)}"


def _biases_beside(found: list[Found]) -> list[str]:
    """The biases of both posteriors: whether the mean over all networks tells the laws apart."""
    having = [each for each in found if each.posteriors]
    cells = [each.counted for each in having]
    words = []
    for law in having[0].posteriors if having else ():
        biases = counted.biases(cells, OUTCOMES, [each.posteriors[law] for each in having])
        inside = all(abs(b.value) <= counted.BIAS for b in biases.values())
        verdict = "it passes the criterion of the mean, too" if inside else "it fails the criterion of the mean"
        words.append(f"bias of the {law} in the {len(having)} cells where it exists: {counted.told(biases)}; {verdict}")
    return words


def _seen_alike(found: list[Found]) -> tuple[str, ...]:
    """What an architecture cannot tell apart, in words."""
    notes = []
    for architecture in INITS:
        own = [each.counted.question for each in found if each.cell.architecture == architecture]
        dropped, contradicted = sum(q.dropped for q in own), sum(q.contradicted for q in own)
        if dropped:
            asked = sum(len(q.new) for q in own)
            cause = "that it takes for training states; where one state of a group is left, it can hardly take neither"
            notes.append(f"{architecture}: {dropped} of {asked} new states dropped {cause}")
        if contradicted:
            total = sum(len(q.train) for q in own)
            cause = "that it cannot tell from one with the other label; no network can fit both, it learns their mean"
            notes.append(f"{architecture}: {contradicted} of {total} training states {cause}")
    return tuple(notes)


def draw(outcome: Outcome) -> Figure:
    """Above: probabilities against added examples, an architecture a panel. Below: every group, and the biases."""
    names = list(INITS)
    figure, axes = plt.subplots(2, len(names), figsize=(12.4, 10.4), layout="constrained", height_ratios=(1, 1.2))
    for i, name in enumerate(names):
        cells = [cell for cell in outcome.numbers["cells"] if cell["architecture"] == name]
        found = outcome.numbers["architectures"][name]
        _draw_curves(axes[0, i], name, cells, outcome.numbers["counts"])
        sizes = sizes_in_words([size for cell in cells for size in cell["group_sizes"]])
        gap = f"r.m.s. gap {found['gap']:.3f}, 99.9 % quantile {found['gap_quantile']:.3f}"
        draw_groups(axes[1, i], cells, found["bias"], OUTCOMES, f"\ngroups of states: {sizes}\n{gap}")
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
        ax.plot(places, predicted, color=colour, lw=1.6, label=outcome)
        ax.errorbar(places, measured, [2 * e for e in error], fmt="o", color=colour, capsize=3, ms=5)
    ax.plot([], [], color="#888888", lw=1.6, label="predicted")
    ax.errorbar([], [], [], fmt="o", color="#888888", capsize=3, ms=5, label="measured, ± 2 standard errors")
    below(ax, 2)
    ax.set_xticks(list(places), [str(k) for k in counts])


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
