"""Smooth functions without a closed form, by Hermite series with a stated error: tanh, sigmoid, SiLU, softplus, …"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....linalg.quadrature import hermite_pairs
from ..moments import Refused
from ..registry import Expectations, dual

TOLERANCE = 1e-9


def by_series(function: Callable[[Tensor], Tensor], k: Tensor, v1: Tensor, v2: Tensor, gap: Tensor) -> Expectations:
    """E[φ(u)φ(v)] and E[φ'(u)φ'(v)] of a smooth φ by its Hermite series, to a relative error of 1e-9.

    Raises Refused where the series does not reach it: φ has a kink, or the variances are too large for it.
    Source: Daniely, Frostig and Singer 2016 (1602.05897).
    """
    answer = hermite_pairs(function, v1, v2, gap, TOLERANCE, same=k is v1)
    if not answer.error <= TOLERANCE or not all(bool(torch.isfinite(part).all()) for part in answer[:3]):
        largest = float(torch.maximum(v1.detach().max(), v2.detach().max()))
        raise Refused(
            f"its Hermite series leaves a relative error of {answer.error:.1g} at the variance {largest:.3g}",
            "Make the variances smaller (scale the inputs, or weight_variance), or use EmpiricalNTK",
        )
    return Expectations(answer.value.to(k.dtype), answer.slope.to(k.dtype), answer.gap.to(k.dtype), answer.error)


@dual(nn.Tanh, torch.tanh, F.tanh, Tensor.tanh, Tensor.tanh_, torch.tanh_, odd=True)
def tanh(k: Any, v1: Any, v2: Any, gap: Any) -> Expectations:
    """By Hermite series. Source: Daniely et al. 2016 (1602.05897)."""
    return by_series(torch.tanh, k, v1, v2, gap)


@dual(nn.Sigmoid, torch.sigmoid, F.sigmoid, Tensor.sigmoid, Tensor.sigmoid_, torch.sigmoid_, torch.special.expit)
def sigmoid(k: Any, v1: Any, v2: Any, gap: Any) -> Expectations:
    """By Hermite series. Source: Daniely et al. 2016 (1602.05897)."""
    return by_series(torch.sigmoid, k, v1, v2, gap)


@dual(nn.SiLU, F.silu)
def silu(k: Any, v1: Any, v2: Any, gap: Any) -> Expectations:
    """By Hermite series. Source: Daniely et al. 2016 (1602.05897)."""
    return by_series(F.silu, k, v1, v2, gap)


@dual(nn.Mish, F.mish)
def mish(k: Any, v1: Any, v2: Any, gap: Any) -> Expectations:
    """By Hermite series. Source: Daniely et al. 2016 (1602.05897)."""
    return by_series(F.mish, k, v1, v2, gap)


@dual(nn.LogSigmoid, F.logsigmoid)
def logsigmoid(k: Any, v1: Any, v2: Any, gap: Any) -> Expectations:
    """By Hermite series. Source: Daniely et al. 2016 (1602.05897)."""
    return by_series(F.logsigmoid, k, v1, v2, gap)


@dual(nn.Tanhshrink, F.tanhshrink, odd=True)
def tanhshrink(k: Any, v1: Any, v2: Any, gap: Any) -> Expectations:
    """By Hermite series. Source: Daniely et al. 2016 (1602.05897)."""
    return by_series(F.tanhshrink, k, v1, v2, gap)


@dual(nn.Softplus, F.softplus, settings=("beta", "threshold"))
def softplus(k: Any, v1: Any, v2: Any, gap: Any, beta: float = 1.0, threshold: float = 20.0) -> Expectations:
    """By Hermite series. Source: Daniely et al. 2016 (1602.05897)."""
    if threshold < 20:
        raise Refused(f"has a kink at its threshold {threshold}", "Leave the threshold at 20")
    return by_series(lambda x: F.softplus(x, beta, threshold), k, v1, v2, gap)
