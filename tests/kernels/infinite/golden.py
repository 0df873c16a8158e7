"""Builds the golden architectures of tests/golden/cases.json as ordinary modules."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

FOLDER = Path(__file__).parents[2] / "golden"
CASES = {case["name"]: case for case in json.loads((FOLDER / "cases.json").read_text())}


class Pointwise(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Residual(nn.Module):
    def __init__(self, branch: nn.Module):
        super().__init__()
        self.branch = branch

    def forward(self, x):
        return x + self.branch(x)


def polynomial(coefficients: list[float]) -> Callable[[Tensor], Tensor]:
    return lambda h: sum(c * h**i for i, c in enumerate(coefficients))


ACTIVATIONS = {
    "relu": nn.ReLU,
    "leakyrelu": nn.LeakyReLU,
    "erf": lambda: Pointwise(torch.erf),
    "abs": lambda: Pointwise(torch.abs),
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "sin": lambda a, b, c: Pointwise(lambda h: a * torch.sin(b * h + c)),
    "cos": lambda a, b, c: Pointwise(lambda h: a * torch.cos(b * h + c)),
    "sign": lambda: Pointwise(torch.sign),
    "exp": lambda a, b: Pointwise(lambda h: a * torch.exp(b * h)),
    "gaussian": lambda a, b: Pointwise(lambda h: a * torch.exp(b * h**2)),
    "monomial": lambda k: Pointwise(lambda h: h**k),
    "rectmonomial": lambda k: Pointwise(lambda h: torch.relu(h) ** k),
    "polynomial": lambda c: Pointwise(polynomial(c)),
}


class Joined(nn.Module):
    """Two branches side by side, or one times the other."""

    def __init__(self, first: nn.Module, second: nn.Module, join: Callable[[Tensor, Tensor], Tensor]):
        super().__init__()
        self.first, self.second, self.join = first, second, join

    def forward(self, x):
        return self.join(self.first(x), self.second(x))


def build(case: dict) -> nn.Sequential:
    return _layers(case["layers"], torch.zeros(1, *case["shape"]), case["bias_variance"] > 0)


def _layers(specs: list, x: Tensor, bias: bool) -> nn.Sequential:
    """x: what enters, for its shape."""
    layers: list[nn.Module] = []
    for kind, *settings in specs:
        layers.append(_layer(kind, settings, x, bias))
        x = layers[-1].eval()(x)
    return nn.Sequential(*layers)


def _layer(kind: str, settings: list, x: Tensor, bias: bool) -> nn.Module:
    channels, d = x.shape[1], x.ndim - 2
    if kind == "linear":
        return nn.Linear(channels, settings[0], bias=bias)
    if kind == "conv":
        out, kernel, stride, padding, _ = settings
        pads = {"same": kernel // 2 if stride > 1 else "same", "valid": 0, "circular": kernel // 2}[padding]
        mode = "circular" if padding == "circular" else "zeros"
        make = {1: nn.Conv1d, 2: nn.Conv2d}[d]
        return make(channels, out, kernel, stride, pads, bias=bias, padding_mode=mode)
    if kind == "avgpool":
        return {1: nn.AvgPool1d, 2: nn.AvgPool2d}[d](settings[0])
    if kind == "sumpool":
        window, size = settings[0], settings[0] ** d
        pool = {1: nn.AvgPool1d, 2: nn.AvgPool2d}[d](window)
        return nn.Sequential(pool, Pointwise(lambda h: h * size))
    if kind == "gap":
        return Pointwise(lambda h: h.mean(tuple(range(2, 2 + d))))
    if kind == "flatten":
        return nn.Flatten()
    if kind == "layernorm":
        return nn.LayerNorm(channels, eps=0.0, elementwise_affine=False)
    if kind == "residual":
        return Residual(_layers(settings[0], x, bias))
    if kind in ("concat", "product"):
        join = (lambda a, b: torch.cat([a, b], 1)) if kind == "concat" else torch.mul
        return Joined(_layers(settings[0], x, bias), _layers(settings[1], x, bias), join)
    return ACTIVATIONS[kind](*settings)


def values(name: str) -> dict[str, Tensor]:
    with np.load(FOLDER / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file}
