"""Predicted probabilities against what trained networks did, over tasks that nothing was built on.

A task's statements are the signs of a network at test points where the ensemble does not all but decide them, and, of
two candidates for the test labels, which it lands nearer to. What one network does in all statements of its task goes
together, so that errors and the band are clustered by network, the band by sampling whole networks from each task's
ensemble. All tasks draw from the same seeds, so that tasks of one shape start from the same networks.
"""

import math
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import torch
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from ..beliefs.gaussian import Gaussian
from ..plot import style
from . import small_tasks
from .calibration_tasks import described, makers
from .experiment import Config, Criterion, Outcome, experiment
from .laws import posteriors
from .small_tasks import POINTS, UNDECIDED, Task, descent, functions, opened, outcomes, probabilities

STEPS, FIRST_SEED = 150, 50_000
BINS, BAND, REPETITIONS, BAND_SEED = 10, 0.99, 4000, 0
LARGEST_BIAS = 0.03
FAR = 3.3
"""Standard errors of a task's bias that chance gives to one task in a thousand."""
WIDTHS = {1: 1024, 2: 512}
"""Of networks with one hidden layer, and with two."""
FULL: dict[str, Any] = {"networks": 100, "widths": WIDTHS, "every": 1}
QUICK: dict[str, Any] = {"networks": 20, "widths": {1: 512, 2: 128}, "every": 2}


def cases() -> dict[str, Any]:
    """All that decides a result, as `cases/calibration.json` has it."""

    def settings(chosen: dict[str, Any]) -> dict[str, Any]:
        return {**chosen, "widths": {str(hidden): width for hidden, width in chosen["widths"].items()}}

    return {
        "name": "calibration",
        "claim": "what compare and the trained ensemble call probable happens as often as they say",
        "initialization": small_tasks.LAW,
        "architecture": "fully connected, with biases; relu unless said; widths by the number of hidden layers",
        "tasks": described(),
        "training": {"loss": "half_sse", "share of the step limit": small_tasks.SHARE, "steps": STEPS},
        "undecided": [UNDECIDED, 1 - UNDECIDED],
        "points": POINTS,
        "full": settings(FULL),
        "quick": settings(QUICK),
        "first_seed": FIRST_SEED,
        "criterion": {
            "largest_bias": LARGEST_BIAS,
            "bins": BINS,
            "band": BAND,
            "repetitions": REPETITIONS,
            "band_seed": BAND_SEED,
            "fewest_networks": 2000,
            "in_words": "statements of a task: f > 0 at up to 8 undecided test points, spread evenly by the rank of "
            "their predicted probability; and, where the candidates differ there, nearer to A than to B. Bias: the "
            "mean over all (network, statement) of outcome less prediction, as stated, and with every statement turned "
            "to its more probable side; each below 0.03 in size. Reliability curve: the mean outcome less the mean "
            "prediction in ten equal bins of the prediction; the largest, in standard deviations of its bin under the "
            "predicted law, is at most the 99 % quantile of that largest under the predicted law, networks sampled "
            "whole from each task's ensemble. 2000 networks in all at least.",
        },
    }


@experiment(
    "calibration",
    "what the trained ensemble calls probable happens as often as it says, on tasks that nothing was built on",
    "Lee et al. 2019 (1902.06720); Dawid 1982 (reliability); Broecker and Smith 2007 (its band)",
    draw=lambda outcome: draw(outcome),
)
def run(config: Config) -> Outcome:
    """Every second task with few narrow networks by default; 24 tasks of 100 networks in full."""
    settings = FULL if config.full else QUICK
    chosen = makers()[:: settings["every"]]
    measured = [measure(make(), settings, config) for make in tqdm(chosen, desc="tasks", disable=not config.progress)]
    return reported(measured, settings)


