"""The essay's puzzle: a prior that seems to call y = 3 most probable where trained networks say −0.1; and its bumps.

*Printed*: the essay's three-layer ReLU network on five points of the line. The log-prior that the essay prints lacks
an inverse; its most probable label is −K(x, X)Y / K(x, x). The right density's is the kernel regression.
*Bumps*: the same five labels on a circle, where a straight line is no rival; predicted beside trained networks.
"""

import warnings
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from tqdm import tqdm

from ..beliefs.gaussian import Gaussian
from ..beliefs.process import GaussianProcess
from ..errors import PriorscopeWarning
from ..kernels.empirical import EmpiricalNTK
from ..kernels.infinite import infinite_width
from ..kernels.kernel import Kernel
from ..network.initialization import Initialization
from ..plot import style
from ..training.ensemble import trained_ensemble
from ..training.runs import Runs, train_many
from ..training.training import Training
from ..training.trajectory import trajectory
from .experiment import Config, Criterion, Outcome, experiment

X = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0], dtype=torch.float64)
Y = torch.tensor([-1.0, -0.6, 0.3, -0.6, -1.0], dtype=torch.float64)
PROBES = torch.tensor([-0.5, 0.5, 0.7], dtype=torch.float64)
GRID = torch.linspace(-2, 2, 81, dtype=torch.float64)
WIDTH = 512
CIRCLE = Initialization(2.0, 0.01, "ntk")
THIRD = 1 / 3
MOMENTUM = 0.9
LOSS = 1e-6
"""The networks of the bumps are trained until their loss is below this."""


def network(inputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1))


def on_circle(x: Tensor) -> Tensor:
    return torch.stack([x.cos(), x.sin()], 1)


def straight_lines(x: Tensor) -> Tensor:
    """Interpolation of the five points by straight lines."""
    right = torch.searchsorted(X, x.contiguous()).clamp(1, len(X) - 1)
    share = (x - X[right - 1]) / (X[right] - X[right - 1])
    return Y[right - 1] + share * (Y[right] - Y[right - 1])


def right_density(kernel: Kernel, inputs: Tensor, probe: Tensor, labels: Tensor) -> Tensor:
    """log N((Y, y); 0, K) for each candidate label y of one probe, (c,)."""
    prior = GaussianProcess(kernel).prior(torch.cat([inputs, probe]))
    return prior.log_prob(torch.cat([Y.expand(len(labels), -1), labels[:, None]], 1))


def printed_density(kernel: Kernel, inputs: Tensor, probe: Tensor, labels: Tensor) -> Tensor:
    """What the essay prints, −½ Σ (vᵢ·Y)² λᵢ, for each candidate label of one probe, (c,)."""
    gram = kernel(torch.cat([inputs, probe])).detach().to(torch.float64)
    both = torch.cat([Y.expand(len(labels), -1), labels[:, None]], 1)
    return -torch.einsum("ci,ij,cj->c", both, gram, both) / 2


def vertex(density: Callable[..., Tensor], kernel: Kernel, inputs: Tensor, probe: Tensor) -> float:
    """The label that maximises a density, which is a parabola, from its values at −1, 0 and 1."""
    low, middle, high = density(kernel, inputs, probe, torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)).tolist()
    return (low - high) / (2 * (low - 2 * middle + high))


@experiment(
    "puzzle",
    "the printed log-prior calls y near 3 most probable; the right one calls what trained networks do",
    "Larsen and Gillen 2022 (the puzzle); Lee et al. 2019 (1902.06720) (the prediction)",
    draw=lambda outcome: draw(outcome),
)
def run(config: Config) -> Outcome:
    """Both arms; few networks by default, 6 and 100 in full."""
    printed, printed_criteria, shown = _printed(config)
    bumps, bumps_criteria = _bumps(config)
    met, heavy = bumps["momentum_met"]
    notes = (
        *shown,
        f"the counter-example: with momentum {MOMENTUM} at η = 1/λ_max only {met} of {heavy} networks do what their "
        "own kernel predicts",
        "on the line, straight lines do as well as the theory: this task cannot tell a good theory from a ruler",
        "the essay's own data are not known; these five points are read off its figure",
    )
    return Outcome((*printed_criteria, *bumps_criteria), {"printed": printed, "bumps": bumps}, notes)


