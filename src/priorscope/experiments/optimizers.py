"""How far the networks of other optimizers lie from the theory of plain descent, on twelve small tasks.

Networks of one law are trained to the same loss by each optimizer as people use it; the theory's answer is the trained
ensemble of plain descent at the step where its expected loss is that one. Distances are measured, nothing is demanded
of the others; plain descent itself has to lie inside.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from tqdm import tqdm

from ..beliefs.gaussian import Gaussian
from ..generalization.compare import compare
from ..kernels.infinite import infinite_width
from ..network.initialization import Initialization
from ..plot import style
from ..training.band import WRONG, outside
from ..training.ensemble import TrainedEnsemble, trained_ensemble
from ..training.training import Training
from .experiment import Config, Criterion, Outcome, experiment
from .kept import kept
from .tasks import SEED, TEST, TRAIN, Task, tasks
from .together import train_together

LAW = Initialization(2.0, 0.05, "standard")
MEAN_SQUARE = 0.02
"""Of the residuals, when a network is as far as all others are."""
"""TARGETS: a prediction is wrong where the median network is outside the band on more than this share of points."""
PLAIN = "plain descent"
STEPS = 4000
FIRST_SEED = 60_000
QUICK: dict[str, int] = {"width": 128, "networks": 6}
FULL: dict[str, int] = {"width": 512, "networks": 40}

OPTIMIZERS: dict[str, dict[str, Any]] = {
    PLAIN: {"rate": 1.0},
    "momentum 0.9": {"rate": 1.0, "momentum": 0.9},
    "mini-batches of 2, momentum": {"rate": 0.2, "momentum": 0.9, "batch_size": 2},
    "weight decay to zero": {"rate": 1.0, "decay": 0.002},
    "Adam": {"optimizer": "adam", "learning_rate": 1e-3},
    "AdamW": {"optimizer": "adamw", "learning_rate": 1e-3},
    "RMSprop": {"optimizer": "rmsprop", "learning_rate": 1e-3},
    "Adagrad": {"optimizer": "adagrad", "learning_rate": 1e-2},
}
"""rate, decay: learning rate and weight decay as η λ_max and w/λ_max of the limit. Other fields are `Training`'s."""


def cases() -> dict[str, Any]:
    """All that decides a result, as `cases/optimizers.json` has it."""
    return {
        "name": "optimizers",
        "claim": "plain descent does what the theory says; how far other optimizers' networks lie from it",
        "initialization": {"weight_variance": 2.0, "bias_variance": 0.05, "parameterization": "standard"},
        "architecture": "two layers, relu",
        "tasks": [task.name for task in tasks()],
        "points": {"train": TRAIN, "test": TEST, "seed": SEED},
        "mean square of the residuals at the end": MEAN_SQUARE,
        "steps at most": STEPS,
        "optimizers": OPTIMIZERS,
        "first_seed": FIRST_SEED,
        "quick": QUICK,
        "full": FULL,
        "criterion": "plain descent: all networks reach the loss (exact); in no task is the median network outside the "
        "ensemble's 99 % band on more than 10 % of the test points (statistical)",
    }


@experiment(
    "optimizers",
    "plain descent does what the theory says; how far other optimizers' networks lie from it",
    "Lee et al. 2019 (1902.06720) for plain descent; Kingma and Ba 2015 (1412.6980), Loshchilov and Hutter 2019 "
    "(1711.05101) for Adam and AdamW",
    draw=lambda outcome: draw(outcome),
)
def run(config: Config) -> Outcome:
    """Twelve tasks and eight optimizers; narrow networks, and few, by default."""
    settings = FULL if config.full else QUICK
    rows = []
    for task in tqdm(tasks(), desc="tasks", disable=not config.progress):
        rows += on_task(task, settings["width"], settings["networks"], config.first(FIRST_SEED), config.keep)
    summary = {name: _summary([row for row in rows if row["optimizer"] == name]) for name in OPTIMIZERS}
    plain = summary[PLAIN]
    criteria = (
        Criterion("plain descent: share of networks that reach the loss", plain["reached"], ">=", 1.0),
        Criterion("plain descent: tasks in which the theory is wrong", plain["wrong"], "<=", 0.0, exact=False),
    )
    note = f"{settings['networks']} networks of width {settings['width']} a task and optimizer\n{table(summary)}"
    return Outcome(criteria, {"settings": settings, "rows": rows, "summary": summary}, (note,))