@dataclass(frozen=True, eq=False)
class Measured:
    """One task: what was predicted of each statement (q,), what each network did (s, q), and from which law.

    posteriors: what the two laws say that trained networks do not follow.
    """

    task: Task
    belief: Gaussian
    predicted: Float[Tensor, " q"]
    done: Bool[Tensor, "s q"]
    width: int
    posteriors: dict[str, Float[Tensor, " q"]]


def measure(task: Task, settings: dict[str, Any], config: Config) -> Measured:
    """Predicts first, then trains."""
    pair = task.limit
    training = descent(task, pair, STEPS)
    task = opened(task, pair, training)
    belief, width = small_tasks.law(task, pair, training), settings["widths"][task.hidden]
    found = functions(task, training, width, settings["networks"], config.first(FIRST_SEED), config.keep)
    laws = posteriors(pair, task.x, task.y, task.x_new)
    others = {name: probabilities(task, law) for name, law in laws.items()}
    return Measured(task, belief, probabilities(task, belief), outcomes(task, found), width, others)


def reported(measured: list[Measured], settings: dict[str, Any]) -> Outcome:
    """Pools the tasks that have a statement."""
    pooled = [one for one in measured if len(one.predicted)]
    told = [(one.predicted, one.done.to(torch.float64)) for one in pooled]
    curve = reliability(told)
    null = [_resampled(one, seed) for seed, one in enumerate(pooled)]
    band = band_of([one.predicted for one in pooled], null)
    worst = float(((curve["outcome"] - curve["predicted"]).abs() / band["deviation"]).nan_to_num(0.0).max())
    biases = biases_of(told)
    others = {
        name: biases_of([(one.posteriors[name], one.done.to(torch.float64)) for one in pooled])
        for name in pooled[0].posteriors
    }
    networks = sum(len(one.done) for one in pooled)
    criteria = [
        Criterion(f"bias, {name} (standard error {error:.4f})", abs(bias), "<=", LARGEST_BIAS, exact=False)
        for name, (bias, error) in biases.items()
    ]
    criteria.append(
        Criterion(
            "reliability: largest deviation of a bin, in standard deviations",
            worst,
            "<=",
            band["quantile"],
            exact=False,
        )
    )
    criteria.append(Criterion("networks pooled", networks, ">=", 2000, exact=False))
    rows = [_row(one) for one in measured]
    statements = sum(one.done.numel() for one in pooled)
    notes = (
        f"{networks} networks, {statements} outcomes of {sum(len(one.predicted) for one in pooled)} statements; "
        + "; ".join(f"bias {name} {bias:+.4f} ± {error:.4f}" for name, (bias, error) in biases.items())
        + " (standard errors clustered by network)",
        *(
            f"the same networks against the {name}: "
            + "; ".join(f"bias {kind} {bias:+.4f} ± {error:.4f}" for kind, (bias, error) in each.items())
            for name, each in others.items()
        ),
        *_far(rows),
        table(rows),
    )
    numbers = {
        "settings": settings,
        "curve": curve,
        "band": band,
        "biases": biases,
        "tasks": rows,
        "posteriors": others,
    }
    return Outcome(tuple(criteria), numbers, notes)


def biases_of(tasks: list[tuple[Tensor, Tensor]]) -> dict[str, tuple[float, float]]:
    """Of (q,) predictions and (s, q) outcomes of each task: the mean outcome less the prediction, and its error."""
    return {
        "as stated": pooled_bias(tasks),
        "to the more probable side": pooled_bias([_turned(predicted, done.bool()) for predicted, done in tasks]),
    }


def _far(rows: list[dict[str, Any]]) -> tuple[str, ...]:
    """The tasks that pooling hides."""
    far = []
    for row in rows:
        off = [abs(bias) / error for bias, error in (row["bias"], row["turned"]) if error > 0] if row["bias"] else []
        if off and max(off) > FAR:
            largest = float((row["outcome"] - row["predicted"]).abs().max())
            far.append(f"{row['task']} ({max(off):.1f} standard errors; one statement is off by {largest:.2f})")
    return (f"pooled with the others, but far off: {'; '.join(far)}",) if far else ()


