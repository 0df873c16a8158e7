"""The circle in closed form: eigenvalues, pairs, what a density does to frequencies, and shifts of images.

Rotations of the circle commute with the kernel of a fully connected network, cyclic shifts of images with that of
circular convolutions. Where the symmetry is broken (an arc, a density, zero padding), so is what follows from it.
"""

from math import pi
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from ..beliefs.modes import eigenmodes, sinusoid_r2
from ..beliefs.spheres import sphere_spectrum
from ..kernels.infinite import infinite_width
from ..kernels.kernel import Kernel
from ..network.initialization import Initialization
from ..plot import style
from .eigenvectors import circle, two_layer_kernel
from .experiment import Config, Criterion, Outcome, experiment

POINTS = 2000
DEGREES = 21
PLAIN = Initialization(2.0, 0.0, "ntk")
DENSITIES = (1.0, 2.0, 4.0)
"""Of three thirds of the circle, relative to each other."""
DENSE_POINTS = 1400
MODES = range(19, 60)
"""The 20th to the 60th."""


def closed_form(k: int) -> float:
    """The operator eigenvalue of cos kθ and sin kθ, two layers without biases, σ_w² = 2, "ntk", measure dθ/2π."""
    if k < 2:
        return (6 / pi**2, 0.5)[k]
    return 0.0 if k % 2 else 2 * (k**2 + 3) / (pi * (k**2 - 1)) ** 2


def evenly(points: int, length: float = 2 * pi) -> Tensor:
    return torch.arange(points, dtype=torch.float64) * (length / points)


