"""Gaussian expectations of functions with kinks and jumps, of one or two variables, by panels that end at the kinks.

Between kinks the function is smooth, so Gauss-Legendre panels converge exponentially. Pairs whose correlation ρ is
well below 1 take Hermite series (what J terms leave out is at most |ρ|^J √(r1 r2), r the measured rest of E[φ²]);
the others are integrated over both variables, split where either one meets a kink and where two kinks cross.
Derivatives are those of the pieces: a jump has none.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .quadrature import SMALLEST_VARIANCE, HermitePairs, HermiteSeries, _horner, _one_minus_correlation

Function = Callable[[Tensor], Tensor]

REACH = 12.0
TERMS = 256
ORDER, FINER = 16, 24
PAIR_ORDERS = (12, 18)
SUM_EDGES = (-9.0, -6.0, -4.0, -2.5, -1.25, 0.0, 1.25, 2.5, 4.0, 6.0, 9.0)
DIFFERENCE_EDGES = (-9.0, -5.0, -2.5, 0.0, 2.5, 5.0, 9.0)
CHECKED_PAIRS = 24
COINCIDING = 1e-24
"""1 − |ρ| of variables that are equal, or opposite."""
NODES_AT_ONCE = 2**17
POLYNOMIALS_AT_ONCE = 2**21


def kinked_means(function: Function, kinks: list[float], variances: Float[Tensor, " n"]) -> tuple[Tensor, float]:
    """E[φ(√v z)] for each variance, and the difference between two orders of quadrature, relative to the largest."""
    answers = []
    for order in (ORDER, FINER):
        z, weights = _line(kinks, variances, order)
        answers.append((_both(function, _safe(variances).sqrt()[:, None] * z)[0] * weights).sum(1))
    largest = float(answers[1].detach().abs().max())
    return answers[1], _relative(answers, largest)


def kinked_pairs(
    function: Function,
    kinks: list[float],
    v1: Tensor,
    v2: Tensor,
    gap: Tensor,
    tolerance: float,
    same: bool = False,
) -> HermitePairs:
    """E[φ(u)φ(w)] and E[φ'(u)φ'(w)] for Gaussian pairs, φ smooth between its kinks; arguments as of `hermite_pairs`.

    Args:
        kinks: all points where φ or a derivative of it jumps.
    """
    shape1, shape2 = v1.shape, v2.shape
    one, error = _squares(function, kinks, v1.reshape(-1))
    if same:
        value, slope = (part.reshape(shape1) for part in one)
        return HermitePairs(value, slope, torch.zeros_like(value), max(error, 1e-15))
    two, other = (one, error) if v2 is v1 else _squares(function, kinks, v2.reshape(-1))
    error = max(error, other, 1e-15)
    shape = torch.broadcast_shapes(shape1, shape2, gap.shape)
    scales = [max(float(a.detach().max()), float(b.detach().max())) for a, b in zip(one, two, strict=True)]
    far = _one_minus_correlation(v1.to(torch.float64), v2.to(torch.float64), gap.to(torch.float64)).expand(shape)
    rho = (1 - far.detach()).abs()
    rests: list[Tensor] = []
    first = _series(function, kinks, v1.reshape(-1), one)
    second = first if v2 is v1 else _series(function, kinks, v2.reshape(-1), two)
    for a, b, scale in zip(_rests(first), _rests(second), scales, strict=True):
        rests.append((a.reshape(shape1) * b.reshape(shape2)).sqrt() / max(scale, 1e-300))
    left_out = (torch.maximum(*rests).clamp_min(1e-15).log() + TERMS * rho.clamp_min(1e-300).log()).exp()
    near = left_out > tolerance / 10
    if not bool(near.all()):
        error = max(error, float(left_out[~near].max()), _series_error(function, kinks, v1, v2))
    matrix = far.ndim == 2 and shape1[1:] == (1,) and shape2[:1] == (1,)
    value, slope, _ = _horner(first, second, far) if matrix else _elementwise(first, second, far, shape1, shape2)
    # The series leaves more out of the squares than of these pairs; far from coinciding the difference has its digits.
    parts = value, slope, (one[0].reshape(shape1) + two[0].reshape(shape2)) / 2 - value
    if not bool(near.any()):
        return HermitePairs(*parts, error)
    index = near.nonzero(as_tuple=True)
    a, b = (v.to(torch.float64).expand(shape)[index] for v in (v1, v2))
    direct, worst = _over_both(function, kinks, a, b, far[index], scales)
    value, slope, after = (part.index_put(index, new) for part, new in zip(parts, direct, strict=True))
    return HermitePairs(value, slope, after, max(error, worst))


@lru_cache(maxsize=16)
def _legendre(order: int) -> tuple[Tensor, Tensor]:
    nodes, weights = np.polynomial.legendre.leggauss(order)
    return torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)


def _safe(v: Tensor) -> Tensor:
    v = v.to(torch.float64)
    return torch.where(v < SMALLEST_VARIANCE, v + SMALLEST_VARIANCE, v)


def _panels(edges: Float[Tensor, "*n e"], order: int) -> tuple[Float[Tensor, "*n q"], Float[Tensor, "*n q"]]:
    """Nodes and weights between consecutive edges, times the normal density."""
    nodes, weights = (part.to(edges.device) for part in _legendre(order))
    edges = edges.sort(-1).values
    low, width = edges[..., :-1, None], edges.diff(dim=-1)[..., None]
    z, w = (low + width * nodes).flatten(-2), (width * weights).flatten(-2)
    return z, w * torch.exp(-z.square() / 2) / (2 * torch.pi) ** 0.5


def _line(kinks: list[float], variances: Float[Tensor, " n"], order: int) -> tuple[Tensor, Tensor]:
    sigma = _safe(variances).sqrt()[:, None]
    fixed = torch.arange(-REACH, REACH + 1, dtype=torch.float64, device=sigma.device).expand(len(sigma), -1)
    points = torch.tensor([*kinks, *_scales(float(sigma.detach().max()))], dtype=torch.float64, device=sigma.device)
    return _panels(torch.cat([fixed, (points / sigma).clamp(-REACH, REACH)], 1), order)


def _scales(sigma: float) -> list[float]:
    """Points of the function's own scale, 1, for variances so large that unit panels would step over it."""
    size, points = 0.5, []
    while sigma > 1.5 and size < 2 * sigma:
        points += [-size, size]
        size *= 2
    return points


