"""The predicted choice against "train m networks and count": their log scores on networks that neither has seen.

Statements are those of the calibration: the sign at undecided test points, and which of two candidates is nearer. Both
say a probability of each; the score is the mean log probability of what held-out networks did, in nats. A count of k
among m says (k + a)/(m + 2a), with a = ½ (Jeffreys) or 1 (Laplace), as k may be 0.
"""

import time
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from scipy.stats import hypergeom
from torch import Tensor
from tqdm import tqdm

from ..plot import style
from . import boolean, small_tasks
from .boolean_tasks import boolean_task
from .experiment import Config, Criterion, Outcome, experiment
from .small_tasks import Task, descent, functions, opened, outcomes, probabilities

SMOOTHING = {"Jeffreys": 0.5, "Laplace": 1.0}
SUREST = 1e-4
"""The prediction calls nothing more certain than this leaves."""
COUNTED = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200)
JUDGED, CHEAPER, REPEATS = 50, 0.1, 3
STEPS, FIRST_SEED = 150, 70_000
PREDICTIVITY, AVAILABILITY = (1.0, 0.85), (0.5, 1.0, 2.0)
TRAIN, TEST, NOISE = 24, 8, 6
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
        "criterion": {
            "smoothing": SMOOTHING,
            "surest": SUREST,
            "counted": list(COUNTED),
            "judged": JUDGED,
            "cheaper": CHEAPER,
            "repeats": REPEATS,
            "in_words": "the prediction's mean log score over all tasks is at least that of counting 50 networks by "
            "the better of the two smoothing rules, in expectation over which 50 of the pool are counted; and a "
            "prediction takes at most a tenth of the CPU seconds of training 50 networks (medians of 3 warm runs).",
        },
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
    """Four tasks with narrow networks by default; 11 with width 1024 in full."""
    settings = FULL if config.full else QUICK
    chosen = makers()[: settings["tasks"]]
    rows = [measure(make(), settings, config) for make in tqdm(chosen, desc="tasks", disable=not config.progress)]
    return reported(rows, settings)


def measure(task: Task, settings: dict[str, Any], config: Config) -> dict[str, Any]:
    """One task: both scores, both costs."""
    pair = task.limit
    training = descent(task, pair, STEPS)
    task = opened(task, pair, training)

    def predict() -> Tensor:
        fresh = task.limit
        return probabilities(task, small_tasks.law(task, fresh, descent(task, fresh, STEPS)))

    pool, first = settings["pool"], FIRST_SEED + config.seed
    done = outcomes(
        task, functions(task, training, settings["width"], pool + settings["held out"], first, config.keep)
    ).to(torch.float64)
    seen, held = done[:pool], done[pool:]
    said = predict()
    by_network = log_score(said.clamp(SUREST, 1 - SUREST), held).mean(1)
    counts = {rule: score_of_counts(seen, held, COUNTED, a) for rule, a in SMOOTHING.items()}

    def train() -> Tensor:
        return functions(task, training, settings["width"], JUDGED, first, None)

    return {
        "task": task.name,
        "statements": len(said),
        "predicted": said,
        "held_out": held.mean(0),
        "score": float(by_network.mean()),
        "score_error": float(by_network.std() / len(by_network) ** 0.5),
        "counts": counts,
        "seconds_to_predict": _seconds(predict, REPEATS),
        "seconds_to_train": _seconds(train, REPEATS if config.full else 1),
    }


def _seconds(do: Callable[[], Any], repeats: int) -> float:
    """CPU seconds, the median of so many warm runs: `do` has been done before."""
    found = []
    for _ in range(repeats):
        start = time.process_time()
        do()
        found.append(time.process_time() - start)
    return float(np.median(found))


def log_score(p: Float[Tensor, " q"], done: Float[Tensor, "s q"]) -> Float[Tensor, "s q"]:
    """log of the probability that was given to what happened, in nats."""
    return done * p.log() + (1 - done) * (-p).log1p()


def score_of_counts(
    pool: Float[Tensor, "n q"], held: Float[Tensor, "s q"], sizes: tuple[int, ...], smoothing: float
) -> Float[Tensor, " m"]:
    """The mean log score of (k + a)/(m + 2a) on held-out outcomes, for each m, in expectation over which m networks of
    the pool are counted: k is hypergeometric."""
    hits, n = pool.sum(0).to(torch.int64).tolist(), len(pool)
    scores = []
    for m in sizes:
        k = np.arange(m + 1)
        yes = np.log((k + smoothing) / (m + 2 * smoothing))
        weights = np.stack([hypergeom(n, total, m).pmf(k) for total in hits])
        of_true, of_false = torch.from_numpy(weights @ yes), torch.from_numpy(weights @ yes[::-1])
        share = held.mean(0)
        scores.append((share * of_true + (1 - share) * of_false).mean())
    return torch.stack(scores)


