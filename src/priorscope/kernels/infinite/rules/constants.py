"""What does not depend on the input and is added to, or joined with, what does: position encodings, class tokens."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ....network.watching import Node, Ref
from ..law import Law
from ..moments import Moments, Refused
from ..shape_calls import RESHAPES

MOVES = RESHAPES | {
    *(Tensor.__getitem__, Tensor.expand, Tensor.expand_as, Tensor.broadcast_to, torch.broadcast_to, Tensor.to),
    *(Tensor.contiguous, torch.clone, Tensor.clone, Tensor.transpose, torch.transpose, Tensor.permute, torch.permute),
    *(torch.narrow, Tensor.narrow, torch.select, Tensor.select, Tensor.repeat),
}
ENOUGH = 64
"""So many entries tell whether a parameter is a sample of independent centred numbers."""


def constant(node: Any, like: Moments, init: Law, shape: tuple[int, ...] | None = None) -> Moments:
    """Moments of a value that is the same for all points, to stand beside `like`.

    A parameter that looks like a sample of independent numbers of mean 0 is taken as one, of its own measured variance
    s² (an embedding's by its law): K = s² where two entries are one parameter's, else 0. Any other value is taken as it
    is: K = mean over coordinates of its own products. Θ = c where two entries are one parameter's.

    Args:
        shape: of one point's value; None: that of `like`.
    """
    shape = like.shape if shape is None else shape
    values = _rows(_alike(node.evaluated().detach(), shape), shape, like.channel).to(like.nngp)
    names, nothing = node.parameters, values.new_zeros(len(values), len(values))
    k, tangent, gaussian, mean_zero = values @ values.mT / values.shape[1], nothing, False, not bool(values.any())
    if names:
        parameter, index = _entries(node)
        entry = _rows(_alike(index, shape), shape, like.channel)
        shared = (entry[:, None] == entry[None]).to(values).mean(-1)
        owner = init.owner(parameter)
        if isinstance(owner, nn.Embedding):
            (variance, _), (rate, _) = init.variances(owner), init.rates_of(owner)
            k, tangent, gaussian, mean_zero = variance * shared, rate * shared, True, True
        elif owner is None:
            tangent = init.rate(parameter) * shared
            if _is_random(parameter, values, entry):
                k, gaussian, mean_zero = float(parameter.detach().square().mean()) * shared, True, True
        else:
            raise Refused(f"adds `{min(names)}`, which is a layer's weight", "Use EmpiricalNTK")
    gaussian = gaussian or mean_zero
    return _beside(like, k, tangent, shape).replace(
        layers=names or frozenset([f"the constant of {node.place}"]), gaussian=gaussian, mean_zero=mean_zero
    )


def _beside(like: Moments, k: Tensor, tangent: Tensor, shape: tuple[int, ...]) -> Moments:
    """The same (P, P) for every pair of points, in the layout of `like`."""
    v = k.diagonal()
    gap = (v[:, None] + v[None]) / 2 - k
    axes = 0 if like.v1.ndim == 1 else 1

    def pairs(values: Tensor) -> Tensor:
        points = like.nngp.shape[: 2 if like.between else 1]
        values = values if like.pairs else values.diagonal() if axes else values[0, 0]
        return values.expand(*points, *values.shape)

    def single(points: int) -> Tensor:
        return (v if axes else v[0]).expand(points, *(v.shape if axes else ()))

    return like.replace(
        nngp=pairs(k),
        gap=pairs(gap),
        tangent=pairs(tangent),
        v1=single(len(like.v1)),
        v2=single(len(like.v2)),
        deviation=None,
        shape=shape,
        own=None,
    )


def _alike(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """One point's value; Refused where points have different ones."""
    if values.ndim == len(shape) + 1:
        if not torch.equal(values, values[:1].expand_as(values)):
            raise Refused("adds a constant that differs from point to point", "Give it as an input")
        values = values[0]
    if values.ndim > len(shape):
        raise Refused(f"adds a constant of shape {tuple(values.shape)} to points of shape {shape}", "Give both one")
    return values.expand(shape)


def _rows(values: Tensor, shape: tuple[int, ...], channel: int) -> Tensor:
    """(P, C), or (1, C) without positions."""
    return values.movedim(channel, -1).reshape(-1, shape[channel])


def _entries(node: Node) -> tuple[Any, Tensor]:
    """The parameter that a value only moves entries of, and which entry stands where."""
    found: list[Any] = []

    def numbered(part: Node) -> Any:
        if part.kind == "parameter":
            found.append(part.value)
            return torch.arange(part.value.numel(), device=part.value.device).view(part.value.shape)  # type: ignore[union-attr]
        if not part.parameters:
            return part.evaluated()
        args, kwargs = tree_map(
            lambda leaf: numbered(leaf.node) if isinstance(leaf, Ref) else leaf, (part.args, part.kwargs)
        )
        if part.kind == "module" and type(part.target) is nn.Embedding and _is_plain(part.target):
            weight = part.target.weight
            found.append(weight)
            return torch.arange(weight.numel(), device=weight.device).view(weight.shape)[args[0]]
        if part.target is F.embedding and len(args) == 2 and _is_look_up(**kwargs):
            return args[1][args[0]]
        if part.target not in MOVES or any(ref.part for ref in part.refs):
            raise Refused(
                f"adds what `{part.operation}` computes of `{min(part.parameters)}`, which has no law",
                "Add a parameter as it is, or use EmpiricalNTK",
            )
        if part.target is Tensor.to:
            return args[0]
        return part.target(*args, **kwargs)

    index = numbered(node)
    if len({id(parameter) for parameter in found}) != 1:
        raise Refused("adds a mixture of several parameters", "Add them one by one, or use EmpiricalNTK")
    return found[0], index


def _is_plain(layer: nn.Embedding) -> bool:
    return layer.padding_idx is None and layer.max_norm is None and not layer.scale_grad_by_freq


def _is_look_up(
    padding_idx: int | None = None,
    max_norm: Any = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    **_: Any,
) -> bool:
    """Whether F.embedding with these options only takes rows; norm_type is the norm of max_norm."""
    return padding_idx is None and max_norm is None and not scale_grad_by_freq


def _is_random(parameter: Tensor, values: Tensor, entry: Tensor) -> bool:
    """Whether a parameter looks like independent draws of mean 0: its mean, and the products of its rows."""
    entries = parameter.detach().flatten().double()
    size = entries.square().mean()
    if len(entries) < ENOUGH or size == 0 or abs(entries.mean()) > 4 * (size / len(entries)).sqrt():
        return False
    one = values.double()
    distinct = ~(entry[:, None] == entry[None]).any(-1)
    products = one @ one.mT / one.shape[1]
    expected = torch.where(torch.eye(len(one), dtype=torch.bool, device=one.device), size, products)
    spread = 5 * size * (2 / one.shape[1]) ** 0.5
    off = products.abs()[distinct] <= spread
    return bool(off.all()) and bool(((products - expected).diagonal().abs() <= spread).all())
