"""The table of `autokernel`: for every layer with an infinite-width rule a small network that has it, at any width.

A new rule is one row: its family, the layer in words, the key of its rule in the registry, `make(width)`, and the
shape of a point. Every network ends in a linear layer with one output.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VECTOR, LINE, PICTURE = (3,), (2, 5), (2, 4, 4)


@dataclass(frozen=True)
class Row:
    family: str
    layer: str
    key: Any
    make: Callable[[int], nn.Module]
    shape: tuple[int, ...] = VECTOR


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Join(nn.Module):
    """A function of one or two branches of the same input; without the second, of the input itself."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], first: nn.Module, second: nn.Module | None = None):
        super().__init__()
        self.function, self.first, self.second = function, first, second or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.first(x), self.second(x))


def dense(layer: Callable[[], nn.Module]) -> Callable[[int], nn.Module]:
    """Two hidden layers with the layer behind each."""
    return lambda w: nn.Sequential(nn.Linear(3, w), layer(), nn.Linear(w, w), layer(), nn.Linear(w, 1))


def behind(layer: Callable[[int], nn.Module]) -> Callable[[int], nn.Module]:
    """The layer between two linear ones of this width, then ReLU."""
    return lambda w: nn.Sequential(nn.Linear(3, w), layer(w), nn.ReLU(), nn.Linear(w, 1))


def branch(w: int) -> nn.Module:
    return nn.Sequential(nn.ReLU(), nn.Linear(w, w))


def pictures(
    hidden: Callable[[int], nn.Module], positions: int, after: Callable[[int], nn.Module] | None = None
) -> Callable[[int], nn.Module]:
    """A 3×3 convolution of the input, ReLU, the layer of hidden channels, ReLU, then flattened to a linear layer.

    positions: how many there are before the last layer. after: a layer between them.
    """

    def make(w: int) -> nn.Module:
        first = [nn.Conv2d(2, w, 3, padding=1), nn.ReLU(), hidden(w), nn.ReLU()]
        rest = [after(w)] if after is not None else []
        return nn.Sequential(*first, *rest, nn.Flatten(), nn.Linear(w * positions, 1))

    return make


def same(w: int) -> nn.Module:
    return nn.Conv2d(w, w, 3, padding=1)


def residual_pictures(w: int) -> nn.Module:
    block = Join(torch.add, nn.Sequential(nn.ReLU(), same(w)))
    return nn.Sequential(nn.Conv2d(2, w, 3, padding=1), block, nn.ReLU(), nn.Flatten(), nn.Linear(16 * w, 1))


def lines(w: int) -> nn.Module:
    middle = nn.Conv1d(w, w, 3, padding="same")
    return nn.Sequential(nn.Conv1d(2, w, 3), nn.ReLU(), middle, nn.ReLU(), nn.Flatten(), nn.Linear(3 * w, 1))


def pointwise(function: Callable[[Tensor], Tensor]) -> Callable[[int], nn.Module]:
    return dense(lambda: Apply(function))


KINKED, SMOOTH, BRANCHES, CONVOLUTIONS, POSITIONS = (
    "piecewise linear",
    "smooth",
    "branches and normalisations",
    "convolutions",
    "pooling and shapes",
)

