"""Linear maps of positions: average and sum pooling of every kind, means over positions, interpolation."""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..law import Law
from ..moments import Moments, Refused
from ..registry import rule

POOLS = (
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
    nn.Upsample,
    nn.UpsamplingNearest2d,
    nn.UpsamplingBilinear2d,
)
FUNCTIONS = (
    F.avg_pool1d,
    F.avg_pool2d,
    F.avg_pool3d,
    F.adaptive_avg_pool1d,
    F.adaptive_avg_pool2d,
    F.adaptive_avg_pool3d,
    F.interpolate,
)


@rule(*POOLS, pairs=True)
def pooling(layer: nn.Module, m: Moments, init: Law) -> Moments:
    """y_p = Σ_q M_pq h_q: K ↦ M K Mᵀ, Θ ↦ M Θ Mᵀ. Source: Novak et al. 2019 (1810.05148)."""
    return _mapped(m, layer, channel=0)


@rule(*FUNCTIONS, pairs=True)
def pooling_function(call: Any, input: Moments, *args: Any, init: Law, **kwargs: Any) -> Moments:
    """As the layer. Source: as the layer."""
    return _mapped(input, lambda x: call.target(x, *args, **kwargs), channel=0)


@rule(torch.mean, Tensor.mean, pairs=True)
def mean(call: Any, input: Moments, dim: Any = None, keepdim: bool = False, *, init: Law, **other: Any) -> Moments:
    """The mean over positions, K ↦ Σ_pp' K/P². Source: Novak et al. 2019 (1810.05148)."""
    return _reduced(call, input, other.get("axis", dim), keepdim, torch.mean)


@rule(torch.sum, Tensor.sum, pairs=True)
def total(call: Any, input: Moments, dim: Any = None, keepdim: bool = False, *, init: Law, **other: Any) -> Moments:
    """The sum over positions. Source: Novak et al. 2019 (1810.05148)."""
    return _reduced(call, input, other.get("axis", dim), keepdim, torch.sum)


def _reduced(call: Any, m: Moments, dim: Any, keepdim: bool, function: Callable[..., Tensor]) -> Moments:
    axes = [dim] if isinstance(dim, int) else list(dim or [])
    axes = sorted(axis % (len(m.shape) + 1) for axis in axes)
    if not axes or 0 in axes:
        raise Refused("sums over the axis of the points", "Name the axes of the positions: x.mean((2, 3))")
    if m.channel + 1 in axes:
        raise Refused(
            "sums over the coordinates that random weights made, whose sum no limit describes",
            "Sum over positions, or use EmpiricalNTK",
        )
    gone = {axis - 1 for axis in axes}
    after = _mapped(m, lambda x: function(x, axes, keepdim=True), channel=m.channel)
    if keepdim:
        return after
    left = tuple(size for axis, size in enumerate(after.shape) if axis not in gone)
    channel = m.channel - sum(axis < m.channel for axis in gone)
    return with_positions_of_shape(after.replace(shape=left, channel=channel))


def _mapped(m: Any, function: Callable[[Tensor], Tensor], channel: int) -> Moments:
    """Moments after a function that is linear in positions and the same for every coordinate."""
    if not isinstance(m, Moments):
        raise Refused("is not applied to a value that depends on the input", "Use EmpiricalNTK")
    if m.channel != channel or len(m.shape) == 1:
        raise Refused(f"pools points of shape {m.shape} over their coordinates", "Pool over positions")
    size = prod(m.positions)
    one = torch.eye(size, dtype=m.nngp.dtype, device=m.nngp.device)
    # Every position alone, as a point with a single coordinate.
    shape = (size, *m.positions[:channel], 1, *m.positions[channel:])
    out = function(one.reshape(shape))
    positions = out.shape[1 : 1 + channel] + out.shape[2 + channel :]
    matrix = out.reshape(size, -1).T  # (P', P)
    return mapped(m, matrix).replace(**m.moved(tuple(positions)))


def mapped(m: Moments, matrix: Tensor) -> Moments:
    """K ↦ M K Mᵀ, the gap without its difference; shape and positions are the caller's."""
    if not m.pairs:
        raise Refused("needs the moments between all pairs of positions", "Report this model: its layout is wrong")
    first, second = (m, m) if m.own is None else m.own

    def both(values: Tensor) -> Tensor:
        return matrix @ values @ matrix.T

    def equal(values: Tensor) -> Tensor:
        return both(values).diagonal(dim1=-2, dim2=-1)

    weight = matrix.sum(1)
    mean1, mean2 = m.along_rows(m.v1 @ matrix.T), m.along_columns(m.v2 @ matrix.T)
    inner1, inner2 = m.along_rows(equal(first.gap)), m.along_columns(equal(second.gap))
    unequal = (weight[:, None] - weight[None]) * (mean1 - mean2) / 2
    gap = (both(m.gap) - (inner1 + inner2) / 2 + unequal).clamp_min(0)
    v1, v2 = equal(first.nngp), equal(second.nngp)
    return m.replace(nngp=both(m.nngp), tangent=both(m.tangent), v1=v1, v2=v2, gap=gap, deviation=None)


def with_positions_of_shape(m: Moments) -> Moments:
    """The same moments with an axis for positions exactly where the shape has positions: one of a single position is
    dropped, or added."""
    if (len(m.shape) > 1) == (m.v1.ndim > 1):
        return m
    if len(m.shape) > 1:
        return m.replace(**{name: _mapped_field(m, name, lambda x: x[..., None]) for name in FIELDS})
    axes = 2 if m.pairs else 1
    pairs = {name: _mapped_field(m, name, lambda x: x.flatten(-axes)[..., 0]) for name in FIELDS[:4]}
    return m.replace(**pairs, v1=m.v1[..., 0], v2=m.v2[..., 0], pairs=False, own=None)


FIELDS = ("nngp", "gap", "tangent", "deviation", "v1", "v2")


def _mapped_field(m: Moments, name: str, function: Callable[[Tensor], Tensor]) -> Any:
    value = getattr(m, name)
    return None if value is None else function(value)