def _both(function: Function, x: Tensor) -> tuple[Tensor, Tensor]:
    """φ(x) and φ'(x), by autograd; differentiable where x is."""
    keep = torch.is_grad_enabled() and x.requires_grad
    with torch.enable_grad():
        x = x if keep else x.detach().requires_grad_()
        value = function(x)
        if not value.requires_grad:
            return value.to(x.dtype), torch.zeros_like(x)
        (slope,) = torch.autograd.grad(value.sum(), x, create_graph=keep)
    return (value, slope) if keep else (value.detach(), slope)


def _relative(answers: list[Tensor], scale: float) -> float:
    coarse, fine = (answer.detach() for answer in answers)
    return float((coarse - fine).abs().max()) / scale if scale > 0 else 0.0


def _squares(function: Function, kinks: list[float], variances: Tensor) -> tuple[tuple[Tensor, Tensor], float]:
    """E[φ²] and E[φ'²], and the worse difference between two orders."""
    answers: list[list[Tensor]] = [[], []]
    for order in (ORDER, FINER):
        z, weights = _line(kinks, variances, order)
        for found, part in zip(answers, _both(function, _safe(variances).sqrt()[:, None] * z), strict=True):
            found.append((part.square() * weights).sum(1))
    error = max(_relative(found, float(found[1].detach().max())) for found in answers)
    return (answers[0][1], answers[1][1]), error


