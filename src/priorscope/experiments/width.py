"""What becomes small in wide networks, and how fast: each quantity by itself, against width.

Networks on the circle, drawn and really trained, in the "ntk" parameterization. *Spread*: of the kernel at the start
over draws. *Drift*: of one network's kernel in training. *Gap*: between the trained function and what the network's own
kernel at the start predicts. *Moved*: ‖Δθ‖, relative to ‖θ₀‖, and absolute, which tends to √((Y−f₀)ᵀΘ⁻¹(Y−f₀)).
All norms of weights are of c^(−1/2) θ.
"""

import math
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from tqdm import tqdm

from ..kernels import PrecomputedKernel
from ..kernels.infinite import infinite_width
from ..network.initialization import Initialization
from ..plot import style
from ..training.filters import weights_filter
from ..training.training import Training
from ..training.trajectory import trajectory
from . import statistics
from .experiment import Config, Criterion, Outcome, experiment
from .kept import kept
from .slopes import Slope, slope_of
from .together import distances, tangent_kernels, train_together

LAW = Initialization(2.0, 0.1, "ntk")
POINTS, NEW = 7, 20
STEPS = 500
FIRST_SEED, BOOTSTRAPS = 40_000, 4000
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}
ARCHITECTURES: dict[str, tuple[str, int]] = {
    "two layers, relu": ("relu", 1),
    "two layers, tanh": ("tanh", 1),
    "three layers, relu": ("relu", 2),
    "three layers, tanh": ("tanh", 2),
}
"""(activation, hidden layers); an L-layer network has L linear layers."""
QUICK: dict[str, Any] = {"two": (32, 128, 512), "three": (32, 64, 128), "networks": 16}
FULL: dict[str, Any] = {"two": (64, 128, 256, 512, 1024, 2048), "three": (32, 64, 128, 256, 512), "networks": 64}
BOUNDS: dict[str, dict[str, tuple[float, float]]] = {
    "two layers, relu": {
        "spread of the kernel": (-0.65, -0.35),
        "drift of the kernel": (-math.inf, -0.5),
        "relative ‖Δθ‖": (-0.65, -0.35),
        "‖Δθ‖": (-0.15, 0.15),
    },
    "two layers, tanh": {
        "spread of the kernel": (-0.65, -0.35),
        "drift of the kernel": (-math.inf, -0.7),
        "relative ‖Δθ‖": (-0.65, -0.35),
        "‖Δθ‖": (-0.15, 0.15),
    },
}
"""Where a slope has to lie; the gap, and three layers, are reported as they come."""
QUANTITIES = ("spread of the kernel", "drift of the kernel", "gap of the function", "relative ‖Δθ‖", "‖Δθ‖")


def cases() -> dict[str, Any]:
    """All that decides a result, as `cases/width.json` has it."""
    return {
        "name": "width",
        "claim": "what separates a network from its linearisation falls with width, each quantity at its own rate",
        "initialization": {"weight_variance": 2.0, "bias_variance": 0.1, "parameterization": "ntk"},
        "architectures": {name: list(parts) for name, parts in ARCHITECTURES.items()},
        "data": {
            "inputs": f"(cos a, sin a), {POINTS} even angles",
            "labels": "cos a + sin 2a / 2 − cos 3a / 4",
            "new": NEW,
        },
        "training": {"loss": "half_sse", "learning_rate": "1/λ_max of the limit", "steps": STEPS},
        "full": {name: _listed(value) for name, value in FULL.items()},
        "quick": {name: _listed(value) for name, value in QUICK.items()},
        "first_seed": FIRST_SEED,
        "bounds of slopes": {
            name: {each: [None if math.isinf(end) else end for end in ends] for each, ends in bounds.items()}
            for name, bounds in BOUNDS.items()
        },
        "criterion": {
            "quantile": statistics.QUANTILE,
            "bootstraps": BOOTSTRAPS,
            "bootstrap_seed": 0,
            "in_words": "slopes of the root mean square over networks, least squares in log-log, inside their bounds; "
            "two layers: the mean of ‖Δθ‖² over networks, at the widest width, deviates from the limit's by at most "
            "the 99.9 % quantile of the bootstrap centred on its own mean + b/width of the fit a + b/width over the "
            "narrowest and the widest width (b < 0 counts as 0, at most that), in bootstrap standard errors",
        },
    }


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def circle(count: int, turn: float = 0.0) -> Tensor:
    angles = (torch.arange(count, dtype=torch.float64) + turn) * (2 * math.pi / count)
    return torch.stack([angles.cos(), angles.sin()], 1)


