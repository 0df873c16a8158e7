"""What the rows of `layers.py` are made of: small networks around one layer or function, at any width."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels.infinite import kernel_map
from .architectures import IDS, Written


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


def single(function: Callable[[Tensor], Tensor]) -> Callable[[int], nn.Module]:
    """One hidden layer, for functions whose powers would grow from layer to layer."""
    return lambda w: nn.Sequential(nn.Linear(3, w), Apply(function), nn.Linear(w, 1))


def of_three(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[int], nn.Module]:
    """A function of three Gaussian values: two linear functions of the input, and one of relu of the first."""

    def forward(m: Any, x: Tensor) -> Tensor:
        a = m.a(x)
        return m.c(function(a, m.b(x), m.d(torch.relu(a))))

    return lambda w: Written(forward, a=nn.Linear(3, w), b=nn.Linear(3, w), d=nn.Linear(w, w), c=nn.Linear(w, 1))


def positions(layer: Callable[[int], nn.Module]) -> Callable[[int], nn.Module]:
    """Linear at every position, the layer, ReLU, then the mean over positions."""
    return lambda w: Written(
        lambda m, x: m.c(m.b(m.n(m.a(x))).relu().mean(1)),
        a=nn.Linear(3, w),
        n=layer(w),
        b=nn.Linear(w, w),
        c=nn.Linear(w, 1),
    )


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


def circular(w: int) -> nn.Module:
    middle = nn.Conv1d(w, w, 3, padding=1, padding_mode="circular")
    return nn.Sequential(nn.Conv1d(2, w, 3), nn.ReLU(), middle, nn.ReLU(), nn.Flatten(), nn.Linear(3 * w, 1))


def solids(w: int) -> nn.Module:
    middle = nn.Conv3d(w, w, 2, padding=1)
    return nn.Sequential(nn.Conv3d(2, w, 2), nn.ReLU(), middle, nn.ReLU(), nn.Flatten(), nn.Linear(27 * w, 1))


def separable(w: int) -> nn.Module:
    """A depthwise convolution, then a convolution of single positions."""
    return nn.Sequential(nn.Conv2d(w, w, 3, padding=1, groups=w), nn.Conv2d(w, w, 1))


def _functions(m: Any, x: Tensor) -> Tensor:
    h = F.conv1d(x, m.a.weight, m.a.bias, padding=1).relu()
    h = F.conv_transpose1d(h, m.b.weight, m.b.bias, 2).relu()
    return F.linear(F.avg_pool1d(h, 2).flatten(1), m.c.weight, m.c.bias)


def functions(w: int) -> nn.Module:
    """Everything by torch functions, with the layers' own weights."""
    return Written(_functions, a=nn.Conv1d(2, w, 3), b=nn.ConvTranspose1d(w, w, 2, 2), c=nn.Linear(5 * w, 1))


def _two_branches(m: Any, x: Tensor) -> Tensor:
    h = torch.cat([m.a(x).relu(), m.b(x).tanh()], 1)
    return m.c(m.d(h).relu().flatten(1))


