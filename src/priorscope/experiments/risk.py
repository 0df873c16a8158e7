"""The test error from training data alone: generalised cross-validation against measured errors.

For every number of samples and every ridge, kernel regression is done on random points; GCV sees those alone. *Sphere*:
points that are all alike, as the law takes them. *Digits*: points of which some have near neighbours and others none;
there GCV is too low where the ridge is small, and leave-one-out, from the same factorisation, is not. The training
error, which both start from, is the law that must fail.
"""

from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from ..beliefs.removal import leave_out
from ..generalization.risk import gcv
from ..kernels.own import PrecomputedKernel
from ..plot import style
from .experiment import Config, Criterion, Outcome, experiment
from .learning_curves import images, network, targets

SAMPLES = (100, 200, 400, 800)
RIDGES = (0.0, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""In units of the kernel's mean diagonal."""
DRAWS = {False: 10, True: 40}
AIM = 0.1
DIMENSION, NOISE = 30, 0.3
"""Of the sphere, and the standard deviation of its labels' noise."""
LAWS = ("gcv", "leave-one-out", "training error")


@experiment(
    "risk",
    "the test error of a network's kernel from its training data: by GCV where points are alike, else by leave-one-out",
    "Wei, Hu and Steinhardt 2022, 2203.06176 (GCV); leave-one-out is exact for one point less",
    draw=lambda outcome: draw(outcome),
)
def run(config: Config) -> Outcome:
    """10 draws of each number of points by default, 40 in full; the error is measured on all other points."""
    x, y = images("digits", config.seed)
    numbers = {"sphere": sweep(*sphere(config.seed), config), "digits": sweep(x, targets(y), config)}
    low = float((numbers["digits"]["gcv"].mean(-1) / numbers["digits"]["measured"].mean(-1)).min() - 1)
    return Outcome(
        tuple(criteria(numbers)), numbers, (f"on digits GCV is off by as much as {low:.0%}, without a ridge",)
    )


def sphere(seed: int) -> tuple[Tensor, Tensor]:
    """As many points as there are digits, even on a sphere, and noisy labels: linear and quadratic."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.nn.functional.normalize(torch.randn(1797, DIMENSION, generator=generator, dtype=torch.float64), dim=1)
    x = x * DIMENSION**0.5
    noise = torch.randn(len(x), generator=generator, dtype=torch.float64)
    return x, (x[:, 0] + 0.5 * x[:, 1] * x[:, 2] + NOISE * noise)[:, None]


def sweep(x: Tensor, labels: Tensor, config: Config) -> dict[str, Any]:
    """Each law's and the measured error, (n, ridge, draw)."""
    gram = network(x.shape[1])(x)
    kernel, scale, draws = PrecomputedKernel(gram), float(gram.diagonal().mean()), DRAWS[config.full]
    generator = torch.Generator().manual_seed(config.seed + 1)
    shape = (len(SAMPLES), len(RIDGES), draws)
    found = {name: torch.zeros(shape, dtype=torch.float64) for name in ("measured", *LAWS)}
    for i, n in enumerate(tqdm(SAMPLES, desc="numbers of points", disable=not config.progress)):
        for k in range(draws):
            order = torch.randperm(len(x), generator=generator)
            chosen, outside = order[:n], order[n:]
            data = kernel.on(chosen)
            for j, ridge in enumerate(RIDGES):
                risk = gcv(data, labels[chosen], ridge * scale)
                dual = data.eigen.solve(labels[chosen], ridge * scale)
                found["measured"][i, j, k] = (gram[outside][:, chosen] @ dual - labels[outside]).square().mean()
                found["gcv"][i, j, k], found["training error"][i, j, k] = risk.error, risk.train_error
                left = leave_out(data, labels[chosen], ridge=ridge * scale)
                found["leave-one-out"][i, j, k] = left.mean_squared_error
    return found


def criteria(numbers: dict[str, Any]) -> list[Criterion]:
    found = []
    for name, entry in numbers.items():
        means = {kind: values.mean(-1) for kind, values in entry.items()}
        measured = means["measured"]
        regret = measured.gather(1, means["gcv"].argmin(1, keepdim=True))[:, 0] / measured.amin(1)
        what = f"{name}: largest relative error of"
        if name == "sphere":
            found.append(Criterion(f"{what} GCV", _gap(means["gcv"], measured), "<=", AIM, exact=False))
        else:
            strong = [j for j, ridge in enumerate(RIDGES) if ridge >= 1]
            gap = _gap(means["gcv"][:, strong], measured[:, strong])
            found.append(Criterion(f"{what} GCV, ridges from 1", gap, "<=", AIM, exact=False))
        left = _gap(means["leave-one-out"], measured)
        found.append(Criterion(f"{what} leave-one-out", left, "<=", AIM, exact=False))
        wrong = _gap(means["training error"], measured)
        found.append(Criterion(f"{what} the training error, which must fail", wrong, ">=", 2 * AIM))
        what = f"{name}: test error at the ridge that GCV takes, over the least"
        found.append(Criterion(what, float(regret.max()), "<=", 1.05, exact=False))
    return found


def _gap(told: Tensor, found: Tensor) -> float:
    return float((told / found - 1).abs().max())


def draw(outcome: Outcome) -> Figure:
    """Predicted and measured errors against the ridge, for both kinds of points."""
    figure, axes = plt.subplots(1, 2, figsize=(11.6, 4.8), layout="constrained")
    for ax, (name, entry) in zip(axes, outcome.numbers.items(), strict=True):
        _draw_sweep(ax, name, entry)
    return figure


def _draw_sweep(ax: Axes, name: str, entry: dict[str, Any]) -> None:
    style.axes(ax, xlabel="ridge over the kernel's mean diagonal", ylabel="test error (mean square)", title=name)
    places = range(len(RIDGES))
    for i, (n, colour) in enumerate(zip(SAMPLES, style.COLOURS, strict=False)):
        found = entry["measured"][i]
        spread = style.array(found.std(-1) / found.shape[-1] ** 0.5)
        ax.plot(places, style.array(entry["gcv"][i].mean(-1)), color=colour, lw=1.5)
        ax.plot(places, style.array(entry["leave-one-out"][i].mean(-1)), color=colour, lw=1.5, ls="--")
        label = f"n = {n}, measured"
        ax.errorbar(places, style.array(found.mean(-1)), spread, fmt="o", color=colour, ms=4.5, capsize=3, label=label)
    ax.plot([], [], color=style.BLACK, lw=1.5, label="GCV")
    ax.plot([], [], color=style.BLACK, lw=1.5, ls="--", label="leave-one-out")
    ax.set_yscale("log")
    ax.set_xticks(places, [f"{ridge:g}" for ridge in RIDGES])
    style.legend(ax, loc="upper left")
