"""A score that is computed before training, against what trained networks then do: on tasks held out of its fit.

Tasks × trainings × widths. In each case networks are trained, and the prediction is wrong where the median network
leaves the ensemble's 99 % band at more than 10 % of the test points. The score is fitted on the fit's tasks alone.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from tqdm import tqdm

from ..generalization.trust.features import Prediction, features, measured
from ..generalization.trust.score import Fitted, Score, auroc
from ..generalization.trust.unseen import kind, span
from ..plot import style
from ..results import plain
from ..training.band import WRONG
from .experiment import Config, Criterion, Outcome, experiment
from .trust_cases import Case, cases_of
from .trust_tasks import FIT, HELD_OUT, STEPS, WIDE, Task

FULL: dict[str, Any] = {"networks": 16, "widths": None}
QUICK: dict[str, Any] = {"networks": 8, "widths": (16, 256)}
LOOKED_AT = 20
"""Steps of real training that the second score looks at: 5 % of them."""
LOOKED_FROM = 10**6
"""Added to the first trained network's seed: features look at networks of which none is trained and judged."""
ENOUGH, TASKS = 0.9, 6
"""The AUROC, and the tasks held out, that are asked for."""
REPEATS = 2000
"""Resamplings of the held-out tasks, for the interval of an AUROC."""
COURSE = ("turn", "course")
SCORES = ("before", "after_steps")
PARTS = {"all": "", "wide": f" of width {WIDE} and more"}
COMMAND = "python scripts/fit_trust.py"


@experiment(
    "trust",
    "a score that is computed before training tells right predictions from wrong ones, on tasks it was not fitted on",
    "Ortiz-Jiménez et al. 2021 (2106.06770); Chizat et al. 2019 (1812.07956); Lewkowycz et al. 2020 (2003.02218)",
    draw=lambda outcome: draw(outcome),
)
def run(config: Config) -> Outcome:
    """All tasks; at two widths and with few networks by default."""
    settings = FULL if config.full else QUICK
    return measure(FIT, HELD_OUT, settings, config.first(0), config.keep, config.progress)


def measure(
    fit: tuple[Task, ...],
    held_out: tuple[Task, ...],
    settings: dict[str, Any],
    first_seed: int = 0,
    keep: Path | None = None,
    progress: bool = False,
    chosen: Callable[[Case], bool] = lambda case: True,
) -> Outcome:
    """What `run` reports, of these tasks. chosen: the cases that are run; all others are named."""

    def all_of(tasks: tuple[Task, ...], name: str) -> list[dict[str, Any]]:
        cases = [case for case in cases_of(tasks, settings["widths"]) if chosen(case)]
        return [
            row(case, settings["networks"], first_seed, keep) for case in tqdm(cases, desc=name, disable=not progress)
        ]

    fitted, held = all_of(fit, "to fit"), all_of(held_out, "held out")
    scores = {which: fitted_score(fitted, which) for which in SCORES}
    for each in held:
        each["score"] = {which: scores[which](each["features"]) for which in SCORES}
    wide = [each for each in held if each["width"] >= WIDE]
    numbers: dict[str, Any] = {
        "fit": fitted,
        "held_out": held,
        "scores": {which: score.to_dict() for which, score in scores.items()},
        "tasks": {"fit": [task.name for task in fit], "held_out": [task.name for task in held_out]},
        "networks": settings["networks"],
        "not run": not_run((*fit, *held_out), [*fitted, *held]),
    }
    reached = {which: {"all": quality(held, which), "wide": quality(wide, which)} for which in SCORES}
    numbers["reached"] = reached
    criteria = []
    for part, those in PARTS.items():
        tasks = len(reached["before"][part]["by_task"])
        criteria.append(Criterion(f"tasks held out of the fit{those}", tasks, ">=", TASKS))
    for which, named in zip(SCORES, ("before training", f"after {LOOKED_AT} real steps"), strict=True):
        for part, those in PARTS.items():
            name = f"{named}: AUROC on held-out cases{those}"
            criteria.append(Criterion(name, reached[which][part]["auroc"], ">=", ENOUGH, exact=False))
    return Outcome(tuple(criteria), numbers, notes(numbers))


def row(case: Case, networks: int, first_seed: int, keep: Path | None) -> dict[str, Any]:
    """One case: its features, and the share of test outputs that the median network has outside the band."""
    _, y, x_new = case.data
    prediction = Prediction.of(case.pair, y, x_new, case.training)
    outside = case.outside(networks, first_seed, keep)
    return {
        "task": case.task.name,
        "setting": case.setting.name,
        "width": case.width,
        "kind": kind(prediction),
        "outside": float(outside.median()),
        "mean_outside": float(outside.mean()),
        "right": bool(outside.median() <= WRONG),
        "features": looked_at(prediction, first_seed + LOOKED_FROM),
    }


