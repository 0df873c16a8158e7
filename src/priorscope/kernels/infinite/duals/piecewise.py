"""Functions of two straight pieces through zero: ReLU, LeakyReLU, abs, by the angle between the two points."""

from math import pi
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..deviation import both_sides, opposite_gap, root
from ..registry import Expectations, dual


class Angle(NamedTuple):
    """√(v1 v2), θ with k = √(v1 v2) cos θ, π − θ, √(v1 v2) − k and + k, and where both variances are positive."""

    size: Tensor
    theta: Tensor
    rest: Tensor
    less: Tensor
    more: Tensor
    alive: Tensor


def angle(k: Tensor, v1: Tensor, v2: Tensor, gap: Tensor, deviation: Tensor | None) -> Angle:
    """The angle between two points.

    √(v1 v2) − k = gap − (√v1 − √v2)²/2, or from the deviation, and θ = 2 atan2(√(1 − cos θ), √(1 + cos θ)), keep the
    digits that arccos of k/√(v1 v2) loses. θ has derivative 0 where it is not smooth: at coinciding, opposite and zero
    points.
    """
    root1, root2 = root(v1), root(v2)
    size = root1 * root2
    alive = size > 0
    if deviation is None:
        both = root1 + root2
        spread = ((v1 - v2) / torch.where(both > 0, both, 1.0)).square() / 2
        # Between parallel points of different lengths the two cancel; what rounding leaves is no angle.
        rounding = 8 * torch.finfo(gap.dtype).eps * (spread + (v1 - v2).abs())
        less = torch.where(gap - spread > rounding, gap - spread, 0.0)
        more = 2 * size - less
    else:
        less, more = both_sides(k, size, deviation)
    theta = 2 * torch.atan2(root(less), root(more))
    rest = 2 * torch.atan2(root(more), root(less))
    return Angle(size, torch.where(alive, theta, pi / 2), torch.where(alive, rest, pi / 2), less, more, alive)


def relu_moments(k: Tensor, at: Angle) -> tuple[Tensor, Tensor]:
    """E[φφ] and E[φ'φ'] of φ = relu. Source: Cho and Saul 2009."""
    return (at.size * torch.sin(at.theta) + at.rest * k) / (2 * pi), at.rest / (2 * pi)


def two_pieces(
    k: Tensor, v1: Tensor, v2: Tensor, gap: Tensor, deviation: Tensor | None, left: float, right: float, at_zero: float
) -> Expectations:
    """φ(x) = left·x below 0, right·x above: φ(x) = left·x + (right − left)·relu(x); its gap from (sin θ − θ cos θ).

    at_zero: φ'(0) as torch has it, for points of variance zero.
    """
    mixed, bend = left * right, (right - left) ** 2
    at = angle(k, v1, v2, gap, deviation)
    nngp, derivative = relu_moments(k, at)
    excess = at.size * _sine_excess(at.theta) / pi
    value = mixed * k + bend * nngp
    mean_slope = (left + right) / 2
    dead = torch.where(v1 > 0, mean_slope, at_zero) * torch.where(v2 > 0, mean_slope, at_zero)
    after = None
    if deviation is not None:
        less = mixed * at.less + bend * (at.less - excess) / 2
        more = mixed * at.more + bend * (at.size / 2 + nngp)
        after = torch.where(value < 0, more, less).clamp_min(0)
    return Expectations(
        value,
        torch.where(at.alive, mixed + bend * derivative, dead.to(k.dtype)),
        (mixed * gap + bend * (gap - excess) / 2).clamp_min(0),
        deviation=after,
    )


@dual(nn.ReLU, F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_)
def relu(k: Any, v1: Any, v2: Any, gap: Any, deviation: Any) -> Expectations:
    """√(v1 v2) (sin θ + (π − θ) cos θ)/2π and (π − θ)/2π. Source: Cho and Saul 2009."""
    return two_pieces(k, v1, v2, gap, deviation, 0.0, 1.0, 0.0)


@dual(nn.LeakyReLU, F.leaky_relu, F.leaky_relu_, settings=("negative_slope",))
def leaky_relu(k: Any, v1: Any, v2: Any, gap: Any, deviation: Any, negative_slope: float = 0.01) -> Expectations:
    """a k + (1 − a)² E[relu relu], a the slope below zero. Source: Cho and Saul 2009."""
    return two_pieces(k, v1, v2, gap, deviation, negative_slope, 1.0, negative_slope)


@dual(torch.abs, Tensor.abs, Tensor.abs_, Tensor.__abs__, torch.absolute, Tensor.absolute)
def absolute_value(k: Any, v1: Any, v2: Any, gap: Any, deviation: Any) -> Expectations:
    """(2/π) √(v1 v2) (sin θ + (π/2 − θ) cos θ) and 1 − 2θ/π. Source: Cho and Saul 2009."""
    # |−u| = |u|: opposite points coincide afterwards, and both have the same deviation.
    reflected = opposite_gap(k, v1, v2, gap, deviation)
    negative = k < 0
    answer = two_pieces(k.abs(), v1, v2, torch.where(negative, reflected, gap), deviation, -1.0, 1.0, 0.0)
    return answer._replace(derivative=torch.where(negative, -answer.derivative, answer.derivative))


def _sine_excess(theta: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """sin θ − θ cos θ, by its series where the difference would lose digits."""
    square = theta.square()
    series = 1 / 3 - square * (1 / 30 - square * (1 / 840 - square * (1 / 45360 - square / 3991680)))
    return torch.where(theta < 0.25, theta * square * series, torch.sin(theta) - theta * torch.cos(theta))
