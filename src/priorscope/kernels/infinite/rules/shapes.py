"""What moves entries and changes none: reshapes, transposes, slices, zero padding, and flattening to one vector."""

import functools
from collections.abc import Callable
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..deviation import after_sum, root
from ..law import Law
from ..moments import Moments, Refused, with_outside
from ..registry import rule
from ..shape_calls import RESHAPES
from .pooling import with_positions_of_shape

MOVES = (
    *(torch.transpose, Tensor.transpose, torch.swapaxes, Tensor.swapaxes, torch.permute, Tensor.permute),
    *(torch.movedim, Tensor.movedim, torch.moveaxis, Tensor.moveaxis, Tensor.__getitem__, torch.select, Tensor.select),
    *(torch.narrow, Tensor.narrow, torch.flip, Tensor.flip, torch.roll, Tensor.roll),
    *(getattr(Tensor, name).__get__ for name in ("mT", "mH")),
)
CUTS = (torch.chunk, Tensor.chunk, torch.split, Tensor.split, torch.unbind, Tensor.unbind, torch.tensor_split)
UNIFORM = 1e-12
"""Relative differences of moments that rounding makes."""
MIXES = Refused("mixes the axis of the points with others", "Reshape each point by itself: x.flatten(1)")


@rule(nn.Flatten, nn.Unflatten)
def flatten(layer: Any, m: Moments, init: Law) -> Moments:
    """The same entries in another shape; of a single vector, moments are the means over positions. Source: exact."""
    return rearranged(m, layer, 2)


@rule(*RESHAPES)
def reshape(call: Any, input: Any, *sizes: Any, init: Law, **named: Any) -> Moments:
    """The same entries in another shape. Source: exact."""
    ref = call.refs[0]
    if isinstance(input, tuple):
        return _one_of(input, lambda x: call.target(x[:, None], *sizes, **named).squeeze())
    before = ref.node.shape[ref.part[0]] if ref.part else ref.node.shape
    (points, *_), (after, *rest) = before, call.shape or (0,)
    if points != after or prod(rest) != prod(input.shape):
        if prod(input.shape) == 1 and call.shape == (points,):
            return input.replace(shape=())
        raise MIXES
    if (parted := split_or_merged(input, tuple(rest))) is not None:
        return parted
    return rearranged(input, lambda x: x.reshape(len(x), *rest), 2)


@rule(*CUTS)
def cut(call: Any, input: Any, *args: Any, init: Law, **kwargs: Any) -> tuple[Moments, ...]:
    """Pieces of the coordinates, independent where the coordinates are; or of the positions. Source: exact."""
    if not isinstance(input, Moments):
        raise Refused("is not applied to a value that depends on the input", "Use EmpiricalNTK")
    ref = call.refs[0]
    points = (ref.node.shape[ref.part[0]] if ref.part else ref.node.shape)[0]
    pieces = range(len(call.shape))
    return tuple(rearranged(input, functools.partial(_piece, call.target, args, kwargs, i), points) for i in pieces)


def _piece(function: Callable[..., Any], args: Any, kwargs: Any, i: int, x: Tensor) -> Tensor:
    return function(x, *args, **kwargs)[i]


def _taken(m: Moments, coordinates: Tensor) -> Moments:
    """The same moments of some of the coordinates (numbers from 1), in some order."""
    taken, size = coordinates.long().tolist(), m.shape[m.channel] if m.shape else 1
    if taken == list(range(1, size + 1)):
        return m
    if sorted(taken) != list(range(1, size + 1)) and not m.alike:
        raise Refused(
            "takes some of coordinates that differ, since unlike ones were put side by side",
            "Take them from the branch itself, or use EmpiricalNTK",
        )
    # Rows of an independent layer are told apart while they are in order.
    ordered = m.gaussian and taken == list(range(taken[0], taken[-1] + 1)) and taken[0] > 0
    names = (_rows(name, taken[0] - 1, taken[-1]) if ordered else f"{name.partition('[')[0]}[?]" for name in m.layers)
    return m.replace(layers=frozenset(names))


