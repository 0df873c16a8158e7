"""Exponentials and waves: a·exp(b·x), a·exp(b·x²), a·sin(b·x + c); cosines and RBF features are sines of a phase."""

from math import cos, sin

import torch
from torch import Tensor

from ..deviation import determinant
from ..moments import Refused
from ..registry import Expectations
from .closed import waves


def exponential(k: Tensor, v1: Tensor, v2: Tensor, gap: Tensor, a: float, b: float) -> Expectations:
    """a² e^{b²((v1 + v2)/2 + k)}, and b² times that. Source: the moment-generating function."""
    square = b * b
    s, delta = square * (v1 + v2), square * (v1 - v2)
    value = a * a * torch.exp(s - square * gap)
    after = a * a * torch.exp(s) * (2 * torch.sinh(delta / 2).square() - torch.expm1(-square * gap))
    return _finite(Expectations(value, square * value, after), v1, v2)


def gaussian(
    k: Tensor, v1: Tensor, v2: Tensor, gap: Tensor, deviation: Tensor | None, a: float, b: float
) -> Expectations:
    """a²/√D and 4a²b² k/D^{3/2}, D = det(I − 2bΣ) = 1 − 2b(v1 + v2) + 4b²(v1 v2 − k²).

    Source: the Gaussian integral.
    """
    s, delta = v1 + v2, v1 - v2
    spread = 4 * b * b * determinant(k, v1, v2, gap, deviation)
    middle = 1 - 2 * b * s
    both = middle + spread
    own1, own2 = 1 - 4 * b * v1, 1 - 4 * b * v2
    if b > 0 and not bool((own1 > 0).all() & (own2 > 0).all() & (both > 0).all()):
        raise Refused(
            f"is exp({b:g}·x²), whose second moment is infinite at variances from {1 / (4 * b):.3g} on",
            "Make the variances smaller, or the factor negative",
        )
    near, far1, far2 = both.sqrt(), own1.sqrt(), own2.sqrt()
    w1, w2 = 1 / (far1 * near * (far1 + near)), 1 / (far2 * near * (far2 + near))
    after = spread * (w1 + w2) / 2 + b * delta * (w1 - w2)
    return Expectations(a * a / near, 4 * (a * b) ** 2 * k / (both * near), (a * a * after).clamp_min(0))


def wave(
    k: Tensor, v1: Tensor, v2: Tensor, gap: Tensor, deviation: Tensor | None, a: float, b: float, c: float
) -> Expectations:
    """a²/2 [E cos(b(u − v)) ∓ cos(2c) E cos(b(u + v))], − for a·sin(b·x + c), + for its derivative, times b².

    c = π/4 and a = √2 make the RBF kernel. Source: E[exp(i(u ± v))]; Rahimi and Recht 2007.
    """
    square, phase = b * b, cos(2 * c)
    scaled = [None if x is None else square * x for x in (k, v1, v2, gap, deviation)]
    _, far, sinh, one, drift = waves(*scaled)
    after = (one * (1 + phase * far) - phase * drift) / 2
    # (near ∓ cos(2c) far)/2 without its difference, where cos(2c) = ±1.
    value, derivative = sinh + sin(c) ** 2 * far, square * (sinh + cos(c) ** 2 * far)
    return Expectations(a * a * value, a * a * derivative, (a * a * after).clamp_min(0))


def _finite(answer: Expectations, v1: Tensor, v2: Tensor) -> Expectations:
    if not all(bool(torch.isfinite(part).all()) for part in answer[:3] if isinstance(part, Tensor)):
        largest = float(torch.maximum(v1.detach().max(), v2.detach().max()))
        raise Refused(
            f"has moments too large for {v1.dtype} at the variance {largest:.3g}", "Make the variances smaller"
        )
    return answer
