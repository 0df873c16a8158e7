"""Linear layers: nn.Linear, and F.linear with an nn.Linear's own weight and bias."""

from typing import Any

import torch.nn.functional as F
from torch import nn

from ....network.initialization import fan_in
from ..law import Law
from ..moments import Moments, Refused
from ..registry import rule


@rule(nn.Linear)
def linear(layer: nn.Linear, m: Moments, init: Law) -> Moments:
    """K ↦ σ_w² K + σ_b²; Θ ↦ σ_w² Θ + c_w·fan_in·K + c_b. Source: Lee et al. 2019 (1902.06720)."""
    w, b = init.variances(layer)
    cw, cb = init.rates_of(layer)
    return _linear(m, init.name(layer), layer.in_features, (w, b), (cw, cb), layer.out_features)


@rule(F.linear)
def linear_function(call: Any, input: Moments, weight: Any, bias: Any = None, *, init: Law) -> Moments:
    """As nn.Linear, by the law of the layers that weight and bias belong to. Source: as nn.Linear."""
    layer = init.layer_of(weight, "weight")
    w, _ = init.variances(layer)
    cw, _ = init.rates_of(layer)
    b = cb = 0.0
    if bias is not None:
        owner = init.layer_of(bias, "bias")
        b, cb = init.variances(owner).bias, init.rates_of(owner).bias
    return _linear(input, init.name(layer), fan_in(layer), (w, b), (cw, cb), call.shape[-1])


def _linear(m: Moments, name: str, inputs: int, variances: Any, rates: Any, out_features: int) -> Moments:
    if not isinstance(m, Moments):
        raise Refused("is not applied to a value that depends on the input", "Use EmpiricalNTK")
    if len(m.shape) != 1:
        raise Refused(
            f"acts on the last axis of points of shape {m.shape}, position by position, which has no rule yet",
            "Flatten first, or use EmpiricalNTK",
        )
    (w, b), (cw, cb) = variances, rates
    tangent = w * m.tangent + cw * inputs * m.nngp + cb
    return m.affine(w, b).replace(
        tangent=tangent, shape=(out_features,), layers=frozenset([name]), gaussian=True, mean_zero=True
    )
