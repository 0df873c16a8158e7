"""Sums and differences of two branches, and multiples by a number."""

import math
from typing import Any

import torch

from ....network.watching import Node
from ..law import Law
from ..moments import Moments, Refused, common, merged, times
from ..pointwise import ADD, DIVIDE, MULTIPLY, NEGATE, SAME, SUBTRACT
from ..registry import rule
from ..scores import Scores
from ..start import Data
from .constants import constant


@rule(*ADD)
def sum_of_branches(call: Any, input: Any, other: Any, *, alpha: Any = 1, init: Law) -> Moments:
    """K ↦ K_a + K_b and Θ ↦ Θ_a + Θ_b, where the branches are uncorrelated and one has mean zero. Source: Yang 2019
    (1902.04760)."""
    input, other = _constants(input, other, init)
    return _both(input, "adds").plus(_both(other, "adds").scaled(_number(alpha)))


@rule(*SUBTRACT)
def difference_of_branches(call: Any, input: Any, other: Any, *, alpha: Any = 1, init: Law) -> Moments:
    """As the sum. Source: as the sum."""
    input, other = _constants(input, other, init)
    return _both(input, "subtracts").plus(_both(other, "subtracts").scaled(-_number(alpha)))


@rule(*MULTIPLY)
def multiple(call: Any, input: Any, other: Any, *, init: Law) -> Any:
    """a·h: K ↦ a² K; of independent branches K_a K_b and Θ_a K_b + K_a Θ_b. Source: bilinearity."""
    if isinstance(other, (Moments, Scores)) and not isinstance(input, (Moments, Scores)):
        input, other = other, input
    if isinstance(other, Moments):
        return times(input, other)
    if isinstance(input, Scores):
        return input.scaled(_number(other))
    if isinstance(other, Data):
        raise Refused("multiplies by the data themselves, which has no rule", "Use EmpiricalNTK")
    return input.scaled(_number(other))


@rule(*DIVIDE)
def quotient(call: Any, input: Any, other: Any, *, init: Law) -> Any:
    """h/a: K ↦ K/a², Θ ↦ Θ/a², a a number. Source: bilinearity."""
    if isinstance(other, Moments):
        raise Refused("divides by a value that depends on the input, which has no rule", "Use EmpiricalNTK")
    divisor = _number(other)
    if divisor == 0:
        raise Refused("divides by zero", "Divide by another number")
    if isinstance(input, Scores):
        return input.scaled(1 / divisor)
    return input.scaled(1 / divisor)


@rule(*NEGATE)
def negation(call: Any, input: Moments, *, init: Law) -> Moments:
    """−h has the moments of h. Source: bilinearity."""
    return input.scaled(-1.0)


@rule(*SAME)
def copy(call: Any, input: Moments, *, init: Law, **layout: Any) -> Moments:
    """h itself."""
    return input


@rule(torch.cat, torch.concat, torch.concatenate)
def concatenation(call: Any, tensors: Any, dim: Any = 0, *, init: Law) -> Moments:
    """Coordinates side by side: means of K and Θ, weighed by their numbers. Positions side by side: blocks, and 0
    between independent branches. Source: exact."""
    like = next((part for part in tensors if isinstance(part, Moments)), None)
    if like is None:
        raise Refused("joins points, or the input itself", "Join the outputs of linear layers on their coordinates")
    axis = dim % (len(like.shape) + 1) - 1
    shapes = [_shape(ref, part) for ref, part in zip(call.refs, tensors, strict=True)]
    parts = [
        constant(part, like, init, shape) if isinstance(part, Node) else _both(part, "joins")
        for part, shape in zip(tensors, shapes, strict=True)
    ]
    first = parts[0]
    if axis < 0 or any(part.is_input for part in parts):
        raise Refused("joins points, or the input itself", "Join the outputs of linear layers on their coordinates")
    rest = [(len(p.shape), p.channel, p.pairs, p.shape[:axis] + p.shape[axis + 1 :]) for p in parts]
    if any(one != rest[0] for one in rest):
        raise Refused("joins values of different shapes", "Give them one shape but for the joined axis")
    if axis != first.channel:
        return _on_positions(parts, axis)
    sizes = [part.shape[axis] for part in parts]
    shares = [size / sum(sizes) for size in sizes]

    def mean(name: str) -> Any:
        return sum(share * getattr(part, name) for share, part in zip(shares, parts, strict=True))

    return first.replace(
        **{name: mean(name) for name in ("nngp", "gap", "tangent", "v1", "v2")},
        **first.moved(first.positions, sum(sizes)),
        deviation=None,
        layers=frozenset().union(*(part.layers for part in parts)),
        reads=frozenset().union(*(part.reads for part in parts)),
        alike=False,
        gaussian=False,
        mean_zero=all(part.mean_zero for part in parts),
        gains=merged(*(part.gains for part in parts)),
    )