def data() -> tuple[Tensor, Tensor, Tensor]:
    """Training points, labels, new points between them."""
    x = circle(POINTS)
    a = torch.atan2(x[:, 1], x[:, 0])
    return x, a.cos() + (2 * a).sin() / 2 - (3 * a).cos() / 4, circle(NEW, turn=0.37)


def network(architecture: str, width: int, seed: int) -> nn.Module:
    activation, hidden = ARCHITECTURES[architecture]
    layers: list[nn.Module] = [nn.Linear(2, width), ACTIVATIONS[activation]()]
    for _ in range(hidden - 1):
        layers += [nn.Linear(width, width), ACTIVATIONS[activation]()]
    with torch.random.fork_rng(devices=[]):  # torch draws weights that are then drawn anew
        model = nn.Sequential(*layers, nn.Linear(width, 1)).double()
    return LAW.apply_(model, seed)


@experiment(
    "width",
    "what separates a network from its linearisation falls with width, each quantity at its own rate",
    "Lee et al. 2019 (1902.06720); Jacot et al. 2018 (1806.07572); Chizat et al. 2019 (1812.07956)",
    draw=lambda outcome: draw(outcome),
)
def run(config: Config) -> Outcome:
    """All architectures; three widths and few networks by default, to width 2048 and 64 networks in full."""
    settings = FULL if config.full else QUICK
    numbers: dict[str, Any] = {}
    criteria: list[Criterion] = []
    for name in tqdm(ARCHITECTURES, desc="architectures", disable=not config.progress):
        widths = settings["two" if ARCHITECTURES[name][1] == 1 else "three"]
        drawn = {
            width: measured(name, width, settings["networks"], config.first(FIRST_SEED), config.keep)
            for width in widths
        }
        slopes = {quantity: slope_of({w: found[quantity] for w, found in drawn.items()}) for quantity in QUANTITIES}
        diverging = {width: int(found["diverging"].sum()) for width, found in drawn.items()}
        numbers[name] = {"slopes": slopes, "moved": _moved(name, drawn), "diverging": diverging}
        criteria += _criteria(name, numbers[name])
    return Outcome(tuple(criteria), {"settings": settings, "architectures": numbers}, _notes(settings, numbers))


def measured(
    architecture: str, width: int, networks: int, first_seed: int, keep: Path | None = None
) -> dict[str, Tensor]:
    """{quantity: (s,)}: every network's own number. The spread's is its kernel's distance from the mean over them.

    diverging: whether the rate is beyond the step limit of the network's own kernel: its linearisation diverges.
    """

    def draw(count: int) -> dict[str, Tensor]:
        return _trained(architecture, width, range(first_seed, first_seed + count))

    words = architecture.replace(",", "").replace(" ", "-")
    path = None if keep is None else keep / f"{words}_width-{width}_networks-{networks}_seed-{first_seed}.npz"
    found = dict(kept(path, draw, networks))
    kernels = found.pop("kernel")
    mean = kernels.mean(0)
    unbiased = math.sqrt(len(kernels) / max(1, len(kernels) - 1))
    found["diverging"] = torch.linalg.eigvalsh(kernels)[:, -1] * _training(architecture).learning_rate > 2
    found["spread of the kernel"] = unbiased * (kernels - mean).flatten(1).norm(dim=1) / mean.norm()
    return found


def _trained(architecture: str, width: int, seeds: range) -> dict[str, Tensor]:
    x, y, new = data()
    everywhere = torch.cat([x, new])
    training, rates = _training(architecture), LAW.rates(network(architecture, width, 0))
    networks = [network(architecture, width, seed) for seed in seeds]
    result = train_together(networks, x, y, training, rates, record=everywhere)
    before = tangent_kernels(networks[0], result.start, rates, everywhere)
    after = tangent_kernels(networks[0], result.end, rates, x)
    rows = torch.arange(len(everywhere))
    predicted = torch.stack(
        [
            start + trajectory(PrecomputedKernel(kernel), rows[:POINTS], y - start[:POINTS], training)(rows)
            for kernel, start in zip(before, result.initial, strict=True)
        ]
    )
    gap = (result.outputs - predicted)[:, POINTS:].square().mean(1).sqrt()
    gram = before[:, :POINTS, :POINTS]
    absolute, relative = distances(result, rates)
    return {
        "kernel": gram,
        "drift of the kernel": (after - gram).flatten(1).norm(dim=1) / gram.flatten(1).norm(dim=1),
        "gap of the function": gap,
        "relative ‖Δθ‖": relative,
        "‖Δθ‖": absolute,
        "loss": result.losses,
    }


def _training(architecture: str) -> Training:
    values = infinite_width(network(architecture, 4, 0), LAW).ntk.on(data()[0]).eigen.values
    return Training(learning_rate=1 / float(values[0]), steps=STEPS)


