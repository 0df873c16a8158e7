"""What feature learning changes: the kernel after one task, against the kernel at the start, on a second task.

Networks learn odd or even from real digits. Their kernel then is the after-kernel; kernel regression with both kernels
on few examples of a second task says what was gained or lost: the same task on other pictures; small or large, which
needs the same digits; which half of the picture is brighter, which needs none; and coin flips, where nothing can help.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from tqdm import tqdm

from ..data.named import named
from ..kernels.empirical import EmpiricalNTK
from ..linalg.symmetric import decompose
from ..network.initialization import Initialization
from ..plot import style
from ..training.run import train as learn
from ..training.training import Training
from . import statistics
from .experiment import Config, Criterion, Outcome, experiment
from .kept import kept
from .slopes import Slope, slope_of

LAW = Initialization(2.0, 0.01, "standard")
RIDGE = 1e-3
"""Of the mean diagonal of the kernel."""
FIRST_SEED, BOOTSTRAPS = 70_000, 4000
MEAN_SQUARE = 0.02
SHARE_OF_LIMIT, MOMENTUM = 0.2, 0.9
QUICK: dict[str, Any] = {
    "widths": (8, 32, 128),
    "networks": 6,
    "first": 150,
    "second": 40,
    "test": 200,
    "steps": 300,
}
FULL: dict[str, Any] = {
    "widths": (8, 16, 32, 64, 128, 256),
    "networks": 40,
    "first": 300,
    "second": 40,
    "test": 400,
    "steps": 1500,
}


def _halves(x: Tensor, digit: Tensor, generator: torch.Generator) -> Tensor:
    pictures = x.reshape(-1, 8, 8)
    return pictures[:, :, :4].sum((1, 2)) >= pictures[:, :, 4:].sum((1, 2))


SECOND: dict[str, Callable[[Tensor, Tensor, torch.Generator], Tensor]] = {
    "odd or even, other pictures": lambda x, digit, generator: digit % 2 == 1,
    "small or large": lambda x, digit, generator: digit >= 5,
    "brighter half": _halves,
    "coin flips": lambda x, digit, generator: torch.rand(len(x), generator=generator) < 0.5,
}
"""(pictures, digits, generator) -> booleans, the second tasks."""


def cases() -> dict[str, Any]:
    """All that decides a result, as `cases/transfer.json` has it."""

    def listed(settings: dict[str, Any]) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}

    return {
        "name": "transfer",
        "claim": "a learned kernel helps on tasks that share its features; wide networks' kernels hardly change",
        "initialization": {"weight_variance": 2.0, "bias_variance": 0.01, "parameterization": "standard"},
        "architecture": "three layers, relu",
        "data": "digits, 8 × 8",
        "first task": "odd or even",
        "second tasks": list(SECOND),
        "training": {
            "learning_rate": f"{SHARE_OF_LIMIT:g} of the limit of the network's own kernel",
            "momentum": MOMENTUM,
            "until": f"a mean square of {MEAN_SQUARE:g}",
        },
        "ridge over the mean diagonal": RIDGE,
        "first_seed": FIRST_SEED,
        "quick": listed(QUICK),
        "full": listed(FULL),
        "criterion": {
            "quantile": statistics.QUANTILE,
            "bootstraps": BOOTSTRAPS,
            "in_words": "test errors of the after-kernel less those of the kernel at the start, a pair for each "
            "network, in bootstrap standard errors, against the 99.9 % quantile of the bootstrap centred on its own "
            "mean: on odd or even, the narrowest networks' error falls by more than that; on coin flips no width's "
            "differs by more. The drift of the kernel falls with width: its slope is below 0 by 3 standard errors.",
        },
    }


@experiment(
    "transfer",
    "a learned kernel helps on new data of its own task, not on coin flips; wide networks' kernels hardly change",
    "Baratin et al. 2021 (2008.00938); Ortiz-Jiménez et al. 2021 (2106.06770)",
    draw=lambda outcome: draw(outcome),
)
def run(config: Config) -> Outcome:
    """All second tasks at each width; narrow networks, and few, by default."""
    settings = FULL if config.full else QUICK
    drawn = {
        width: measured(width, settings, config.first(FIRST_SEED), config.keep)
        for width in tqdm(settings["widths"], desc="widths", disable=not config.progress)
    }
    numbers = {
        "settings": settings,
        "drift": slope_of({width: found["drift"] for width, found in drawn.items()}),
        "losses": {width: float(found["loss"].max()) for width, found in drawn.items()},
        "unreached": {
            width: float((found["loss"] > MEAN_SQUARE * settings["first"] / 2).double().mean())
            for width, found in drawn.items()
        },
        "tasks": {name: _by_width(drawn, name) for name in SECOND},
    }
    return Outcome(tuple(_criteria(numbers)), numbers, _notes(numbers))


def network(width: int, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):  # torch draws weights that are then drawn anew
        model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
    return LAW.apply_(model, seed)


def pictures(settings: dict[str, Any], seed: int) -> tuple[Tensor, Tensor, torch.Generator]:
    """Of one network: the first task's pictures, then the second's, then the test's; standardised together."""
    generator = torch.Generator().manual_seed(seed)
    data = named("digits")
    x = data.x.flatten(1)
    x = (x - x.mean()) / x.std()
    chosen = torch.randperm(len(x), generator=generator)[: settings["first"] + settings["second"] + settings["test"]]
    return x[chosen].float(), data.y[chosen], generator


