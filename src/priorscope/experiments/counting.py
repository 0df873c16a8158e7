"""The predicted choice against "train m networks and count": their log scores on networks that neither has seen.

Statements are those of the calibration, the sign at test points and which of two candidates is nearer, and the choices
of the coin and of the shortcut's grid. Each way says a probability of each; the score is the mean log probability of
what held-out networks did, in nats. The signs are asked where the prediction itself leaves them open (`opened`): where
it is sure, counting would score as well.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from ..plot import style
from . import boolean, counting_choices, small_tasks
from .boolean_tasks import boolean_task
from .experiment import Config, Criterion, Outcome, experiment
from .scores import (
    CHEAPER,
    COUNTED,
    JUDGED,
    REPEATS,
    SMOOTHING,
    criterion,
    either,
    row,
    score_of_counts,
    seconds,
    summary,
)
from .small_tasks import Task, descent, functions, opened, outcomes, probabilities

STEPS, FIRST_SEED = 150, 70_000
PREDICTIVITY, AVAILABILITY = (1.0, 0.85), (0.5, 1.0, 2.0)
TRAIN, TEST, NOISE = 24, 8, 6
BOOLEAN, TWO_FEATURES = "Boolean tasks", "two features"
OPENED = (
    "Boolean tasks and two features: the signs are asked where the prediction leaves them open (`opened`); where it is "
    "sure, counting would score as well"
)
COLOURS = (style.ORANGE, style.VERMILION)
"""Of the smoothing rules."""
FULL: dict[str, Any] = {"tasks": 11, "width": 1024, "pool": 200, "held out": 300}
QUICK: dict[str, Any] = {"tasks": 4, "width": 256, "pool": 200, "held out": 100}


def cases() -> dict[str, Any]:
    """All that decides a result, as `cases/counting.json` has it."""
    return {
        "name": "counting",
        "claim": "predicted probabilities score better than training 50 networks and counting, at a tenth of the cost",
        "initialization": small_tasks.LAW,
        "architecture": {"hidden layers": 1, "activation": "relu", "bias": True},
        "boolean tasks": [{"function": function, "split seed": seed} for function, seed in boolean.TASKS],
        "two features": {
            "predictivity": list(PREDICTIVITY),
            "availability": list(AVAILABILITY),
            "train": TRAIN,
            "test": TEST,
            "noise": NOISE,
        },
        "training": {"loss": "half_sse", "share of the step limit": small_tasks.SHARE, "steps": STEPS},
        "full": FULL,
        "quick": QUICK,
        "first_seed": FIRST_SEED,
        "criterion": criterion(
            "the prediction's mean log score over all tasks is at least that of counting 50 networks by "
            "the better of the two smoothing rules, in expectation over which 50 of the pool are counted; and a "
            "prediction takes at most a tenth of the CPU seconds of training 50 networks (medians of 3 warm runs)."
        ),
    }


def two_features(predictivity: float, availability: float, seed: int) -> Task:
    """A core feature that is the label, a shortcut of size `availability` that is it with probability `predictivity`.

    Six more features are noise. In the test points the two contradict each other; A follows the core, B the shortcut.
    """
    generator = torch.Generator().manual_seed(seed)

    def coins(count: int, p: float = 0.5) -> Tensor:
        return (torch.rand(count, generator=generator, dtype=torch.float64) < p) * 2.0 - 1.0

    y, agrees = coins(TRAIN), coins(TRAIN, predictivity)
    truth = coins(TEST)
    noise = torch.randn(TRAIN + TEST, NOISE, generator=generator, dtype=torch.float64)
    core, shortcut = torch.cat([y, truth]), availability * torch.cat([y * agrees, -truth])
    x = torch.cat([core[:, None], shortcut[:, None], noise], 1)
    name = f"two features, predictivity {predictivity:g}, availability {availability:g}"
    return Task(name, x[:TRAIN], y, x[TRAIN:], truth, -truth)


def makers() -> list[Callable[[], Task]]:
    """One function without arguments for each task; the kinds take turns."""
    grid = [(p, a) for p in PREDICTIVITY for a in AVAILABILITY]
    planted = [lambda arguments=(*cell, seed): two_features(*arguments) for seed, cell in enumerate(grid)]
    booleans = [
        lambda arguments=(function, boolean.BITS, boolean.TRAIN, seed): boolean_task(*arguments)
        for function, seed in boolean.TASKS
    ]
    turns = [make for pair in zip(planted, booleans, strict=False) for make in pair]
    return [*turns, *planted[len(booleans) :]]


@experiment(
    "counting",
    "a prediction says what trained networks choose better than training 50 of them and counting, far cheaper",
    "Gneiting and Raftery 2007 (the log score); Jeffreys 1946 and Laplace 1814 (the counts' smoothing)",
    draw=lambda outcome: draw(outcome),
)
def run(config: Config) -> Outcome:
    """Four tasks with narrow networks and three choices by default; 11 with width 1024 and 32 choices in full."""
    settings = FULL if config.full else QUICK
    chosen = makers()[: settings["tasks"]]
    rows = [measure(make(), settings, config) for make in tqdm(chosen, desc="tasks", disable=not config.progress)]
    return reported([*rows, *counting_choices.measured(config)], settings)


def measure(task: Task, settings: dict[str, Any], config: Config) -> dict[str, Any]:
    """One task: both scores, both costs."""
    pair = task.limit
    training = descent(task, pair, STEPS)
    task = opened(task, pair, training)

    def predict() -> Tensor:
        fresh = task.limit
        return probabilities(task, small_tasks.law(task, fresh, descent(task, fresh, STEPS)))

    pool, first = settings["pool"], config.first(FIRST_SEED)
    values = functions(task, training, settings["width"], pool + settings["held out"], first, config.keep)
    done = either(outcomes(task, values).to(torch.float64))
    seen, held = done[:pool], done[pool:]
    sizes = tuple(m for m in COUNTED if m <= pool)
    counts = {rule: score_of_counts(seen.sum(0), pool, held, sizes, a) for rule, a in SMOOTHING.items()}
    # As one would train to count: in float32.
    single = replace(task, x=task.x.float(), y=task.y.float(), x_new=task.x_new.float())

    def train() -> Tensor:
        made = lambda width, seed: task.network(width, seed).float()  # noqa: E731
        return functions(single, training, settings["width"], JUDGED, first, None, made)

    costs = seconds(predict, REPEATS), seconds(train, REPEATS if config.full else 1) / JUDGED
    family = TWO_FEATURES if task.name.startswith("two features") else BOOLEAN
    return row(family, task.name, either(predict()), held, counts, sizes, JUDGED, costs)


def reported(rows: list[dict[str, Any]], settings: dict[str, Any]) -> Outcome:
    """Means over the tasks of the first case, and over each family of the second."""
    first = summary([each for each in rows if each["family"] in (BOOLEAN, TWO_FEATURES)])
    names = list(dict.fromkeys(each["family"] for each in rows))
    families = {name: summary([each for each in rows if each["family"] == name]) for name in names}
    criteria = (
        Criterion(f"mean log score less that of counting {JUDGED} networks", first["ahead"], ">=", 0.0, exact=False),
        Criterion(f"cost of a prediction over that of {JUDGED} networks", first["ratio"], "<=", CHEAPER, exact=False),
        *(each for name, found in families.items() for each in _criteria(name, found)),
    )
    notes = (
        f"Boolean tasks and two features: {_words(first)}; networks of width {settings['width']}",
        *(f"{name}: {_words(found)}" for name, found in families.items()),
        OPENED,
        *(_note(each) for each in rows),
    )
    numbers = {"settings": settings, "first": first, "families": families, "tasks": rows}
    return Outcome(criteria, numbers, notes)


def _criteria(name: str, found: dict[str, Any]) -> tuple[Criterion, Criterion]:
    m = found["judged"]
    ahead = f"{name}: mean log score less that of counting {m} networks"
    cost = f"{name}: cost of a prediction over that of {m} networks"
    return (
        Criterion(ahead, found["ahead"], ">=", 0.0, exact=False),
        Criterion(cost, found["ratio"], "<=", CHEAPER, exact=False),
    )


def _words(found: dict[str, Any]) -> str:
    m = found["judged"]
    counted = found["counts"][found["rule"]][found["sizes"].index(m)]
    text = (
        f"log score {found['score']:.4f} ± {found['error']:.4f} nats; counting {m} ({found['rule']}) "
        f"{float(counted):.4f}; the difference {found['ahead']:+.4f} ± {found['ahead_error']:.4f}, network by network"
    )
    if found["equal"] is None:
        text += f"; counting up to {found['sizes'][-1]} never scores as well"
    else:
        text += f"; counting {found['equal']} scores as well, at {1 / found['ratio_at_equal']:.3g} times the cost"
    few = "" if m == JUDGED else f" (each cell has {found['networks']} networks, one of them held out)"
    return f"{text}; a prediction costs {found['ratio']:.3g} of training {m} networks (CPU seconds){few}"


def _note(each: dict[str, Any]) -> str:
    m = each["judged"]
    counted = max(float(found[each["sizes"].index(m)]) for found in each["counts"].values())
    return (
        f"{each['task']}: {each['statements']} statements, {each['score']:.3f} ± {each['score_error']:.3f}, counting "
        f"{m}: {counted:.3f}; seconds to predict {each['seconds_to_predict']:.3f}, to train {m} "
        f"{m * each['seconds_a_network']:.2f}"
    )


def draw(outcome: Outcome) -> Figure:
    """Above: the first case's score against the number of networks counted, and against CPU seconds. Below: the score
    against the number of networks in each family."""
    first, families = outcome.numbers["first"], outcome.numbers["families"]
    lower = -(-len(families) // 3)
    figure = plt.figure(figsize=(11.4, 4.4 + 3.3 * lower), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(4.4, 3.3 * lower), squeeze=False)[:, 0]
    left, right = above.subplots(1, 2, sharey=True)
    style.axes(left, title=f"Boolean tasks and two features, {first['tasks']} in all")
    _draw_counts(left, first)
    left.axvline(JUDGED, color=style.BLACK, lw=0.8, ls=":")
    style.legend(left, loc="lower right")
    _draw_costs(right, first)
    for ax, (name, found) in zip(below.subplots(lower, 3, squeeze=False).flat, families.items(), strict=False):
        up_to = f"counting up to {found['sizes'][-1]} never scores as well"
        equal = f"counting {found['equal']} scores as well" if found["equal"] else up_to
        style.axes(ax)
        ax.set_title(f"{name}, {found['tasks']} in all:\n{equal}", fontsize=9.5)
        _draw_counts(ax, found)
    for ax in below.axes[len(families) :]:
        ax.set_axis_off()
    return figure


def _draw_counts(ax: Axes, found: dict[str, Any]) -> None:
    style.axes(ax, xlabel="networks trained and counted, m", ylabel="log score (nats)")
    for (rule, scores), colour in zip(found["counts"].items(), COLOURS, strict=True):
        ax.plot(found["sizes"], style.array(scores), "o-", ms=4, color=colour, label=f"counted ({rule})")
    score, error = found["score"], found["error"]
    ax.axhspan(score - 2 * error, score + 2 * error, color=style.BLUE, alpha=0.15, lw=0)
    ax.axhline(score, color=style.BLUE, lw=1.6, label="predicted (± 2 standard errors)")
    ax.set_xscale("log")
    ax.set_xticks([1, 2, 5, 10, 20, 50, 100, 200], ["1", "2", "5", "10", "20", "50", "100", "200"])
    ax.set_xlim(0.9, 1.15 * found["sizes"][-1])
    ax.minorticks_off()


def _draw_costs(ax: Axes, found: dict[str, Any]) -> None:
    title = f"A prediction costs {found['ratio']:.2g} of {found['judged']} networks"
    style.axes(ax, xlabel="CPU seconds a task", title=title)
    for scores, colour in zip(found["counts"].values(), COLOURS, strict=True):
        ax.plot(np.array(found["sizes"]) * found["seconds_a_network"], style.array(scores), "o-", ms=4, color=colour)
    predict, score = found["seconds_to_predict"], found["score"]
    ax.errorbar(predict, score, yerr=2 * found["error"], fmt="D", color=style.BLUE, ms=6)
    ax.text(predict, score, "  predicted", va="bottom", fontsize=9, color=style.BLUE)
    ax.set_xscale("log")
