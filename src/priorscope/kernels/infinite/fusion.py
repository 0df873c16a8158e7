"""Pointwise fusion: every connected pointwise subgraph of one node becomes one scalar function φ of that node's value.

`x + relu(x)`, `1 - h`, `h**2`, a·sin(b·x + c), two activations in a row: what depends on a single value through
pointwise operations alone is a function of it, whose parts are correlated and must not be taken for branches.
"""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from ...network.watching import Graph, Node, Ref
from .moments import Refused
from .pointwise import CONSTANTS, pointwise
from .registry import Dual, find
from .shape_calls import PRODUCTS

REACH = 14.0
POINTS = 4001
BISECTIONS = 80
SMALLEST = 1e-9


@dataclass(frozen=True, eq=False)
class Fused:
    """A scalar function φ: pointwise operations in order, of its roots' values, numbers and constants of one entry.

    Of one root, but for `joint`: `kinks`, `slope_at_zero` and `is_odd` are of such.
    """

    roots: tuple[Node, ...]
    nodes: tuple[Node, ...]

    @property
    def root(self) -> Node:
        """Its only root."""
        (root,) = self.roots
        return root

    @property
    def name(self) -> str:
        return " → ".join(node.operation.replace("torch.Tensor.", "").strip("_") for node in self.nodes)

    def __call__(self, *x: Tensor) -> Tensor:
        """φ(x), elementwise; x: one value of each root."""
        out = self._run(*x)[0]
        return out if out.is_floating_point() else out.to(x[0].dtype)

    def kinks(self, variance: float) -> list[float]:
        """The points within 14 standard deviations at which an operation's switch changes its sign.

        Raises:
            Refused: where a divisor, or the argument of a root or a logarithm, comes to 0.
        """
        reach = REACH * max(variance, 1e-12) ** 0.5
        half = torch.linspace(0, 1, POINTS, dtype=torch.float64)[1:] * (1 - 1e-7) * reach
        fine = torch.logspace(-12, 0, POINTS, dtype=torch.float64) * (1 - 1e-7) * reach
        grid = torch.cat([-half, -fine, fine, half]).sort().values
        with torch.no_grad():
            switches = self._defined(grid)
            found = [root for i in range(len(switches)) for root in self._crossings(grid, switches[i], i)]
        kinks: list[float] = []
        for root in sorted(found):
            if not kinks or root - kinks[-1] > 1e-11 * max(abs(root), 1e-3 * reach):
                kinks.append(root)
        return kinks

    def check_defined(self, deviations: list[float]) -> None:
        """Refuses where a divisor, or the argument of a root or a logarithm, comes to 0 within 14 standard deviations
        of its roots: at many points, on which each root has both signs."""
        generator = torch.Generator().manual_seed(0)
        count = (len(deviations), POINTS)
        uniform = 2 * torch.rand(count, generator=generator, dtype=torch.float64) - 1
        size = torch.rand(count, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            for spread in (uniform, uniform.sign() * 10 ** (-12 * size)):
                self._defined(*(REACH * d * one for d, one in zip(deviations, spread, strict=True)))

    def _defined(self, *x: Tensor) -> list[Any]:
        """The switches at x; Refused where a value that must not does come to 0."""
        _, switches, nonzero = self._run(*x)
        for value in nonzero:
            value = torch.as_tensor(value, dtype=torch.float64)
            if not bool(((value > SMALLEST).all()) | ((value < -SMALLEST).all())):
                raise Refused(
                    "divides by, or takes a root or a logarithm of, a value that comes to 0",
                    "Keep it away from 0, or use EmpiricalNTK",
                )
        return switches

    def _crossings(self, grid: Tensor, switch: Any, which: int) -> list[float]:
        positive = torch.as_tensor(switch > 0)
        if positive.ndim == 0:
            return []
        places = (positive[1:] != positive[:-1]).nonzero()[:, 0]
        low, high, left = grid[places], grid[places + 1], positive[places]
        for _ in range(BISECTIONS if len(places) else 0):
            middle = (low + high) / 2
            same = (self._run(middle)[1][which] > 0) == left
            low, high = torch.where(same, middle, low), torch.where(same, high, middle)
        return ((low + high) / 2).tolist()

    def _run(self, *x: Tensor) -> tuple[Tensor, list[Any], list[Any]]:
        values: dict[int, Any] = dict(zip((root.index for root in self.roots), x, strict=True))
        switches: list[Any] = []
        nonzero: list[Any] = []

        def given(leaf: Any) -> Any:
            if not isinstance(leaf, Ref):
                return leaf
            if leaf.node.index in values:
                return values[leaf.node.index]
            return constant(leaf.node)

        for node in self.nodes:
            row = pointwise(node.target)
            assert row is not None
            args, kwargs = tree_map(given, (node.args, node.kwargs))
            if "input" in kwargs:
                args, kwargs = (kwargs["input"], *args), {k: v for k, v in kwargs.items() if k != "input"}
            before = (node.target,) if node.kind == "module" else ()
            switches += row.switches(*before, *args, **kwargs)
            nonzero += row.nonzero(*before, *args, **kwargs)
            # In-place operations must not change what other nodes still read.
            args = tuple(a.clone() if isinstance(a, Tensor) and i == 0 else a for i, a in enumerate(args))
            call = node.target if row.apply is None else row.apply
            values[node.index] = call(*(before if row.apply else ()), *args, **kwargs)
        return values[self.nodes[-1].index], switches, nonzero

    @cached_property
    def slope_at_zero(self) -> float:
        """φ'(0), as autograd has it."""
        x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        with torch.enable_grad():
            out = self(x)
            return float(torch.autograd.grad(out.sum(), x)[0]) if out.requires_grad else 0.0

    @cached_property
    def is_odd(self) -> bool:
        """φ(−x) = −φ(x) at many points."""
        with torch.no_grad():
            x = torch.linspace(0.01, 9.99, 500, dtype=torch.float64)
            there, back = self(x), self(-x)
            return bool(((there + back).abs() <= 1e-13 * (1 + there.abs())).all())


@lru_cache(maxsize=8)
def fuse(graph: Graph) -> tuple[dict[int, Fused], set[int]]:
    """The fused functions, by the index of the node whose value they are, and the nodes that are seen only in them.

    A node that is alone with its root, and has a dual of its own, keeps that.
    """
    roots: dict[int, Node] = {}
    nodes = list(graph.needed())
    for node in nodes:
        root = _root(node, roots)
        if root is not None:
            roots[node.index] = root
    read = {ref.node.index for ref in tree_flatten(graph.output)[0] if isinstance(ref, Ref)}
    for node in nodes:
        for ref in node.refs:
            if roots.get(node.index) is None or roots.get(ref.node.index) is not roots[node.index]:
                read.add(ref.node.index)
    fused, inside = {}, set()
    for node in nodes:
        if node.index not in roots:
            continue
        if node.index not in read:
            inside.add(node.index)
            continue
        parts = _parts(node, roots)
        if len(parts) > 1 or not isinstance(find(node.target), Dual):
            fused[node.index] = Fused((roots[node.index],), parts)
    return fused, inside


def _root(node: Node, roots: dict[int, Node]) -> Node | None:
    """The one value that a pointwise node depends on, if it does; numbers and constants of one entry besides."""
    if node.kind not in ("module", "call") or not node.data or pointwise(node.target) is None:
        return None
    if any(ref.part for ref in node.refs) or any(k in node.kwargs for k in ("rounding_mode", "out", "dim")):
        return None
    sources = {}
    for ref in node.refs:
        if ref.node.data:
            source = roots.get(ref.node.index, ref.node)
            sources[source.index] = source
        elif constant(ref.node) is None:
            return None
    if len(sources) != 1:
        return None
    (root,) = sources.values()
    if root.target in PRODUCTS:
        return None  # the scores of attention: what is done to them has rules of its own
    return root if node.shape == root.shape else None


def _parts(node: Node, roots: dict[int, Node]) -> tuple[Node, ...]:
    found: dict[int, Node] = {}
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if one.index in found:
            continue
        found[one.index] = one
        waiting += [ref.node for ref in one.refs if roots.get(ref.node.index) is roots[node.index]]
    return tuple(found[index] for index in sorted(found))


def constant(node: Node) -> Tensor | None:
    """The value of one entry that a node has for all points: a buffer, or a tensor made from Python numbers."""
    value = node.value if node.kind == "constant" else None
    if node.kind == "call" and node.target in CONSTANTS and not node.refs and math.prod(node.shape) == 1:
        value = node.target(*node.args, **node.kwargs)
    if value is None or value.numel() != 1:
        return None
    value = value.detach().reshape(())
    return value.to(torch.float64) if value.is_floating_point() else value
