"""Embeddings of integer inputs: equal ids have the same random row."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..law import Law
from ..moments import Moments, Refused
from ..registry import rule
from ..start import Data


@rule(nn.Embedding)
def embedding(layer: nn.Embedding, m: Any, init: Law) -> Moments:
    """K = σ_w² and Θ = c_w where two ids are equal, 0 elsewhere: a linear layer of one-hot inputs, fan-in 1.

    Source: Yang 2019 (1910.12478)."""
    if layer.max_norm is not None or layer.scale_grad_by_freq:
        raise Refused("renormalises its rows, or scales their gradients by frequency", "Leave the option out")
    return _embedded(m, layer, layer.padding_idx, init)


@rule(F.embedding)
def embedding_function(
    call: Any, input: Any, weight: Any, padding_idx: int | None = None, *, init: Law, **options: Any
) -> Moments:
    """As nn.Embedding, by the law of the layer that the weight belongs to. Source: as nn.Embedding."""
    layer = init.layer_of(weight, "weight")
    # norm_type is the norm of max_norm: without that it does nothing.
    if any(options.get(name) for name in ("max_norm", "scale_grad_by_freq")) or not isinstance(layer, nn.Embedding):
        raise Refused("has options, or a weight that is no embedding's", "Use nn.Embedding")
    if padding_idx != layer.padding_idx:
        raise Refused("has another padding_idx than its layer", "Call the layer itself")
    return _embedded(input, layer, padding_idx, init)


def _embedded(data: Any, layer: nn.Embedding, padding: int | None, init: Law) -> Moments:
    if not isinstance(data, Data) or data.x1.is_floating_point():
        raise Refused("looks up something that is not integer data", "Give ids as an input of the model")
    (variance, _), (rate, _) = init.variances(layer), init.rates_of(layer)
    a = data.x1.flatten(1) if data.x1.ndim > 1 else data.x1
    b = a if data.x2 is None else (data.x2.flatten(1) if data.x2.ndim > 1 else data.x2)
    pairs, between = data.pairs and a.ndim > 1, data.x2 is not None
    rows, columns = (a[..., None], b[..., None, :]) if pairs else (a, b)
    if between:
        rows, columns = rows[:, None], columns[None]
    dtype = layer.weight.dtype

    def known(ids: Tensor) -> Tensor:
        return torch.ones_like(ids, dtype=dtype) if padding is None else (ids != padding).to(dtype)

    equal = (rows == columns).to(dtype) * known(rows)
    v1, v2 = variance * known(a), variance * known(b)
    m = Moments(
        nngp=variance * equal,
        v1=v1,
        v2=v2,
        gap=variance * ((known(rows) + known(columns)) / 2 - equal),
        tangent=rate * equal,
        shape=(*data.shape, layer.embedding_dim),
        gram=data.gram,
        same=data.same,
        layers=frozenset([init.name(layer)]),
        gaussian=True,
        mean_zero=True,
        channel=len(data.shape),
        between=between,
        pairs=pairs,
    )
    return m
