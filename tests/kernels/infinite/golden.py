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
    "sin": lambda a, b, c: Pointwise(torch.sin),
    "cos": lambda a, b, c: Pointwise(torch.cos),
}


def build(case: dict) -> nn.Sequential:
    return _layers(case["layers"], case["shape"][0], case["bias_variance"] > 0)[0]


def _layers(specs: list, width: int, bias: bool) -> tuple[nn.Sequential, int]:
    layers: list[nn.Module] = []
    for kind, *settings in specs:
        if kind == "linear":
            layers.append(nn.Linear(width, settings[0], bias=bias))
            width = settings[0]
        elif kind == "residual":
            layers.append(Residual(_layers(settings[0], width, bias)[0]))
        else:
            layers.append(ACTIVATIONS[kind](*settings))
    return nn.Sequential(*layers), width


def values(name: str) -> dict[str, Tensor]:
    with np.load(FOLDER / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file}