def _printed(config: Config) -> tuple[dict[str, Any], list[Criterion], tuple[str, ...]]:
    inputs, probes, grid = X[:, None], PROBES[:, None], GRID[:, None]
    torch.manual_seed(config.seed)
    model = network(1).double()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PriorscopeWarning)
        limit = infinite_width(model)
        kernel = limit.ntk
        labels = torch.linspace(-4, 4, 321, dtype=torch.float64)
        densities = [right_density(kernel, inputs, p[None], labels) for p in probes]
    shown = tuple(dict.fromkeys(f"expected warning: {warning.message}" for warning in caught))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PriorscopeWarning)
        modes = [vertex(right_density, kernel, inputs, probe[None]) for probe in probes]
        printed_modes = [vertex(printed_density, kernel, inputs, probe[None]) for probe in probes]
        posterior = GaussianProcess(kernel).condition(inputs, Y)
    regression = posterior(probes).mean
    wrong = -(kernel(probes, inputs) @ Y) / kernel.diagonal(probes)
    rate = 1 / float(kernel.on(inputs).eigen.values[0])
    training = Training(learning_rate=rate, steps=8000 if config.full else 3000, until_loss=1e-5)
    runs = train_many(
        _torch_network, 6, inputs, Y, training, record=torch.cat([probes, grid]), progress=config.progress
    )
    trained = runs.outputs[:, -1, :, 0].to(torch.float64)
    criteria = [
        Criterion(
            "printed arm: right density's mode − kernel regression",
            float((torch.tensor(modes, dtype=torch.float64) - regression).abs().max()),
            "<=",
            1e-8,
        ),
        Criterion(
            "printed arm: printed density's mode − (−K(x,X)Y/K(x,x))",
            float((torch.tensor(printed_modes, dtype=torch.float64) - wrong).abs().max()),
            "<=",
            1e-8,
        ),
        Criterion("printed arm: what the printed density calls most probable at x = 0.5", printed_modes[1], ">=", 2.0),
    ]
    numbers = {
        "probes": PROBES,
        "labels": labels,
        "right": torch.stack(densities),
        "printed": torch.stack([printed_density(kernel, inputs, p[None], labels) for p in probes]),
        "right_mode": torch.tensor(modes, dtype=torch.float64),
        "printed_mode": torch.tensor(printed_modes, dtype=torch.float64),
        "networks_at_probes": trained[:, : len(probes)],
        "grid": GRID,
        "networks": trained[:, len(probes) :],
        "regression": posterior(grid).mean,
        "line": straight_lines(GRID),
        "final_losses": runs.losses[:, -1],
    }
    return numbers, criteria, shown


def _torch_network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return network(1)


def _circle_network(seed: int) -> nn.Module:
    return CIRCLE.apply_(network(2), seed)


def _bumps(config: Config) -> tuple[dict[str, Any], list[Criterion]]:
    inputs, grid = on_circle(X), on_circle(GRID)
    limit = infinite_width(_circle_network(0), CIRCLE)
    largest = float(limit.ntk.on(inputs).eigen.values[0])
    plain = Training(learning_rate=1 / largest, steps=20_000, until_loss=LOSS)
    heavy = Training(learning_rate=1 / largest, momentum=MOMENTUM, steps=20_000, until_loss=LOSS)
    ensemble = trained_ensemble(limit, inputs, Y, plain)
    law = ensemble(grid)
    line = straight_lines(GRID)
    many, few = (100, 24) if config.full else (20, 8)

    def trained(training: Training, count: int) -> Runs:
        return train_many(
            _circle_network, count, inputs, Y, training, rates=limit, record=grid, at=[0], progress=config.progress
        )

    runs, heavy_runs = trained(plain, many), trained(heavy, few)
    functions = runs.outputs[:, -1, :, 0].to(torch.float64)
    mean = functions.mean(0)
    near, far = _rms(mean - law.mean), _rms(mean - line)
    met = _own_predictions(functions, plain, config, "own kernels")
    heavy_met = _own_predictions(heavy_runs.outputs[:, -1, :, 0].to(torch.float64), heavy, config, "with momentum")
    unfinished = float(runs.losses[:, -1].max())
    criteria = [
        Criterion("bumps: largest loss of a network at the end of plain descent", unfinished, "<=", LOSS),
        Criterion(
            "bumps: distance of the networks' mean to the theory / to straight lines", near / far, "<=", THIRD, False
        ),
        Criterion(
            "bumps: share of networks that meet the same for their own kernel", float(met.mean()), ">=", 0.8, False
        ),
    ]
    candidates, verdicts = _candidates(limit.ntk, inputs, law, functions)
    numbers = {
        "grid": GRID,
        "mean": law.mean,
        "deviation": law.variance.sqrt(),
        "networks": functions,
        "networks_mean": mean,
        "line": line,
        "to_theory": near,
        "to_lines": far,
        "own_kernel_share": float(met.mean()),
        "own_kernel_met": (int(met.sum()), many),
        "momentum_share": float(heavy_met.mean()),
        "momentum_met": (int(heavy_met.sum()), few),
        "largest_final_loss": unfinished,
        "candidates": candidates,
        "candidate_verdicts": verdicts,
    }
    return numbers, criteria


