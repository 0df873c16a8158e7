"""How long each node's moments are needed: a deep network must not keep those of all its layers."""

from functools import lru_cache

from ...network.watching import Graph, Node
from .joint import is_pointwise
from .pointwise import ADD, NEGATE, SAME, SUBTRACT

SUMS = frozenset((*ADD, *SUBTRACT, *NEGATE, *SAME))


@lru_cache(maxsize=8)
def last_uses(graph: Graph) -> dict[int, int]:
    """The index of the last node that may ask for a node's value, by the node's index.

    A function of several Gaussian values asks for what it is a function of: beyond the pointwise nodes in between; and
    a sum of Gaussian values may be taken apart into its terms as long as it is asked for itself.
    """
    nodes = list(graph.needed())
    readers: dict[int, list[Node]] = {}
    linear: dict[int, bool] = {}
    for node in nodes:
        before = [ref.node for ref in node.refs if ref.node.data]
        for one in before:
            readers.setdefault(one.index, []).append(node)
        alike = not is_pointwise(node) or (node.target in SUMS and all(linear[one.index] for one in before))
        linear[node.index] = alike
    direct: dict[int, int] = {}
    last: dict[int, int] = {}
    for node in reversed(nodes):
        through = [
            direct[reader.index] if is_pointwise(reader) and not linear[reader.index] else reader.index
            for reader in readers.get(node.index, [])
        ]
        direct[node.index] = max(through, default=node.index)
        apart = [direct[r.index] for r in readers.get(node.index, []) if is_pointwise(r) and linear[r.index]]
        last[node.index] = max([direct[node.index], *apart])
    return last
