"""Refuses what depends on the number of points or on chance: two runs with different numbers must do the same."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_flatten

from ...errors import NotExactError
from ...network.watching import Graph, Node, Ref
from .pointwise import CONSTANTS, pointwise

RANDOM = frozenset(
    (
        *(
            torch.rand,
            torch.randn,
            torch.randint,
            torch.randperm,
            torch.rand_like,
            torch.randn_like,
            torch.randint_like,
        ),
        *(torch.normal, torch.bernoulli, torch.multinomial, torch.poisson, F.gumbel_softmax, F.rrelu),
        *(Tensor.bernoulli, Tensor.bernoulli_, Tensor.normal_, Tensor.uniform_, Tensor.exponential_, Tensor.random_),
        *(Tensor.multinomial, Tensor.new_empty, torch.empty_like, torch.empty),
    )
)
HIDDEN = getattr(Tensor.data, "__get__", None)
REMEDY = "Write it the same for every number of points, or use EmpiricalNTK"


def check_same(graph: Graph, other: Graph, points: int, others: int) -> None:
    """Compares two watched runs of one model, on so many points and on so many others.

    Raises:
        NotExactError: at the first node where they differ by more than sizes in proportion to the points, that draws
            random numbers, or that hides what is done to a tensor.
    """
    for node in graph.needed():
        if node.kind == "call" and node.target in RANDOM:
            raise NotExactError(node.place, "gives random or unset numbers", "Make them a buffer of the model")
    for node in graph.nodes:
        if node.kind == "call" and node.target == HIDDEN and any(ref.node.data for ref in node.refs):
            raise NotExactError(node.place, "reads .data, and changes of it cannot be seen", "Use the tensor itself")
    for one, two in zip(graph.nodes, other.nodes, strict=False):
        if one.kind != two.kind or not _equal(one.target, two.target) or not _same(one, two, points, others):
            raise NotExactError(one.place, f"does not do the same for {points} and for {others} points", REMEDY)
    if len(graph.nodes) != len(other.nodes):
        raise NotExactError("the model", f"does not do the same for {points} and for {others} points", REMEDY)


def _same(one: Node, two: Node, points: int, others: int) -> bool:
    a, b = (tree_flatten((node.args, node.kwargs))[0] for node in (one, two))
    values = one.target in CONSTANTS[:3] or (one.kind == "call" and pointwise(one.target) is not None)
    return len(a) == len(b) and all(_alike(p, q, 0 if values else points, others) for p, q in zip(a, b, strict=True))


def _alike(a: Any, b: Any, points: int, others: int) -> bool:
    """Whether two arguments are equal, or sizes in proportion to the points (0: no sizes but values)."""
    if isinstance(a, Ref) and isinstance(b, Ref):
        return a.node.index == b.node.index and a.part == b.part
    if isinstance(a, slice) and isinstance(b, slice):
        return all(_alike(getattr(a, part), getattr(b, part), points, others) for part in ("start", "stop", "step"))
    if isinstance(a, int) and isinstance(b, int) and points and a * others == b * points:
        return True
    return _equal(a, b)


def _equal(a: Any, b: Any) -> bool:
    return a is b or (type(a) is type(b) and bool(a == b))
