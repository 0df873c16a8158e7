"""Polynomials, by the Hermite polynomials of each point's own variance: monomials, sums of them."""

from math import comb, factorial

import torch
from torch import Tensor

from ..registry import Expectations

Coefficients = tuple[float, ...]


def polynomial(k: Tensor, v1: Tensor, v2: Tensor, gap: Tensor, coefficients: Coefficients) -> Expectations:
    """Σ_j j! A_j(v1) A_j(v2) k^j, A_j(v) = Σ_i c_{j+2i} (j+2i)!/(2^i i! j!) v^i; φ' is the same of its coefficients.

    Source: Mehler's formula; Daniely, Frostig and Singer 2016 (1602.05897).
    """
    half, middle = (v1 - v2) / 2, (v1 + v2) / 2
    value, after = torch.zeros_like(k), torch.zeros_like(k)
    for j in range(len(coefficients)):
        p, q = _hermite(coefficients, j, v1), _hermite(coefficients, j, v2)
        a, b = v1**j, v2**j
        value = value + factorial(j) * p * q * k**j
        # (p²a + q²b)/2 − pq k^j from differences that are small themselves.
        apart = (p - q).square() * (a + b) / 4 + (p.square() - q.square()) * (a - b) / 4
        rise = sum((comb(j, i) * middle ** (j - i) * half**i for i in range(2, j + 1, 2)), torch.zeros_like(k))
        fall = gap * sum((middle**i * k ** (j - 1 - i) for i in range(j)), torch.zeros_like(k))
        after = after + factorial(j) * (apart + p * q * (rise + fall))
    slopes = tuple(m * c for m, c in enumerate(coefficients))[1:]
    derivative = torch.zeros_like(k)
    for j in range(len(slopes)):
        derivative = derivative + factorial(j) * _hermite(slopes, j, v1) * _hermite(slopes, j, v2) * k**j
    return Expectations(value, derivative, after.clamp_min(0))


def _hermite(coefficients: Coefficients, j: int, v: Tensor) -> Tensor:
    total = torch.zeros_like(v)
    for i in range((len(coefficients) - 1 - j) // 2, -1, -1):
        m = j + 2 * i
        total = total * v + coefficients[m] * (factorial(m) / (2**i * factorial(i) * factorial(j)))
    return total