def _rows(name: str, start: int, end: int) -> str:
    """The name of some rows of a weight, or of some of its rows."""
    whole, _, rows = name.partition("[")
    if rows.startswith("?"):
        return name
    first = int(rows.split(":")[0]) if rows else 0
    return f"{whole}[{first + start}:{first + end}]"


@rule(*MOVES)
def move(call: Any, input: Any, *args: Any, init: Law, **kwargs: Any) -> Moments:
    """Other places for the same entries, or fewer of them. Source: exact."""
    if isinstance(input, tuple):
        return _one_of(input, lambda x: call.target(x, *args, **kwargs))
    ref = call.refs[0]
    shape = ref.node.shape[ref.part[0]] if ref.part else ref.node.shape
    return rearranged(input, lambda x: call.target(x, *args, **kwargs), shape[0])


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
    if isinstance(m, tuple):
        return _one_of(m, function)
    if not isinstance(m, Moments):
        raise Refused("is not applied to a value that depends on the input", "Use EmpiricalNTK")
    coordinates, size = m.shape[m.channel] if m.shape else 1, prod(m.positions)
    here = torch.arange(1, size + 1, dtype=torch.float64).view(*m.positions[: m.channel], 1, *m.positions[m.channel :])
    whose = torch.arange(1, coordinates + 1, dtype=torch.float64).view(-1, *(1 for _ in m.positions[m.channel :]))

    def moved(numbers: Tensor) -> Tensor:
        # Each point has numbers of its own, so that it shows where points change places; 0 is what padding adds.
        offsets = torch.arange(points, dtype=torch.float64) * (size + coordinates)
        out = function(numbers + offsets.view(-1, *(1 for _ in m.shape)).expand(points, *m.shape))
        if out.shape[:1] != (points,):
            raise MIXES
        first = out[0]
        if not bool((out == torch.where(first == 0, 0.0, first + offsets.view(-1, *(1 for _ in first.shape)))).all()):
            raise MIXES
        return first

    place, channel = moved(here), moved(whose)
    if not bool((moved(here + torch.zeros(m.shape)) == place).all()):
        raise MIXES
    if place.ndim == 1 and place.numel() == size * coordinates and len(m.shape) > 1:
        return _flat(m, tuple(place.shape))
    if place.ndim == 0:
        return _taken(m, channel.reshape(1)).replace(shape=(), channel=0)
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
    others = [a for a in range(channel.ndim) if a != axis]
    m = _taken(m, channel.amax(others) if others else channel)
    return with_positions_of_shape(_chosen(m, index.to(m.nngp.device)).replace(shape=tuple(place.shape), channel=axis))


def _one_of(values: tuple[Any, ...], function: Callable[[Tensor], Tensor]) -> Moments:
    """One of several values that are stacked along the first axis, as the last states of a recurrent network are."""
    try:
        place = function(torch.arange(len(values), dtype=torch.float64))
    except Exception as error:
        raise Refused("takes more than one state of a recurrent network", "Take one: h[-1]") from error
    if place.ndim:
        raise Refused("takes more than one state of a recurrent network", "Take one: h[-1]")
    return values[int(place)]


def split_or_merged(m: Any, shape: tuple[int, ...]) -> Moments | None:
    """Moments where the coordinates, the last axis, are split into groups (heads), or groups are joined again.

    Independent coordinates of mean zero stay so: between groups K = 0. Joined groups are coordinates side by side.
    """
    if not isinstance(m, Moments) or m.channel != len(m.shape) - 1 or m.v1.ndim == 1:
        return None
    *before, size = m.shape
    if (
        len(shape) == len(m.shape) + 1
        and list(shape[:-2]) == before
        and shape[-2] > 1
        and shape[-1] * shape[-2] == size
    ):
        return _split(m, shape[-2]).replace(shape=shape, channel=len(shape) - 1)
    if len(shape) == len(m.shape) - 1 and len(shape) > 1 and list(shape[:-1]) == before[:-1]:
        return _merged(m, before[-1]).replace(shape=shape, channel=len(shape) - 1)
    return None