def signs(booleans: Tensor) -> Tensor:
    return torch.where(booleans, 1.0, -1.0)


def measured(width: int, settings: dict[str, Any], first_seed: int, keep: Path | None = None) -> dict[str, Tensor]:
    """{quantity: (s,)}: of each network, which has pictures of its own."""

    def draw(count: int) -> dict[str, Tensor]:
        rows = [_one(width, settings, seed) for seed in range(first_seed, first_seed + count)]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    size = "-".join(str(settings[name]) for name in ("networks", "first", "second", "test", "steps"))
    path = None if keep is None else keep / f"width-{width}_{size}_seed-{first_seed}.npz"
    return kept(path, draw, settings["networks"])


def _one(width: int, settings: dict[str, Any], seed: int) -> dict[str, Tensor]:
    x, digits, generator = pictures(settings, seed)
    first, model = settings["first"], network(width, seed)
    rates = LAW.rates(model)
    kernel = EmpiricalNTK(model, rates=rates)
    rate = SHARE_OF_LIMIT * 2 / float(kernel.on(x[:first]).eigen.values[0])
    training = Training(
        learning_rate=rate, momentum=MOMENTUM, steps=settings["steps"], until_loss=MEAN_SQUARE * first / 2
    )
    run = learn(model, x[:first], signs(digits[:first] % 2 == 1), training, rates=rates, record=x[:1], at=[0])
    rest, classes = x[first:], digits[first:]
    before, after = (each(rest).double() for each in (kernel, EmpiricalNTK(run.model, rates=rates)))
    train = settings["second"]
    answer = {
        "drift": (after[:train, :train] - before[:train, :train]).norm() / before[:train, :train].norm(),
        "loss": run.losses[-1].double(),
    }
    for name, label in SECOND.items():
        y = signs(label(rest, classes, generator)).double()
        for moment, matrix in (("before", before), ("after", after)):
            answer[f"{name}, error {moment}"] = test_error(matrix, y, train)
            answer[f"{name}, alignment {moment}"] = alignment(matrix, y)
    return answer


def test_error(kernel: Tensor, y: Tensor, train: int) -> Tensor:
    """The share of wrong signs of kernel regression from the first `train` points on the others."""
    gram = kernel[:train, :train]
    ridge = RIDGE * float(gram.diagonal().mean())
    eigen = decompose(gram)
    weights = eigen.vectors @ ((eigen.vectors.T @ y[:train]) / (eigen.values + ridge))
    return ((kernel[train:, :train] @ weights) * y[train:] <= 0).double().mean()


def alignment(kernel: Tensor, y: Tensor) -> Tensor:
    """The centred alignment of a kernel with labels: ⟨HKH, ỹỹᵀ⟩ / (‖HKH‖_F ‖ỹ‖²), ỹ = Hy, H = I − 11ᵀ/n."""
    centred = kernel - kernel.mean(0) - kernel.mean(1, keepdim=True) + kernel.mean()
    target = y - y.mean()
    return target @ centred @ target / (centred.norm() * target.square().sum())


def _by_width(drawn: dict[int, dict[str, Tensor]], name: str) -> dict[str, Any]:
    answer: dict[str, Any] = {}
    for width, found in drawn.items():
        before, after = found[f"{name}, error before"], found[f"{name}, error after"]
        mean = statistics.BootstrappedMean.of((after - before)[:, None], BOOTSTRAPS, seed=0)
        answer[str(width)] = {
            "before": float(before.mean()),
            "after": float(after.mean()),
            "difference": float(mean.mean),
            "error": float(mean.error),
            "quantile": mean.quantile,
            "alignment before": float(found[f"{name}, alignment before"].mean()),
            "alignment after": float(found[f"{name}, alignment after"].mean()),
        }
    return answer