ROWS = (
    Row(KINKED, "nn.Linear", nn.Linear, dense(nn.Identity)),
    Row(KINKED, "nn.ReLU", nn.ReLU, dense(nn.ReLU)),
    Row(KINKED, "nn.LeakyReLU(0.3)", nn.LeakyReLU, dense(lambda: nn.LeakyReLU(0.3))),
    Row(KINKED, "torch.abs", torch.abs, pointwise(torch.abs)),
    Row(SMOOTH, "torch.erf", torch.erf, pointwise(torch.erf)),
    Row(SMOOTH, "nn.GELU", nn.GELU, dense(nn.GELU)),
    Row(SMOOTH, "torch.sin", torch.sin, pointwise(torch.sin)),
    Row(SMOOTH, "torch.cos", torch.cos, pointwise(torch.cos)),
    Row(SMOOTH, "nn.Tanh", nn.Tanh, dense(nn.Tanh)),
    Row(SMOOTH, "nn.Sigmoid", nn.Sigmoid, dense(nn.Sigmoid)),
    Row(SMOOTH, "nn.SiLU", nn.SiLU, dense(nn.SiLU)),
    Row(SMOOTH, "nn.Softplus", nn.Softplus, dense(nn.Softplus)),
    Row(SMOOTH, "nn.Mish", nn.Mish, dense(nn.Mish)),
    Row(SMOOTH, "nn.LogSigmoid", nn.LogSigmoid, dense(nn.LogSigmoid)),
    Row(SMOOTH, "nn.Tanhshrink", nn.Tanhshrink, dense(nn.Tanhshrink)),
    Row(BRANCHES, "residual sum", torch.add, behind(lambda w: Join(torch.add, branch(w)))),
    Row(BRANCHES, "difference", torch.sub, behind(lambda w: Join(torch.sub, branch(w)))),
    Row(
        BRANCHES,
        "product",
        torch.mul,
        lambda w: nn.Sequential(nn.Linear(3, w), Join(torch.mul, branch(w), branch(w)), nn.Linear(w, 1)),
    ),
    Row(
        BRANCHES,
        "concatenation",
        torch.cat,
        lambda w: nn.Sequential(
            Join(
                lambda a, b: torch.cat([a, b], 1),
                nn.Sequential(nn.Linear(3, w), nn.ReLU()),
                nn.Sequential(nn.Linear(3, 2 * w), nn.Tanh()),
            ),
            nn.Linear(3 * w, 1),
        ),
    ),
    Row(BRANCHES, "nn.LayerNorm", nn.LayerNorm, behind(nn.LayerNorm)),
    Row(BRANCHES, "nn.RMSNorm", nn.RMSNorm, behind(nn.RMSNorm)),
    Row(BRANCHES, "nn.BatchNorm1d, fresh", nn.BatchNorm1d, behind(nn.BatchNorm1d)),
    Row(
        BRANCHES,
        "nn.GroupNorm(1)",
        nn.GroupNorm,
        pictures(lambda w: nn.Sequential(same(w), nn.GroupNorm(1, w)), 16),
        PICTURE,
    ),
    Row(CONVOLUTIONS, "nn.Conv1d, same", nn.Conv1d, lines, LINE),
    Row(CONVOLUTIONS, "nn.Conv2d, same", nn.Conv2d, pictures(same, 16), PICTURE),
    Row(CONVOLUTIONS, "nn.Conv2d, valid", nn.Conv2d, pictures(lambda w: nn.Conv2d(w, w, 3), 4), PICTURE),
    Row(
        CONVOLUTIONS,
        "nn.Conv2d, circular",
        nn.Conv2d,
        pictures(lambda w: nn.Conv2d(w, w, 3, padding=1, padding_mode="circular"), 16),
        PICTURE,
    ),
    Row(CONVOLUTIONS, "nn.Conv2d, stride 2", nn.Conv2d, pictures(lambda w: nn.Conv2d(w, w, 2, stride=2), 4), PICTURE),
    Row(
        CONVOLUTIONS,
        "nn.Conv2d, dilation 2",
        nn.Conv2d,
        pictures(lambda w: nn.Conv2d(w, w, 3, dilation=2, padding=2), 16),
        PICTURE,
    ),
    Row(
        CONVOLUTIONS,
        "residual sum of convolutions",
        torch.add,
        residual_pictures,
        PICTURE,
    ),
    Row(POSITIONS, "nn.Flatten", nn.Flatten, lambda w: nn.Sequential(nn.Flatten(), dense(nn.ReLU)(w)), (1, 3)),
    Row(POSITIONS, "nn.AvgPool2d", nn.AvgPool2d, pictures(same, 4, lambda w: nn.AvgPool2d(2)), PICTURE),
    Row(
        POSITIONS, "global average", nn.AdaptiveAvgPool2d, pictures(same, 1, lambda w: nn.AdaptiveAvgPool2d(1)), PICTURE
    ),
    Row(
        POSITIONS,
        "mean over positions",
        torch.mean,
        pictures(same, 1, lambda w: Apply(lambda x: x.mean((2, 3)))),
        PICTURE,
    ),
    Row(
        POSITIONS, "sum over positions", torch.sum, pictures(same, 1, lambda w: Apply(lambda x: x.sum((2, 3)))), PICTURE
    ),
    Row(POSITIONS, "nn.Upsample", nn.Upsample, pictures(same, 64, lambda w: nn.Upsample(scale_factor=2)), PICTURE),
    Row(
        POSITIONS,
        "slices of positions",
        Tensor.__getitem__,
        pictures(same, 2, lambda w: Apply(lambda x: x[:, :, 1, 1:3])),
        PICTURE,
    ),
    Row(
        POSITIONS,
        "zero padding",
        F.pad,
        pictures(lambda w: nn.Sequential(Apply(lambda x: F.pad(x, (2, 0, 1, 1))), nn.Conv2d(w, w, 3)), 16),
        PICTURE,
    ),
)