def moved_in_the_limit(architecture: str) -> float:
    """E‖Δθ‖² = E[(Y−f₀)ᵀ φΘφ (Y−f₀)] with the training's filter φ, Θ⁻¹ at the end: Yᵀ(φΘφ)Y + tr(φΘφ K)."""
    x, y, _ = data()
    limit = infinite_width(network(architecture, 4, 0), LAW)
    eigen, training = limit.ntk.on(x).eigen, _training(architecture)
    learned = weights_filter(eigen.values, training.end, training, 1.0).square() * eigen.values
    matrix = eigen.vectors * learned @ eigen.vectors.T
    return float(y @ matrix @ y + (matrix * limit.nngp(x)).sum())


def _moved(architecture: str, drawn: dict[int, dict[str, Tensor]]) -> dict[str, Any]:
    widths = list(drawn)
    law = moved_in_the_limit(architecture)
    means = {
        width: statistics.BootstrappedMean.of(drawn[width]["‖Δθ‖"].square()[:, None], BOOTSTRAPS, seed=0)
        for width in (widths[0], widths[-1])
    }
    at_narrow, at_wide = (mean.statistic(torch.tensor([law], dtype=torch.float64)) for mean in means.values())
    rule = statistics.TwoWidths(architecture, widths[0], widths[-1], at_narrow, at_wide, means[widths[-1]].quantile)
    return {
        "limit": math.sqrt(law),
        "measured": float(means[widths[-1]].mean.sqrt()),
        "at_wide": at_wide,
        "threshold": rule.threshold,
        "allowance": rule.allowance,
        "largest_loss": max(float(found["loss"].max()) for found in drawn.values()),
    }


def _criteria(name: str, numbers: dict[str, Any]) -> list[Criterion]:
    if name not in BOUNDS:
        return []
    criteria = []
    for quantity, (low, high) in BOUNDS[name].items():
        slope: Slope = numbers["slopes"][quantity]
        said = f"{name}: slope of the {quantity}".replace("the relative", "relative").replace("the ‖", "‖")
        if not math.isinf(low):
            criteria.append(Criterion(said, slope.slope, ">=", low, exact=False))
        criteria.append(Criterion(said, slope.slope, "<=", high, exact=False))
    moved = numbers["moved"]
    said = f"{name}: mean ‖Δθ‖² from the limit's, in standard errors"
    return [*criteria, Criterion(said, moved["at_wide"], "<=", moved["threshold"], exact=False)]


def _notes(settings: dict[str, Any], numbers: dict[str, Any]) -> tuple[str, ...]:
    lines = [f"{settings['networks']} networks a width; slopes ± their standard errors over networks"]
    for name, found in numbers.items():
        slopes = ", ".join(f"{quantity} {slope}" for quantity, slope in found["slopes"].items())
        moved = found["moved"]
        lines.append(
            f"{name}: {slopes}; ‖Δθ‖ {moved['measured']:.3f}, in the limit {moved['limit']:.3f}; largest loss at the "
            f"end {moved['largest_loss']:.1e}"
        )
        lines += [
            f"{name}, width {width}: the rate is beyond the step limit of {count} networks' own kernels; their "
            "linearisations diverge, and the gap of the function there is theirs"
            for width, count in found["diverging"].items()
            if count
        ]
    return tuple(lines)


COLOURS = (style.BLUE, style.VERMILION, style.GREEN, style.PURPLE, style.ORANGE)


def draw(outcome: Outcome) -> Figure:
    """A panel an architecture: every quantity against width, log-log."""
    found = outcome.numbers["architectures"]
    figure, axes = plt.subplots(2, 2, figsize=(10.8, 8.2), layout="constrained")
    for ax, (name, numbers) in zip(axes.flat, found.items(), strict=False):
        _draw_one(ax, name, numbers)
    return figure


def _draw_one(ax: Axes, name: str, numbers: dict[str, Any]) -> None:
    style.axes(ax, xlabel="width", ylabel="root mean square over networks", title=name)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    for (quantity, slope), colour in zip(numbers["slopes"].items(), COLOURS, strict=True):
        label = f"{quantity}: {slope}"
        ax.plot(slope.widths, slope.values, "-o", ms=4, lw=1.5, color=colour, label=label)
    limit = numbers["moved"]["limit"]
    ax.axhline(limit, color=COLOURS[-1], ls=":", lw=1.5, label="‖Δθ‖ in the limit")
    widths = slope.widths
    ax.set_xticks(list(widths), [str(width) for width in widths])
    ax.minorticks_off()
    low = min(min(slope.values) for slope in numbers["slopes"].values())
    ax.set_ylim(low / 1.5, limit * 250)
    style.legend(ax, loc="upper right", title="slope ± standard error")
