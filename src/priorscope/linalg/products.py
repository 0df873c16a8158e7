"""E[∂ᵖ(φ(u)ⁱ φ'(u)ʲ) ∂^q(φ(w)ᵏ φ'(w)ˡ)] for many Gaussian pairs (u, w).

Smooth functions: derivatives by autograd, means by Hermite series (Mehler). Functions of two straight sides that meet
at 0 (ReLU): derivatives are moved to the density, whose polynomials are integrated exactly, angle by angle.
"""

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from .quadrature import STEP, TERMS, hermite_table

Function = Callable[[Tensor], Tensor]

ORDER = 5
"""The highest derivative of φ: four derivatives of φ'."""
STRIDE = 2
"""Of the nodes of `linalg.quadrature`, which serve functions with 1024 terms."""
POINTS_AT_ONCE = 64
NUMBERS_AT_ONCE = 2**17
ENOUGH = 1e-9
ANGLES = 16
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


@runtime_checkable
class Means(Protocol):
    """What is asked of some of the pairs."""

    def mean(self, first: Term, second: Term) -> Float[Tensor, " p"]:
        """E[first(u) second(w)] of every pair."""
        ...


@runtime_checkable
class Products(Protocol):
    """What both kinds of functions answer."""

    pairs: Pairs

    def parts(self) -> Iterator[Means]:
        """All pairs in their order, so many at once as memory allows."""
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
    """Products of a smooth function, with as many Hermite coefficients as the pairs need.

    error: what the coefficients leave out, relative to the largest mean square, at most.
    """

    def __init__(self, function: Function, pairs: Pairs):
        self.pairs = pairs
        z = hermite_table(2)[0][::STRIDE]
        deviations = pairs.variances.sqrt()
        blocks = [derivatives(function, part[:, None] * z) for part in deviations.split(POINTS_AT_ONCE)]
        factorials = torch.tensor([math.factorial(k) for k in range(ORDER + 1)], dtype=torch.float64)
        self._taylor = torch.cat(blocks, 1) / factorials[:, None, None]
        self._density = STRIDE * STEP * torch.exp(-z.square() / 2) / (2 * torch.pi) ** 0.5
        self._found: dict[Term, Tensor] = {}
        self.terms, self.error = self._enough()

    def parts(self) -> Iterator[Means]:
        """All pairs in their order."""
        step = max(1, NUMBERS_AT_ONCE // self.terms)
        for rows, columns, rho in zip(*(one.split(step) for one in self.pairs[1:]), strict=True):
            yield _SmoothMeans(self, rows, columns, rho[:, None] ** torch.arange(self.terms, dtype=torch.float64))

    def coefficients(self, term: Term) -> Float[Tensor, "n terms"]:
        """Of a term's Hermite series, at every variance."""
        if term not in self._found:
            self._found[term] = self._values(term) @ _nodes(self.terms)
        return self._found[term]

    def _values(self, term: Term) -> Float[Tensor, "n nodes"]:
        """∂ᵖ(φⁱ φ'ʲ) at the nodes, from products of Taylor series."""
        p = term.derivatives
        orders = torch.arange(1, ORDER + 1, dtype=torch.float64)[:, None, None]
        value, slope = self._taylor[: p + 1], (orders * self._taylor[1:])[: p + 1]
        product = torch.zeros_like(value)
        product[0] = 1.0
        for factor in [value] * term.values + [slope] * term.slopes:
            product = torch.stack([(product[: m + 1] * factor[: m + 1].flip(0)).sum(0) for m in range(p + 1)])
        return math.factorial(p) * product[p]

    def _enough(self) -> tuple[int, float]:
        """How many coefficients, and what they leave out."""
        far = self.pairs.correlations.abs()
        values = [self._values(probe) for probe in PROBES]
        for terms in TERMS:
            error = 0.0
            for one in values:
                squares = one.square() @ self._density
                rest = (squares - (one @ _nodes(terms)).square().sum(1)).abs()
                left = far**terms * (rest[self.pairs.rows] * rest[self.pairs.columns]).sqrt()
                error = max(error, float((left / squares.max().clamp_min(1e-300)).max()))
            if error <= ENOUGH:
                break
        return terms, error


class _SmoothMeans:
    def __init__(self, products: SmoothProducts, rows: Tensor, columns: Tensor, powers: Tensor):
        self.products, self.rows, self.columns, self.powers = products, rows, columns, powers
        self._first: dict[Term, Tensor] = {}
        self._second: dict[Term, Tensor] = {}

    def mean(self, first: Term, second: Term) -> Float[Tensor, " p"]:
        if first not in self._first:
            self._first[first] = self.products.coefficients(first)[self.rows] * self.powers
        if second not in self._second:
            self._second[second] = self.products.coefficients(second)[self.columns]
        return torch.einsum("pt,pt->p", self._first[first], self._second[second])


class HomogeneousProducts:
    """Products of φ(x) = right·x above 0 and left·|x| below it; no variance is 0, no correlation ±1."""

    def __init__(self, left: float, right: float, pairs: Pairs):
        self.left, self.right, self.pairs = left, right, pairs

    def parts(self) -> Iterator[Means]:
        """All pairs in their order."""
        step = max(1, NUMBERS_AT_ONCE // (16 * ANGLES))
        for rows, columns, rho in zip(*(one.split(step) for one in self.pairs[1:]), strict=True):
            first, second = (self.pairs.variances[places].sqrt() for places in (rows, columns))
            yield _HomogeneousMeans(self.left, self.right, first, second, rho)


class _HomogeneousMeans:
    """u = σ1 r cos t, w = σ2 r cos(t − θ), cos θ = ρ, on the two arcs of a half circle on which neither changes its
    sign; the other half has both signs turned. Derivatives go to the density, by parts: in the sense of distributions.
    """

    def __init__(self, left: float, right: float, sigma1: Tensor, sigma2: Tensor, rho: Tensor):
        self.left, self.right = left, right
        sigma1, sigma2, cosine = sigma1[:, None], sigma2[:, None], rho[:, None]
        sine = (1 - cosine.square()).sqrt()
        theta = torch.atan2(sine, cosine)
        nodes, weights = _arc()
        t = torch.cat([theta * nodes - math.pi / 2, theta + (math.pi - theta) * nodes - math.pi / 2], 1)
        self.weights = torch.cat([theta * weights, (math.pi - theta) * weights], 1) / (2 * math.pi)
        self.u, self.w = sigma1 * t.cos(), sigma2 * (t - theta).cos()
        self.y = -(t - theta).sin() / (sigma1 * sine), t.sin() / (sigma2 * sine)
        self.precision = 1 / (sigma1 * sine) ** 2, -cosine / (sigma1 * sigma2 * sine**2), 1 / (sigma2 * sine) ** 2
        self._polynomials: dict[tuple[int, int], dict[int, Tensor]] = {(0, 0): {0: torch.ones_like(t)}}

    def mean(self, first: Term, second: Term) -> Float[Tensor, " p"]:
        degree = first.values + second.values
        by = self._polynomial(first.derivatives, second.derivatives)
        if (degree + first.derivatives + second.derivatives) % 2:
            raise ValueError("products of odd degree are not even in (u, w)")
        angles = self.u**first.values * self.w**second.values * self.weights
        parts = (angles * sum(_radial(degree + power) * part for power, part in by.items())).unflatten(1, (2, -1))
        opposite, alike = parts.sum(2).T
        return opposite * self._sides(first, second, -1) + alike * self._sides(first, second, 1)

    def _sides(self, first: Term, second: Term, sign: int) -> float:
        """The slopes' powers where u and w have this sign towards each other, both ways."""

        def slope(side: int, term: Term) -> float:
            return (self.right if side > 0 else -self.left) ** (term.values + term.slopes)

        return sum(slope(side, first) * slope(sign * side, second) for side in (1, -1))

    def _polynomial(self, p: int, q: int) -> dict[int, Tensor]:
        """(−1)^(p+q) ∂₁ᵖ∂₂^q of the density over the density, y = K⁻¹z: He of two variables, by powers of r."""
        if (p, q) not in self._polynomials:
            which = 0 if p else 1
            lower = (p - 1, q) if p else (0, q - 1)
            found = {power + 1: self.y[which] * part for power, part in self._polynomial(*lower).items()}
            for other in (0, 1):
                if lower[other]:
                    lowest = (lower[0] - (other == 0), lower[1] - (other == 1))
                    factor = lower[other] * self.precision[which + other]
                    for power, part in self._polynomial(*lowest).items():
                        found[power] = found.get(power, 0.0) - factor * part
            self._polynomials[p, q] = found
        return self._polynomials[p, q]


def _radial(power: int) -> float:
    """E[r^power], r²/2 exponential."""
    return 2 ** (power / 2) * math.gamma(1 + power / 2)


@lru_cache(maxsize=8)
def _nodes(terms: int) -> Tensor:
    """Hermite polynomials times the weights of the normal density, at every second node."""
    return hermite_table(terms)[1][::STRIDE] * STRIDE


@lru_cache(maxsize=1)
def _arc() -> tuple[Tensor, Tensor]:
    x, w = np.polynomial.legendre.leggauss(ANGLES)
    return torch.from_numpy((x + 1) / 2), torch.from_numpy(w / 2)
