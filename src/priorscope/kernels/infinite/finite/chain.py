"""Reads a watched run as a plain chain: linear layers, a pointwise function between two of them, nothing else."""

from typing import Any, NamedTuple

from ....errors import NotCoveredError
from ....network.initialization import number
from ....network.watching import Graph, Node, Ref
from ..fusion import Fused, fuse
from ..law import Law
from ..pointwise import pointwise
from ..registry import find
from ..rules.linear import linear, linear_function
from .recursion import Layer

REMEDY = "Use linear layers with pointwise activations between them, or sample networks: EmpiricalNTK"


class Link(NamedTuple):
    """A linear layer above the first, and the function between it and the one below (None: no function)."""

    layer: Layer
    function: Fused | None
    place: str


class Chain(NamedTuple):
    """first: the linear layer that reads the data. links: those above it, upwards. outputs: of the last one."""

    first: Node
    links: tuple[Link, ...]
    outputs: int


def read_chain(graph: Graph, law: Law) -> Chain:
    """The chain that a graph is.

    Raises:
        NotCoveredError: at the last node that has no place in a chain, by its place.
    """
    fused, _ = fuse(graph)
    random = _random(graph)
    if not isinstance(graph.output, Ref) or graph.output.part:
        raise NotCoveredError("the output of the model", "is no single tensor of one layer", REMEDY)
    node = graph.output.node
    outputs = node.shape[-1] if _is_linear(node) else 0
    links: list[Link] = []
    while True:
        if not _is_linear(node):
            remedy = f"End with a linear layer: return (n, outputs). {REMEDY}" if node is graph.output.node else REMEDY
            raise NotCoveredError(node.place, "stands where finite-width corrections need a linear layer", remedy)
        if len(node.shape) != 2:
            cause = f"has outputs of {len(node.shape)} axes: finite-width corrections are of (n, width)"
            raise NotCoveredError(node.place, cause, REMEDY)
        (below,) = [ref.node for ref in node.refs if ref.node.data]
        if below.index not in random:
            return Chain(node, tuple(reversed(links)), outputs)
        function, next_node = _function(below, fused)
        links.append(Link(_layer(node, law), function, below.place))
        node = next_node


def _function(node: Node, fused: dict[int, Fused]) -> tuple[Fused | None, Node]:
    """The function that ends at a node, and the node that it is of."""
    if node.index in fused:
        return fused[node.index], fused[node.index].root
    if node.kind in ("module", "call") and pointwise(node.target) is not None:
        sources = [ref.node for ref in node.refs if ref.node.data]
        if len(sources) == 1 and sources[0].shape == node.shape:
            return Fused((sources[0],), (node,)), sources[0]
    return None, node


def _layer(node: Node, law: Law) -> Layer:
    owner: Any = node.target
    if node.kind == "module":
        variances, rates = law.variances(owner), law.rates_of(owner)
    else:
        given = dict(zip(("input", "weight", "bias"), node.args, strict=False)) | node.kwargs
        weight, bias = (getattr(given.get(name), "node", None) for name in ("weight", "bias"))
        owner, variances, rates = law.of_call(weight, bias)
    width = owner.weight.shape[1]
    return Layer(
        number(variances.weight), number(variances.bias), number(rates.weight) * width, number(rates.bias), width
    )


def _is_linear(node: Node) -> bool:
    entry = find(node.target) if node.kind in ("module", "call") else None
    return getattr(entry, "function", None) in (linear, linear_function)


def _random(graph: Graph) -> set[int]:
    """The nodes that depend on data through a parameter."""
    found: set[int] = set()
    for node in graph.nodes:
        if node.data and (node.parameters or any(ref.node.index in found for ref in node.refs)):
            found.add(node.index)
    return found
