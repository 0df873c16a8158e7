"""All 256 labelings of the untrained inputs of a 5-bit function: how often trained networks take each, and three laws.

The trained ensemble is what a wide network does; the posteriors of the Gaussian processes with the NNGP and with the
NTK as covariance are what it is often taken for. Distance: the total variation over labelings, ½ Σ |p̂ − p|.
"""

from typing import Any

import matplotlib.pyplot as plt
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from ..plot import style
from . import small_tasks, statistics
from .boolean_tasks import boolean_task, codes, counts
from .experiment import Config, Criterion, Outcome, experiment
from .laws import ENSEMBLE, LAWS, POSTERIORS, posteriors
from .small_tasks import Task, descent, functions

BITS, TRAIN = 5, 24
TASKS = (
    ("majority", 0),
    ("two bits differ", 2),
    ("exactly two", 0),
    ("weights 1 to d", 0),
    ("coins 1", 3),
)
"""(function, seed of the split). Chosen by the predicted laws alone: the posteriors are far from the ensemble."""
STEPS, FIRST_SEED = 600, 40_000
SAMPLES, NULL_DRAWS, NULL_SEED = 1_000_000, 10_000, 0
FULL: dict[str, Any] = {"tasks": 5, "widths": (512, 1024), "networks": 1000}
QUICK: dict[str, Any] = {"tasks": 1, "widths": (256, 512), "networks": 200}


def cases() -> dict[str, Any]:
    """All that decides a result, as `cases/boolean.json` has it."""
    return {
        "name": "boolean",
        "claim": "trained networks take each labeling of the test points as often as the trained ensemble says",
        "initialization": small_tasks.LAW,
        "architecture": {"hidden layers": 1, "activation": "relu", "bias": True},
        "bits": BITS,
        "training points": TRAIN,
        "tasks": [{"function": function, "split seed": seed} for function, seed in TASKS],
        "training": {"loss": "half_sse", "share of the step limit": small_tasks.SHARE, "steps": STEPS},
        "full": {**FULL, "widths": list(FULL["widths"])},
        "quick": {**QUICK, "widths": list(QUICK["widths"])},
        "first_seed": FIRST_SEED,
        "criterion": {
            "quantile": statistics.QUANTILE,
            "samples of a law": SAMPLES,
            "null_draws": NULL_DRAWS,
            "null_seed": NULL_SEED,
            "factor_for_evidence": 2.0,
            "in_words": "the total variation between the labelings of the networks and the ensemble's is at most the "
            "99.9 % quantile of that of as many networks drawn from the ensemble + b/width of the fit a + b/width over "
            "both widths (b < 0 counts as 0, at most the quantile), judged at the wider one. A task is evidence only "
            "where the posteriors of the NNGP and of the NTK both exceed twice that.",
        },
    }


@experiment(
    "boolean",
    "trained networks take each labeling of the test points as often as the trained ensemble says, no posterior does",
    "Lee et al. 2019 (1902.06720); Valle-Pérez et al. 2019 (1805.08522) (the task); Mingard et al. 2021 (2006.15191)",
    draw=lambda outcome: draw(outcome),
)
def run(config: Config) -> Outcome:
    """One task with few narrow networks by default; five with 1000 of width 1024 in full."""
    settings = FULL if config.full else QUICK
    numbers, criteria, notes = {}, [], []
    for function, seed in tqdm(TASKS[: settings["tasks"]], desc="tasks", disable=not config.progress):
        task = boolean_task(function, BITS, TRAIN, seed)
        numbers[task.name], found = measure(task, settings, config)
        criteria += found
        notes.append(_note(task.name, numbers[task.name]))
    evidence = [name for name, entry in numbers.items() if entry["evidence"]]
    notes.append(f"tasks that count as evidence: {len(evidence)} of {len(numbers)} ({'; '.join(evidence) or 'none'})")
    return Outcome(tuple(criteria), {"settings": settings, "tasks": numbers}, tuple(notes))


def measure(task: Task, settings: dict[str, Any], config: Config) -> tuple[dict[str, Any], list[Criterion]]:
    """One task: counted labelings against three laws, and the two criteria."""
    pair = task.limit
    training = descent(task, pair, STEPS)
    laws = {
        ENSEMBLE: small_tasks.law(task, pair, training),
        **posteriors(pair, task.x, task.y, task.x_new),
    }
    sampled = {name: counts(law.sample(SAMPLES, config.seed)).to(torch.float64) for name, law in laws.items()}
    shares = {name: count / SAMPLES for name, count in sampled.items()}
    narrow, wide = settings["widths"]
    found = {
        width: functions(task, training, width, settings["networks"], config.first(FIRST_SEED), config.keep)
        for width in (narrow, wide)
    }
    counted = {width: counts(values) for width, values in found.items()}
    distances = {
        width: {name: total_variation(count / count.sum(), share) for name, share in shares.items()}
        for width, count in counted.items()
    }
    null = variation_of_its_own(shares[ENSEMBLE], settings["networks"], NULL_DRAWS, NULL_SEED)
    criterion = statistics.TwoWidths(
        task.name,
        narrow,
        wide,
        distances[narrow][ENSEMBLE],
        distances[wide][ENSEMBLE],
        float(null.quantile(statistics.QUANTILE)),
    )
    power = min(distances[wide][name] for name in POSTERIORS) / (2 * criterion.threshold)
    numbers = {
        "counts": counted[wide],
        "shares": shares,
        "distances": {str(width): found for width, found in distances.items()},
        "floor": float(null.mean()),
        "quantile": criterion.quantile,
        "allowance": criterion.allowance,
        "threshold": criterion.threshold,
        "log_likelihood": {name: log_likelihood(counted[wide], count) for name, count in sampled.items()},
        "evidence": power >= 1,
        "of_the_function": int(codes(task.a[None])[0]),
    }
    return numbers, [
        Criterion(f"{task.name}: total variation", distances[wide][ENSEMBLE], "<=", criterion.threshold, exact=False),
        Criterion(f"{task.name}: the nearer posterior over twice the threshold", power, ">=", 1.0, exact=False),
    ]


