"""Transposed convolutions: ConvTranspose1d, 2d and 3d, with stride, dilation and both paddings."""

from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....network.weights import fan_in
from ..law import Law
from ..moments import Moments, Refused
from ..registry import rule
from .convolution import _summed, _tuple
from .coordinates import alone, coordinates, dense, in_groups

FUNCTIONS = {F.conv_transpose1d: 1, F.conv_transpose2d: 2, F.conv_transpose3d: 3}


@rule(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
def transposed_convolution(layer: Any, m: Any, output_size: Any = None, *, init: Law) -> Moments:
    """K ↦ σ_w² Σ_δ K(q, q')/|kernel| + σ_b² over the offsets δ of the kernel by which inputs q, q' reach p and p': a
    convolution of the input with zeros between its positions, whose fan-in is channels × |kernel|. Source: Novak et
    al. 2019 (1810.05148), for the transposed map."""
    if output_size is not None:
        raise Refused("is given an output size", "Set output_padding instead")
    settings = (layer.stride, layer.padding, layer.output_padding, layer.dilation)
    return _transposed(m, layer, settings, layer.groups, init.variances(layer), init.rates_of(layer), init)


@rule(*FUNCTIONS)
def transposed_convolution_function(
    call: Any,
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    init: Law,
) -> Moments:
    """As the layer, by the law of the layers that weight and bias belong to. Source: as the layer."""
    d, (layer, variances, rates) = FUNCTIONS[call.target], init.of_call(weight, bias)
    if not isinstance(layer, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)) or groups != layer.groups:
        raise Refused("uses a weight of another layer, or other groups than its own", "Call the layer itself")
    settings = tuple(_tuple(value, d) for value in (stride, padding, output_padding, dilation))
    return _transposed(input, layer, settings, groups, variances, rates, init)


def _transposed(
    value: Any, layer: Any, settings: tuple[Any, ...], groups: int, variances: Any, rates: Any, init: Law
) -> Moments:
    kernel = tuple(layer.weight.shape[2:])
    if len(value.shape) != len(kernel) + 1:
        raise Refused(f"is applied to points of shape {value.shape}", "Give a batch: (n, channels, *positions)")
    m = coordinates(value, 0)
    if groups > 1:
        in_groups(value, m)
    index, positions = sources(m.positions, kernel, *settings)
    after = dense(_summed(m, index), init.name(layer), fan_in(layer), variances, rates)
    after = alone(m, after) if layer.weight.shape[0] == groups and groups > 1 else after
    return after.replace(**m.moved(positions, layer.weight.shape[1] * groups))


def sources(
    positions: tuple[int, ...], kernel: tuple[int, ...], stride: Any, padding: Any, output_padding: Any, dilation: Any
) -> tuple[Tensor, tuple[int, ...]]:
    """For every kernel offset, the input position that reaches each output position, (|kernel|, P'); P where none
    does. And the output's positions."""
    axes, after = [], []
    for size, k, s, p, extra, spread in zip(positions, kernel, stride, padding, output_padding, dilation, strict=True):
        length = (size - 1) * s - 2 * p + spread * (k - 1) + extra + 1
        place = torch.arange(length)[None] + p - spread * torch.arange(k)[:, None]
        reached = (place % s == 0) & (place >= 0) & (place < size * s)
        axes.append(torch.where(reached, place.div(s, rounding_mode="floor"), -1))
        after.append(length)
    index = torch.zeros([1] * (2 * len(axes)), dtype=torch.long)
    outside = torch.zeros_like(index, dtype=torch.bool)
    for i, (axis, size) in enumerate(zip(axes, positions, strict=True)):
        shape = [1] * (2 * len(axes))
        shape[i], shape[len(axes) + i] = axis.shape
        axis = axis.reshape(shape)
        index, outside = index * size + axis.clamp_min(0), outside | (axis < 0)
    index = torch.where(outside, prod(positions), index).reshape(prod(kernel), prod(after))
    return index, tuple(after)
