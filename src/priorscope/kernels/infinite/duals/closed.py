"""Smooth functions with closed forms: erf, exact GELU, sin, cos."""

from math import pi
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..deviation import determinant, opposite_gap
from ..moments import Refused
from ..registry import Expectations, dual
from .smooth import by_series


@dual(torch.erf, Tensor.erf, Tensor.erf_, torch.special.erf, odd=True)
def erf(k: Any, v1: Any, v2: Any, gap: Any, deviation: Any) -> Expectations:
    """(2/π) asin(2k/√d) and 4/(π √(d − 4k²)), d = (1 + 2v1)(1 + 2v2). Source: Williams 1997, eq. 11."""
    d1, d2 = 1 + 2 * v1, 1 + 2 * v2
    root1, root2 = d1.sqrt(), d2.sqrt()
    apart = 4 * determinant(k, v1, v2, gap, deviation)
    bend = (1 + 2 * (v1 + v2) + apart).sqrt()

    def ahead(v: Any, other: Any, root: Any, root_other: Any) -> Any:
        # asin(2v/(1+2v)) − asin(2k/√d) by the sine and cosine of the difference; the sine's numerator,
        # v·bend − k·√(1+4v), from differences that are small themselves.
        flat = (1 + 4 * v).sqrt()
        difference = v - other
        rise = (-2 * difference + apart) / (bend + flat)
        scale = root * root * root * root_other
        sine = 2 * (v * rise + (gap + difference / 2) * flat) / scale
        return torch.atan2(sine, (flat * bend + 4 * v * k) / scale)

    nngp = 2 / pi * torch.atan2(2 * k, bend)
    # The two first orders cancel: what is left is as exact as the gap.
    after = (ahead(v1, v2, root1, root2) + ahead(v2, v1, root2, root1)) / pi
    return Expectations(nngp, 4 / (pi * bend), after.clamp_min(0))


@dual(nn.GELU, F.gelu, settings=("approximate",))
def gelu(k: Any, v1: Any, v2: Any, gap: Any, deviation: Any, approximate: str = "none") -> Expectations:
    """φ(x) = x Φ(x): k G + (v1 v2 − k² + k²/(1+v1) + k²/(1+v2))/(2π √D), G = 1/4 + asin(k/√((1+v1)(1+v2)))/2π,
    D = (1+v1)(1+v2) − k²; and G + k (1/(1+v1) + 1/(1+v2) + 1/D)/(2π √D). Source: Tsuchida et al. 2020 (2002.08517),
    re-derived by Stein's lemma and Price's theorem."""
    if approximate != "none":
        if approximate != "tanh":
            raise Refused(f"has approximate={approximate!r}", 'Give "none" or "tanh"')
        return by_series(lambda x: F.gelu(x, approximate="tanh"), k, v1, v2, gap)
    apart = determinant(k, v1, v2, gap, deviation)
    root = (1 + v1 + v2 + apart).sqrt()
    orthant = torch.atan2(root, -k) / (2 * pi)
    shrink = 1 / (1 + v1) + 1 / (1 + v2)
    inner = apart + k.square() * shrink
    nngp = k * orthant + inner / (2 * pi * root)
    derivative = orthant + k / (2 * pi * root) * (shrink + 1 / root.square())

    def ahead(v: Any, other: Any) -> Any:
        # v (G(v, v) − G) and (v²/√(1+2v) − k²/√D)/(1+v), from differences that are small themselves.
        flat = (1 + 2 * v).sqrt()
        lift, rise = gap + (v - other) / 2, (other - v + apart) / (root + flat)
        scale = (1 + v) * (1 + v).sqrt() * (1 + other).sqrt()
        turn = torch.atan2((v * rise + flat * lift) / scale, (root * flat + k * v) / scale)
        return v * turn / 2 + (v.square() * rise + flat * lift * (v + k)) / ((1 + v) * root * flat)

    after = gap * orthant + (ahead(v1, v2) + ahead(v2, v1) - apart / root) / (2 * pi)
    return Expectations(nngp, derivative, after.clamp_min(0))


@dual(torch.sin, Tensor.sin, Tensor.sin_, odd=True)
def sin(k: Any, v1: Any, v2: Any, gap: Any, deviation: Any) -> Expectations:
    """e^{−(v1+v2)/2} sinh k and e^{−(v1+v2)/2} cosh k. Source: E[exp(i(u ± v))]; Pearce et al. 2019 (1905.06076)."""
    near, far, sinh, one, drift = waves(k, v1, v2, gap, deviation)
    return Expectations(sinh, (near + far) / 2, (one * (1 + far) - drift) / 2)


@dual(torch.cos, Tensor.cos, Tensor.cos_)
def cos(k: Any, v1: Any, v2: Any, gap: Any, deviation: Any) -> Expectations:
    """e^{−(v1+v2)/2} cosh k and e^{−(v1+v2)/2} sinh k. Source: E[exp(i(u ± v))]; Pearce et al. 2019 (1905.06076)."""
    near, far, sinh, one, drift = waves(k, v1, v2, gap, deviation)
    return Expectations((near + far) / 2, sinh, (one * (1 - far) + drift) / 2)


def waves(k: Any, v1: Any, v2: Any, gap: Any, deviation: Any) -> tuple[Any, Any, Any, Any, Any]:
    """E[cos(u−v)], E[cos(u+v)], half their difference, 1 − the first, and what differing variances add to the gap."""
    s, small = v1 + v2, k.clamp(-1, 1)
    near, far = torch.exp(-gap), torch.exp(-opposite_gap(k, v1, v2, gap, deviation))
    sinh = torch.where(k.abs() < 1, torch.exp(-s / 2) * torch.sinh(small), (near - far) / 2)
    return near, far, sinh, -torch.expm1(-gap), (torch.exp(-v1) - torch.exp(-v2)).square() / 2
