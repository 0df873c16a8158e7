"""E[∂ᵖ(φ(u)ⁱ φ'(u)ʲ) ∂^q(φ(w)ᵏ φ'(w)ˡ)] for many Gaussian pairs (u, w): products of one function, its slope and derivatives.

Smooth functions: derivatives by autograd, means by Hermite series (Mehler). Functions of two straight sides that meet
at 0 (ReLU): derivatives are moved to the density, whose polynomials are integrated exactly, angle by angle.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from .quadrature import SMALLEST_VARIANCE, STEP, TERMS, _table

Function = Callable[[Tensor], Tensor]

ORDER = 5
"""The highest derivative of φ: four derivatives of φ'."""
STRIDE = 2
"""Of the nodes of `linalg.quadrature`, which serve functions with 1024 terms."""
POINTS_AT_ONCE = 64
NUMBERS_AT_ONCE = 2**21
ANGLES, RADII = 16, 8
STEPS_ASIDE, JUMP = 1e-7, 1e-5


class Term(NamedTuple):
    """∂ᵖ(φⁱ φ'ʲ) at one point: i, j, p."""

    values: int
    slopes: int
    derivatives: int


PROBES = (Term(1, 0, 4), Term(0, 1, 4), Term(4, 0, 0), Term(2, 2, 0), Term(0, 4, 0))
"""The terms that decide how many coefficients all get: they have the slowest series."""


class Pairs(NamedTuple):
    """Pairs of Gaussians: variances (n,), for each pair the places of both (p,), and correlations (p,)."""

    variances: Float[Tensor, " n"]
    rows: Int[Tensor, " p"]
    columns: Int[Tensor, " p"]
    correlations: Float[Tensor, " p"]


class Products(Protocol):
    """What both kinds of functions answer."""

    def mean(self, first: Term, second: Term) -> Float[Tensor, " p"]:
        """E[first(u) second(w)] of every pair."""
        ...


