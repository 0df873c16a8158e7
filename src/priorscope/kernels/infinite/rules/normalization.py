"""Normalisations of single points: LayerNorm, GroupNorm with one group, RMSNorm; BatchNorm that is still fresh."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..law import Law
from ..moments import Moments, Refused, merged
from ..registry import rule


@rule(nn.LayerNorm)
def layer_norm(layer: nn.LayerNorm, m: Moments, init: Law) -> Moments:
    """K ↦ K/√((v1 + ε)(v2 + ε)), and so Θ: the mean over many coordinates is 0 and their variance is v.

    Source: Yang 2019 (1902.04760); Lee et al. 2019, as in the reference implementation."""
    _needs_mean_zero(m)
    axes = _axes(m, len(layer.normalized_shape))
    return _gained(_normalized(m, axes, layer.eps), layer, init)


@rule(nn.GroupNorm)
def group_norm(layer: nn.GroupNorm, m: Moments, init: Law) -> Moments:
    """With one group, LayerNorm over coordinates and positions. Source: as LayerNorm."""
    if layer.num_groups != 1:
        raise Refused("normalises several groups of channels", "Use one group, or EmpiricalNTK")
    _needs_mean_zero(m)
    if layer.affine and m.channel != 0:
        raise Refused("has gains for positions, where the coordinates are another axis", "Use nn.LayerNorm")
    return _gained(_normalized(m, "all", layer.eps), layer, init)


@rule(nn.RMSNorm)
def rms_norm(layer: nn.RMSNorm, m: Moments, init: Law) -> Moments:
    """K ↦ K/√((v1 + ε)(v2 + ε)), and so Θ; the mean may be anything. Source: as LayerNorm."""
    eps = torch.finfo(layer.weight.dtype if layer.weight is not None else m.nngp.dtype).eps
    axes = _axes(m, len(layer.normalized_shape))
    return _gained(_normalized(m, axes, eps if layer.eps is None else layer.eps), layer, init)


@rule(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
def batch_norm(layer: Any, m: Moments, init: Law) -> Moments:
    """With its first running statistics, mean 0 and variance 1, a division by √(1 + ε). Source: exact."""
    if layer.training or layer.running_mean is None:
        raise Refused("depends on the batch, in training mode", "Call model.eval(), or use a norm of single points")
    mean, variance = layer.running_mean, layer.running_var
    if not bool((mean == 0).all()) or not bool((variance == variance[0]).all()):
        raise Refused(
            "has statistics of data it was trained on, which differ from channel to channel",
            "Use LayerNorm or GroupNorm, or EmpiricalNTK",
        )
    if not isinstance(m, Moments) or m.channel != 0:
        raise Refused("normalises another axis than the coordinates'", "Put the channels first")
    return _gained(m.scaled(float((variance[0] + layer.eps).rsqrt())), layer, init)


def _needs_mean_zero(m: Any) -> None:
    if not isinstance(m, Moments):
        raise Refused("is not applied to a value that random layers made", "Normalise the data before the model")
    if not m.mean_zero:
        raise Refused(
            "subtracts the mean of values that have one, which moments do not tell",
            "Put it behind a linear or convolutional layer, before the activation",
        )


def _axes(m: Any, count: int) -> str:
    if not isinstance(m, Moments):
        raise Refused("is not applied to a value that random layers made", "Normalise the data before the model")
    if count == len(m.shape):
        return "all"
    if count == 1 and m.channel == len(m.shape) - 1:
        return "coordinates"
    raise Refused(f"normalises {count} axes of points of shape {m.shape}", "Normalise the coordinates, or everything")


def _normalized(m: Moments, axes: str, eps: float) -> Moments:
    """K q1 q2 with q = 1/√(v + ε), v of each position, or its mean over positions."""

    def size(v: Tensor) -> Tensor:
        v = v.mean(-1, keepdim=True).expand_as(v) if axes == "all" and v.ndim > 1 else v
        return (v + eps).sqrt()

    s1, s2 = size(m.v1), size(m.v2)
    rows, columns = m.along_rows(s1), m.along_columns(s2)
    product = rows * columns
    safe = torch.where(product > 0, product, 1.0)
    # (v1 q1² + v2 q2²)/2 − K q1 q2 = q1 q2 (gap + (v1 − v2 s1/s2)(s2/s1 − 1)/2), where s2 − s1 is small itself.
    ratio = rows / torch.where(columns > 0, columns, 1.0)
    apart = (columns - rows) / torch.where(rows > 0, rows, 1.0)
    gap = (m.gap + (m.rows - m.columns * ratio) * apart / 2).clamp_min(0) / safe
    return m.replace(
        nngp=m.nngp / safe,
        gap=gap,
        tangent=m.tangent / safe,
        v1=m.v1 / torch.where(s1 > 0, s1, 1.0).square(),
        v2=m.v2 / torch.where(s2 > 0, s2, 1.0).square(),
        deviation=None if m.deviation is None else m.deviation / safe,
    )


def _gained(m: Moments, layer: Any, init: Law) -> Moments:
    """γ h + β with constant γ and β = 0, which learn at their own rates: Θ ↦ γ² Θ + c_γ K + c_β, c_γ K of one
    coordinate alone (see gains.py)."""
    weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
    if weight is None:
        return m
    gain = float(weight.detach().flatten()[0])
    if not bool((weight == gain).all()) or (bias is not None and bool((bias != 0).any())):
        raise Refused(
            "has gains or biases that were trained, which have no law", "Reset them (reset_parameters), or EmpiricalNTK"
        )
    after = m.scaled(gain)
    c_gain, c_bias = init.rate(weight), init.rate(bias) if bias is not None else 0.0
    gains: Any = m.gains if c_gain == 0 else m.gains + (c_gain / gain**2 if gain else math.nan)
    added = c_gain * m.nngp + c_bias
    if weight.ndim > 1 and m.pairs:
        # Each position has gains of its own, which connect it with itself only.
        added, gains = added * torch.eye(added.shape[-1]).to(added), merged(1.0) if c_gain else gains
    return after.replace(tangent=after.tangent + added, gains=gains)
