"""nn.MultiheadAttention, where a sequence attends to itself, as heads and their widths go to infinity.

nn.TransformerEncoder and its layers have no rule of their own: they are opened, and seen by the modules inside.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from ....network.watching import Node
from ....network.weights import fan_in
from .. import random_scores
from ..law import Law
from ..moments import Moments, Refused
from ..registry import Estimated, rule
from ..start import Data
from .coordinates import coordinates, dense


@rule(nn.MultiheadAttention, pairs=True, name="multihead attention, heads → ∞")
def multihead_attention(
    layer: nn.MultiheadAttention,
    query: Any,
    key: Any,
    value: Any,
    key_padding_mask: Any = None,
    need_weights: bool = True,
    attn_mask: Any = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
    *,
    init: Law,
) -> Any:
    """Heads → ∞: K ↦ E[ζ K_V ζ'ᵀ], ζ = softmax(G), G Gaussian, Cov(G_pr, G'_p'r') = K_Q(p, p') K_K(r, r'); Θ ↦
    E[ζ Θ_V ζ'ᵀ] + Σ K_V(q, q') E[∂ζ_pq/∂G_pr ∂ζ'_p'q'/∂G'_p'r'] (Θ_Q(p, p') K_K(r, r') + K_Q(p, p') Θ_K(r, r')); by
    sampling G. Linear layers before and after. Source: Hron et al. 2020 (2006.10540), theorem 3."""
    _check(layer, query, key, value, key_padding_mask)
    m = coordinates(query, -1)
    if len(m.shape) != 2:
        raise Refused(f"is applied to points of shape {m.shape}", "Give points (positions, features)")
    mask = _mask(attn_mask, m.shape[0], m.nngp)
    # A layer gives no moments of the points of each set with themselves; those are the same layer's of theirs.
    own = (
        None
        if m.own is None
        else (projected(m.own[0], layer, "in_proj", init), projected(m.own[1], layer, "in_proj", init))
    )
    heads, error = attended(projected(m, layer, "in_proj", init).replace(own=own), mask)
    after = projected(heads, layer, "out_proj", init)
    # The weights that some calls return beside are random in the limit, and no moments.
    return Estimated((after, None), error)


def projected(m: Moments, layer: nn.MultiheadAttention, which: str, init: Law) -> Moments:
    """Moments behind the projection of queries, keys or values (one law serves all three), or of the heads."""
    part: Any = layer.out_proj
    if which == "in_proj":
        part = init.owner(layer.in_proj_weight)
    return dense(m, init.name(part), fan_in(part), init.variances(part), init.rates_of(part))


def attended(m: Moments, mask: Tensor | None) -> tuple[Moments, float]:
    """Moments of the heads' outputs, side by side, and a bound of their relative error.

    Args:
        m: of queries, of keys and of values, three independent values with the same moments.
    """
    if m.nngp.requires_grad or m.tangent.requires_grad:
        raise Refused(
            "is attention by a softmax of random scores, whose expectation is sampled and has no derivative here",
            "Ask without gradients (torch.no_grad), or use EmpiricalNTK",
        )
    if not m.between:
        found = random_scores.of_points(m.nngp, m.tangent, mask)
        v1 = v2 = found.nngp.diagonal(dim1=-2, dim2=-1)
    else:
        if m.own is None:
            raise Refused("needs the moments between all pairs of positions", "Give points (positions, features)")
        first, second = m.own
        sides = [random_scores.of_points(one.nngp, one.tangent, mask) for one in (first, second)]
        one_set = m.gram and m.nngp.shape[0] == m.nngp.shape[1]
        found = random_scores.between(m.nngp, m.tangent, first.nngp, second.nngp, sides[0], sides[1], mask, one_set)
        v1, v2 = (one.nngp.diagonal(dim1=-2, dim2=-1) for one in sides)
    after = m.replace(
        nngp=found.nngp, gap=found.gap, tangent=found.tangent, v1=v1, v2=v2, deviation=None, own=None, gaussian=False
    )
    return after, found.error


def _check(layer: nn.MultiheadAttention, query: Any, key: Any, value: Any, key_padding_mask: Any) -> None:
    if not (_is_one(query, key) and _is_one(key, value)):
        raise Refused(
            "attends from one sequence to another, or has queries, keys and values that are different values",
            "Give it one value three times (self-attention), or use EmpiricalNTK",
        )
    if not layer.batch_first:
        raise Refused("has the positions as its first axis", "Make it with batch_first=True")
    if layer.kdim != layer.embed_dim or layer.vdim != layer.embed_dim:
        raise Refused("has keys or values of another width (kdim, vdim)", "Leave out kdim and vdim")
    if layer.bias_k is not None or layer.bias_v is not None:
        raise Refused("adds a learned key and value (add_bias_kv), which have no law", "Leave out add_bias_kv")
    if layer.add_zero_attn:
        raise Refused("adds a key and value of zeros (add_zero_attn)", "Leave out add_zero_attn")
    if key_padding_mask is not None:
        raise Refused("has a key_padding_mask", "Give points of one length, without a padding mask")
    if layer.training and layer.dropout > 0:
        raise Refused("draws dropout masks, because it is in training mode", "Call model.eval() first")


def _is_one(a: Any, b: Any) -> bool:
    return a is b or (isinstance(a, Data) and isinstance(b, Data) and a.x1 is b.x1)


def _mask(mask: Any, positions: int, like: Tensor) -> Tensor | None:
    """What is added to the scores: 0, or −∞ where a position may not be attended to."""
    if mask is None:
        return None
    if not isinstance(mask, Node) or mask.parameters:
        raise Refused("has a mask that depends on the input, or that learns", "Give a constant attn_mask")
    found = mask.evaluated().detach()
    if found.shape != (positions, positions):
        raise Refused(f"has a mask of shape {tuple(found.shape)}", "Give one (positions, positions) for all points")
    found = found.to(like.device)
    if found.dtype == torch.bool:
        found = torch.zeros(found.shape, dtype=torch.float64, device=like.device).masked_fill(found, -math.inf)
    found = found.double()
    if bool((found == -math.inf).all(-1).any()) or bool((found.isnan() | (found == math.inf)).any()):
        raise Refused("has a mask that lets a position attend to nothing", "Leave each position one that it attends to")
    return found


@rule(nn.TransformerDecoderLayer, nn.TransformerDecoder, nn.Transformer)
def transformer_decoder(layer: nn.Module, *inputs: Any, init: Law) -> Moments:
    """Attends to another sequence, which no rule covers. Source: Hron et al. 2020 (2006.10540)."""
    raise Refused(
        "attends to another sequence, whose scores have no rule", "Use nn.TransformerEncoder, or EmpiricalNTK"
    )
