"""Gaussian expectations of smooth functions of one or two variables, by Hermite series; knows no kernel.

With a_j(v) = E[φ(√v z) h_j(z)], z standard normal and h_j the normalised probabilists' Hermite polynomials,
E[φ(u)φ(w)] = Σ_j a_j(v1) a_j(v2) ρ^j for (u, w) of variances v1, v2 and correlation ρ (Mehler). What the cut series
leaves out is at most E[φ²] − Σ a_j², which is measured (Parseval).
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

REACH, STEP = 14.0, 1 / 64
TERMS = (64, 128, 256, 512, 1024)
SMALLEST_VARIANCE = 1e-12
ENTRIES_AT_ONCE = 2**15


class HermiteSeries(NamedTuple):
    """Coefficients (n, j) of φ(√v z) and of φ'(√v z) for n variances, and E[φ²], E[φ'²] (n,)."""

    value: Float[Tensor, "n j"]
    slope: Float[Tensor, "n j"]
    value_square: Float[Tensor, " n"]
    slope_square: Float[Tensor, " n"]

    @property
    def error(self) -> float:
        """The largest relative part of E[φ²] or E[φ'²] that the series leaves out."""
        worst = 0.0
        parts = ((self.value_square, self.value), (self.slope_square, self.slope))
        for square, coefficients in ((s.detach(), c.detach()) for s, c in parts):
            largest = float(square.max())
            if largest > 0:
                left = square - coefficients.square().sum(1)
                worst = max(worst, float(left.abs().max()) / largest)
        return worst


class HermitePairs(NamedTuple):
    """E[φ(u)φ(w)], E[φ'(u)φ'(w)], (E[φ(u)²] + E[φ(w)²])/2 − the first, and a bound of the relative error."""

    value: Tensor
    slope: Tensor
    gap: Tensor
    error: float


@lru_cache(maxsize=8)
def hermite_table(terms: int) -> tuple[Tensor, Tensor]:
    """Nodes z, and h_j(z) times the trapezoid weight of the normal density, (nodes, terms)."""
    z = torch.arange(-round(REACH / STEP), round(REACH / STEP) + 1, dtype=torch.float64) * STEP
    root_density = (2 * torch.pi) ** -0.25 * torch.exp(-z.square() / 4)
    # Hermite functions, not polynomials: they stay of order one, where polynomials overflow.
    columns = [root_density, z * root_density]
    for j in range(1, terms - 1):
        columns.append((z * columns[j] - j**0.5 * columns[j - 1]) / (j + 1) ** 0.5)
    return z, torch.stack(columns, 1) * (STEP * root_density)[:, None]


def hermite_series(function: Callable[[Tensor], Tensor], variances: Float[Tensor, " n"], terms: int) -> HermiteSeries:
    """The Hermite series of φ(√v z) for each variance, in float64, by the trapezoid rule (exponentially exact).

    Args:
        function: φ, elementwise, smooth, differentiable by autograd, of at most polynomial growth.
        variances: (n,), of at least 0.
        terms: number of coefficients.
    """
    z, table = (part.to(variances.device) for part in hermite_table(terms))
    variances = variances.to(torch.float64)
    # Variance 0 has no correlation; a tiny one has the same limit and a derivative.
    variances = torch.where(variances < SMALLEST_VARIANCE, variances + SMALLEST_VARIANCE, variances)
    keep = torch.is_grad_enabled() and variances.requires_grad
    with torch.enable_grad():
        u = variances.sqrt()[:, None] * z
        u = u if keep else u.detach().requires_grad_()
        value = function(u)
        (slope,) = torch.autograd.grad(value.sum(), u, create_graph=keep)
    value = value if keep else value.detach()
    density = STEP * torch.exp(-z.square() / 2) / (2 * torch.pi) ** 0.5
    return HermiteSeries(value @ table, slope @ table, value.square() @ density, slope.square() @ density)


def hermite_pairs(
    function: Callable[[Tensor], Tensor], v1: Tensor, v2: Tensor, gap: Tensor, tolerance: float, same: bool = False
) -> HermitePairs:
    """E[φ(u)φ(w)] and E[φ'(u)φ'(w)] for Gaussian pairs, with as many terms as the tolerance needs, at most 1024.

    Args:
        function: φ, as in `hermite_series`.
        v1, v2: variances that broadcast against gap: (n1, 1), (1, n2) for (n1, n2), all (n,), or any of more axes.
        gap: (v1 + v2)/2 − covariance; at nearly equal points it says more than the covariance.
        tolerance: of the relative error; the answer's own `error` says whether it was reached.
        same: every pair is a point with itself (gap 0, v1 = v2).
    """
    for terms in TERMS:
        first = hermite_series(function, v1.reshape(-1), terms)
        second = first if v2 is v1 else hermite_series(function, v2.reshape(-1), terms)
        error = max(first.error, second.error)
        if error <= tolerance / 100:
            break
    error = max(error, 1e-15)
    if same:
        value = first.value_square.reshape(v1.shape)
        return HermitePairs(value, first.slope_square.reshape(v1.shape), torch.zeros_like(value), error)
    far = _one_minus_correlation(v1.to(torch.float64), v2.to(torch.float64), gap.to(torch.float64))
    if far.ndim > 2:
        return HermitePairs(*_broadcast(first, second, far, v1.shape, v2.shape), error)
    if far.ndim != 2 or far.requires_grad or first.value.requires_grad:
        return HermitePairs(*_horner(first, second, far), error)
    # Blocks of rows that stay in the cache: many passes go over each of them.
    rows = max(1, ENTRIES_AT_ONCE // far.shape[1])
    parts = [
        _horner(HermiteSeries(*(part[start : start + rows] for part in first)), second, far[start : start + rows])
        for start in range(0, len(far), rows)
    ]
    value, slope, after = (torch.cat(part) for part in zip(*parts, strict=True))
    return HermitePairs(value, slope, after, error)


def _horner(first: HermiteSeries, second: HermiteSeries, far: Float[Tensor, "*pairs"]) -> tuple[Tensor, Tensor, Tensor]:
    """Values, slopes and gaps of all pairs, (n1, n2), or of one pair per row, (n,); far is 1 − ρ."""
    near = 1 - far
    across = (slice(None), None) if far.ndim == 2 else (slice(None),)
    total, powers, slopes = torch.zeros_like(far), torch.zeros_like(far), torch.zeros_like(far)
    # From the last term: Σ p_j ρ^j = Σ p_j − (1 − ρ) Σ_i ρ^i Σ_{j>i} p_j, where nothing cancels as ρ → 1.
    for j in range(first.value.shape[1] - 1, -1, -1):
        slopes = torch.addcmul(slopes * near, first.slope[:, j][across], second.slope[:, j])
        powers = torch.addcmul(total, powers, near)
        total = torch.addcmul(total, first.value[:, j][across], second.value[:, j])
    if far.ndim == 2:
        apart = torch.cdist(first.value, second.value, compute_mode="donot_use_mm_for_euclid_dist").square()
    else:
        apart = (first.value - second.value).square().sum(1)
    lost = far * powers
    return total - lost, slopes, apart / 2 + lost


def _broadcast(
    first: HermiteSeries, second: HermiteSeries, far: Float[Tensor, "*pairs"], shape1: torch.Size, shape2: torch.Size
) -> tuple[Tensor, Tensor, Tensor]:
    """As `_horner`, for series of variances of any shapes that broadcast against far."""
    near = 1 - far
    total, powers, slopes, apart = (torch.zeros_like(far) for _ in range(4))
    for j in range(first.value.shape[1] - 1, -1, -1):
        a, b = first.value[:, j].reshape(shape1), second.value[:, j].reshape(shape2)
        slopes = slopes * near + first.slope[:, j].reshape(shape1) * second.slope[:, j].reshape(shape2)
        powers = total + powers * near
        total = total + a * b
        apart = apart + (a - b).square()
    lost = far * powers
    return total - lost, slopes, apart / 2 + lost


def _one_minus_correlation(v1: Tensor, v2: Tensor, gap: Tensor) -> Tensor:
    v1, v2 = (torch.where(v < SMALLEST_VARIANCE, v + SMALLEST_VARIANCE, v) for v in (v1, v2))
    root1, root2 = v1.sqrt(), v2.sqrt()
    spread = ((v1 - v2) / (root1 + root2)).square() / 2
    return ((gap - spread) / (root1 * root2)).clamp(0, 2)