def total_variation(p: Float[Tensor, "*s l"], q: Float[Tensor, " l"]) -> Any:
    """½ Σ |p − q|; a float for one p."""
    found = (p - q).abs().sum(-1) / 2
    return float(found) if found.ndim == 0 else found


def variation_of_its_own(law: Float[Tensor, " l"], networks: int, draws: int, seed: int) -> Float[Tensor, " d"]:
    """The total variation between a law and so many networks drawn from it, again and again."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(draws):
        drawn = torch.multinomial(law, networks, replacement=True, generator=generator)
        found.append(total_variation(torch.bincount(drawn, minlength=len(law)) / networks, law))
    return torch.tensor(found, dtype=torch.float64)


def log_likelihood(counted: Tensor, sampled: Tensor) -> float:
    """Σ log p over the networks, per network, in nats; p = (hits + ½)/(samples + l/2) (Jeffreys), as hits may be 0."""
    p = (sampled + 0.5) / (sampled.sum() + len(sampled) / 2)
    return float((counted * p.log()).sum() / counted.sum())


def _note(name: str, entry: dict[str, Any]) -> str:
    width, found = list(entry["distances"].items())[-1]
    laws = "; ".join(f"{law} {tv:.3f} ({entry['log_likelihood'][law]:.2f} nats)" for law, tv in found.items())
    return (
        f"{name}: total variation (log-likelihood a network) at width {width}: {laws}; floor {entry['floor']:.3f}, "
        f"threshold {entry['threshold']:.3f} = quantile {entry['quantile']:.3f} + allowance {entry['allowance']:.3f}"
        f"{'' if entry['evidence'] else '; no evidence: a posterior is too near'}"
    )


COLOURS = dict(zip(LAWS, (style.BLUE, style.ORANGE, style.VERMILION), strict=True))


def draw(outcome: Outcome) -> Figure:
    """Each task: what the laws say of each labeling against how often networks took it; and the total variations."""
    tasks = outcome.numbers["tasks"]
    figure, rows = plt.subplots(
        len(tasks), 2, figsize=(9.6, 3.9 * len(tasks)), layout="constrained", squeeze=False, width_ratios=[1.35, 1]
    )
    for (left, right), (name, entry) in zip(rows, tasks.items(), strict=True):
        _draw_labelings(left, name, entry)
        _draw_distances(right, entry)
    return figure


def _draw_labelings(ax: Any, name: str, entry: dict[str, Any]) -> None:
    networks = int(entry["counts"].sum())
    style.axes(
        ax,
        xlabel="predicted share of a labeling",
        ylabel="share of networks that take it",
        title=f"{name}: the labelings that networks took",
    )
    taken = entry["counts"] > 0
    least = 0.4 / networks
    for law, marker in zip(reversed(LAWS), "sDo", strict=True):
        predicted = entry["shares"][law][taken].clamp_min(least)
        ax.plot(predicted, entry["counts"][taken] / networks, marker, ms=4, alpha=0.75, color=COLOURS[law], label=law)
    ax.plot([least, 1], [least, 1], color=style.BLACK, lw=0.8, ls="--")
    ax.set(xscale="log", yscale="log", xlim=(0.8 * least, 1.2), ylim=(0.8 / networks, 1.2))
    ax.text(least, 0.85, f"at the left edge: predicted {least:.2g} or less", fontsize=7.5, va="top")
    style.legend(ax, loc="lower right")


def _draw_distances(ax: Any, entry: dict[str, Any]) -> None:
    width, found = list(entry["distances"].items())[-1]
    style.axes(
        ax, xlabel="total variation to the networks", title=f"width {width}, {int(entry['counts'].sum())} networks"
    )
    for place, law in enumerate(LAWS):
        ax.barh(place, found[law], color=COLOURS[law], height=0.55)
        ax.text(found[law] + 0.01, place, f"{found[law]:.3f}", va="center", fontsize=8.5)
    lines = (
        (f"floor {entry['floor']:.3f}", entry["floor"], ":"),
        (f"threshold {entry['threshold']:.3f}", entry["threshold"], "--"),
        ("twice the threshold", 2 * entry["threshold"], "-"),
    )
    for label, x, dashes in lines:
        ax.plot([x, x], [-0.5, len(LAWS) - 0.5], color=style.BLACK, lw=1.1, ls=dashes, label=label)
    ax.set_yticks(range(len(LAWS)), LAWS)
    ax.set_ylim(len(LAWS) + 0.6, -0.6)
    ax.set_xlim(0, 1.15 * max(*found.values(), 2 * entry["threshold"]))
    style.legend(ax, loc="lower left", ncols=2, columnspacing=0.8)
