"""Pointwise functions φ(u_1, …, u_m) of several independent Gaussian values: ReLU behind an identity shortcut, gates.

`relu(relu(z) + g)` is a function of no single Gaussian, but of z and g together, coordinate by coordinate. Its
expectations are integrals over 2m Gaussians, by quasi-Monte Carlo: an estimate with a stated error, not a closed form.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ...network.watching import Node
from .fusion import Fused, constant
from .moments import Moments, Refused, common, merged, root, with_variances
from .pointwise import pointwise
from .shape_calls import PRODUCTS

POINTS = 2**12
SCRAMBLES = 8
"""Independent scrambles of one Sobol sequence: the spread of their means says how exact the mean of all is."""
DEVIATIONS = 4
"""The error that is stated, in standard errors of the mean over scrambles."""
MOST_ROOTS = 8
NUMBERS_AT_ONCE = 2**18


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
    return bool(common(values[a.index].layers, values[b.index].layers))


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
    """Moments of φ(u_1, …, u_m), and a bound of their relative error (4 standard errors of 8 scrambled sequences).

    Gains of normalisations count as in `gains`: with plain rates (`standard`) they vanish in the limit.

    K = E[φφ'] and Θ = Σ_i Θ_i E[∂_iφ ∂_iφ']. Both come from squared differences, E[φφ'] = (E[φ²] + E[φ'²] −
    E[(φ − φ')²])/2, so that nearly equal points keep their digits.

    Raises:
        Refused: where kernels are to be differentiated: the derivative of an expectation of jumps is not the
            expectation of derivatives.

    Source: Owen 1998 (scrambled nets); Yang 2019 (1902.04760) for the limit.
    """
    first = roots[0]
    if any(m.nngp.requires_grad or m.tangent.requires_grad for m in roots):
        raise Refused(
            "is a function of several Gaussian values, whose expectation has no derivative here",
            "Ask without gradients (torch.no_grad), or use EmpiricalNTK",
        )
    if merged(*(m.gains for m in roots)) != 0 and not standard:
        raise Refused("applies a function to several values that a normalisation's gains reach", "Use EmpiricalNTK")
    (own1, *slopes1), spread = _powers(function, [m.v1 for m in roots])
    own2, slopes2, spread2 = own1, slopes1, spread
    if first.between:
        (own2, *slopes2), spread2 = _powers(function, [m.v2 for m in roots])
    largest = [max(float(a.max()), float(b.max())) for a, b in zip((own1, *slopes1), (own2, *slopes2), strict=True)]

    def error(*spreads: Tensor) -> float:
        """Relative to the largest power of the value and of each slope."""
        pairs = [(s, size) for one in spreads for s, size in zip(one, largest, strict=True) if size > 0]
        return max((DEVIATIONS * float(s.max()) / size for s, size in pairs), default=0.0)

    after: dict[str, Any] = {
        **{"v1": own1, "v2": own2, "opposition": None, "gaussian": False, "gains": 0.0},
        "mean_zero": all(m.mean_zero for m in roots) and _is_odd(function, len(roots)),
        "layers": frozenset().union(*(m.layers for m in roots)),
    }
    tangents = [m.tangent for m in roots]
    if not first.between and not first.pairs:
        tangent = sum(t * slope for t, slope in zip(tangents, slopes1, strict=True))
        end = first.replace(nngp=own1, gap=torch.zeros_like(own1), tangent=tangent, **after)
        return end, error(spread)
    end = first.replace(**after)
    (gap, *slope_gaps), spread_of_gaps = _gaps(function, roots)
    nngp = with_variances((end.rows + end.columns) / 2 - gap, own1, first)
    gap = with_variances(gap, torch.zeros_like(own1), first)
    tangent = torch.zeros_like(first.tangent)
    for t, one, two, slope_gap in zip(tangents, slopes1, slopes2, slope_gaps, strict=True):
        mean = (first.along_rows(one) + first.along_columns(two)) / 2 - slope_gap
        tangent = tangent + t * with_variances(mean, one, first)
    return end.replace(nngp=nngp, gap=gap, tangent=tangent), error(spread, spread2, spread_of_gaps)


def _normals(dimensions: int, points: int, scramble: int) -> Tensor:
    """(points, dimensions) standard normal values of low discrepancy."""
    engine = torch.quasirandom.SobolEngine(dimensions, scramble=True, seed=scramble)
    uniform = engine.draw(points, dtype=torch.float64)
    return torch.special.ndtri(uniform.clamp(2.0**-40, 1 - 2.0**-40))


def _slices(points: int, numbers: int) -> Iterable[slice]:
    size = max(1, NUMBERS_AT_ONCE // max(numbers, 1))
    return (slice(start, start + size) for start in range(0, points, size))


def _with_slopes(function: Fused, x: list[Tensor]) -> tuple[Tensor, ...]:
    """φ and its derivatives by each argument."""
    with torch.enable_grad():
        x = [one.detach().requires_grad_() for one in x]
        value = function(*x)
        slopes = torch.autograd.grad(value.sum(), x, allow_unused=True) if value.requires_grad else [None] * len(x)
    zero = torch.zeros_like(value)
    return value.detach(), *(zero if slope is None else slope for slope in slopes)


def _powers(function: Fused, variances: list[Tensor]) -> tuple[Tensor, Tensor]:
    """E[φ²] and E[(∂_iφ)²] at single points."""
    means = []
    deviations = [root(v.double()) for v in variances]
    for scramble in range(SCRAMBLES):
        normal = _normals(len(variances), 4 * POINTS, scramble)
        total: Any = 0
        for part in _slices(len(normal), deviations[0].numel()):
            z = normal[part].to(deviations[0].device)
            x = [d * z[(..., i, *(None,) * d.ndim)] for i, d in enumerate(deviations)]
            total = total + torch.stack([value.square().sum(0) for value in _with_slopes(function, x)])
        means.append(total / len(normal))
    return _collected(means, variances[0].dtype)


def _gaps(function: Fused, roots: list[Moments]) -> tuple[Tensor, Tensor]:
    """E[(φ − φ')²]/2 and E[(∂_iφ − ∂_iφ')²]/2 between pairs."""
    first = roots[0]
    one, two, along, across = [], [], [], []
    for m in roots:
        r1, r2, gap = root(m.rows.double()), root(m.columns.double()), m.gap.double()
        size = r1 * r2
        # 1 − ρ from the gap, which has its digits where ρ has lost them.
        less = ((gap - (r1 - r2).square() / 2) / torch.where(size > 0, size, 1.0)).clamp(0, 2)
        one.append(r1)
        two.append(r2)
        along.append(torch.where(size > 0, 1 - less, 0.0))
        across.append((less * (2 - less)).sqrt())
    axes = (None,) * first.nngp.ndim
    means = []
    for scramble in range(SCRAMBLES):
        normal = _normals(2 * len(roots), POINTS, scramble)
        total: Any = 0
        for part in _slices(len(normal), first.nngp.numel()):
            z = normal[part].to(first.nngp.device)
            u = [z[(..., 2 * i, *axes)] for i in range(len(roots))]
            x = [r * a for r, a in zip(one, u, strict=True)]
            y = [
                r * (c * a + s * z[(..., 2 * i + 1, *axes)])
                for i, (r, c, s, a) in enumerate(zip(two, along, across, u, strict=True))
            ]
            here, there = _with_slopes(function, x), _with_slopes(function, y)
            total = total + torch.stack([(a - b).square().sum(0) / 2 for a, b in zip(here, there, strict=True)])
        means.append(total / len(normal))
    return _collected(means, first.nngp.dtype)


def _collected(means: list[Tensor], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The mean over scrambles, of the value and of each slope, and its standard error."""
    values = torch.stack(means)
    return values.mean(0).to(dtype), values.std(0) / math.sqrt(SCRAMBLES)


def _is_odd(function: Fused, roots: int) -> bool:
    with torch.no_grad():
        x = [3 * _normals(1, 512, seed)[:, 0] for seed in range(roots)]
        there, back = function(*x), function(*(-one for one in x))
        return bool(((there + back).abs() <= 1e-13 * (1 + there.abs())).all())