def _criteria(numbers: dict[str, Any]) -> list[Criterion]:
    same, flips = numbers["tasks"]["odd or even, other pictures"], numbers["tasks"]["coin flips"]
    width, narrow = next(iter(same.items()))
    drift: Slope = numbers["drift"]
    return [
        Criterion(
            f"odd or even at width {width}: fall of the error, in standard errors",
            _in_errors(-narrow["difference"], narrow["error"]),
            ">=",
            narrow["quantile"],
            exact=False,
        ),
        *(
            Criterion(
                f"coin flips at width {width}: change of the error, in standard errors",
                _in_errors(abs(each["difference"]), each["error"]),
                "<=",
                each["quantile"],
                exact=False,
            )
            for width, each in flips.items()
        ),
        Criterion(
            "drift of the kernel against width: slope + 3 standard errors",
            drift.slope + 3 * drift.error,
            "<=",
            0.0,
            exact=False,
        ),
    ]


def _in_errors(difference: float, error: float) -> float:
    """A difference that all networks have alike has no error: it is 0, or beyond every limit."""
    if error > 0:
        return difference / error
    return 0.0 if difference == 0 else math.copysign(math.inf, difference)


def _notes(numbers: dict[str, Any]) -> tuple[str, ...]:
    settings = numbers["settings"]
    lines = [
        f"{settings['networks']} networks a width, {settings['second']} examples of the second task; the kernel's "
        f"drift falls with width as {numbers['drift']}; largest loss of the first task "
        f"{max(numbers['losses'].values()):.3g}"
    ]
    for name, found in numbers["tasks"].items():
        each = "; ".join(
            f"width {width}: {at['before']:.1%} to {at['after']:.1%} (± {at['error']:.1%}), alignment "
            f"{at['alignment before']:.2f} to {at['alignment after']:.2f}"
            for width, at in found.items()
        )
        lines.append(f"{name}, test error of the kernel at the start and after: {each}")
        changed = {width: _in_errors(at["difference"], at["error"]) for width, at in found.items()}
        worse = [width for width, at in found.items() if changed[width] > at["quantile"]]
        if worse:
            lines.append(f"{name}: the learned kernel is worse than that at the start, at width {', '.join(worse)}")
    lines += [
        f"width {width}: {share:.0%} of the networks never reached the mean square at which training ends"
        for width, share in numbers["unreached"].items()
        if share > 0
    ]
    return tuple(lines)


def draw(outcome: Outcome) -> Figure:
    """Test errors, and alignments, of both kernels against width."""
    figure, axes = plt.subplots(1, 3, figsize=(13.4, 4.6), layout="constrained")
    tasks = outcome.numbers["tasks"]
    _draw_pairs(axes[0], tasks, "before", "after", "test error of kernel regression on the second task")
    _draw_pairs(axes[1], tasks, "alignment before", "alignment after", "alignment of the kernel with the second task")
    axes[0].set_ylim(0, 0.85)
    style.legend(axes[0], loc="upper center", ncols=2)
    axes[1].set_ylim(bottom=min(0.0, axes[1].get_ylim()[0]))
    _draw_drift(axes[2], outcome.numbers["drift"])
    return figure


def _draw_pairs(ax: Axes, tasks: dict[str, Any], before: str, after: str, label: str) -> None:
    style.axes(ax, xlabel="width of the networks", ylabel=label, title="dashed: at the start; full: after odd or even")
    ax.set_xscale("log", base=2)
    for (name, found), colour in zip(tasks.items(), style.COLOURS, strict=False):
        widths = [int(width) for width in found]
        ax.plot(widths, [at[before] for at in found.values()], "--", color=colour, lw=1.3)
        ax.plot(widths, [at[after] for at in found.values()], "-o", color=colour, ms=4, lw=1.6, label=name)
    ax.set_xticks(widths, [str(width) for width in widths])
    ax.minorticks_off()
    ax.title.set_fontsize(10)


def _draw_drift(ax: Axes, drift: Slope) -> None:
    style.axes(ax, xlabel="width of the networks", ylabel="drift ‖K₁ − K₀‖/‖K₀‖", title="The kernel moves less")
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.plot(drift.widths, drift.values, "-o", color=style.BLACK, ms=4, lw=1.5, label=f"slope {drift}")
    ax.set_xticks(list(drift.widths), [str(width) for width in drift.widths])
    ticks = [
        tick for tick in (0.1, 0.2, 0.3, 0.5, 1, 2, 3, 5) if min(drift.values) / 1.3 < tick < max(drift.values) * 1.3
    ]
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.title.set_fontsize(10)
    style.legend(ax)
