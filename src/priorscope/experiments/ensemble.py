"""The covariance of trained networks against three Gaussians; and of networks with an untrainable function added.

Plainly trained networks have the trained ensemble's covariance. With the function of He, Lakshminarayanan and Teh
added they have that of the posterior of the NTK: the same criterion then refutes the other two.
"""

from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from ..beliefs.gaussian import Gaussian
from ..plot import style
from . import small_tasks, statistics
from .additive import with_untrained
from .boolean_tasks import boolean_task
from .experiment import Config, Criterion, Outcome, experiment
from .laws import ENSEMBLE, LAWS, posteriors
from .small_tasks import Task, descent, functions

TASKS: tuple[tuple[str, int, int, int], ...] = (("majority", 5, 20, 0), ("majority", 5, 22, 8))
"""(function, bits, training points, seed of the split). Chosen by the predicted laws alone, so that the three
covariances are far from each other; of the function they do not depend."""
KINDS = {"plain": ENSEMBLE, "with an untrainable function": LAWS[2]}
"""Which of the laws each kind of network has."""
STEPS, FIRST_SEED, NULL_DRAWS, NULL_SEED = 400, 60_000, 10_000, 0
FULL: dict[str, Any] = {"tasks": 2, "widths": (512, 1024), "networks": 500}
QUICK: dict[str, Any] = {"tasks": 1, "widths": (128, 256), "networks": 100}


def cases() -> dict[str, Any]:
    """All that decides a result, as `cases/ensemble.json` has it."""
    return {
        "name": "ensemble",
        "claim": "trained networks have the trained ensemble's covariance; with the untrainable function, the NTK "
        "posterior's",
        "initialization": small_tasks.LAW,
        "architecture": {"hidden layers": 1, "activation": "relu", "bias": True},
        "tasks": [dict(zip(("function", "bits", "train", "split seed"), task, strict=True)) for task in TASKS],
        "training": {"loss": "half_sse", "share of the step limit": small_tasks.SHARE, "steps": STEPS},
        "full": {**FULL, "widths": list(FULL["widths"])},
        "quick": {**QUICK, "widths": list(QUICK["widths"])},
        "first_seed": FIRST_SEED,
        "kinds": KINDS,
        "criterion": {
            "quantile": statistics.QUANTILE,
            "null_draws": NULL_DRAWS,
            "null_seed": NULL_SEED,
            "factor_for_evidence": 2.0,
            "in_words": "||C_hat - C||_F / ||C||_F of the kind's law is at most the 99.9 % quantile under that law "
            "with as many networks + b/width of the fit a + b/width over both widths (b < 0 counts as 0, at most the "
            "quantile), judged at the wider one; the other two laws, each by its own C, both exceed twice that.",
        },
    }


@experiment(
    "ensemble",
    "trained networks have the trained ensemble's covariance; with an untrainable function, the NTK posterior's",
    "Lee et al. 2019 (1902.06720); He, Lakshminarayanan and Teh 2020 (2007.05864)",
    draw=lambda outcome: draw(outcome),
)
def run(config: Config) -> Outcome:
    """Both kinds of networks; 100 narrow ones of each on one task by default, 500 of each on two in full."""
    settings = FULL if config.full else QUICK
    numbers: dict[str, Any] = {}
    criteria: list[Criterion] = []
    for arguments in tqdm(TASKS[: settings["tasks"]], desc="tasks", disable=not config.progress):
        task = boolean_task(*arguments)
        numbers[task.name], found = measure(task, settings, config)
        criteria += found
    notes = tuple(_note(name, kind, entry) for name, kinds in numbers.items() for kind, entry in kinds.items())
    return Outcome(tuple(criteria), {"settings": settings, "tasks": numbers}, notes)


