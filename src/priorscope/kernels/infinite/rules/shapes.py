"""What moves entries and changes none: reshapes, transposes, slices, zero padding, and flattening to one vector."""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..law import Law
from ..moments import Moments, Refused, with_outside
from ..registry import rule
from ..shape_calls import RESHAPES
from .pooling import with_positions_of_shape

MOVES = (
    *(torch.transpose, Tensor.transpose, torch.swapaxes, Tensor.swapaxes, torch.permute, Tensor.permute),
    *(torch.movedim, Tensor.movedim, torch.moveaxis, Tensor.moveaxis, Tensor.__getitem__, torch.select, Tensor.select),
    *(torch.narrow, Tensor.narrow, torch.flip, Tensor.flip, torch.roll, Tensor.roll),
)
MIXES = Refused("mixes the axis of the points with others", "Reshape each point by itself: x.flatten(1)")


@rule(nn.Flatten, nn.Unflatten)
def flatten(layer: Any, m: Moments, init: Law) -> Moments:
    """The same entries in another shape; of a single vector, moments are the means over positions. Source: exact."""
    return rearranged(m, layer, 2)


@rule(*RESHAPES)
def reshape(call: Any, input: Moments, *sizes: Any, init: Law, **named: Any) -> Moments:
    """The same entries in another shape. Source: exact."""
    (points, *_), (after, *rest) = call.refs[0].node.shape, call.shape or (0,)
    if points != after or prod(rest) != prod(input.shape):
        if prod(input.shape) == 1 and call.shape == (points,):
            return input.replace(shape=())
        raise MIXES
    return rearranged(input, lambda x: x.reshape(len(x), *rest), 2)


@rule(*MOVES)
def move(call: Any, input: Moments, *args: Any, init: Law, **kwargs: Any) -> Moments:
    """Other places for the same entries, or fewer of them. Source: exact."""
    return rearranged(input, lambda x: call.target(x, *args, **kwargs), call.refs[0].node.shape[0])


@rule(F.pad)
def pad(call: Any, input: Moments, pad: Any, mode: str = "constant", value: Any = None, *, init: Law) -> Moments:
    """Zeros, or repeated entries, around the positions. Source: exact."""
    if mode == "constant" and value not in (None, 0):
        raise Refused(f"pads with {value}, a constant, which has no rule", "Pad with zeros")
    return rearranged(input, lambda x: F.pad(x, tuple(pad), mode), 2)


@rule(nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d, nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d)
def pad_layer(layer: Any, m: Moments, init: Law) -> Moments:
    """As F.pad. Source: exact."""
    return rearranged(m, layer, 2)


def rearranged(m: Any, function: Callable[[Tensor], Tensor], points: int) -> Moments:
    """Moments after a function that only moves entries, which is seen by moving their numbers.

    Args:
        points: the number of points that the function is tried on.
    """
    if not isinstance(m, Moments):
        raise Refused("is not applied to a value that depends on the input", "Use EmpiricalNTK")
    coordinates, size = m.shape[m.channel] if m.shape else 1, prod(m.positions)
    here = torch.arange(1, size + 1, dtype=torch.float64).view(*m.positions[: m.channel], 1, *m.positions[m.channel :])
    whose = torch.arange(1, coordinates + 1, dtype=torch.float64).view(-1, *(1 for _ in m.positions[m.channel :]))

    def moved(numbers: Tensor) -> Tensor:
        out = function(numbers.expand(points, *m.shape).clone())
        if out.shape[:1] != (points,):
            raise MIXES
        return out[0]

    place, channel = moved(here), moved(whose)
    if not bool((moved(here + torch.zeros(m.shape)) == place).all()):
        raise MIXES
    if place.ndim == 1 and place.numel() == size * coordinates and len(m.shape) > 1:
        return _flat(m, tuple(place.shape))
    if place.ndim == 0:
        return m.replace(shape=(), channel=0)
    axes = [a for a in range(place.ndim) if _along(channel, place, a)]
    if len(m.shape) == 1 and place.ndim == 1:
        axes = [0]
    if not axes:
        raise Refused(
            f"makes of points of shape {m.shape} points of shape {tuple(place.shape)}, where coordinates and positions "
            "share an axis",
            "Keep them apart, or flatten each point to one vector",
        )
    axis = axes[0] if len(axes) == 1 or m.channel not in axes else m.channel
    index = place.select(axis, 0).flatten().long() - 1  # −1: a zero
    return with_positions_of_shape(_chosen(m, index.to(m.nngp.device)).replace(shape=tuple(place.shape), channel=axis))


def _along(channel: Tensor, place: Tensor, axis: int) -> bool:
    """Whether the coordinates vary along this axis alone, and positions along all others alone."""
    ends = place.select(axis, 0).unsqueeze(axis)
    inside = place > 0
    others = [a for a in range(place.ndim) if a != axis]
    one = channel.amax(others, keepdim=True) if others else channel
    return bool((place == ends).all()) and bool((torch.where(inside, channel, one) == one).all())


def _chosen(m: Moments, index: Tensor) -> Moments:
    """Moments at the chosen positions; at −1 they are 0."""
    if m.v1.ndim == 1:
        return m
    m = with_outside(m)

    def at(values: Any, axes: int) -> Any:
        if values is None:
            return None
        return values[..., index] if axes == 1 else values[..., index[:, None], index[None]]

    axes = 2 if m.pairs else 1
    return m.replace(
        nngp=at(m.nngp, axes),
        gap=at(m.gap, axes),
        tangent=at(m.tangent, axes),
        opposition=at(m.opposition, axes),
        v1=at(m.v1, 1),
        v2=at(m.v2, 1),
    )


def _flat(m: Moments, shape: tuple[int, ...]) -> Moments:
    """One vector of all entries: means over positions, of each with the same position of the other point."""

    def mean(values: Tensor) -> Tensor:
        same = values.diagonal(dim1=-2, dim2=-1) if m.pairs else values
        return same.mean(-1)

    return m.replace(
        nngp=mean(m.nngp),
        gap=mean(m.gap),
        tangent=mean(m.tangent),
        v1=m.v1.mean(-1),
        v2=m.v2.mean(-1),
        opposition=None,
        shape=shape,
        channel=0,
        pairs=False,
        own=None,
        gaussian=False if prod(m.positions) > 1 else m.gaussian,
    )