@experiment(
    "circle",
    "eigenvalues on the circle in closed form; local frequency follows the root of the density; shifts commute",
    "Basri et al. 2019 and 2020, 1906.00425 and 2003.04560; Bietti and Mairal 2019, 1905.12173 (the eigenvalues)",
    draw=lambda outcome: draw(outcome),
)
def run(config: Config) -> Outcome:
    """All four arms; nothing is sampled but two random images."""
    kernel = unbiased_kernel()
    gram_row = kernel(circle(evenly(POINTS)), circle(torch.zeros(1, dtype=torch.float64)))[:, 0]
    # A circulant matrix's eigenvalues are its row's Fourier transform; real and even: of cosines.
    on_grid = torch.fft.rfft(gram_row).real[:DEGREES] / POINTS
    few = evenly(POINTS // 4)
    numbers: dict[str, Any] = {
        "closed form": torch.tensor([closed_form(k) for k in range(DEGREES)], dtype=torch.float64),
        "on the grid": on_grid,
        "by quadrature": sphere_spectrum(kernel, 2, DEGREES).values,
        "values on the circle": eigenmodes(two_layer_kernel(2), circle(few)).values[:21],
        "values on half of it": eigenmodes(two_layer_kernel(2), circle(few / 2)).values[:21],
        "density": density_arm(),
        "shifts": shifts_arm(config.seed),
    }
    return Outcome(tuple(criteria(numbers)), numbers)


def unbiased_kernel() -> Kernel:
    model = nn.Sequential(nn.Linear(2, 512, bias=False), nn.ReLU(), nn.Linear(512, 1, bias=False))
    return infinite_width(PLAIN.apply_(model, seed=0), PLAIN).ntk


def density_arm() -> dict[str, Any]:
    """Modes on points of a density that is constant on each third, and the local frequency of each in each third."""
    shares = torch.tensor(DENSITIES, dtype=torch.float64) / sum(DENSITIES)
    third = 2 * pi / len(DENSITIES)
    counts = (shares * DENSE_POINTS).round().to(torch.int64).tolist()
    parts = [third * (i + (torch.arange(c, dtype=torch.float64) + 0.5) / c) for i, c in enumerate(counts)]
    angles = torch.cat(parts)
    vectors = eigenmodes(two_layer_kernel(2), circle(angles)).vectors[:, list(MODES)]
    pieces = vectors.split(counts)
    fits = [sinusoid_r2(part, piece) for part, piece in zip(parts, pieces, strict=True)]
    frequency = torch.stack([fit.frequency for fit in fits], 1)
    return {
        "angles": angles,
        "mode": vectors[:, 20],
        "frequency": frequency,
        "r2": torch.stack([fit.r2 for fit in fits], 1),
        "ratio": frequency / shares.sqrt() / (frequency / shares.sqrt()).mean(1, keepdim=True),
    }


def shifts_arm(seed: int) -> dict[str, float]:
    """‖K(Rx, Rx') − K(x, x')‖/‖K‖, R a cyclic shift, for three networks; and with one point shifted alone."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(6, 2, 6, 6, generator=generator, dtype=torch.float64)
    shifted = x.roll((1, 2), (2, 3))
    found = {}
    for name, padding, pooled in (
        ("circular, flattened", "circular", False),
        ("circular, pooled", "circular", True),
        ("zeros, flattened", "zeros", False),
    ):
        kernel = image_kernel(padding, pooled)
        gram = kernel(x)
        found[f"{name}: both shifted"] = float((kernel(shifted) - gram).norm() / gram.norm())
        found[f"{name}: one shifted"] = float((kernel(shifted, x) - gram).norm() / gram.norm())
    return found


def image_kernel(padding: Any, pooled: bool) -> Kernel:
    head: list[nn.Module] = [nn.AdaptiveAvgPool2d(1)] if pooled else []
    layers = [
        nn.Conv2d(2, 64, 3, padding=1, padding_mode=padding),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1, padding_mode=padding),
        nn.ReLU(),
    ]
    model = nn.Sequential(*layers, *head, nn.Flatten(), nn.Linear(64 if pooled else 64 * 36, 1))
    law = Initialization(2.0, 0.1, "ntk")
    return infinite_width(law.apply_(model, seed=0), law).ntk


def criteria(numbers: dict[str, Any]) -> list[Criterion]:
    closed, found, quadrature = (numbers[name] for name in ("closed form", "on the grid", "by quadrature"))
    whole, half = numbers["values on the circle"], numbers["values on half of it"]
    pairs = whole[1:].reshape(-1, 2)
    shifts = numbers["shifts"]
    density = numbers["density"]
    return [
        Criterion(
            f"circle, {POINTS} points: largest error of the first {DEGREES} eigenvalues",
            float((found - closed).abs().max()),
            "<=",
            1e-6,
        ),
        Criterion("circle, by quadrature: the same", float((quadrature - closed).abs().max()), "<=", 1e-11),
        Criterion("circle: odd eigenvalues from k = 3", float(found[3::2].abs().max()), "<=", 1e-12),
        Criterion("circle: relative splitting within a pair", float((1 - pairs[:, 1] / pairs[:, 0]).max()), "<=", 1e-8),
        Criterion(
            "half circle: least ratio of neighbouring eigenvalues", float((half[:-1] / half[1:]).min()), ">=", 1.01
        ),
        Criterion(
            "density: largest deviation of local frequency from ∝ √density, modes 20 to 60",
            float((density["ratio"] - 1).abs().max()),
            "<=",
            0.1,
        ),
        Criterion(
            "density: the frequencies differ (largest over least, √4 expected)",
            float((density["frequency"][:, -1] / density["frequency"][:, 0]).min()),
            ">=",
            1.7,
        ),
        Criterion(
            "circular convolutions: change of the kernel when both images are shifted",
            max(shifts["circular, flattened: both shifted"], shifts["circular, pooled: both shifted"]),
            "<=",
            1e-12,
        ),
        Criterion("and pooling: when one is", shifts["circular, pooled: one shifted"], "<=", 1e-9),
        Criterion("zero padding: when both are", shifts["zeros, flattened: both shifted"], ">=", 1e-3),
    ]


def draw(outcome: Outcome) -> Figure:
    """The eigenvalues, a mode under a density with its local frequencies, and the shifts."""
    figure, axes = plt.subplots(2, 2, figsize=(11.4, 7.4), layout="constrained")
    _draw_values(axes[0, 0], outcome.numbers)
    _draw_pairs(axes[0, 1], outcome.numbers)
    _draw_mode(axes[1, 0], outcome.numbers["density"])
    _draw_frequencies(axes[1, 1], outcome.numbers["density"])
    return figure


def _draw_values(ax: Axes, numbers: dict[str, Any]) -> None:
    style.axes(ax, xlabel="k", ylabel="operator eigenvalue", yscale="log", title="Two layers without biases")
    shown = [k for k in range(DEGREES) if closed_form(k) > 0]
    ax.plot(shown, style.array(numbers["closed form"][shown]), color=style.BLUE, lw=1.4, label="closed form")
    label = f"{POINTS} even points"
    ax.plot(shown, style.array(numbers["on the grid"][shown]), "o", color=style.VERMILION, ms=4.5, label=label)
    for k in range(3, DEGREES, 2):
        ax.axvline(k, color="#dddddd", lw=0.8, zorder=0)
    ax.plot([], [], color="#dddddd", lw=0.8, label="eigenvalue 0 (odd k ≥ 3)")
    ax.set_xticks(range(0, DEGREES, 2))
    style.legend(ax)


def _draw_pairs(ax: Axes, numbers: dict[str, Any]) -> None:
    style.axes(ax, xlabel="mode", ylabel="eigenvalue over the largest", yscale="log", title="Pairs, with biases")
    for name, colour in (("circle", style.BLUE), ("half of it", style.VERMILION)):
        values = numbers[f"values on {'the circle' if name == 'circle' else name}"]
        ax.plot(range(1, 22), style.array(values / values[0]), "o-", ms=4, lw=0.8, color=colour, label=name)
    ax.set_xticks(range(1, 22, 4))
    style.legend(ax)


def _draw_mode(ax: Axes, entry: dict[str, Any]) -> None:
    title = f"Mode {MODES[20] + 1}, density 1 : 2 : 4 on thirds"
    style.axes(ax, xlabel="angle", ylabel="mode, unit length", title=title)
    ax.plot(style.array(entry["angles"]), style.array(entry["mode"]), color=style.BLUE, lw=1.2)
    for i in (1, 2):
        ax.axvline(2 * pi * i / 3, color="#999999", lw=0.8, ls="--")


def _draw_frequencies(ax: Axes, entry: dict[str, Any]) -> None:
    label = "local frequency (radians per radian)"
    style.axes(ax, xlabel="mode", ylabel=label, title="Frequency follows √density")
    shares = torch.tensor(DENSITIES, dtype=torch.float64) / sum(DENSITIES)
    common = (entry["frequency"] / shares.sqrt()).mean(1)
    for i, colour in enumerate(style.COLOURS[: len(DENSITIES)]):
        modes = [mode + 1 for mode in MODES]
        measured = style.array(entry["frequency"][:, i])
        ax.plot(modes, measured, "o", ms=3.5, color=colour, label=f"density {DENSITIES[i]:g}, measured")
        ax.plot(modes, style.array(common * shares[i].sqrt()), color=colour, lw=1.2)
    ax.plot([], [], color=style.BLACK, lw=1.2, label="c·√density, one c a mode")
    style.legend(ax)