def derivatives(function: Function, x: Tensor, order: int = ORDER) -> Float[Tensor, "order_and_one *shape"]:
    """φ and its first derivatives at x, elementwise, by autograd.

    Raises:
        RuntimeError: autograd's own, where an operation has no so high derivative.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        found = [function(x)]
        for k in range(order):
            if not found[-1].requires_grad:
                found.append(torch.zeros_like(x))
                continue
            (slope,) = torch.autograd.grad(found[-1].sum(), x, create_graph=k + 1 < order, materialize_grads=True)
            found.append(slope)
    return torch.stack([one.detach().expand(x.shape) for one in found])


def jumps(function: Function, places: list[float], order: int = ORDER) -> list[float]:
    """Those places at which φ or one of its first derivatives jumps by more than a hundred-thousandth of its size."""
    if not places:
        return []
    at = torch.tensor(places, dtype=torch.float64)
    aside = STEPS_ASIDE * (1 + at.abs())
    before, after = (derivatives(function, at + side * aside, order) for side in (-1, 1))
    grid = torch.linspace(-1, 1, 401, dtype=torch.float64)[1::2] * (1 + float(at.abs().max()))
    sizes = derivatives(function, grid, order).abs().amax(1, keepdim=True)
    return at[((after - before).abs() > JUMP * sizes).any(0)].tolist()


class SmoothProducts:
    """Means of products of a smooth function, with as many Hermite coefficients as the pairs need."""

    def __init__(self, function: Function, pairs: Pairs):
        self.pairs = pairs
        z = _table(2)[0][::STRIDE]
        deviations = pairs.variances.clamp_min(SMALLEST_VARIANCE).sqrt()
        blocks = [derivatives(function, part[:, None] * z) for part in deviations.split(POINTS_AT_ONCE)]
        factorials = torch.tensor([math.factorial(k) for k in range(ORDER + 1)], dtype=torch.float64)
        self._taylor = torch.cat(blocks, 1) / factorials[:, None, None]
        self._density = STRIDE * STEP * torch.exp(-z.square() / 2) / (2 * torch.pi) ** 0.5
        self._series: dict[Term, Tensor] = {}
        self._means: dict[tuple[Term, Term], Tensor] = {}
        self.terms, self.error = self._enough()

    def mean(self, first: Term, second: Term) -> Float[Tensor, " p"]:
        """E[first(u) second(w)] of every pair."""
        if (first, second) not in self._means:
            self._means[first, second] = self._mean(first, second)
        return self._means[first, second]

    def _mean(self, first: Term, second: Term) -> Tensor:
        a, b = self._coefficients(first), self._coefficients(second)
        powers = torch.arange(self.terms, dtype=torch.float64)
        step = max(1, NUMBERS_AT_ONCE // self.terms)
        parts = zip(*(one.split(step) for one in self.pairs[1:]), strict=True)
        return torch.cat([(a[i] * b[j] * rho[:, None] ** powers).sum(1) for i, j, rho in parts])

    def _coefficients(self, term: Term) -> Float[Tensor, "n terms"]:
        if term not in self._series:
            self._series[term] = self._values(term) @ _nodes(self.terms)
        return self._series[term]

    def _values(self, term: Term) -> Float[Tensor, "n nodes"]:
        """∂ᵖ(φⁱ φ'ʲ) at the nodes, from products of Taylor series."""
        p = term.derivatives
        orders = torch.arange(1, ORDER + 1, dtype=torch.float64)[:, None, None]
        value, slope = self._taylor[: p + 1], (orders * self._taylor[1:])[: p + 1]
        product = torch.zeros_like(value)
        product[0] = 1.0
        for factor in [value] * term.values + [slope] * term.slopes:
            product = torch.stack(
                [sum((product[k] * factor[m - k] for k in range(m + 1)), start=0.0) for m in range(p + 1)]
            )
        return math.factorial(p) * product[p]

    def _enough(self) -> tuple[int, float]:
        """How many coefficients, and what they leave out of the probes' means at most, relative to their squares."""
        far = self.pairs.correlations.abs()
        error = 0.0
        for terms in TERMS:
            error = 0.0
            for probe in PROBES:
                values = self._values(probe)
                squares = values.square() @ self._density
                rest = (squares - (values @ _nodes(terms)).square().sum(1)).abs()
                left = far**terms * (rest[self.pairs.rows] * rest[self.pairs.columns]).sqrt()
                error = max(error, float((left / squares.max().clamp_min(1e-300)).max()))
            if error <= 1e-12:
                break
        return terms, error


class HomogeneousProducts:
    """Means of products of φ(x) = right·x above 0 and left·|x| below it; no variance is 0, no correlation ±1."""

    def __init__(self, left: float, right: float, pairs: Pairs):
        self.left, self.right, self.pairs = left, right, pairs
        self._means: dict[tuple[Term, Term], Tensor] = {}

    def mean(self, first: Term, second: Term) -> Float[Tensor, " p"]:
        """E[first(u) second(w)] of every pair; derivatives in the sense of distributions."""
        if (first, second) not in self._means:
            step = max(1, NUMBERS_AT_ONCE // (4 * ANGLES * RADII))
            parts = zip(*(one.split(step) for one in self.pairs[1:]), strict=True)
            self._means[first, second] = torch.cat([self._mean(first, second, *part) for part in parts])
        return self._means[first, second]

    def _mean(self, first: Term, second: Term, rows: Tensor, columns: Tensor, rho: Tensor) -> Tensor:
        """u = σ1 r cos t, w = σ2 r cos(t − θ), cos θ = ρ, on the four arcs on which neither changes its sign."""
        sigma1, sigma2 = (self.pairs.variances[places].sqrt()[:, None, None] for places in (rows, columns))
        cosine, sine = (one[:, None, None] for one in (rho, (1 - rho.square()).sqrt()))
        theta = torch.atan2(sine, cosine)
        nodes, weights = _arc()
        radii, masses = _radii()
        total = torch.zeros_like(rho)
        for start, length, sign1, sign2 in (
            (-math.pi / 2, theta, 1, -1),
            (theta - math.pi / 2, math.pi - theta, 1, 1),
            (math.pi / 2, theta, -1, 1),
            (theta + math.pi / 2, math.pi - theta, -1, -1),
        ):
            t = start + length * nodes[:, None]
            u, w = sigma1 * radii * t.cos(), sigma2 * radii * (t - theta).cos()
            by = _polynomial(
                (first.derivatives, second.derivatives),
                (-radii * (t - theta).sin() / (sigma1 * sine), radii * t.sin() / (sigma2 * sine)),
                (1 / (sigma1 * sine) ** 2, -cosine / (sigma1 * sigma2 * sine**2), 1 / (sigma2 * sine) ** 2),
            )
            values = self._product(first, u, sign1) * self._product(second, w, sign2) * by
            total = total + (values * masses * weights[:, None] * length).sum((1, 2)) / (2 * math.pi)
        return total

    def _product(self, term: Term, x: Tensor, sign: int) -> Tensor:
        slope = self.right if sign > 0 else -self.left
        return (slope * x) ** term.values * slope**term.slopes


def _polynomial(orders: tuple[int, int], y: tuple[Tensor, Tensor], precision: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """(−1)^(p+q) ∂₁ᵖ∂₂^q of the density over the density, y = K⁻¹z: He of two variables, by its recursion."""
    p, q = orders
    if p == q == 0:
        return torch.ones_like(y[0])
    first = p > 0
    p, q = (p - 1, q) if first else (p, q - 1)
    answer = y[0 if first else 1] * _polynomial((p, q), y, precision)
    for count, lower, entry in ((p, (p - 1, q), 0 if first else 1), (q, (p, q - 1), 1 if first else 2)):
        if count:
            answer = answer - count * precision[entry] * _polynomial(lower, y, precision)
    return answer


@lru_cache(maxsize=8)
def _nodes(terms: int) -> Tensor:
    """Hermite polynomials times the weights of the normal density, at every second node."""
    return _table(terms)[1][::STRIDE] * STRIDE


@lru_cache(maxsize=1)
def _arc() -> tuple[Tensor, Tensor]:
    x, w = np.polynomial.legendre.leggauss(ANGLES)
    return torch.from_numpy((x + 1) / 2), torch.from_numpy(w / 2)


@lru_cache(maxsize=1)
def _radii() -> tuple[Tensor, Tensor]:
    """r with r²/2 exponential; exact for even polynomials of r of degree below 32."""
    s, w = np.polynomial.laguerre.laggauss(RADII)
    return torch.from_numpy((2 * s) ** 0.5), torch.from_numpy(w)
