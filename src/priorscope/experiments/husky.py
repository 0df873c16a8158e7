"""A husky in the snow: does the object carry the prediction, or its background? Digits on photographed textures.

In training the background tells the label in a share of the pictures. In new pictures it tells the other one: a network
follows the object, the background, or in a group of pictures neither.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn
from tqdm import tqdm

from ..network.initialization import Initialization
from ..plot import style
from ..training.similar import similar
from . import choice, counted
from .choice import Points, Question, question
from .choice_picture import below, described, draw_groups
from .counted import Counted
from .experiment import Config, Criterion, Outcome, experiment
from .planted import DIGITS, EDGE, MIDDLE, SIDE, Planted, planted

RULES = ("object", "background")
OUTCOMES = choice.outcomes(RULES)
INITS = {
    "fully connected": Initialization(2.0, 0.1, "ntk"),
    "convolutional": Initialization(2.0, 0.0, "ntk"),
}
PREDICTIVITIES = (0.7, 0.9, 1.0)
TRAIN, NEW, GROUP = 60, 24, 3
RATE, MOMENTUM, STEPS = 1.5, 0.9, 120
QUICK: dict[str, Any] = {
    "textures": [["grass", "brick"]],
    "widths": {"fully connected": [64, 128], "convolutional": [8, 16]},
    "networks": {"fully connected": 16, "convolutional": 6},
}
FULL: dict[str, Any] = {
    "textures": [["grass", "brick"], ["grass", "gravel"]],
    "widths": {"fully connected": [128, 256], "convolutional": [32, 64]},
    "networks": {"fully connected": 80, "convolutional": 16},
}


CARRIED = (style.BLUE, style.VERMILION, style.ORANGE, style.BLACK)
"""Of object, background, both, and neither."""


def network(architecture: str, width: int, seed: int) -> nn.Module:
    if architecture == "fully connected":
        layers: list[nn.Module] = [nn.Flatten(), nn.Linear(SIDE**2, width), nn.ReLU(), nn.Linear(width, width)]
    else:
        first, second = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        layers = [first, nn.ReLU(), nn.AvgPool2d(2), second]
    pool = [] if architecture == "fully connected" else [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return INITS[architecture].apply_(nn.Sequential(*layers, nn.ReLU(), *pool, nn.Linear(width, 1)), seed)


def cases() -> dict[str, Any]:
    """All that decides a result, as `cases/husky.json` has it."""
    return {
        "name": "husky",
        "claim": "whether the object or its background carries a network's predictions is known beforehand",
        "data": {
            "objects": f"scikit-learn's digits {DIGITS[0]} (+1) and {DIGITS[1]} (−1), 8×8",
            "backgrounds": "scikit-image's photographs, the first of a pair telling +1",
            "side": SIDE,
            "edge": EDGE,
            "middle": MIDDLE,
            "training pictures": TRAIN,
            "new pictures": NEW,
            "group": GROUP,
            "predictivities of the background": list(PREDICTIVITIES),
            "seed": "the pair's number",
        },
        "architectures": described(INITS, network),
        "training": {"loss": "half_sse", "rate over 1/λ_max": RATE, "momentum": MOMENTUM, "steps": STEPS},
        "full": FULL,
        "quick": QUICK,
        "between_first_seeds": choice.BETWEEN_CELLS,
        "samples": choice.SAMPLES,
        "null_draws": counted.DRAWS,
        "criterion": {
            "bias": counted.BIAS,
            "in_words": "for each architecture, "
            + counted.in_words("pictures", OUTCOMES, "of the background is below 0.03"),
        },
    }


@experiment(
    "husky",
    "whether the object or its background carries a network's predictions is known beforehand",
    "Ribeiro et al. 2016 (1602.04938) (the husky); Lee et al. 2019 (1902.06720) (the prediction)",
    draw=lambda outcome: draw(outcome),
)
def run(config: Config) -> Outcome:
    """Both architectures; one pair of textures, few and narrow networks by default."""
    return measure(FULL if config.full else QUICK, PREDICTIVITIES, config)


def measure(settings: dict[str, Any], predictivities: tuple[float, ...], config: Config) -> Outcome:
    """What `run` reports, with these textures, widths and numbers of networks."""
    cells: dict[str, dict[int, list[Counted]]] = {a: {w: [] for w in settings["widths"][a]} for a in INITS}
    rows: list[dict[str, Any]] = []
    disagreeing = 2 * round((1 - min(predictivities)) * TRAIN / 2)
    pairs = [(a, i, tuple(textures)) for a in INITS for i, textures in enumerate(settings["textures"])]
    for architecture, number, textures in tqdm(pairs, desc="husky", disable=not config.progress):
        data = planted(textures, TRAIN, disagreeing, NEW, number)
        points = Points.of(partial(network, architecture), INITS[architecture], data.x)
        for predictivity in predictivities:
            train = data.train(predictivity)
            rules = {"object": data.object[data.new], "background": data.background[data.new]}
            asked = question(points, train, data.object[train], data.new, rules, RATE, MOMENTUM, STEPS, GROUP)
            name = f"{architecture.replace(' ', '-')}_{'-'.join(textures)}_predictivity-{predictivity}"
            place = len(rows)
            for i, width in enumerate(settings["widths"][architecture]):
                first = config.first(choice.BETWEEN_CELLS * (2 * place + i + 1))
                networks = settings["networks"][architecture]
                file = Path(f"{name}_width-{width}_networks-{networks}_seed-{first}.npz")
                path = None if config.keep is None else config.keep / file
                make = partial(network, architecture)
                outputs = choice.trained(
                    make, INITS[architecture], asked, width, networks, first, path, config.progress
                )
                cells[architecture][width].append(Counted.of(asked, outputs))
            rows.append(
                {
                    "architecture": architecture,
                    "textures": textures,
                    "predictivity": predictivity,
                    "carried": carried(data, asked),
                    **cells[architecture][settings["widths"][architecture][-1]][-1].numbers(),
                }
            )
    return _outcome(rows, cells, settings)


def carried(data: Planted, asked: Question) -> dict[str, float]:
    """The share of new pictures whose prediction is carried most by training pictures that share with them the object
    alone, the background alone, both, or neither."""
    names = [f"{int(data.object[i])} {int(data.background[i])}" for i in asked.train]
    shares = similar(asked.points.pair.ntk, asked.train, asked.new, names, asked.y, asked.training).by()
    return shared(data, asked.new.tolist(), [carrier.split() for carrier in shares.carriers])


def shared(data: Planted, rows: Sequence[int], carriers: Sequence[Sequence[str]]) -> dict[str, float]:
    """The share of rows that have the object, the background, both, or neither of what carries them."""
    kinds = {(True, False): "object", (False, True): "background", (True, True): "both", (False, False): "neither"}
    counts = dict.fromkeys(kinds.values(), 0)
    for row, (own_object, own_background) in zip(rows, carriers, strict=True):
        same = int(own_object) == int(data.object[row]), int(own_background) == int(data.background[row])
        counts[kinds[same]] += 1
    return {name: count / len(rows) for name, count in counts.items()}


def _outcome(
    rows: list[dict[str, Any]], cells: dict[str, dict[int, list[Counted]]], settings: dict[str, Any]
) -> Outcome:
    criteria: list[Criterion] = []
    notes: list[str] = []
    laws: dict[str, Any] = {}
    for architecture, by_width in cells.items():
        narrow, wide = settings["widths"][architecture]
        judgement = counted.judged(architecture, by_width[narrow], by_width[wide], (narrow, wide))
        found = judgement.criterion
        name = f"{architecture}: share − probability, root mean square"
        criteria.append(Criterion(name, found.at_wide, "<=", found.threshold, exact=False))
        biases = counted.biases(by_width[wide], OUTCOMES)
        bias = biases["background"]
        criteria += counted.bias_criteria({"the background": bias}, f"{architecture}: ")
        notes += [
            *judgement.words(),
            f"{architecture}: bias, predicted − measured, ± its standard error clustered by network, "
            f"{bias.networks} networks of width {wide}: {counted.told(biases)}",
            *counted.lost_in_words(architecture, by_width[wide]),
        ]
        asked = by_width[wide][0].question
        belief, told = counted.trust_in_words(
            f"{architecture}, first question", partial(network, architecture), INITS[architecture], asked, wide
        )
        notes.append(told)
        laws[architecture] = {
            "bias": {name: vars(b) for name, b in biases.items()},
            "gap": {"narrow": found.at_narrow, "wide": found.at_wide, "quantile": found.quantile},
            "other_laws": judgement.others,
            "trust": belief.score,
        }
    for row in rows:
        told = ", ".join(f"{name} {share:.2f}" for name, share in row["carried"].items())
        notes.append(
            f"{row['architecture']}, {' and '.join(row['textures'])}, background right in {row['predictivity']:.0%}: "
            f"new pictures carried most by training pictures with the same {told}"
        )
    return Outcome(tuple(criteria), {"settings": settings, "laws": laws, "rows": rows}, tuple(notes))


def draw(outcome: Outcome) -> Figure:
    """Above: the share of new pictures that follow the background, predicted and measured. Then every group. Below: by
    which training pictures new ones are carried most."""
    rows = outcome.numbers["rows"]
    figure, axes = plt.subplots(3, len(INITS), figsize=(9.6, 12.6), layout="constrained", height_ratios=(1, 1.25, 0.8))
    for i, architecture in enumerate(INITS):
        own = [row for row in rows if row["architecture"] == architecture]
        _draw_shares(axes[0, i], architecture, own)
        draw_groups(axes[1, i], own, outcome.numbers["laws"][architecture]["bias"], OUTCOMES)
        _draw_carried(axes[2, i], own)
    return figure


def _draw_carried(ax: Axes, rows: list[dict[str, Any]]) -> None:
    style.axes(ax, title="Carried most by training\npictures with the same", xlabel="share of new pictures")
    places, left = range(len(rows)), [0.0] * len(rows)
    for name, colour in zip(rows[0]["carried"], CARRIED, strict=True):
        shares = [row["carried"][name] for row in rows]
        ax.barh(places, shares, left=left, color=colour, label=name, height=0.7)
        left = [a + b for a, b in zip(left, shares, strict=True)]
    ax.set_yticks(list(places), [f"{', '.join(row['textures'])}\n{row['predictivity']:.0%}" for row in rows])
    ax.invert_yaxis()
    below(ax, 2)


def _draw_shares(ax: Axes, architecture: str, rows: list[dict[str, Any]]) -> None:
    style.axes(
        ax,
        title=architecture,
        xlabel="share of backgrounds that tell the label",
        ylabel="new pictures that follow the background",
        ylim=(-0.03, 1.03),
    )
    pairs = list(dict.fromkeys(tuple(row["textures"]) for row in rows))
    for pair, colour in zip(pairs, style.COLOURS, strict=False):
        own = [row for row in rows if tuple(row["textures"]) == pair]
        x = [row["predictivity"] for row in own]
        ax.plot(x, [row["agreement_predicted"][1] for row in own], color=colour, lw=1.6, label=f"{' and '.join(pair)}")
        measured, errors = ([row[f"agreement_{kind}"][1] for row in own] for kind in ("measured", "error"))
        ax.errorbar(x, measured, [2 * e for e in errors], fmt="o", color=colour, capsize=3, ms=5)
    ax.plot([], [], color=style.BLACK, lw=1.6, label="predicted")
    ax.errorbar([], [], [], fmt="o", color=style.BLACK, capsize=3, label="measured, ± 2 standard errors")
    ax.set_xticks(sorted({row["predictivity"] for row in rows}))
    below(ax, 2)
