"""Prints the table of docs/infinite.md: what `ps.finite_width` says of three hidden layers, beside networks drawn.

    python docs/finite.py            # 100,000 networks for each row, some minutes
    python docs/finite.py 2000       # fewer

A network's own kernels are computed by hand, layer by layer. Errors of a spread and of a kurtosis are those of their
mean over 50 parts of the networks.
"""

import math
import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

import priorscope as ps

POINTS = torch.randn(2, 3, generator=torch.Generator().manual_seed(1)).double()
BIAS, HIDDEN, AT_ONCE, PARTS = 0.1, 3, 1000, 50
FUNCTIONS: dict[str, tuple[type[nn.Module], float, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "tanh": (nn.Tanh, 1.5, torch.tanh, lambda z: 1 - torch.tanh(z).square()),
    "ReLU": (nn.ReLU, 2.0, torch.relu, lambda z: (z > 0).double()),
}


def network(width: int, activation: type[nn.Module]) -> nn.Module:
    layers: list[nn.Module] = []
    size = POINTS.shape[1]
    for _ in range(HIDDEN):
        layers += [nn.Linear(size, width), activation()]
        size = width
    return nn.Sequential(*layers, nn.Linear(size, 1))


def drawn(name: str, width: int, networks: int) -> tuple[Tensor, Tensor]:
    """Of each network: G (s, 2, 2), the covariance of its output given the layers below, and Θ̂ (s, 2, 2)."""
    parts = [some(name, width, min(AT_ONCE, networks), seed) for seed in range(max(1, networks // AT_ONCE))]
    return torch.cat([one[0] for one in parts]), torch.cat([one[1] for one in parts])


def some(name: str, width: int, networks: int, seed: int) -> tuple[Tensor, Tensor]:
    _, variance, phi, slope = FUNCTIONS[name]
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(networks, *shape, generator=generator, dtype=torch.float64)

    h = POINTS.expand(networks, -1, -1)
    grams, slopes, weights = [], [], []
    for _ in range(HIDDEN):
        size = h.shape[-1]
        weights.append(normal(width, size) * (variance / size) ** 0.5)
        grams.append(variance / size * h @ h.mT + BIAS)
        z = h @ weights[-1].mT + normal(1, width) * BIAS**0.5
        h, derivative = phi(z), slope(z)
        slopes.append(derivative)
    grams.append(variance / width * h @ h.mT + BIAS)
    # "ntk" rates are the variances: each layer adds its gram times that of the signals that come back to it.
    signal = normal(1, width).expand(-1, 2, -1) * (variance / width) ** 0.5
    tangent = grams[-1]
    for layer in reversed(range(HIDDEN)):
        signal = signal * slopes[layer]
        tangent = tangent + grams[layer] * (signal @ signal.mT)
        signal = signal @ weights[layer]
    return grams[-1], tangent


def told(values: Tensor, of: Callable[[Tensor], Tensor]) -> tuple[float, float]:
    """A number of all networks, and its standard error from equal parts of them."""
    parts = torch.stack([of(part) for part in values.chunk(PARTS)])
    return float(of(values)), float(parts.std() / math.sqrt(len(parts)))


def spread(theta: Tensor) -> Tensor:
    return theta.std() / theta.mean()


def kurtosis(variance: Tensor) -> Tensor:
    """Excess kurtosis of a Gaussian of random variance."""
    return 3 * (variance.square().mean() / variance.mean().square() - 1)


def row(name: str, width: int, networks: int) -> str:
    activation, variance, _, _ = FUNCTIONS[name]
    init = ps.Initialization(variance, BIAS, parameterization="ntk")
    found = ps.finite_width(init.apply_(network(width, activation), seed=0), init)(POINTS)
    gram, theta = drawn(name, width, networks)
    mean, mean_error = told(theta[:, 0, 1], torch.mean)
    wide, wide_error = told(theta[:, 0, 0], spread)
    heavy, heavy_error = told(gram[:, 0, 0], kurtosis)
    predicted = float(found.ntk_variance[0, 0].sqrt() / found.ntk[0, 0])
    return (
        f"| {name} | {width} | {float(found.ntk[0, 1]):.4f} | {float((found.ntk + found.ntk_correction)[0, 1]):.4f} | "
        f"{mean:.4f} ± {mean_error:.4f} | {predicted:.4f} | {wide:.4f} ± {wide_error:.4f} | "
        f"{float(found.kurtosis[0]):.4f} | {heavy:.4f} ± {heavy_error:.4f} |"
    )


if __name__ == "__main__":
    for name in FUNCTIONS:
        for width in (16, 64):
            print(row(name, width, int(sys.argv[1]) if len(sys.argv) > 1 else 100_000), flush=True)