def channels(w: int) -> nn.Module:
    """Channels of two branches side by side."""
    parts = {"a": nn.Conv2d(2, w, 3, padding=1), "b": nn.Conv2d(2, w // 2, 1), "d": nn.Conv2d(3 * w // 2, w, 2)}
    return Written(_two_branches, **parts, c=nn.Linear(9 * w, 1))


def _two_heads(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    h = m.b(m.a(x).relu()).relu()
    return m.d(h), m.c(h)


def two_heads(w: int) -> nn.Module:
    return Written(_two_heads, a=nn.Linear(3, w), b=nn.Linear(w, w), d=nn.Linear(w, 1), c=nn.Linear(w, 1))


def pre_activation(m: Any, x: Tensor) -> Tensor:
    h = m.a(x)
    h = h + m.d(m.b(h.relu()).relu())
    h = h + m.f(m.e(h.relu()).relu())
    return m.c(h.relu())


def post_activation(m: Any, x: Tensor) -> Tensor:
    return m.c(_blocks(m, x))


def _blocks(m: Any, x: Tensor) -> Tensor:
    h = m.a(x).relu()
    h = (h + m.d(m.b(h).relu())).relu()
    return (h + m.f(m.e(h).relu())).relu()


def picture_blocks(w: int) -> nn.Module:
    """Two post-activation blocks of convolutions, then the mean over positions."""
    layers = {name: same(w) for name in "bdef"}
    return Written(
        lambda m, x: m.c(_blocks(m, x).mean((2, 3))), a=nn.Conv2d(2, w, 3, padding=1), **layers, c=nn.Linear(w, 1)
    )


def blocks(forward: Callable[[Any, Tensor], Tensor]) -> Callable[[int], nn.Module]:
    """Two residual blocks of two layers each, whose shortcuts are their inputs."""

    def make(w: int) -> nn.Module:
        layers = {name: nn.Linear(w, w) for name in "bdef"}
        return Written(forward, a=nn.Linear(3, w), **layers, c=nn.Linear(w, 1))

    return make


def _transposed(m: Any, x: Tensor) -> Tensor:
    h = m.a(x).relu().flatten(2).transpose(1, 2)
    return m.c(m.b(h).relu().flip(1)[:, 1:9].reshape(len(x), -1))


def transposes(w: int) -> nn.Module:
    """Channels moved to the end, a linear layer at every position, some positions in reverse, flattened."""
    return Written(_transposed, a=nn.Conv2d(2, w, 3, padding=1), b=nn.Linear(w, w), c=nn.Linear(8 * w, 1))


def two_embeddings(w: int) -> nn.Module:
    return Written(
        lambda m, x: m.c(m.b(m.a(x) + F.embedding(x, m.d.weight)).relu().mean(1)),
        a=nn.Embedding(IDS, w),
        d=nn.Embedding(IDS, w),
        b=nn.Linear(w, w),
        c=nn.Linear(w, 1),
    )


def pointwise(function: Callable[[Tensor], Tensor]) -> Callable[[int], nn.Module]:
    return dense(lambda: Apply(function))


def gate(w: int) -> nn.Module:
    """A linear function of the hidden layer, times silu of another."""

    def forward(m: Any, x: Tensor) -> Tensor:
        h = m.a(x)
        return m.c(F.silu(m.b(h)) * m.d(h))

    return Written(forward, a=nn.Linear(3, w), b=nn.Linear(w, w), d=nn.Linear(w, w), c=nn.Linear(w, 1))


def gate_by_a_piece(w: int) -> nn.Module:
    """Half of a layer's outputs, times sigmoid of the other half."""

    def forward(m: Any, x: Tensor) -> Tensor:
        u, v = m.b(m.a(x)).chunk(2, -1)
        return m.c(u * v.sigmoid())

    return Written(forward, a=nn.Linear(3, w), b=nn.Linear(w, 2 * w), c=nn.Linear(w, 1))


def padded(w: int) -> nn.Module:
    return nn.Sequential(nn.CircularPad2d((1, 1, 2, 0)), nn.Conv2d(w, w, 3))


def bilinear(x: Tensor) -> Tensor:
    return F.interpolate(x, size=(6, 6), mode="bilinear", align_corners=False)


def features(h: Tensor) -> Tensor:
    return math.sqrt(2) * torch.sin(0.8 * h + math.pi / 4)


class ErrorFunction(nn.Module):
    """erf, known to the limit by its kernel map alone."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.erf(x)


@kernel_map(ErrorFunction, odd=True)
def error_function(inner: Tensor, norm1: Tensor, norm2: Tensor) -> Tensor:
    """A kernel map that a user gives, here that of erf: (2/π) asin(2k/√((1 + 2v1)(1 + 2v2))). Source: Williams 1997."""
    return 2 / torch.pi * torch.asin(2 * inner / ((1 + 2 * norm1**2) * (1 + 2 * norm2**2)).sqrt())
