"""Convolutions: Conv1d, 2d and 3d, with stride, dilation, every padding, all channels together or each alone."""

import functools
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....network.weights import fan_in
from ..deviation import after_sum, root
from ..law import Law
from ..moments import Moments, Refused, with_outside
from ..registry import rule
from .coordinates import alone, coordinates, dense, in_groups

CONVOLUTIONS = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}
FUNCTIONS = {F.conv1d: 1, F.conv2d: 2, F.conv3d: 3}


@rule(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def convolution(layer: Any, m: Any, init: Law) -> Moments:
    """K ↦ σ_w² Σ_δ K(p+δ, p'+δ)/|kernel| + σ_b², and so Θ, plus c_w·fan_in·(the mean of K) + c_b.

    Source: Novak et al. 2019 (1810.05148); Arora et al. 2019 (1904.11955)."""
    pads = layer._reversed_padding_repeated_twice
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    settings = (tuple(layer.kernel_size), tuple(layer.stride), tuple(layer.dilation), tuple(pads), mode)
    return _convolved(
        m, init.name(layer), layer, layer.out_channels, settings, init.variances(layer), init.rates_of(layer)
    )


@rule(F.conv1d, F.conv2d, F.conv3d)
def convolution_function(
    call: Any,
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    init: Law,
) -> Moments:
    """As the layer, by the law of the layers that weight and bias belong to. Source: as the layer."""
    d = FUNCTIONS[call.target]
    layer, variances, rates = init.of_call(weight, bias)
    kernel, dilations = tuple(layer.weight.shape[2:]), _tuple(dilation, d)
    if padding == "same":
        total = [m * (k - 1) for m, k in zip(dilations, kernel, strict=True)]
        sides = [(t // 2, t - t // 2) for t in total]
    else:
        sides = [(p, p) for p in _tuple(0 if padding == "valid" else padding, d)]
    pads = tuple(p for pair in reversed(sides) for p in pair)
    settings = (kernel, _tuple(stride, d), dilations, pads, "constant")
    return _convolved(input, init.name(layer), layer, layer.weight.shape[0], settings, variances, rates, groups)


def _convolved(
    value: Any,
    name: str,
    layer: Any,
    channels: int,
    settings: tuple[Any, ...],
    variances: Any,
    rates: Any,
    groups: int | None = None,
) -> Moments:
    kernel, stride, dilation, pads, mode = settings
    groups = layer.groups if groups is None else groups
    if len(value.shape) != len(kernel) + 1:
        raise Refused(f"is applied to points of shape {value.shape}", "Give a batch: (n, channels, *positions)")
    m = coordinates(value, 0)
    if groups > 1:
        in_groups(value, m)
    index, positions = offsets(m.positions, kernel, stride, dilation, pads, mode)
    w, (cw, cb) = variances, rates
    after = dense(_summed(m, index), name, fan_in(layer), w, (cw, cb))
    after = alone(m, after) if layer.weight.shape[1] == 1 and groups > 1 else after
    return after.replace(**m.moved(positions, channels))


def _summed(m: Moments, index: Tensor) -> Moments:
    """The mean over kernel offsets of moments at shifted positions; outside of the image they are 0."""

    def mean(values: Tensor, axes: int) -> Tensor:
        shifted = (values[..., at] if axes == 1 else at_both(values, at) for at in index)
        return functools.reduce(torch.add, shifted) / len(index)

    def at_both(values: Tensor, at: Tensor) -> Tensor:
        return values[..., at[:, None], at[None]] if m.pairs else values[..., at]

    m = with_outside(m)
    axes = 2 if m.pairs else 1
    index = index.to(m.nngp.device)
    after = m.replace(
        nngp=mean(m.nngp, axes),
        gap=mean(m.gap, axes),
        tangent=mean(m.tangent, axes),
        v1=mean(m.v1, 1),
        v2=mean(m.v2, 1),
        deviation=None,
    )
    if m.deviation is None:
        return after
    parts = [
        (
            at_both(m.nngp, at),
            m.along_rows(root(m.v1)[..., at]),
            m.along_columns(root(m.v2)[..., at]),
            at_both(m.deviation, at),
        )
        for at in index
    ]
    total = [scale * len(index) for scale in (after.nngp, after.rows, after.columns)]
    return after.replace(deviation=after_sum(parts, *total) / len(index))


def offsets(
    positions: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    pads: tuple[int, ...],
    mode: str,
) -> tuple[Tensor, tuple[int, ...]]:
    """For every kernel offset, the input position that each output position sees, (|kernel|, P'); the last entry of the
    input, P, is outside. And the output's positions."""
    size = prod(positions)
    grid = torch.arange(size, dtype=torch.float64).view(1, 1, *positions)
    if any(pads):
        grid = F.pad(grid, pads, mode=mode, **({"value": float(size)} if mode == "constant" else {}))
    grid = grid[0, 0]
    for i, (k, step, spread) in enumerate(zip(kernel, stride, dilation, strict=True)):
        grid = grid.unfold(i, spread * (k - 1) + 1, step)[..., ::spread]
    d = len(positions)
    after = tuple(grid.shape[:d])
    return grid.reshape(prod(after), -1).T.round().long().contiguous(), after


def _tuple(value: Any, d: int) -> tuple[int, ...]:
    return (value,) * d if isinstance(value, int) else tuple(value) * (d if len(value) == 1 else 1)
