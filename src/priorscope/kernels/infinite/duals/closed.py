"""Smooth functions with closed forms: erf, exact GELU, sin, cos."""

from math import pi
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..moments import Refused
from ..registry import Expectations, dual
from .smooth import by_series


@dual(torch.erf, Tensor.erf, Tensor.erf_, torch.special.erf, odd=True)
def erf(k: Any, v1: Any, v2: Any, gap: Any) -> Expectations:
    """(2/π) asin(2k/√d) and 4/(π √(d − 4k²)), d = (1 + 2v1)(1 + 2v2). Source: Williams 1997, eq. 11."""
    d1, d2 = 1 + 2 * v1, 1 + 2 * v2
    root1, root2 = d1.sqrt(), d2.sqrt()
    # d − 4k² in a form that stays positive and exact at equal points: 4k² = ((v1 + v2) − 2·gap)².
    s = v1 + v2
    left = 1 + 2 * s - (v1 - v2).square() + 4 * gap * (s - gap)
    left = left.clamp_min(1.0)
    bend = left.sqrt()

    def ahead(v: Any, other: Any, root: Any, root_other: Any) -> Any:
        # asin(2v/(1+2v)) − asin(2k/√d) by the sine and cosine of the difference; the sine's numerator,
        # v·bend − k·√(1+4v), from differences that are small themselves.
        flat = (1 + 4 * v).sqrt()
        difference = v - other
        rise = (-2 * difference - difference.square() + 4 * gap * (s - gap)) / (bend + flat)
        scale = root * root * root * root_other
        sine = 2 * (v * rise + (gap + difference / 2) * flat) / scale
        return torch.atan2(sine, (flat * bend + 4 * v * k) / scale)

    nngp = 2 / pi * torch.atan2(2 * k, bend)
    # The two first orders cancel: what is left is as exact as the gap.
    after = (ahead(v1, v2, root1, root2) + ahead(v2, v1, root2, root1)) / pi
    return Expectations(nngp, 4 / (pi * bend), after.clamp_min(0))


@dual(nn.GELU, F.gelu, settings=("approximate",))
def gelu(k: Any, v1: Any, v2: Any, gap: Any, approximate: str = "none") -> Expectations:
    """φ(x) = x Φ(x): k G + (v1 v2 − k² + k²/(1+v1) + k²/(1+v2))/(2π √D), G = 1/4 + asin(k/√((1+v1)(1+v2)))/2π,
    D = (1+v1)(1+v2) − k²; the derivatives' moment is its derivative by k. Source: Tsuchida et al. 2020 (2002.08517),
    re-derived by Stein's lemma and Price's theorem."""
    if approximate != "none":
        if approximate != "tanh":
            raise Refused(f"has approximate={approximate!r}", 'Give "none" or "tanh"')
        return by_series(lambda x: F.gelu(x, approximate="tanh"), k, v1, v2, gap)
    s = v1 + v2
    # (1+v1)(1+v2) − k² with k² = (s/2 − gap)²: exact at equal points.
    determinant = (1 + s - (v1 - v2).square() / 4 + gap * (s - gap)).clamp_min(1.0)
    root = determinant.sqrt()
    orthant = 0.25 + torch.atan2(k, root) / (2 * pi)
    shrink = 1 / (1 + v1) + 1 / (1 + v2)
    inner = (determinant - 1 - s) + k.square() * shrink
    nngp = k * orthant + inner / (2 * pi * root)
    derivative = orthant + k / (2 * pi * root) * (2 * shrink - 1 + inner / determinant)
    return Expectations(nngp, derivative)


@dual(torch.sin, Tensor.sin, Tensor.sin_, odd=True)
def sin(k: Any, v1: Any, v2: Any, gap: Any) -> Expectations:
    """e^{−(v1+v2)/2} sinh k and e^{−(v1+v2)/2} cosh k. Source: E[exp(i(u ± v))]; Pearce et al. 2019 (1905.06076)."""
    near, far, one, drift = _waves(v1, v2, gap)
    return Expectations((near - far) / 2, (near + far) / 2, (one * (1 + far) - drift) / 2)


@dual(torch.cos, Tensor.cos, Tensor.cos_)
def cos(k: Any, v1: Any, v2: Any, gap: Any) -> Expectations:
    """e^{−(v1+v2)/2} cosh k and e^{−(v1+v2)/2} sinh k. Source: E[exp(i(u ± v))]; Pearce et al. 2019 (1905.06076)."""
    near, far, one, drift = _waves(v1, v2, gap)
    return Expectations((near + far) / 2, (near - far) / 2, (one * (1 - far) + drift) / 2)


def _waves(v1: Any, v2: Any, gap: Any) -> tuple[Any, Any, Any, Any]:
    """E[cos(u−v)], E[cos(u+v)], 1 − the first, and the part of the gap that differing variances make."""
    near, far = torch.exp(-gap), torch.exp(gap - (v1 + v2))
    return near, far, -torch.expm1(-gap), (torch.exp(-v1) - torch.exp(-v2)).square() / 2
