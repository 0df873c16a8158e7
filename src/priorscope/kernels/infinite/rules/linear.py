"""Linear layers: nn.Linear, and F.linear with an nn.Linear's own weight and bias; on vectors and at every position."""

from typing import Any

import torch.nn.functional as F
from torch import nn

from ....network.weights import fan_in
from ..law import Law
from ..moments import Moments
from ..registry import rule
from .coordinates import coordinates, dense


@rule(nn.Linear)
def linear(layer: nn.Linear, m: Any, init: Law) -> Moments:
    """K ↦ σ_w² K + σ_b²; Θ ↦ σ_w² Θ + c_w·fan_in·K + c_b. Source: Lee et al. 2019 (1902.06720)."""
    m = coordinates(m, -1)
    return dense(m, init.name(layer), layer.in_features, init.variances(layer), init.rates_of(layer)).replace(
        **m.moved(m.positions, layer.out_features)
    )


@rule(F.linear)
def linear_function(call: Any, input: Any, weight: Any, bias: Any = None, *, init: Law) -> Moments:
    """As nn.Linear, by the law of the layers that weight and bias belong to. Source: as nn.Linear."""
    m, (layer, variances, rates) = coordinates(input, -1), init.of_call(weight, bias)
    return dense(m, init.name(layer), fan_in(layer), variances, rates).replace(**m.moved(m.positions, call.shape[-1]))