def _split(m: Moments, groups: int) -> Moments:
    if not (m.gaussian and m.mean_zero and m.alike):
        raise Refused(
            "splits coordinates that may be correlated, or that differ, into groups",
            "Split the outputs of a linear layer, or EmpiricalNTK",
        )
    after = m.replace(
        v1=m.v1.repeat_interleave(groups, -1),
        v2=m.v2.repeat_interleave(groups, -1),
        deviation=None,
        own=None,
    )
    if not m.pairs:
        return after.replace(**{n: getattr(m, n).repeat_interleave(groups, -1) for n in ("nngp", "gap", "tangent")})
    of_positions = torch.ones(m.nngp.shape[-2:], dtype=torch.bool, device=m.nngp.device)
    same = torch.kron(of_positions, torch.eye(groups, dtype=torch.bool, device=m.nngp.device))

    def repeated(x: Tensor) -> Tensor:
        return x.repeat_interleave(groups, -1).repeat_interleave(groups, -2)

    return after.replace(
        nngp=torch.where(same, repeated(m.nngp), 0.0),
        tangent=torch.where(same, repeated(m.tangent), 0.0),
        gap=torch.where(same, repeated(m.gap), (after.rows + after.columns) / 2),
    )


def _merged(m: Moments, groups: int) -> Moments:
    def single(x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, groups)).mean(-1)

    def joined(x: Tensor) -> Tensor:
        if not m.pairs:
            return single(x)
        return x.unflatten(-1, (-1, groups)).unflatten(-3, (-1, groups)).diagonal(dim1=-3, dim2=-1).mean(-1)

    def is_uniform(x: Tensor, mean: Tensor) -> bool:
        return bool(((x - mean.repeat_interleave(groups, -1)).abs() <= UNIFORM * x.abs().amax()).all())

    changed = {name: joined(getattr(m, name)) for name in ("nngp", "gap", "tangent")}
    v1, v2 = single(m.v1), single(m.v2)
    values = {name: getattr(m, name) for name in ("nngp", "tangent")}
    if m.pairs:
        values = {name: value.diagonal(dim1=-2, dim2=-1) for name, value in values.items()}
    # Side by side, unlike Gaussians are a mixture and no Gaussian.
    alike = is_uniform(m.v1, v1) and is_uniform(m.v2, v2)
    alike = alike and all(is_uniform(value, single(value)) for value in values.values())
    return m.replace(
        **changed,
        v1=v1,
        v2=v2,
        deviation=None,
        own=None,
        gaussian=m.gaussian and alike,
        alike=m.alike and alike,
    )


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
        deviation=at(m.deviation, axes),
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
        deviation=_flat_deviation(m),
        shape=shape,
        channel=0,
        pairs=False,
        own=None,
        gaussian=False if prod(m.positions) > 1 else m.gaussian,
        alike=m.alike and prod(m.positions) == 1,
    )


def _flat_deviation(m: Moments) -> Tensor | None:
    k, deviation = m.nngp, m.deviation
    if deviation is None:
        return None
    if m.pairs:
        k, deviation = k.diagonal(dim1=-2, dim2=-1), deviation.diagonal(dim1=-2, dim2=-1)
    rows, columns = (m.v1[:, None], m.v2[None]) if m.between else (m.v1, m.v2)
    parts = [(k[..., p], root(rows[..., p]), root(columns[..., p]), deviation[..., p]) for p in range(k.shape[-1])]
    return after_sum(parts, k.sum(-1), rows.sum(-1), columns.sum(-1)) / len(parts)