def _series(
    function: Function, kinks: list[float], variances: Tensor, squares: tuple[Tensor, Tensor], order: int = ORDER
) -> HermiteSeries:
    z, weights = _line(kinks, variances, order)
    value, slope = (part * weights for part in _both(function, _safe(variances).sqrt()[:, None] * z))
    rows = max(1, POLYNOMIALS_AT_ONCE // (TERMS * z.shape[1]))
    values, slopes = [], []
    # One room for all, where no graph needs each: new ones between small results would tear the heap.
    room = None if value.requires_grad else z.new_empty(TERMS, min(rows, len(z)), z.shape[1])
    for some, first, second in zip(z.split(rows), value.split(rows), slope.split(rows), strict=True):
        polynomials = torch.stack(_hermite(some), out=None if room is None else room[:, : len(some)])
        values.append(torch.einsum("jnq,nq->nj", polynomials, first))
        slopes.append(torch.einsum("jnq,nq->nj", polynomials, second))
    return HermiteSeries(torch.cat(values), torch.cat(slopes), *squares)


def _hermite(z: Float[Tensor, "n q"]) -> list[Float[Tensor, "n q"]]:
    """The first normalised Hermite polynomials at z."""
    found, before = [torch.ones_like(z)], torch.zeros_like(z)
    for j in range(TERMS - 1):
        found.append((z * found[-1] - j**0.5 * before) / (j + 1) ** 0.5)
        before = found[-2]
    return found


def _rests(series: HermiteSeries) -> tuple[Tensor, Tensor]:
    """What the series leaves out of E[φ²] and of E[φ'²]."""
    value = series.value_square - series.value.square().sum(1)
    slope = series.slope_square - series.slope.square().sum(1)
    return value.detach().abs(), slope.detach().abs()


def _series_error(function: Function, kinks: list[float], v1: Tensor, v2: Tensor) -> float:
    """The relative change of the coefficients with the order, at the smallest and the largest variance."""
    with torch.no_grad():
        every = torch.cat([v1.detach().reshape(-1), v2.detach().reshape(-1)])
        ends = torch.stack([every.min(), every.max()])
        squares, _ = _squares(function, kinks, ends)
        coarse, fine = (_series(function, kinks, ends, squares, order) for order in (ORDER, FINER))
        worst = 0.0
        for a, b, square in ((coarse.value, fine.value, squares[0]), (coarse.slope, fine.slope, squares[1])):
            if float(square.max()) > 0:
                worst = max(worst, float((a.square().sum(1) - b.square().sum(1)).abs().max() / square.max()))
                worst = max(worst, float(((a - b).square().sum(1) / square.max()).max()))
        return worst


def _elementwise(
    first: HermiteSeries, second: HermiteSeries, far: Tensor, shape1: torch.Size, shape2: torch.Size
) -> tuple[Tensor, Tensor, Tensor]:
    """As `_horner`, for any shapes that broadcast."""

    def rows(series: HermiteSeries, shape: torch.Size) -> HermiteSeries:
        places = torch.arange(series.value.shape[0], device=far.device).reshape(shape).expand(far.shape).reshape(-1)
        return HermiteSeries(*(part[places] for part in series))

    parts = _horner(rows(first, shape1), rows(second, shape2), far.reshape(-1))
    return tuple(part.reshape(far.shape) for part in parts)  # type: ignore[return-value]


def _over_both(
    function: Function, kinks: list[float], v1: Tensor, v2: Tensor, far: Tensor, scales: list[float]
) -> tuple[tuple[Tensor, Tensor, Tensor], float]:
    """Values, slopes and gaps of single pairs (m,) over both variables, and the difference between two orders."""
    panels = (len(SUM_EDGES) + 2 * len(kinks)) * (len(DIFFERENCE_EDGES) + 2 * len(kinks))
    at_once = max(1, NODES_AT_ONCE // (panels * PAIR_ORDERS[0] ** 2))
    blocks = [
        _block(function, kinks, *part, PAIR_ORDERS[0])
        for part in zip(v1.split(at_once), v2.split(at_once), far.split(at_once), strict=True)
    ]
    answer = tuple(torch.cat(parts) for parts in zip(*blocks, strict=True))
    with torch.no_grad():
        order = far.detach().argsort()
        spread = torch.linspace(0, len(far) - 1, min(CHECKED_PAIRS, len(far))).round().long().to(far.device)
        chosen = torch.cat([order[spread], v1.argmax()[None], v2.argmax()[None], v1.argmin()[None]]).unique()
        worst = 0.0
        for one in chosen.split(max(1, at_once // 3)):
            fine = _block(function, kinks, v1[one], v2[one], far[one], PAIR_ORDERS[1])
            for i, scale in enumerate((scales[0], scales[1], scales[0])):
                worst = max(worst, _relative([answer[i][one], fine[i]], scale))
    return answer, worst  # type: ignore[return-value]


def _block(
    function: Function, kinks: list[float], v1: Tensor, v2: Tensor, far: Tensor, order: int
) -> tuple[Tensor, Tensor, Tensor]:
    """u/σ1 = α s + β d and ±w/σ2 = α s − β d, s and d independent standard normals, ± the sign of the correlation."""
    sigma1, sigma2 = _safe(v1).sqrt()[:, None], _safe(v2).sqrt()[:, None]
    sign = torch.where(far <= 1, 1.0, -1.0).to(torch.float64)[:, None]
    small = torch.where(far <= 1, far, 2 - far)[:, None]
    alpha = (1 - small / 2).sqrt()
    positive = small > 1e-300
    beta = torch.where(positive, torch.where(positive, small, 1.0) / 2, 1e-300).sqrt()
    points = torch.tensor(kinks, dtype=torch.float64, device=far.device)
    here, there = points / sigma1, sign * points / sigma2  # (m, kinks)
    apart = small > COINCIDING
    # Variables that coincide cross nowhere else, and where they do is no function of anything.
    alone = torch.where(points[:, None] == points[None], 0.0, DIFFERENCE_EDGES[-1]).flatten().to(beta)
    crossings = ((here[:, :, None] - there[:, None]) / 2).flatten(1) / torch.where(apart, beta, 1.0)
    crossings = torch.where(apart, crossings, alone)
    # Of nearly coinciding variables different kinks cross far out.
    crossings = crossings[:, (crossings.detach().abs() < DIFFERENCE_EDGES[-1]).any(0)]
    fixed = torch.tensor(DIFFERENCE_EDGES, dtype=torch.float64, device=far.device).expand(len(far), -1)
    d, outer = _panels(torch.cat([fixed, crossings.clamp(fixed[0, 0], fixed[0, -1])], 1), order)
    shift = (beta * d)[..., None]
    moving = torch.cat([here[:, None] - shift, there[:, None] + shift], 2) / alpha[..., None]
    sums = torch.tensor(SUM_EDGES, dtype=torch.float64, device=far.device)
    s, inner = _panels(torch.cat([sums.expand(*d.shape, -1), moving.clamp(sums[0], sums[-1])], 2), order)
    a, b = alpha[..., None], sign[..., None] * sigma2[..., None]
    value1, slope1 = _both(function, sigma1[..., None] * (a * s + shift))
    value2, slope2 = _both(function, b * (a * s - shift))
    weights = outer[..., None] * inner
    return (
        (value1 * value2 * weights).sum((1, 2)),
        (slope1 * slope2 * weights).sum((1, 2)),
        ((value1 - value2).square() * weights).sum((1, 2)) / 2,
    )