def looked_at(prediction: Prediction, seed: int) -> dict[str, float]:
    """All features of a case, of the networks from this seed on."""
    return features(prediction, seed=seed) | measured(prediction, LOOKED_AT, seed)


def not_run(tasks: tuple[Task, ...], rows: Sequence[dict[str, Any]]) -> list[str]:
    """The names of the tasks' cases that are not among these."""
    run = {(each["task"], each["setting"], each["width"]) for each in rows}
    return [case.name for case in cases_of(tasks) if (case.task.name, case.setting.name, case.width) not in run]


def fitted_score(rows: Sequence[dict[str, Any]], which: str) -> Score:
    """The score that is fitted on these cases; without what real steps show, for "before"."""
    left_out = COURSE if which == "before" else ()
    chosen = [{name: v for name, v in each["features"].items() if name not in left_out} for each in rows]
    return Score.fit(chosen, [each["right"] for each in rows])


def quality(rows: Sequence[dict[str, Any]], which: str) -> dict[str, Any]:
    """AUROC, its 95 % interval over resampled tasks, and the rank correlation with the share inside the band."""
    by_task: dict[str, list[tuple[float, bool]]] = {}
    for each in rows:
        by_task.setdefault(each["task"], []).append((each["score"][which], each["right"]))
    if not by_task:  # a run may have no wide network
        unknown = float("nan")
        return {
            "auroc": unknown,
            "interval": [unknown] * 2,
            "spearman": unknown,
            "by_task": {},
            "cases": 0,
            "wrong": 0,
            "brier": unknown,
        }
    names, generator = list(by_task), torch.Generator().manual_seed(0)
    drawn = []
    for _ in range(REPEATS):
        chosen = torch.randint(len(names), (len(names),), generator=generator).tolist()
        drawn.append(_auroc([case for i in chosen for case in by_task[names[i]]]))
    known = np.array([value for value in drawn if not np.isnan(value)])
    scores, inside = [each["score"][which] for each in rows], [1 - each["outside"] for each in rows]
    varied = len(set(scores)) > 1 and len(set(inside)) > 1
    return {
        "auroc": _auroc([case for cases in by_task.values() for case in cases]),
        "interval": [float(q) for q in np.quantile(known, [0.025, 0.975])] if len(known) else [float("nan")] * 2,
        "spearman": float(spearmanr(scores, inside).statistic) if varied else float("nan"),
        "by_task": {name: _auroc(cases) for name, cases in by_task.items()},
        "cases": len(rows),
        "wrong": sum(not each["right"] for each in rows),
        "brier": float(np.mean([(each["score"][which] - each["right"]) ** 2 for each in rows])),
    }


def _auroc(cases: Sequence[tuple[float, bool]]) -> float:
    return auroc([score for score, _ in cases], [right for _, right in cases])


def fit_of(outcome: Outcome) -> Fitted:
    """What comes with the package, from an outcome of the full run."""
    numbers = outcome.numbers
    left_out = {"cases not run": numbers["not run"]} if numbers["not run"] else {}
    record = plain(
        {
            "made by": COMMAND,
            "right": "the median network lies outside the ensemble's 99 % band at no more than 10 % of the test points",
            "networks a case": numbers["networks"],
            "steps of training": STEPS,
            "steps looked at": LOOKED_AT,
            "seeds looked at": f"{LOOKED_FROM} beyond those of the trained networks",
            "fitted on": span([each["kind"] for each in numbers["fit"]], STEPS),
            "tasks": numbers["tasks"],
            "cases": {"fit": len(numbers["fit"]), "held out": len(numbers["held_out"])},
            "wrong in the fit": sum(not each["right"] for each in numbers["fit"]),
            "reached on held-out tasks": numbers["reached"],
            **left_out,
        }
    )
    held = {which: tuple((each["score"][which], each["right"]) for each in numbers["held_out"]) for which in SCORES}
    scores = {which: Score(**numbers["scores"][which]) for which in SCORES}
    return Fitted(scores["before"], scores["after_steps"], held, record)


