"""How a torch function uses a parameter: the structured rules.

A use y = op(x, w, b) has, at every point, ∂f/∂w = Σ_r s_r ⊗ a_r: a_r are rows of its activations x, s_r rows of its
signals ∂f/∂y, and r runs over the positions where w is used. A rule says how x and ∂f/∂y become such rows. A new rule
is one `Rule` with one function that recognises the call, in the table `TAPS`.

What has no rule here (gains of normalisations, bare parameters, weights that are computed from others) is left to
autograd, parameter by parameter.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


class Rule(ABC):
    """How one kind of use makes rows. Rules are values: two uses with equal rules have rows of one kind.

    flipped: ∂f/∂w is laid out as (groups, p, q) and not as (groups, q, p). bias_is_one: a bias is one more activation,
    1, of the same signals.
    """

    flipped: bool = False
    bias_is_one: ClassVar[bool] = True

    @abstractmethod
    def activations(self, x: Tensor) -> Tensor:
        """x of so many points (m, ...) -> (m, g, R, p); of a lookup, its ids (m, R)."""

    @abstractmethod
    def signals(self, dy: Tensor) -> Tensor:
        """∂f/∂y of so many points and outputs (m, k, ...) -> (m, k, g, R, q)."""

    @abstractmethod
    def bias(self, dy: Tensor) -> Tensor:
        """∂f/∂b (m, k, entries)."""

    @abstractmethod
    def shape(self, x: tuple[int, ...], dy: tuple[int, ...]) -> tuple[int, int, int, int]:
        """(g, R, p, q), for x and y of one point with these shapes."""


@dataclass(frozen=True)
class Rows(Rule):
    """y = x wᵀ (linear) or x w (flipped) on the last axis; every other axis counts positions."""

    flipped: bool = False

    def activations(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), 1, -1, x.shape[-1])

    def signals(self, dy: Tensor) -> Tensor:
        return dy.reshape(*dy.shape[:2], 1, -1, dy.shape[-1])

    def bias(self, dy: Tensor) -> Tensor:
        return self.signals(dy).sum((2, 3))

    def shape(self, x: tuple[int, ...], dy: tuple[int, ...]) -> tuple[int, int, int, int]:
        return 1, prod(x[:-1]), x[-1], dy[-1]


@dataclass(frozen=True)
class Convolution(Rule):
    """A convolution: its rows of activations are the patches that its kernel sees."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int

    def activations(self, x: Tensor) -> Tensor:
        return _patches(x, self, x.ndim - len(self.kernel) - 1)

    def signals(self, dy: Tensor) -> Tensor:
        return _positions(dy, self, dy.ndim - len(self.kernel) - 1, 2)

    def bias(self, dy: Tensor) -> Tensor:
        rows = self.signals(dy)  # (m, k, g, R, q)
        return rows.sum(3).flatten(2)

    def shape(self, x: tuple[int, ...], dy: tuple[int, ...]) -> tuple[int, int, int, int]:
        d = len(self.kernel)
        positions = prod(dy[: -d - 1]) * prod(dy[-d:])
        return self.groups, positions, x[-d - 1] // self.groups * prod(self.kernel), dy[-d - 1] // self.groups


@dataclass(frozen=True)
class Transposed(Rule):
    """A transposed convolution: its rows of signals are the patches of ∂f/∂y that an entry of x reaches."""

    convolution: Convolution
    flipped: bool = True
    bias_is_one: ClassVar[bool] = False  # rows of signals are patches, and a bias sees each entry once

    def activations(self, x: Tensor) -> Tensor:
        c = self.convolution
        return _positions(x[:, None], c, x.ndim - len(c.kernel), 2)[:, 0]

    def signals(self, dy: Tensor) -> Tensor:
        c, d = self.convolution, len(self.convolution.kernel)
        flat = dy.flatten(0, 1)
        rows = _patches(flat, c, flat.ndim - d - 1)
        return rows.view(*dy.shape[:2], *rows.shape[1:])

    def bias(self, dy: Tensor) -> Tensor:
        d = len(self.convolution.kernel)
        sums = dy.sum(tuple(range(dy.ndim - d, dy.ndim)))  # (m, k, ..., channels)
        return sums.reshape(*dy.shape[:2], -1, sums.shape[-1]).sum(2)

    def shape(self, x: tuple[int, ...], dy: tuple[int, ...]) -> tuple[int, int, int, int]:
        c, d = self.convolution, len(self.convolution.kernel)
        positions = prod(x[: -d - 1]) * prod(x[-d:])
        return c.groups, positions, x[-d - 1] // c.groups, dy[-d - 1] // c.groups * prod(c.kernel)


@dataclass(frozen=True)
class Lookup(Rule):
    """y = w[ids]: rows of a table; activations are ids, and equal ids meet. Those of `padding` learn nothing."""

    padding: int | None

    def activations(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), -1)

    def signals(self, dy: Tensor) -> Tensor:
        return dy.reshape(*dy.shape[:2], 1, -1, dy.shape[-1])

    def bias(self, dy: Tensor) -> Tensor:
        raise NotImplementedError("a lookup has no bias")

    def shape(self, x: tuple[int, ...], dy: tuple[int, ...]) -> tuple[int, int, int, int]:
        return 1, prod(x), 0, dy[-1]


@dataclass(frozen=True)
class Call:
    """A call that a rule covers: y = run(weight, bias), which depends on the points through x."""

    rule: Rule
    x: Tensor
    weight: Tensor
    bias: Tensor | None
    run: Callable[[Tensor, Tensor | None], Tensor]


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Call | None:
    if weight.ndim != 2:
        return None
    return Call(Rows(), input, weight, bias, lambda w, b: functional.linear(input, w, b))


