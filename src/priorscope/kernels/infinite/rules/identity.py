"""Layers that do nothing: identity, and dropout in evaluation."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..law import Law
from ..moments import Moments, Refused
from ..registry import rule


@rule(nn.Identity)
def identity(layer: nn.Identity, m: Moments, init: Law) -> Moments:
    """h itself. Source: exact."""
    return m


@rule(nn.Dropout, nn.AlphaDropout)
def dropout(layer: Any, m: Moments, init: Law) -> Moments:
    """In evaluation h itself. Source: exact."""
    return _off(m, layer.p, layer.training)


@rule(F.dropout, F.alpha_dropout, torch.dropout)
def dropout_function(
    call: Any, input: Moments, p: float = 0.5, training: bool = True, inplace: bool = False, *, init: Law
) -> Moments:
    """In evaluation h itself. Source: exact."""
    if call.target is F.alpha_dropout and "training" not in call.kwargs and len(call.args) < 3:
        training = False
    return _off(input, p, training)


def _off(m: Moments, p: float, training: bool) -> Moments:
    if training and p > 0:
        raise Refused("draws dropout masks, because it is in training mode", "Call model.eval() first")
    return m