def notes(numbers: dict[str, Any]) -> tuple[str, ...]:
    wrong = sum(not each["right"] for each in numbers["fit"])
    lines = [f"fitted on {len(numbers['fit'])} cases, {wrong} of them wrong"]
    for which, parts in numbers["reached"].items():
        for part, found in parts.items():
            low, high = found["interval"]
            lines.append(
                f"{which.replace('_', ' ')}, {part}: AUROC {found['auroc']:.3f} [{low:.3f}, {high:.3f}], rank "
                f"correlation {found['spearman']:.3f}, Brier {found['brier']:.3f}; {found['wrong']} of "
                f"{found['cases']} cases are wrong"
            )
    by_task = numbers["reached"]["before"]["all"]["by_task"]
    lines.append("AUROC by task (nan: all alike): " + ", ".join(f"{n} {v:.2f}" for n, v in by_task.items()))
    for part, those in PARTS.items():
        found = numbers["reached"]["before"][part]["by_task"]
        both = [name for name, value in found.items() if not np.isnan(value)]
        named = f": {', '.join(both)}" if both else ""
        lines.append(f"{len(both)} of {len(found)} held-out tasks have right and wrong cases{those}{named}")
    weights = numbers["scores"]["before"]["weights"]
    lines.append("weights (before): " + ", ".join(f"{n} {w:.2f}" for n, w in weights.items()))
    if numbers["not run"]:
        lines.append(f"{len(numbers['not run'])} cases that were fixed beforehand were not run")
    return tuple(lines)


def draw(outcome: Outcome) -> Figure:
    """The score against the share outside the band, the ROC, and the weights."""
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.8), layout="constrained")
    _draw_scores(axes[0], outcome.numbers)
    _draw_roc(axes[1], outcome.numbers)
    _draw_weights(axes[2], outcome.numbers["scores"])
    return figure


def _draw_scores(ax: Axes, numbers: dict[str, Any]) -> None:
    style.axes(
        ax,
        xlabel="trust score, before training",
        ylabel="test outputs outside the 99 % band (median network)",
        title=f"Held-out tasks (filled: width {WIDE} and more)",
    )
    for i, task in enumerate(numbers["tasks"]["held_out"]):
        colour, marker = style.COLOURS[i % len(style.COLOURS)], "os^"[i // len(style.COLOURS)]
        rows = [each for each in numbers["held_out"] if each["task"] == task]
        for wide in (True, False):
            part = [each for each in rows if (each["width"] >= WIDE) == wide]
            ax.plot(
                [each["score"]["before"] for each in part],
                [each["outside"] for each in part],
                marker,
                color=colour,
                mfc=colour if wide else "none",
                ms=5,
                alpha=0.85,
                label=task if wide else None,
            )
    ax.axhline(WRONG, color=style.BLACK, lw=0.8, ls="--")
    ax.text(1.0, WRONG + 0.01, "wrong above", ha="right", va="bottom", fontsize=8)
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    style.legend(ax, loc="upper right", ncols=2)


def _draw_roc(ax: Axes, numbers: dict[str, Any]) -> None:
    style.axes(
        ax,
        xlabel="wrong predictions that are believed (share)",
        ylabel="right predictions that are believed (share)",
        title="Held-out tasks: believing above a score",
    )
    held = numbers["held_out"]
    wide = [each for each in held if each["width"] >= WIDE]
    for which, colour in zip(SCORES, (style.BLUE, style.ORANGE), strict=True):
        for part, rows, dashes in (("all", held, "-"), ("wide", wide, "--")):
            found = numbers["reached"][which][part]
            if not found["wrong"] or found["wrong"] == found["cases"]:
                continue
            order = sorted(rows, key=lambda each: -each["score"][which])
            right = np.cumsum([each["right"] for each in order])
            wrong = np.cumsum([not each["right"] for each in order])
            label = {"before": "before", "after_steps": f"after {LOOKED_AT} steps"}[which]
            label += f"{f', width ≥ {WIDE}' if part == 'wide' else ''}: {found['auroc']:.3f}"
            ax.plot(np.r_[0, wrong / wrong[-1]], np.r_[0, right / right[-1]], dashes, color=colour, lw=1.8, label=label)
    ax.plot([0, 1], [0, 1], color=style.BLACK, lw=0.8, ls=":")
    ax.legend(frameon=False, fontsize=8.5, loc="lower right", title="AUROC", title_fontsize=8.5)


def _draw_weights(ax: Axes, scores: dict[str, Any]) -> None:
    style.axes(ax, xlabel="what one standard deviation takes off the log-odds", title="Weights of the two scores")
    names = list(scores["after_steps"]["weights"])
    for offset, which, colour in zip((-0.2, 0.2), SCORES, (style.BLUE, style.ORANGE), strict=True):
        values = [scores[which]["weights"].get(name, 0.0) for name in names]
        label = {"before": "before training", "after_steps": f"after {LOOKED_AT} real steps"}[which]
        ax.barh([i + offset for i in range(len(names))], values, height=0.36, color=colour, label=label)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    style.legend(ax, loc="lower right")