def _own_predictions(functions: Tensor, training: Training, config: Config, name: str) -> Tensor:
    """Whether each network is nearer to its own kernel's prediction than a third of its distance to straight lines."""
    inputs, grid, line = on_circle(X), on_circle(GRID), straight_lines(GRID)
    met = []
    for seed, function in enumerate(tqdm(functions, desc=name, disable=not config.progress)):
        model = _circle_network(seed)
        kernel = EmpiricalNTK(model, rates=CIRCLE)
        predicted = trajectory(kernel, inputs, Y, training, start=model)(grid)
        met.append(_rms(function - predicted) < THIRD * _rms(function - line))
    return torch.tensor(met, dtype=torch.float64)


def _candidates(kernel: Kernel, inputs: Tensor, law: Gaussian, functions: Tensor) -> tuple[dict[str, Any], list[Any]]:
    """Three labels at each bump: the theory's, the straight line's, the printed density's; ranked by both densities."""
    bumps = torch.tensor([-0.5, 0.5], dtype=torch.float64)
    verdicts = []
    for x in bumps:
        probe = on_circle(x[None])
        at = int((GRID - x).abs().argmin())
        labels = {
            "theory": float(law.mean[at]),
            "straight line": float(straight_lines(x[None])),
            "printed": float(-(kernel(probe, inputs) @ Y) / kernel.diagonal(probe)),
        }
        values = torch.tensor(list(labels.values()), dtype=torch.float64)
        done = functions[:, at]
        nearest = (done[:, None] - values).abs().argmin(1)
        verdicts.append(
            {
                "x": float(x),
                "labels": labels,
                "right": dict(zip(labels, right_density(kernel, inputs, probe, values).tolist(), strict=True)),
                "printed": dict(zip(labels, printed_density(kernel, inputs, probe, values).tolist(), strict=True)),
                "networks_nearest": {
                    name: float((nearest == i).to(torch.float64).mean()) for i, name in enumerate(labels)
                },
                "networks_mean": float(done.mean()),
            }
        )
    return {"bumps": bumps}, verdicts


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def draw(outcome: Outcome) -> Figure:
    """Left: the line, and both densities at x = 0.5. Right: the circle's bumps, and the three candidates."""
    figure, axes = plt.subplots(2, 2, figsize=(10.4, 7.4), layout="constrained")
    _draw_line(axes[0, 0], outcome.numbers["printed"])
    _draw_density(axes[0, 1], outcome.numbers["printed"])
    _draw_bumps(axes[1, 0], outcome.numbers["bumps"])
    _draw_candidates(axes[1, 1], outcome.numbers["bumps"])
    return figure


def _draw_line(ax: Axes, numbers: dict[str, Any]) -> None:
    style.axes(ax, xlabel="input x", ylabel="output", title="On the line: a straight line does as well as the theory")
    grid = style.array(numbers["grid"])
    for i, function in enumerate(numbers["networks"]):
        ax.plot(grid, style.array(function), color=style.SKY, lw=1, label="trained networks" if i == 0 else None)
    ax.plot(grid, style.array(numbers["line"]), color=style.BLACK, ls=":", lw=1.8, label="straight lines")
    ax.plot(grid, style.array(numbers["regression"]), color=style.BLUE, lw=1.8, label="kernel regression")
    probes = style.array(numbers["probes"])
    ax.plot(
        probes,
        style.array(numbers["printed_mode"]),
        "x",
        color=style.VERMILION,
        ms=8,
        mew=2,
        label="printed density's mode",
    )
    ax.plot(style.array(X), style.array(Y), "o", color=style.BLACK, ms=5, label="data")
    style.legend(ax, loc="upper left")


