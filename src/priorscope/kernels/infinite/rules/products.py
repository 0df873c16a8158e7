"""Matrix products: attention's scores q kᵀ, what they weigh, and constant matrices that act on positions (graphs)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ....network.watching import Node
from ..law import Law
from ..moments import Moments, Refused, common
from ..registry import rule
from ..scores import Scores, attended
from ..shape_calls import PRODUCTS
from ..start import Data
from .pooling import _mapped

TRANSPOSES = (torch.transpose, Tensor.transpose, torch.swapaxes, Tensor.swapaxes)
PROPERTIES = frozenset(getattr(Tensor, name).__get__ for name in ("mT", "mH"))


@rule(*PRODUCTS, pairs=True)
def matrix_product(call: Any, input: Any, other: Any, *, init: Law) -> Any:
    """q kᵀ: scores; A(x) v with a function A of the data: K ↦ A K Aᵀ; so with constant matrices (graphs).

    Source: Hron et al. 2020 (2006.10540); Du et al. 2019 (1905.13192) for graphs."""
    first, second = call.refs
    if call.target is Tensor.__rmatmul__:
        input, other, first, second = other, input, second, first
    if isinstance(input, Moments) and isinstance(other, Moments):
        return scores(input, other, first, second, call.shape)
    if isinstance(input, Data) and isinstance(other, Moments):
        _on_positions(other, len(other.shape) - 1)
        return attended(input, other, call.shape[1:])
    if isinstance(input, Node) and isinstance(other, Moments):
        matrix = _constant(input)
        return _mapped(other, lambda x: matrix.to(x) @ x, _on_positions(other, len(other.shape) - 1))
    if isinstance(input, Moments) and isinstance(other, Node):
        matrix = _constant(other)
        if len(input.shape) < 2 or input.channel == len(input.shape) - 1:
            raise Refused("multiplies coordinates by a constant matrix, which has no rule", "Use a linear layer")
        return _mapped(input, lambda x: x @ matrix.to(x), input.channel)
    raise Refused("multiplies values for which no rule is known", "Use EmpiricalNTK")


def scores(q: Moments, k: Moments, first: Any, second: Any, shape: tuple[int, ...]) -> Scores:
    """q kᵀ, if q and k are one value, or independent."""
    origin = _transposed_from(second)
    d = len(q.shape) - 1
    if origin is None or q.channel != d or k.channel != d - 1 or d < 1:
        raise Refused(
            "multiplies two random values in another way than q @ k.transpose(-2, -1), which has no rule",
            "Write attention so, or use EmpiricalNTK",
        )
    tied = origin.node is first.node and origin.part == first.part
    _check(q, k, tied)
    return Scores(q, tied, tuple(shape[1:]))


def _check(q: Moments, k: Moments, tied: bool) -> None:
    if q.is_input or k.is_input:
        raise Refused("has scores of the input itself", "Send it through a linear layer first")
    if not tied and common(q.layers, k.layers):
        raise Refused(
            "has queries and keys that are different functions of the same random outputs, which are correlated",
            "Give each its own linear layer, or use one value for both",
        )
    if not tied and not (q.mean_zero or k.mean_zero):
        raise Refused("has queries and keys of which neither has mean zero", "End one with a linear layer")


@rule(F.scaled_dot_product_attention, pairs=True)
def scaled_dot_product_attention(
    call: Any,
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    init: Law,
) -> Moments:
    """softmax(q kᵀ/d) v: K ↦ A K Aᵀ, A = softmax of the scores' limit; with 1/√d no closed rule is known.

    Source: Hron et al. 2020 (2006.10540)."""
    if not all(isinstance(part, Moments) for part in (query, key, value)) or enable_gqa or dropout_p:
        raise Refused("attends to the data themselves, in groups or with dropout", "Use EmpiricalNTK")
    q, k = (_argument(call, place, name) for place, name in ((0, "query"), (1, "key")))
    ends = {query.channel - len(query.shape), key.channel - len(key.shape), value.channel - len(value.shape)}
    if ends != {-1}:
        raise Refused("has queries, keys and values whose coordinates are not the last axis", "Put them last")
    tied = q.node is k.node and q.part == k.part
    _check(query, key, tied)
    shape = (*query.shape[:-1], key.shape[-2])
    weights = Scores(query, tied, shape).scaled(query.shape[-1] ** -0.5 if scale is None else scale)
    mask = attn_mask
    if is_causal:
        mask = torch.ones(shape[-2:], dtype=torch.bool, device=weights.x1.device).tril()
    elif isinstance(mask, Node):
        mask = _constant(mask)
        mask = mask[0] if mask.ndim == len(shape) + 1 and len(mask) == 1 else mask
    if mask is not None and (not isinstance(mask, Tensor) or mask.ndim > len(shape)):
        raise Refused("has a mask that depends on the input", "Add it to the scores by hand")

    def attention(a: Tensor) -> Tensor:
        if mask is not None:
            a = a.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else a + mask
        return torch.softmax(a, -1)

    return attended(weights.map(attention), value, call.shape[1:])


def _argument(call: Node, place: int, name: str) -> Any:
    return call.args[place] if len(call.args) > place else call.kwargs[name]


def _transposed_from(ref: Any) -> Any:
    """What a reference is the transpose of, by its last two axes; None if it is none."""
    node = ref.node
    if node.kind != "call" or ref.part:
        return None
    if node.target in PROPERTIES:
        return node.args[0]
    axes = len(node.shape)
    if node.target in TRANSPOSES:
        source, *numbers = list(node.args) + list(node.kwargs.values())
        return source if sorted(number % axes for number in numbers) == [axes - 2, axes - 1] else None
    if node.target in (torch.permute, Tensor.permute):
        source, *rest = list(node.args) + list(node.kwargs.values())
        order = [number % axes for number in (rest[0] if isinstance(rest[0], (tuple, list)) else rest)]
        return source if order == [*range(axes - 2), axes - 1, axes - 2] else None
    return None


def _on_positions(m: Moments, channel: int) -> int:
    if len(m.shape) < 2 or m.channel != channel:
        raise Refused("multiplies coordinates by a matrix that is not random, which has no rule", "Use a linear layer")
    return channel


def _constant(node: Node) -> Tensor:
    if node.parameters:
        raise Refused(
            f"multiplies by `{min(node.parameters)}`, which learns and has no law",
            "Use a linear layer, or EmpiricalNTK",
        )
    return node.evaluated().detach()