def reported(rows: list[dict[str, Any]], settings: dict[str, Any]) -> Outcome:
    """Means over the tasks."""
    score = float(np.mean([row["score"] for row in rows]))
    error = float(np.sqrt(np.sum([row["score_error"] ** 2 for row in rows])) / len(rows))
    counts = {rule: torch.stack([row["counts"][rule] for row in rows]).mean(0) for rule in SMOOTHING}
    place = COUNTED.index(JUDGED)
    best = max(float(found[place]) for found in counts.values())
    ratio = sum(row["seconds_to_predict"] for row in rows) / sum(row["seconds_to_train"] for row in rows)
    top = torch.stack(list(counts.values())).amax(0)
    enough = [m for m, found in zip(COUNTED, top.tolist(), strict=True) if found >= score]
    criteria = (
        Criterion(f"mean log score less that of counting {JUDGED} networks", score - best, ">=", 0.0, exact=False),
        Criterion(f"cost of a prediction over that of {JUDGED} networks", ratio, "<=", CHEAPER, exact=False),
    )
    notes = (
        f"mean log score {score:.4f} ± {error:.4f} nats (clustered by network); counting {JUDGED}: "
        + ", ".join(f"{rule} {float(found[place]):.4f}" for rule, found in counts.items()),
        f"counting reaches it with {enough[0]} networks"
        if enough
        else f"counting up to {COUNTED[-1]} never reaches it",
        f"a prediction costs {ratio:.4f} of training {JUDGED} networks of width {settings['width']} (CPU seconds)",
        *(_note(row) for row in rows),
    )
    numbers = {"settings": settings, "score": score, "error": error, "counts": counts, "ratio": ratio, "tasks": rows}
    return Outcome(criteria, numbers, notes)


def _note(row: dict[str, Any]) -> str:
    place = COUNTED.index(JUDGED)
    counted = max(float(found[place]) for found in row["counts"].values())
    return (
        f"{row['task']}: {row['statements']} statements, {row['score']:.3f} ± {row['score_error']:.3f}, counting "
        f"{JUDGED}: {counted:.3f}; seconds to predict {row['seconds_to_predict']:.3f}, to train "
        f"{row['seconds_to_train']:.2f}"
    )


def draw(outcome: Outcome) -> Figure:
    """Left: score against the number of networks counted. Right: against CPU seconds, a task on average."""
    numbers = outcome.numbers
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.6, 4.3), layout="constrained", sharey=True)
    rows = numbers["tasks"]
    predict, train = (float(np.mean([row[k] for row in rows])) for k in ("seconds_to_predict", "seconds_to_train"))
    style.axes(
        left,
        xlabel="networks trained and counted, m",
        ylabel="log score of a held-out network's choice (nats)",
        title=f"Mean over {len(rows)} tasks",
    )
    style.axes(
        right, xlabel="CPU seconds a task", title=f"A prediction costs {numbers['ratio']:.2g} of {JUDGED} networks"
    )
    for (rule, found), colour in zip(numbers["counts"].items(), (style.ORANGE, style.VERMILION), strict=True):
        left.plot(COUNTED, style.array(found), "o-", ms=4, color=colour, label=f"counted, {rule}'s rule")
        right.plot(np.array(COUNTED) * train / JUDGED, style.array(found), "o-", ms=4, color=colour)
    score, error = numbers["score"], numbers["error"]
    left.axhspan(score - 2 * error, score + 2 * error, color=style.BLUE, alpha=0.15, lw=0)
    left.axhline(score, color=style.BLUE, lw=1.6, label="predicted (± 2 standard errors)")
    left.axvline(JUDGED, color=style.BLACK, lw=0.8, ls=":")
    right.errorbar(predict, score, yerr=2 * error, fmt="D", color=style.BLUE, ms=6, label="predicted")
    right.text(predict, score, "  predicted", va="bottom", fontsize=9, color=style.BLUE)
    left.set_xscale("log")
    left.set_xticks([1, 2, 5, 10, 20, 50, 100, 200], ["1", "2", "5", "10", "20", "50", "100", "200"])
    left.minorticks_off()
    right.set_xscale("log")
    style.legend(left, loc="lower right")
    return figure
