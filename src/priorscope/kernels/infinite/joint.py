"""Pointwise functions φ(u_1, …, u_m) of several independent Gaussian values: ReLU behind an identity shortcut, gates.

`relu(relu(z) + g)` is a function of no single Gaussian, but of z and g together, coordinate by coordinate. Its
expectations are integrals over 2m Gaussians: exactly, where it is such a shortcut of two values (`shortcut`), by
quasi-Monte Carlo with a stated error else (`sobol`).
"""

from typing import Any

import torch

from ...network.watching import Node
from .fusion import Fused, constant
from .moments import Moments, Refused, common, merged, with_variances
from .pointwise import pointwise
from .shape_calls import PRODUCTS
from .shortcut import shortcut
from .sobol import Sobol

MOST_ROOTS = 8


def joint(node: Node, values: dict[int, Any]) -> Fused | None:
    """The function of several Gaussian values, independent of each other, that a node is; None where it is none.

    Args:
        values: what is known of the nodes before it, by index.
    """
    stop = {index for index, value in values.items() if isinstance(value, Moments) and value.gaussian}
    while True:
        nodes = _walk(node, stop)
        if nodes is None:
            return None
        inside, roots = nodes
        overlapping = [a for a in roots if any(b is not a and _dependent(a, b, values) for b in roots)]
        if not overlapping:
            break
        # A sum of Gaussians may be a root beside one of its terms: then its terms are the roots.
        open_ones = [root for root in overlapping if is_pointwise(root)]
        if not open_ones:
            return None
        stop.remove(max(open_ones, key=lambda root: root.index).index)
    return Fused(roots, inside) if 1 < len(roots) <= MOST_ROOTS else None


def _dependent(a: Node, b: Node, values: dict[int, Any]) -> bool:
    return bool(common(values[a.index].depends_on, values[b.index].depends_on))


def is_pointwise(node: Node) -> bool:
    """Whether a node acts on each entry by itself."""
    return node.kind in ("module", "call") and pointwise(node.target) is not None and node.target not in PRODUCTS


def _walk(node: Node, stop: set[int]) -> tuple[tuple[Node, ...], tuple[Node, ...]] | None:
    """The pointwise nodes from the roots to a node, in order, and the roots: the first nodes of `stop` on the way."""
    inside: dict[int, Node] = {}
    roots: dict[int, Node] = {}
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if one.index in inside or one.index in roots:
            continue
        if one.index in stop and one is not node:
            roots[one.index] = one
            continue
        if not is_pointwise(one) or any(k in one.kwargs for k in ("rounding_mode", "out", "dim")):
            return None
        if any(ref.part or (not ref.node.data and constant(ref.node) is None) for ref in one.refs):
            return None
        inside[one.index] = one
        waiting += [ref.node for ref in one.refs if ref.node.data]
    everything = (*inside.values(), *roots.values())
    if any(one.shape != node.shape for one in everything):
        return None
    return tuple(inside[i] for i in sorted(inside)), tuple(roots[i] for i in sorted(roots))


def expected(function: Fused, roots: list[Moments], standard: bool) -> tuple[Moments, float]:
    """Moments of φ(u_1, …, u_m), and a bound of their relative error: 0 where they are exact.

    K = E[φφ'] and Θ = Σ_i Θ_i E[∂_iφ ∂_iφ']. Gains of normalisations count as in `gains`: with plain rates
    (`standard`) they vanish in the limit.

    Raises:
        Refused: by quasi-Monte Carlo, where kernels are to be differentiated: the derivative of an expectation of jumps
            is not the expectation of derivatives.

    Source: Yang 2019 (1902.04760) for the limit.
    """
    first, form = roots[0], shortcut(function)
    if merged(*(m.gains for m in roots)) != 0 and not standard:
        raise Refused("applies a function to several values that a normalisation's gains reach", "Use EmpiricalNTK")
    if form is None and any(m.nngp.requires_grad or m.tangent.requires_grad for m in roots):
        raise Refused(
            "is a function of several Gaussian values, whose expectation has no derivative here",
            "Ask without gradients (torch.no_grad), or use EmpiricalNTK",
        )
    integral = Sobol(function) if form is None else form
    dtype = first.nngp.dtype
    powers1 = integral.powers([m.v1 for m in roots])
    powers2 = integral.powers([m.v2 for m in roots]) if first.between else powers1
    own1, *slopes1 = powers1.to(dtype)
    own2 = powers2[0].to(dtype)
    after: dict[str, Any] = {
        **{"v1": own1, "v2": own2, "deviation": None, "gaussian": False, "gains": 0.0},
        "mean_zero": all(m.mean_zero for m in roots) and _is_odd(function, len(roots)),
        "layers": frozenset().union(*(m.layers for m in roots)),
        "reads": frozenset().union(*(m.reads for m in roots)),
        "alike": all(m.alike for m in roots),
    }
    tangents = [m.tangent for m in roots]
    if not first.between and not first.pairs:
        tangent = sum(t * slope for t, slope in zip(tangents, slopes1, strict=True))
        end = first.replace(nngp=own1, gap=torch.zeros_like(own1), tangent=tangent, **after)
        return end, integral.error
    means = (first.along_rows(powers1[0]) + first.along_columns(powers2[0])) / 2
    gap, *slopes = integral.gaps(roots, powers1, powers2)
    nngp = with_variances((means - gap).to(dtype), own1, first)
    gap = with_variances(gap.clamp_min(0).to(dtype), torch.zeros_like(own1), first)
    tangent = torch.zeros_like(first.tangent)
    for t, slope, own in zip(tangents, slopes, slopes1, strict=True):
        tangent = tangent + t * with_variances(slope.to(dtype), own, first)
    return first.replace(**after, nngp=nngp, gap=gap, tangent=tangent), integral.error


def _is_odd(function: Fused, roots: int) -> bool:
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        x = [3 * torch.randn(512, generator=generator, dtype=torch.float64) for _ in range(roots)]
        there, back = function(*x), function(*(-one for one in x))
        return bool(((there + back).abs() <= 1e-13 * (1 + there.abs())).all())
