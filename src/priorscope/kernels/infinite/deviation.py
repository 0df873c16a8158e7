"""How far a pair of points is from lying on one line: √(v1 v2) − |k|, which decides the digits of kinks and jumps.

The gap tells it too, (v1 + v2)/2 − k − (√v1 − √v2)²/2, but of nearly parallel points of different lengths that
difference has lost its digits, and of nearly opposite ones k itself has. So it is carried from layer to layer in sums
of positive terms, where some pair of the data needs it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...linalg.orthants import root

UNEQUAL = 1e-2
"""Variances that differ by more, relatively, are of different lengths."""


def of_points(p: Float[Tensor, "m d"], q: Float[Tensor, "m d"]) -> Float[Tensor, " m"]:
    """(‖p‖‖q‖ − |p·q|)/d of nearly parallel or opposite points, from their directions, which nearly agree."""
    dtype, d = p.dtype, p.shape[1]
    # Directions are rounded: few pairs are worth their digits in float64.
    p, q = p.to(torch.float64), q.to(torch.float64)
    lengths, others = p.norm(dim=1, keepdim=True), q.norm(dim=1, keepdim=True)
    sign = torch.where((p * q).sum(1, keepdim=True) < 0, -1.0, 1.0).to(torch.float64)
    return ((lengths * others)[:, 0] * (p / lengths - sign * q / others).square().sum(1) / (2 * d)).to(dtype)


def on_one_line(k: Float[Tensor, "n m"], v1: Float[Tensor, " n"], v2: Float[Tensor, " m"], near: float) -> Tensor:
    """Which points are nearly opposite, or nearly parallel with different lengths: |cos θ| > 1 − near."""
    rows, columns = v1[:, None], v2[None]
    bound = (1 - near) * rows.sqrt() * columns.sqrt()
    unequal = (rows - columns).abs() > UNEQUAL * (rows + columns)
    return ((k < -bound) | ((k > bound) & unequal)) & (bound > 0)


def both_sides(k: Tensor, size: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
    """size − k and size + k, size = √(v1 v2)."""
    return torch.where(k < 0, size - k, deviation), torch.where(k < 0, deviation, size + k)


def determinant(k: Tensor, v1: Tensor, v2: Tensor, gap: Tensor, deviation: Tensor | None) -> Tensor:
    """v1 v2 − k²: from the deviation, or from the gap where its terms are the smaller ones; exact at equal points."""
    product = v1 * v2
    if deviation is not None:
        return torch.where(product > 0, deviation * (root(v1) * root(v2) + k.abs()), product - k.square())
    square, small = (v1 - v2).square() / 4, gap * (v1 + v2 - gap)
    return torch.where(small.abs() + square < product, small - square, product - k.square()).clamp_min(0)


def opposite_gap(k: Tensor, v1: Tensor, v2: Tensor, gap: Tensor, deviation: Tensor | None) -> Tensor:
    """(v1 + v2)/2 + k."""
    if deviation is None:
        return v1 + v2 - gap
    return torch.where(k < 0, deviation + _difference_of_roots(v1, v2).square() / 2, v1 + v2 - gap)


def after_affine(k: Tensor, v1: Tensor, v2: Tensor, deviation: Tensor, weight: Any, bias: Any) -> Tensor:
    """√((σ_w² v1 + σ_b²)(σ_w² v2 + σ_b²)) − |σ_w² k + σ_b²|."""
    size1, size2 = root(v1), root(v2)
    less, more = both_sides(k, size1 * size2, deviation)
    before, size = weight * size1 * size2, root(weight * v1 + bias) * root(weight * v2 + bias)
    parallel = weight * bias * _difference_of_roots(v1, v2).square() / _safe(size + before + bias)
    opposite = bias * (weight * (v1 + v2) + bias) / _safe(size + before) + bias
    return torch.where(weight * k + bias < 0, weight * more + opposite, weight * less + parallel)


def after_sum(parts: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]], k: Tensor, v1: Tensor, v2: Tensor) -> Tensor:
    """√(v1 v2) − |k| where k, v1 and v2 are the sums of those of the parts (k, √v1, √v2, deviation).

    By Lagrange's identity: Σa² Σb² − (Σab)² = Σa² Σ(b − a Σab/Σa²)², which does not cancel.
    """
    sides = [both_sides(k, a * b, deviation) for k, a, b, deviation in parts]
    less, more = (sum(side[i] for side in sides) for i in (0, 1))
    inner = sum(a * b for _, a, b, _ in parts)
    share = inner / _safe(v1)
    apart = sum((b - a * share).square() for _, a, b, _ in parts)
    excess = v1 * apart / _safe(root(v1) * root(v2) + inner)
    return excess + torch.where(k < 0, more, less)


def _difference_of_roots(v1: Tensor, v2: Tensor) -> Tensor:
    return (v1 - v2) / _safe(root(v1) + root(v2))


def _safe(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 1.0)