def network(inputs: int, width: int, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):  # torch draws weights that are then drawn anew
        model = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, 1)).double()
    return LAW.apply_(model, seed)


def training_of(name: str, largest: float, points: int) -> Training:
    """An optimizer's training to the common loss, where the limit's largest eigenvalue is `largest`."""
    fields = dict(OPTIMIZERS[name])
    if "rate" in fields:
        fields["learning_rate"] = fields.pop("rate") / largest
    if "decay" in fields:
        fields["weight_decay"] = fields.pop("decay") * largest
        fields["decay_to"] = "zero"
    return Training(steps=STEPS, until_loss=MEAN_SQUARE * points / 2, **fields)


def steps_to(loss: float, ensemble: TrainedEnsemble, x: Tensor, y: Tensor, most: int) -> int:
    """The first step at which the ensemble's expected loss is at most this."""

    def expected(step: int) -> float:
        law = ensemble(x, at=step)
        return float(((law.mean - y).square() + law.variance).sum() / 2)

    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if expected(middle) <= loss else (middle + 1, high)
    return low


def on_task(task: Task, width: int, networks: int, first_seed: int, keep: Path | None = None) -> list[dict[str, Any]]:
    """A row for each optimizer: its networks against the theory of plain descent."""
    template = network(task.x.shape[1], width, first_seed)
    limit = infinite_width(template, LAW).on(task.x)
    largest = float(limit.ntk.on(task.x).eigen.values[0])
    plain = training_of(PLAIN, largest, len(task.y))
    ensemble = trained_ensemble(limit, task.x, task.y, plain)
    stop = steps_to(MEAN_SQUARE * len(task.y) / 2, ensemble, task.x, task.y, STEPS)
    law = ensemble(task.x_new, at=stop)
    stopped = Training(learning_rate=plain.learning_rate, steps=stop)
    verdict = compare(limit, task.x, task.y, task.x_new, task.answers, stopped, samples=10_000)
    rows = []
    for name in OPTIMIZERS:
        draw = _drawer(task, width, first_seed, training_of(name, largest, len(task.y)))
        words = f"{task.name}_{name}".replace(":", "").replace(",", "").replace(" ", "-")
        path = None if keep is None else keep / f"{words}_width-{width}_networks-{networks}_seed-{first_seed}.npz"
        found = kept(path, draw, networks)
        row = {"task": task.name, "optimizer": name, "predicted steps": stop, "predicted A": verdict.nearest["A"]}
        rows.append({**row, **against(found["outputs"], law, task), **_ends(found)})
    return rows


def _drawer(task: Task, width: int, first_seed: int, training: Training) -> Callable[[int], dict[str, Tensor]]:
    def draw(count: int) -> dict[str, Tensor]:
        seeds = range(first_seed, first_seed + count)
        networks = [network(task.x.shape[1], width, seed) for seed in seeds]
        rates = LAW.rates(networks[0])
        found = train_together(networks, task.x, task.y, training, rates, task.x_new, seeds)
        return {"outputs": found.outputs, "steps": found.steps, "losses": found.losses}

    return draw


def _ends(found: dict[str, Tensor]) -> dict[str, Any]:
    reached = found["steps"] >= 0
    steps = float(found["steps"][reached].double().median()) if bool(reached.any()) else float("nan")
    return {"reached": float(reached.double().mean()), "steps": steps}