def measure(task: Task, settings: dict[str, Any], config: Config) -> tuple[dict[str, Any], list[Criterion]]:
    """One task: both kinds of networks against the three laws."""
    pair = task.limit
    training = descent(task, pair, STEPS)
    laws: dict[str, Gaussian] = {
        ENSEMBLE: small_tasks.law(task, pair, training),
        **posteriors(pair, task.x, task.y, task.x_new),
    }
    quantiles = {
        name: statistics.covariance_quantile(laws[name].covariance, settings["networks"], NULL_DRAWS, NULL_SEED)
        for name in KINDS.values()
    }
    numbers: dict[str, Any] = {}
    criteria: list[Criterion] = []
    first = config.first(FIRST_SEED)
    for kind, own in KINDS.items():
        make = task.network if kind == "plain" else _with_untrained(task)
        words = "" if own == ENSEMBLE else "-added"
        found = {
            width: functions(task, training, width, settings["networks"], first, config.keep, make, words)
            for width in settings["widths"]
        }
        numbers[kind] = _compared(found, laws, own, quantiles[own])
        entry = numbers[kind]
        name = f"{task.name}, {kind}"
        of_own, threshold = entry["distances"][own], entry["threshold"]
        words = f"{name}: the nearer other law over twice the threshold"
        criteria.append(Criterion(f"{name}: covariance of the {own}", of_own, "<=", threshold, exact=False))
        criteria.append(Criterion(words, entry["power"], ">=", 1.0, exact=False))
    return numbers, criteria


def _with_untrained(task: Task) -> Any:
    return lambda width, seed: with_untrained(task.network(width, seed), small_tasks.INIT, seed)


def _compared(found: dict[int, Tensor], laws: dict[str, Gaussian], own: str, quantile: float) -> dict[str, Any]:
    narrow, wide = found
    distances = {
        width: {name: float(statistics.covariance_statistic(values, law.covariance)) for name, law in laws.items()}
        for width, values in found.items()
    }
    criterion = statistics.TwoWidths(own, narrow, wide, distances[narrow][own], distances[wide][own], quantile)
    return {
        "law": own,
        "width": wide,
        "networks": len(found[wide]),
        "distances": distances[wide],
        "at_narrow": distances[narrow],
        "quantile": quantile,
        "allowance": criterion.allowance,
        "threshold": criterion.threshold,
        "power": min(d for name, d in distances[wide].items() if name != own) / (2 * criterion.threshold),
        "covariance": found[wide].T.cov(),
        "laws": {name: law.covariance for name, law in laws.items()},
        "mean": found[wide].mean(0),
        "means": {name: law.mean for name, law in laws.items()},
    }


def _note(name: str, kind: str, entry: dict[str, Any]) -> str:
    found = "; ".join(f"{law} {distance:.3f}" for law, distance in entry["distances"].items())
    return (
        f"{name}, {kind}: distance of the covariance at width {entry['width']}: {found}; threshold "
        f"{entry['threshold']:.3f} = quantile {entry['quantile']:.3f} + allowance {entry['allowance']:.3f}"
    )


COLOURS = dict(zip(LAWS, (style.BLUE, style.ORANGE, style.VERMILION), strict=True))


def draw(outcome: Outcome) -> Figure:
    """The entries of the measured covariance against those of each law; a row a task, a column a kind of network."""
    tasks = outcome.numbers["tasks"]
    figure, rows = plt.subplots(len(tasks), 2, figsize=(9.4, 4.2 * len(tasks)), layout="constrained", squeeze=False)
    for row, (name, kinds) in zip(rows, tasks.items(), strict=True):
        for ax, (kind, entry) in zip(row, kinds.items(), strict=True):
            _draw_entries(ax, f"{name}\n{entry['networks']} networks: {kind}", entry)
    return figure


def _draw_entries(ax: Axes, title: str, entry: dict[str, Any]) -> None:
    style.axes(ax, xlabel="predicted (co)variance of two outputs", ylabel="that of the networks")
    ax.set_title(title, fontsize=9.5)
    rows, columns = torch.triu_indices(*entry["covariance"].shape)
    measured = entry["covariance"][rows, columns]
    for name, marker in zip(LAWS, "oDs", strict=True):
        distance, limit = entry["distances"][name], entry["threshold"]
        words = f"at most {limit:.2f}" if distance <= limit else f"over {(1 + (distance > 2 * limit)) * limit:.2f}"
        label = f"{name}: distance {distance:.2f}, {words}"
        predicted = entry["laws"][name][rows, columns]
        ax.plot(predicted, measured, marker, ms=4.5, alpha=0.8, color=COLOURS[name], label=label)
    low, high = float(measured.min()), float(measured.max())
    margin = 0.06 * (high - low)
    ax.plot([low, high], [low, high], color=style.BLACK, lw=0.8, ls="--")
    ax.set_ylim(low - margin, high + margin + 0.45 * (high - low))
    style.legend(ax, loc="upper left")