def _matmul(input: Tensor, other: Tensor) -> Call | None:
    if other.ndim != 2 or input.ndim < 1:
        return None
    return Call(Rows(flipped=True), input, other, None, lambda w, _: torch.matmul(input, w))


def _convolution(function: Callable[..., Tensor], d: int) -> Callable[..., Call | None]:
    def tap(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Call:
        kernel, dilations = tuple(weight.shape[2:]), _tuple(dilation, d)
        if padding == "same":
            total = [m * (k - 1) for m, k in zip(dilations, kernel, strict=True)]
            pads = tuple((t // 2, t - t // 2) for t in total)
        else:
            pads = tuple((p, p) for p in _tuple(0 if padding == "valid" else padding, d))
        rule = Convolution(kernel, _tuple(stride, d), pads, dilations, groups)
        return Call(rule, input, weight, bias, lambda w, b: function(input, w, b, stride, padding, dilation, groups))

    return tap


def _transposed(function: Callable[..., Tensor], d: int) -> Callable[..., Call | None]:
    def tap(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> Call | None:
        strides = _tuple(stride, d)
        if any(extra >= step for extra, step in zip(_tuple(output_padding, d), strides, strict=True)):
            return None  # patches would be more than the entries of x
        pads = tuple((p, p) for p in _tuple(padding, d))
        inner = Convolution(tuple(weight.shape[2:]), strides, pads, _tuple(dilation, d), groups)
        return Call(
            Transposed(inner),
            input,
            weight,
            bias,
            lambda w, b: function(input, w, b, stride, padding, output_padding, groups, dilation),
        )

    return tap


def _embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Call | None:
    if max_norm is not None or scale_grad_by_freq:
        return None
    if padding_idx is not None and padding_idx < 0:
        padding_idx += len(weight)
    return Call(Lookup(padding_idx), input, weight, None, lambda w, _: functional.embedding(input, w))


TAPS: dict[Any, Callable[..., Call | None]] = {
    functional.linear: _linear,
    torch.matmul: _matmul,
    torch.Tensor.matmul: _matmul,
    torch.Tensor.__matmul__: _matmul,
    torch.mm: _matmul,
    torch.Tensor.mm: _matmul,
    functional.conv1d: _convolution(functional.conv1d, 1),
    functional.conv2d: _convolution(functional.conv2d, 2),
    functional.conv3d: _convolution(functional.conv3d, 3),
    functional.conv_transpose1d: _transposed(functional.conv_transpose1d, 1),
    functional.conv_transpose2d: _transposed(functional.conv_transpose2d, 2),
    functional.conv_transpose3d: _transposed(functional.conv_transpose3d, 3),
    functional.embedding: _embedding,
}
"""torch function -> what recognises a use of a parameter in its arguments (None: no structured use)."""

TRANSPOSES = frozenset(
    [torch.t, torch.Tensor.t, torch.Tensor.T.__get__, torch.Tensor.mT.__get__]  # type: ignore[attr-defined]
)


def _tuple(value: Any, d: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * d
    return tuple(value) * (d if len(value) == 1 else 1)


def _positions(x: Tensor, c: Convolution, channels: int, keep: int) -> Float[Tensor, "m k g R q"]:
    """(m, k, ..., channels, *space) -> (m, k, g, positions, channels per group)."""
    d = len(c.kernel)
    inner = prod(x.shape[keep:channels])
    rows = x.reshape(*x.shape[:keep], inner, c.groups, x.shape[channels] // c.groups, prod(x.shape[-d:]))
    return rows.permute(0, 1, 3, 2, 5, 4).flatten(3, 4)


def _patches(x: Tensor, c: Convolution, channels: int) -> Float[Tensor, "m g R p"]:
    """(m, ..., channels, *space) -> (m, g, positions, channels per group · kernel)."""
    d, points = len(c.kernel), len(x)
    x = x.reshape(points, -1, *x.shape[channels:])  # (m, inner, channels, *space)
    inner = x.shape[1]
    if d == 2 and not x.is_complex() and max(c.kernel) > 1:
        return _unfolded(x.flatten(0, 1), c, points)
    if any(any(pair) for pair in c.padding):
        x = functional.pad(x, [p for pair in reversed(c.padding) for p in pair])
    for i in range(d):
        reach = c.dilation[i] * (c.kernel[i] - 1) + 1
        x = x.unfold(3 + i, reach, c.stride[i])[..., :: c.dilation[i]]
    # (m, inner, channels, *positions, *kernel)
    x = x.unflatten(2, (c.groups, -1))  # (m, inner, g, c, *positions, *kernel)
    positions, kernel = range(4, 4 + d), range(4 + d, 4 + 2 * d)
    x = x.permute(0, 2, 1, *positions, 3, *kernel)
    return x.reshape(points, c.groups, inner * prod(x.shape[3 : 3 + d]), -1)


def _unfolded(x: Tensor, c: Convolution, points: int) -> Float[Tensor, "m g R p"]:
    """The same for pictures, by torch's own and faster function."""
    even = all(before == after for before, after in c.padding)
    if not even:
        x = functional.pad(x, [p for pair in reversed(c.padding) for p in pair])
    padding = tuple(before for before, _ in c.padding) if even else 0
    columns = functional.unfold(x, c.kernel, c.dilation, padding, c.stride)  # (m inner, channels · kernel, positions)
    columns = columns.view(points, -1, c.groups, columns.shape[1] // c.groups, columns.shape[2])
    return columns.permute(0, 2, 1, 4, 3).flatten(2, 3)