def against(outputs: Tensor, law: Gaussian, task: Task) -> dict[str, Any]:
    """Networks' outputs (s, m) against a law: distance of their mean, shares outside the band, and how many take A."""
    away = (outputs - law.mean) / law.variance.clamp_min(1e-300).sqrt()
    shares = outside(law, outputs[..., None])
    difference = task.answers["A"] - task.answers["B"]
    return {
        "distance": float(away.mean(0).square().mean().sqrt()),
        "outside": float(shares.mean()),
        "median outside": float(shares.quantile(0.5)),
        "measured A": float((outputs @ difference > 0).double().mean()),
    }


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Over all tasks: medians and counts."""
    disagreement = [abs(row["predicted A"] - row["measured A"]) for row in rows]
    steps = [row["steps"] for row in rows if row["reached"] > 0]
    same = [(row["predicted A"] > 0.5) == (row["measured A"] > 0.5) for row in rows]
    return {
        "distance": float(np.median([row["distance"] for row in rows])),
        "largest distance": max(row["distance"] for row in rows),
        "outside": float(np.mean([row["outside"] for row in rows])),
        "wrong": float(sum(row["median outside"] > WRONG for row in rows)),
        "verdict off by": float(np.mean(disagreement)),
        "same verdict": float(np.mean(same)),
        "reached": float(np.mean([row["reached"] for row in rows])),
        "steps": float(np.median(steps)) if steps else float("nan"),
    }


HEADS = ("optimizer", "distance", "largest", "outside 99 %", "wrong tasks", "|Δp|", "same verdict", "reached", "steps")


def table(summary: dict[str, Any]) -> str:
    """A line an optimizer. distance: of the mean function, in the ensemble's standard deviations, median over tasks."""
    lines = [HEADS]
    for name, found in summary.items():
        numbers = (
            f"{found['distance']:.2f}",
            f"{found['largest distance']:.2f}",
            f"{found['outside']:.1%}",
            f"{found['wrong']:.0f}",
            f"{found['verdict off by']:.2f}",
            f"{found['same verdict']:.0%}",
            f"{found['reached']:.0%}",
            f"{found['steps']:.0f}",
        )
        lines.append((name, *numbers))
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def draw(outcome: Outcome) -> Figure:
    """Distance of each optimizer's mean function, its share outside, and its choices less the predicted ones."""
    rows = outcome.numbers["rows"]
    figure, axes = plt.subplots(1, 3, figsize=(13.6, 4.8), layout="constrained", sharey=True)
    labels = (
        "distance of the mean function,\nstandard deviations of the ensemble",
        "share of outputs outside\nthe ensemble's 99 % band",
        "networks that take rule A:\nmeasured share − predicted probability",
    )
    values = (
        [row["distance"] for row in rows],
        [row["outside"] for row in rows],
        [row["measured A"] - row["predicted A"] for row in rows],
    )
    for ax, label, each in zip(axes, labels, values, strict=True):
        _draw_by_optimizer(ax, rows, each, label)
    axes[1].axvline(0.01, color=style.BLACK, lw=0.8, ls=":")
    axes[2].axvline(0, color=style.BLACK, lw=0.8, ls=":")
    axes[0].invert_yaxis()
    axes[1].set_title("points: tasks; lines: their median; dotted: of a theory that is right", fontsize=9.5)
    return figure


def _draw_by_optimizer(ax: Axes, rows: list[dict[str, Any]], values: list[float], label: str) -> None:
    style.axes(ax, xlabel=label)
    for i, name in enumerate(OPTIMIZERS):
        own = [value for row, value in zip(rows, values, strict=True) if row["optimizer"] == name]
        spread = np.linspace(-0.22, 0.22, len(own))
        ax.plot(own, i + spread, "o", ms=4, color=style.BLUE if name == PLAIN else style.SKY)
        ax.plot([np.median(own)] * 2, [i - 0.35, i + 0.35], color=style.VERMILION, lw=2)
    ax.set_yticks(range(len(OPTIMIZERS)), list(OPTIMIZERS))
    ax.grid(axis="y", lw=0.3, color="#dddddd")
