"""Sums and differences of two branches, and multiples by a number."""

import math
import operator
from typing import Any

import torch
from torch import Tensor

from ..law import Law
from ..moments import Moments, Refused, merged, times
from ..registry import rule
from ..start import Data

ADD = (torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__radd__, Tensor.__iadd__, operator.add)
SUBTRACT = (torch.sub, torch.subtract, Tensor.sub, Tensor.sub_, Tensor.subtract, Tensor.__sub__, Tensor.__isub__)
MULTIPLY = (torch.mul, torch.multiply, Tensor.mul, Tensor.mul_, Tensor.multiply, Tensor.__mul__, Tensor.__rmul__)
DIVIDE = (torch.div, torch.divide, torch.true_divide, Tensor.div, Tensor.div_, Tensor.divide, Tensor.__truediv__)
NEGATE = (torch.neg, torch.negative, Tensor.neg, Tensor.neg_, Tensor.negative, Tensor.__neg__)
SAME = (torch.clone, Tensor.clone, Tensor.contiguous, torch.positive, Tensor.positive, Tensor.__pos__)


@rule(*ADD)
def sum_of_branches(call: Any, input: Any, other: Any, *, alpha: Any = 1, init: Law) -> Moments:
    """K ↦ K_a + K_b and Θ ↦ Θ_a + Θ_b, where the branches are uncorrelated and one has mean zero. Source: Yang 2019
    (1902.04760)."""
    return _both(input, "adds").plus(_both(other, "adds").scaled(_number(alpha)))


@rule(*SUBTRACT)
def difference_of_branches(call: Any, input: Any, other: Any, *, alpha: Any = 1, init: Law) -> Moments:
    """As the sum. Source: as the sum."""
    return _both(input, "subtracts").plus(_both(other, "subtracts").scaled(-_number(alpha)))


@rule(*MULTIPLY, Tensor.__imul__)
def multiple(call: Any, input: Any, other: Any, *, init: Law) -> Moments:
    """a·h: K ↦ a² K; of independent branches K_a K_b and Θ_a K_b + K_a Θ_b. Source: bilinearity."""
    if isinstance(other, Moments) and not isinstance(input, Moments):
        input, other = other, input
    if isinstance(other, Moments):
        return times(input, other)
    if isinstance(other, Data):
        raise Refused("multiplies by the data themselves, which has no rule", "Use EmpiricalNTK")
    return input.scaled(_number(other))


@rule(*DIVIDE, Tensor.__itruediv__)
def quotient(call: Any, input: Any, other: Any, *, init: Law) -> Moments:
    """h/a: K ↦ K/a², Θ ↦ Θ/a², a a number. Source: bilinearity."""
    if isinstance(other, Moments):
        raise Refused("divides by a value that depends on the input, which has no rule", "Use EmpiricalNTK")
    divisor = _number(other)
    if divisor == 0:
        raise Refused("divides by zero", "Divide by another number")
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
    """Coordinates side by side: means of K and Θ, weighed by the numbers of coordinates. Source: exact."""
    parts = [_both(part, "joins") for part in tensors]
    first = parts[0]
    axis = dim % (len(first.shape) + 1) - 1
    if axis < 0 or any(part.is_input for part in parts):
        raise Refused("joins points, or the input itself", "Join the outputs of linear layers on their coordinates")
    same = all(p.channel == axis and len(p.shape) == len(first.shape) and p.positions == first.positions for p in parts)
    if not same or any(p.pairs != first.pairs for p in parts):
        raise Refused("joins values along an axis that is not their coordinates'", "Join on the coordinates")
    sizes = [part.shape[axis] for part in parts]
    shares = [size / sum(sizes) for size in sizes]

    def mean(name: str) -> Any:
        return sum(share * getattr(part, name) for share, part in zip(shares, parts, strict=True))

    return first.replace(
        **{name: mean(name) for name in ("nngp", "gap", "tangent", "v1", "v2")},
        **first.moved(first.positions, sum(sizes)),
        opposition=None,
        layers=frozenset().union(*(part.layers for part in parts)),
        gaussian=False,
        mean_zero=all(part.mean_zero for part in parts),
        gains=merged(*(part.gains for part in parts)),
    )


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