def _resampled(one: Measured, seed: int) -> Bool[Tensor, "r s q"]:
    """What as many networks would do if drawn from the predicted law itself, again and again."""
    s = len(one.done)
    drawn = [
        outcomes(one.task, one.belief.sample(part * s, BAND_SEED + 1000 * seed + i)).reshape(part, s, -1)
        for i, part in enumerate([500] * (REPETITIONS // 500))
    ]
    return torch.cat(drawn)


def _bins(predicted: Tensor) -> Tensor:
    """(b, q): whether a prediction lies in each of the equal bins of [0, 1]."""
    place = (predicted * BINS).to(torch.int64).clamp_max(BINS - 1)
    return torch.nn.functional.one_hot(place, BINS).to(torch.float64).T


def reliability(tasks: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """{predicted, outcome, count}, (b,) each: means over all (network, statement) of each bin; NaN where it is empty.

    Args:
        tasks: (q,) predictions and (s, q) outcomes of each.
    """
    count = torch.stack([len(done) * _bins(p).sum(1) for p, done in tasks]).sum(0)
    predicted = torch.stack([len(done) * _bins(p) @ p for p, done in tasks]).sum(0)
    outcome = torch.stack([_bins(p) @ done.sum(0) for p, done in tasks]).sum(0)
    return {"predicted": predicted / count, "outcome": outcome / count, "count": count}


def band_of(predicted: list[Tensor], null: list[Tensor]) -> dict[str, Any]:
    """{deviation (b,), quantile}: each bin's deviation under the predicted law, and how many of them the largest of all
    bins stays within in 99 % of the repetitions.

    Args:
        predicted: (q,) of each task. null: (r, s, q) outcomes of each, drawn from its law.
    """
    count = torch.stack([done.shape[1] * _bins(p).sum(1) for p, done in zip(predicted, null, strict=True)]).sum(0)
    hits = sum((done.sum(1).to(torch.float64) @ _bins(p).T for p, done in zip(predicted, null, strict=True)))
    mean = torch.stack([done.shape[1] * _bins(p) @ p for p, done in zip(predicted, null, strict=True)]).sum(0)
    off = (hits - mean) / count
    deviation = off.square().mean(0).sqrt()
    largest = (off.abs() / deviation).nan_to_num(0.0).amax(1)
    return {"deviation": deviation, "quantile": float(largest.quantile(BAND))}


def pooled_bias(tasks: list[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """The mean of outcome less prediction over all (network, statement), and its standard error clustered by network.

    Networks are taken as independent, and those of one task alike: the error is
    √(Σ_tasks s/(s − 1) Σ_networks (e − ē)²)/count, with e the sum over a network's statements and ē its task's mean.
    """
    sums = [(done - p).sum(1) for p, done in tasks]
    count = sum(done.numel() for _, done in tasks)
    spread = sum(float((e - e.mean()).square().sum()) * len(e) / max(len(e) - 1, 1) for e in sums)
    return sum(float(e.sum()) for e in sums) / count, math.sqrt(spread) / count


def _turned(predicted: Tensor, done: Tensor) -> tuple[Tensor, Tensor]:
    """Every statement turned to its more probable side."""
    turn = predicted < 0.5
    return torch.where(turn, 1 - predicted, predicted), (done ^ turn).to(torch.float64)


def _row(one: Measured) -> dict[str, Any]:
    found = {"task": one.task.name, "hidden": one.task.hidden, "width": one.width, "networks": len(one.done)}
    found |= {"predicted": one.predicted, "outcome": one.done.to(torch.float64).mean(0)}
    if not len(one.predicted):
        return {**found, "bias": None, "turned": None, "nearest": None}
    bias, error = pooled_bias([(one.predicted, one.done.to(torch.float64))])
    turned, turned_error = pooled_bias([_turned(one.predicted, one.done)])
    nearest = not torch.equal(one.task.a, one.task.b)
    pair = (float(one.predicted[-1]), float(one.done[:, -1].to(torch.float64).mean())) if nearest else None
    return {**found, "bias": (bias, error), "turned": (turned, turned_error), "nearest": pair}


def table(rows: list[dict[str, Any]]) -> str:
    """Every task's row. Turned: every statement to its more probable side."""
    lines = [("task", "layers × width", "networks", "statements", "bias", "bias, turned", "A nearest: said, done")]
    for row in rows:
        errors = [f"{row[k][0]:+.3f} ± {row[k][1]:.3f}" if row[k] else "none" for k in ("bias", "turned")]
        nearest = f"{row['nearest'][0]:.3f}, {row['nearest'][1]:.3f}" if row["nearest"] else "A is B"
        size = f"{row['hidden']} × {row['width']}"
        lines.append((row["task"], size, str(row["networks"]), str(len(row["predicted"])), *errors, nearest))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def draw(outcome: Outcome) -> Figure:
    """Left: the reliability curve with its band. Right: every task's bias, with two clustered standard errors."""
    rows = outcome.numbers["tasks"]
    size = (11.4, max(4.6, 1.6 + 0.2 * len(rows)))
    figure, (left, right) = plt.subplots(1, 2, figsize=size, layout="constrained")
    _draw_curve(left, outcome.numbers)
    _draw_biases(right, rows)
    return figure


def _draw_curve(ax: Axes, numbers: dict[str, Any]) -> None:
    curve, band = numbers["curve"], numbers["band"]
    style.axes(
        ax,
        xlabel="predicted probability of a statement",
        ylabel="share of networks of which it is true",
        title=f"{int(curve['count'].sum())} outcomes",
    )
    full = curve["count"] > 0
    x, y, half = (v[full] for v in (curve["predicted"], curve["outcome"], band["deviation"] * band["quantile"]))
    ax.fill_between(x, x - half, x + half, color=style.BLUE, alpha=0.2, lw=0, label="99 % band under the predicted law")
    ax.plot([0, 1], [0, 1], color=style.BLACK, lw=0.8, ls="--")
    for row in numbers["tasks"]:
        ax.plot(row["predicted"], row["outcome"], ".", ms=4, color=style.SKY, alpha=0.6, zorder=1)
    ax.plot([], [], ".", color=style.SKY, label="one statement of one task")
    ax.plot(x, y, "o-", color=style.VERMILION, ms=5, lw=1.3, label="all tasks, in ten bins")
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    style.legend(ax, loc="lower right")


def _draw_biases(ax: Axes, rows: list[dict[str, Any]]) -> None:
    style.axes(ax, xlabel="bias, to the more probable side, ± 2 standard errors", title="Every task")
    for place, row in enumerate(rows):
        if row["turned"]:
            bias, error = row["turned"]
            colour = {1: style.BLUE, 2: style.ORANGE}[row["hidden"]]
            ax.errorbar(bias, place, xerr=2 * error, fmt="o", ms=4, color=colour, lw=1.2)
    for hidden, colour, words in ((1, style.BLUE, "one hidden layer"), (2, style.ORANGE, "two")):
        width = next((row["width"] for row in rows if row["hidden"] == hidden), None)
        if width:
            ax.plot([], [], "o", ms=4, color=colour, label=f"{words}, width {width}")
    ax.axvline(0, color=style.BLACK, lw=0.8)
    ax.axvspan(-LARGEST_BIAS, LARGEST_BIAS, color=style.BLACK, alpha=0.07, lw=0, label="±0.03, the pooled limit")
    ax.set_yticks(range(len(rows)), [row["task"] for row in rows], fontsize=7)
    ax.set_ylim(len(rows) + 2.4, -0.7)
    style.legend(ax, loc="lower left")
