"""Layers that only reshape: flatten, and reshapes of each point to a vector."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..law import Law
from ..moments import Moments, Refused
from ..registry import rule

RESHAPES = (torch.reshape, Tensor.reshape, Tensor.view, torch.flatten, Tensor.flatten, torch.ravel, Tensor.ravel)
AXES = (torch.squeeze, Tensor.squeeze, torch.unsqueeze, Tensor.unsqueeze)


@rule(nn.Flatten)
def flatten(layer: nn.Flatten, m: Moments, init: Law) -> Moments:
    """One vector per point; the moments, means over all coordinates, stay. Source: exact."""
    first = layer.start_dim if layer.start_dim >= 0 else layer.start_dim + len(m.shape) + 1
    last = layer.end_dim if layer.end_dim >= 0 else layer.end_dim + len(m.shape) + 1
    if first == 0:
        return _as(m, ()) if math.prod(m.shape) == 1 and last == len(m.shape) else _as(m, None)
    return _as(m, (*m.shape[: first - 1], math.prod(m.shape[first - 1 : last]), *m.shape[last:]))


@rule(*RESHAPES, *AXES)
def reshape(call: Any, input: Moments, *sizes: Any, init: Law, **named: Any) -> Moments:
    """The same coordinates in another shape; the moments stay. Source: exact."""
    (points, *_), (after, *rest) = _shape_before(call), call.shape or (0,)
    return _as(input, tuple(rest) if points == after else None)


def _shape_before(call: Any) -> tuple[int, ...]:
    ref = call.refs[0]
    return ref.node.shape


def _as(m: Moments, shape: tuple[int, ...] | None) -> Moments:
    if shape is None or math.prod(shape) != math.prod(m.shape):
        raise Refused("mixes the axis of the points with others", "Reshape each point by itself: x.flatten(1)")
    if len(shape) > 1 and not m.is_input:
        raise Refused(
            f"gives points of shape {shape}, and only vectors have a rule yet",
            "Keep (n, features), or use EmpiricalNTK",
        )
    return m.replace(shape=shape)