def _draw_density(ax: Axes, numbers: dict[str, Any]) -> None:
    style.axes(
        ax,
        xlabel="candidate label y of one test point",
        ylabel="log-density, its maximum at 0",
        title="What each density calls probable",
    )
    labels = style.array(numbers["labels"])
    for name, colour in (("right", style.BLUE), ("printed", style.VERMILION)):
        for probe, values, line in zip(numbers["probes"], numbers[name], (":", "-", "--"), strict=True):
            label = f"{name}, x = {float(probe):+.1f}"
            ax.plot(labels, style.array(values - values.max()), color=colour, ls=line, lw=1.8, label=label)
    for i, value in enumerate(numbers["networks_at_probes"][:, 1]):
        ax.axvline(float(value), color=style.SKY, lw=1, label="trained networks, x = +0.5" if i == 0 else None)
    ax.set_ylim(-60, 4)
    style.legend(ax, loc="lower left")


def _draw_bumps(ax: Axes, numbers: dict[str, Any]) -> None:
    style.axes(
        ax, xlabel="angle x (input cos x, sin x)", ylabel="output", title="On the circle: the two bumps, predicted"
    )
    grid, mean, spread = (style.array(numbers[name]) for name in ("grid", "mean", "deviation"))
    ax.fill_between(
        grid,
        mean - 1.96 * spread,
        mean + 1.96 * spread,
        color=style.BLUE,
        alpha=0.18,
        lw=0,
        label="95 % of networks, predicted",
    )
    for i, function in enumerate(numbers["networks"][:20]):
        ax.plot(
            grid,
            style.array(function),
            color=style.SKY,
            lw=0.7,
            alpha=0.7,
            label="trained networks" if i == 0 else None,
        )
    ax.plot(grid, style.array(numbers["line"]), color=style.BLACK, ls=":", lw=1.8, label="straight lines")
    ax.plot(grid, mean, color=style.BLUE, lw=1.8, label="predicted mean")
    ax.plot(
        grid,
        style.array(numbers["networks_mean"]),
        color=style.VERMILION,
        lw=1.8,
        ls="--",
        label="mean of the networks",
    )
    ax.plot(style.array(X), style.array(Y), "o", color=style.BLACK, ms=5)
    style.legend(ax, loc="lower center")
    (met, many), (heavy_met, few) = numbers["own_kernel_met"], numbers["momentum_met"]
    ax.text(
        0.02,
        0.98,
        "networks that do what\ntheir own kernel predicts:\n"
        f"plain descent: {met} of {many}\nmomentum {MOMENTUM}: {heavy_met} of {few}",
        transform=ax.transAxes,
        va="top",
        fontsize=7.5,
    )


def _draw_candidates(ax: Axes, numbers: dict[str, Any]) -> None:
    style.axes(
        ax,
        ylabel="share of networks nearest to the label",
        ylim=(0, 1.15),
        title="Three candidate labels, ranked by each density",
    )
    ticks, names = [], []
    for b, verdict in enumerate(numbers["candidate_verdicts"]):
        ranks = {density: sorted(verdict[density], key=verdict[density].get)[::-1] for density in ("right", "printed")}
        for i, (name, label) in enumerate(verdict["labels"].items()):
            position = b * 3.6 + i
            share = verdict["networks_nearest"][name]
            ax.bar(position, share, width=0.8, color=(style.BLUE, style.BLACK, style.VERMILION)[i])
            places = f"right: #{ranks['right'].index(name) + 1}\nprinted: #{ranks['printed'].index(name) + 1}"
            ax.text(position, share + 0.02, places, ha="center", va="bottom", fontsize=7.5)
            ticks.append(position)
            names.append(f"{name}\ny = {label:.2f}")
        ax.text(b * 3.6 + 1, 1.12, f"x = {verdict['x']:+.1f}", ha="center", fontsize=9)
    ax.set_xticks(ticks, names, fontsize=7.5)
