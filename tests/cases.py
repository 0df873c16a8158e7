"""Architectures as data: each case is a name, a seeded maker, and the shape of one input point."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Case:
    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]

    def model(self, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        return self.make().eval()

    def points(self, n: int, seed: int = 1) -> Tensor:
        return torch.randn(n, *self.shape, generator=torch.Generator().manual_seed(seed))

    def __repr__(self) -> str:
        return self.name


def mlp(*widths: int, activation: Callable[[], nn.Module] = nn.ReLU, bias: bool = True) -> nn.Sequential:
    """Linear layers of these widths, input first, an activation between any two."""
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(pairwise(widths)):
        layers += [nn.Linear(a, b, bias=bias)] + ([activation()] if i < len(widths) - 2 else [])
    return nn.Sequential(*layers)


class UsedTwice(nn.Module):
    """One module used twice."""

    def __init__(self):
        super().__init__()
        self.first, self.shared, self.last = nn.Linear(3, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x):
        h = torch.tanh(self.shared(torch.tanh(self.first(x))))
        return self.last(torch.tanh(self.shared(h)))


class HeldTwice(nn.Module):
    """One module under two names (functional_call with default arguments corrupts it)."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = self.a
        self.last = nn.Linear(4, 2)

    def forward(self, x):
        return self.last(torch.tanh(self.b(torch.tanh(self.a(x)))))


class Tied(nn.Module):
    """The last weight is the first one's transpose, and a third layer shares the first one's weight."""

    def __init__(self):
        super().__init__()
        self.first, self.again = nn.Linear(4, 4), nn.Linear(4, 4)
        self.again.weight = self.first.weight
        self.bias = nn.Parameter(torch.randn(4))

    def forward(self, x):
        h = torch.tanh(self.again(torch.tanh(self.first(x))))
        return h @ self.first.weight.T + self.bias


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.last = nn.Linear(4, 2)

    def forward(self, x):
        return self.last(self.attention(x, x, x, need_weights=False)[0].mean(1))


EMPIRICAL = [
    Case("mlp", lambda: mlp(3, 8, 8, 2), (3,)),
    Case("mlp scalar", lambda: nn.Sequential(mlp(3, 8, 1), nn.Flatten(0)), (3,)),
    Case(
        "cnn",
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(4, 3, 3),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(27, 2),
        ),
        (2, 5, 5),
    ),
    Case("layernorm", lambda: nn.Sequential(nn.Linear(3, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 2)), (3,)),
    Case("attention", Attention, (5, 4)),
    Case("used twice", UsedTwice, (3,)),
    Case("held twice", HeldTwice, (4,)),
    Case("tied", Tied, (4,)),
]
