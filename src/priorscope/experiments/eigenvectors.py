"""The essay's eigenvectors: near-sinusoidal on an interval, exact sinusoids in pairs on the circle, and why.

On the uniform circle every rotation commutes with the kernel, so its modes are the Fourier basis. On an interval
nothing forces that; the first modes only look like sinusoids, by a measured R².
"""

from math import pi
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from ..beliefs.modes import Spectrum, eigenmodes, sinusoid_r2
from ..kernels.infinite import infinite_width
from ..kernels.kernel import Kernel
from ..network.initialization import Initialization
from ..plot import style
from .experiment import Config, Criterion, Outcome, experiment

POINTS = 200
MODES = 20
LAW = Initialization(2.0, 1.0, "ntk")


def two_layer_kernel(inputs: int, bias: bool = True) -> Kernel:
    """The NTK of an infinitely wide two-layer ReLU network."""
    model = nn.Sequential(nn.Linear(inputs, 512, bias=bias), nn.ReLU(), nn.Linear(512, 1, bias=bias))
    return infinite_width(LAW.apply_(model, seed=0), LAW).ntk


def circle(angles: Tensor) -> Tensor:
    return torch.stack([angles.cos(), angles.sin()], 1)


@experiment(
    "eigenvectors",
    "on the uniform circle the modes are exact sinusoids in pairs; on an interval only nearly so",
    "Larsen and Gillen 2022 (the figure); Basri et al. 2019, 1906.00425 (the circle)",
    draw=lambda outcome: draw(outcome),
)
def run(config: Config) -> Outcome:
    """The first 20 modes on both intervals, raw and on the circle, under a second density, and without biases."""
    three = torch.linspace(-3, 3, POINTS, dtype=torch.float64)
    turn = torch.arange(POINTS, dtype=torch.float64) * (2 * pi / POINTS) - pi
    generator = torch.Generator().manual_seed(config.seed)
    normal = (torch.randn(POINTS, generator=generator, dtype=torch.float64) * 0.8).clamp(-3, 3).sort().values
    raw, round_ = two_layer_kernel(1), two_layer_kernel(2)
    arrangements = {
        "interval [−3, 3]": (raw, three[:, None], three),
        "interval [−π, π)": (raw, turn[:, None], turn),
        "circle": (round_, circle(turn), turn),
        "interval, normal density": (raw, normal[:, None], normal),
    }
    numbers: dict[str, Any] = {}
    spectra: dict[str, Spectrum] = {}
    for name, (kernel, x, position) in arrangements.items():
        spectra[name] = eigenmodes(kernel, x)
        vectors = spectra[name].vectors[:, :MODES]
        fit = sinusoid_r2(position, vectors)
        numbers[name] = {
            "position": position,
            "values": spectra[name].values[:MODES],
            "vectors": vectors,
            "r2": fit.r2,
            "frequency": fit.frequency,
        }
    without = eigenmodes(two_layer_kernel(1, bias=False), three[:, None])
    doubled = torch.linspace(-3, 3, 2 * POINTS, dtype=torch.float64)[:, None]
    operator = spectra["interval [−3, 3]"].values[:4] / POINTS
    finer = eigenmodes(raw, doubled).values[:4] / (2 * POINTS)
    numbers["rank without biases"] = len(without.values)
    numbers["operator eigenvalues"] = {"n": operator, "2n": finer}
    return Outcome(tuple(_criteria(numbers)), numbers)


def _criteria(numbers: dict[str, Any]) -> list[Criterion]:
    on_circle = numbers["circle"]
    values = on_circle["values"]
    # After the constant, modes come in pairs of equal eigenvalue (a sine and a cosine).
    pairs = values[1 : 1 + 2 * ((MODES - 1) // 2)].reshape(-1, 2)
    split = float(((pairs[:, 0] - pairs[:, 1]) / pairs[:, 0]).max())
    distinct = float((pairs[:-1, 1] / pairs[1:, 0]).min())
    interval = numbers["interval [−3, 3]"]["r2"]
    drift = (numbers["operator eigenvalues"]["n"] / numbers["operator eigenvalues"]["2n"] - 1).abs().max()
    return [
        Criterion(
            "circle: least R² of the first 20 modes to one sinusoid", float(on_circle["r2"].min()), ">=", 1 - 1e-8
        ),
        Criterion("circle: relative splitting within a pair", split, "<=", 1e-9),
        Criterion("circle: least ratio of eigenvalues between pairs", distinct, ">=", 1 + 1e-6),
        Criterion("interval: least R² of the first 4 modes", float(interval[:4].min()), ">=", 0.9),
        Criterion(
            "interval: largest R² of the first 4 modes but the constant-like",
            float(interval[1:4].max()),
            "<=",
            1 - 1e-6,
        ),
        Criterion("without biases: rank on the line", float(numbers["rank without biases"]), "<=", 2.0),
        Criterion("operator eigenvalues (values/n): relative change from n to 2n", float(drift), "<=", 0.02),
    ]


def draw(outcome: Outcome) -> Figure:
    """The first four modes of each arrangement, and how sinusoidal the first twenty are."""
    names = [name for name, entry in outcome.numbers.items() if isinstance(entry, dict) and "vectors" in entry]
    figure, axes = plt.subplots(2, 3, figsize=(12.6, 6.6), layout="constrained")
    for ax, name in zip(axes.flat, names, strict=False):
        _draw_modes(ax, name, outcome.numbers[name])
    _draw_r2(axes.flat[len(names)], outcome.numbers, names)
    _draw_values(axes.flat[len(names) + 1], outcome.numbers, names)
    return figure


def _draw_modes(ax: Axes, name: str, entry: dict[str, Any]) -> None:
    style.axes(ax, xlabel="angle" if name == "circle" else "input x", ylabel="mode, unit length", title=name)
    for i in range(4):
        label = f"{i + 1}: R² = {float(entry['r2'][i]):.4f}"
        ax.plot(
            style.array(entry["position"]),
            style.array(entry["vectors"][:, i]),
            color=style.COLOURS[i],
            lw=1.6,
            label=label,
        )
    top = float(entry["vectors"][:, :4].abs().max())
    ax.set_ylim(-1.1 * top, 1.75 * top)
    style.legend(ax, ncols=2, loc="upper center")


def _draw_r2(ax: Axes, numbers: dict[str, Any], names: list[str]) -> None:
    style.axes(ax, xlabel="mode", ylabel="1 − R² to one sinusoid", yscale="log", title="How sinusoidal each mode is")
    _draw_by_mode(ax, {name: (1 - numbers[name]["r2"]).clamp_min(1e-16) for name in names})


def _draw_values(ax: Axes, numbers: dict[str, Any], names: list[str]) -> None:
    style.axes(ax, xlabel="mode", ylabel="operator eigenvalue, λ/n", yscale="log", title="The spectra")
    _draw_by_mode(ax, {name: numbers[name]["values"] / POINTS for name in names})


def _draw_by_mode(ax: Axes, lines: dict[str, Tensor]) -> None:
    for colour, (name, values) in zip(style.COLOURS, lines.items(), strict=False):
        ax.plot(range(1, len(values) + 1), style.array(values), marker="o", ms=3.5, color=colour, lw=1.2, label=name)
    style.legend(ax)