def _shape(ref: Any, part: Any) -> tuple[int, ...]:
    return tuple(part.shape) if isinstance(part, (Moments, Data)) else tuple(ref.node.shape[1:])


def _on_positions(parts: list[Moments], axis: int) -> Moments:
    """Positions side by side, along the first axis of positions; between uncorrelated branches K and Θ are 0."""
    first = parts[0]
    if axis != (1 if first.channel == 0 else 0):
        raise Refused("joins a later axis of positions than the first", "Flatten the positions to one axis first")
    if first.pairs:
        pairs = [(a, b) for i, a in enumerate(parts) for b in parts[:i]]
        if any(common(a.depends_on, b.depends_on) for a, b in pairs):
            raise Refused(
                "joins positions that are functions of the same random outputs, which are correlated",
                "Use EmpiricalNTK",
            )
        if not all(a.mean_zero or b.mean_zero for a, b in pairs):
            raise Refused("joins positions of branches of which neither has mean zero", "End one with a linear layer")
    v1, v2 = (torch.cat([getattr(part, name) for part in parts], -1) for name in ("v1", "v2"))
    shape = (*first.shape[:axis], sum(part.shape[axis] for part in parts), *first.shape[axis + 1 :])
    after = first.replace(
        v1=v1,
        v2=v2,
        shape=shape,
        deviation=None,
        own=None,
        layers=frozenset().union(*(part.layers for part in parts)),
        reads=frozenset().union(*(part.reads for part in parts)),
        alike=all(part.alike for part in parts),
        gaussian=all(part.gaussian for part in parts),
        mean_zero=all(part.mean_zero for part in parts),
        gains=merged(*(part.gains for part in parts)),
    )
    if not first.pairs:
        joined = {n: torch.cat([getattr(part, n) for part in parts], -1) for n in ("nngp", "gap", "tangent")}
        return after.replace(**joined)
    sizes = [part.v1.shape[-1] for part in parts]
    points = torch.broadcast_shapes(*(part.nngp.shape[:-2] for part in parts))
    blocks = {name: v1.new_zeros(*points, sum(sizes), sum(sizes)) for name in ("nngp", "tangent")}
    gap = ((after.rows + after.columns) / 2).expand(*points, sum(sizes), sum(sizes)).clone()
    start = 0
    for part, size in zip(parts, sizes, strict=True):
        here = (..., slice(start, start + size), slice(start, start + size))
        for name, block in blocks.items():
            block[here] = getattr(part, name)
        gap[here] = part.gap
        start += size
    return after.replace(**blocks, gap=gap)


def _constants(input: Any, other: Any, init: Law) -> tuple[Any, Any]:
    """Both operands; one that does not depend on the input as moments beside the other."""
    if isinstance(input, Moments) and isinstance(other, Node):
        return input, constant(other, input, init)
    if isinstance(input, Node) and isinstance(other, Moments):
        return constant(input, other, init), other
    return input, other


def _both(value: Any, verb: str) -> Moments:
    if isinstance(value, Data):
        raise Refused(
            f"{verb} the input itself, whose coordinates are not random and whose width does not grow, so that the "
            "sum has no infinite-width limit",
            "Send the input through a linear layer first, or use EmpiricalNTK",
        )
    if not isinstance(value, Moments):
        what = f"`{value.target}`" if getattr(value, "kind", "") == "parameter" else "a constant"
        raise Refused(
            f"{verb} {what}, which shifts the mean and has no rule", "Use the bias of a linear layer, or EmpiricalNTK"
        )
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise Refused(
            "scales by something that is not a finite Python number, which has no rule",
            "Scale by a number, or use EmpiricalNTK",
        )
    return float(value)
