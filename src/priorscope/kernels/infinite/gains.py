"""What gains of normalisations add to the NTK through an activation: each is of one coordinate alone.

A linear layer's part of Θ is a mean over many inputs, so that Θ after φ is Θ·E[φ'(u)φ'(v)]. A gain's part is c u v of
the very coordinate (u, v) that φ is applied to: it becomes c·E[uφ'(u) vφ'(v)], which is not the product of the means.

Behind a sum of branches only that product is known. With plain rates (all 1) gains are a share of order 1/width of
the NTK, which vanishes in the limit, and the product stands for it; with other rates the sum is refused.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .duals.smooth import by_series
from .moments import Moments, Refused


def through(
    m: Moments, after: Moments, derivative: Tensor, function: Any, settings: dict[str, Any], standard: bool
) -> Moments:
    """The moments after φ, with what gains add to the tangent; m: before it. derivative: E[φ'(u)φ'(v)]. standard:
    whether all rates are 0 or 1."""
    if isinstance(m.gains, (int, float)) and m.gains == 0:
        return after
    if m.gains != m.gains and standard:
        return after.replace(gains=0.0)
    if m.gains != m.gains:
        raise Refused(
            "applies a pointwise function to a sum that a normalisation's gains reach, coordinate by coordinate",
            "Put a linear layer in between, give the gains the rate 0, or use EmpiricalNTK",
        )

    def applied(x: Tensor) -> Tensor:
        return function(x.clone(), **({} if isinstance(function, nn.Module) else settings))

    if _is_homogeneous(applied):
        products = after.nngp  # u φ'(u) = φ(u)
    else:
        products = by_series(lambda x: _times_slope(applied, x), m.nngp, m.rows, m.columns, m.gap).nngp
    tangent = after.tangent + m.gains * (products - m.nngp * derivative)
    return after.replace(tangent=tangent, gains=0.0)


def _is_homogeneous(function: Callable[[Tensor], Tensor]) -> bool:
    x = torch.tensor([-3.0, -0.7, 0.0, 0.4, 1.9], dtype=torch.float64)
    return bool(torch.allclose(function(2 * x), 2 * function(x), rtol=1e-12, atol=1e-12))


def _times_slope(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(function(point).sum(), point)
    return x * slope
