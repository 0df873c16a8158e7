"""Powers of each side: φ(x) = right·x^k above 0, left·|x|^k below: sign and step (k = 0), relu(x)^k, x·|x|."""

from functools import lru_cache
from math import factorial, pi

import numpy as np
import torch
from torch import Tensor

from ..deviation import root
from ..registry import Expectations
from .piecewise import angle

Polynomials = tuple[tuple[float, ...], tuple[float, ...]]


def jump(
    k: Tensor, v1: Tensor, v2: Tensor, gap: Tensor, deviation: Tensor | None, left: float, right: float, zero: float
) -> Expectations:
    """φ = left below 0, right above, zero at 0: (l² + r²)(π − θ)/2π + 2lr θ/2π, and 0: φ' is 0 almost everywhere.

    Autograd has no jump either, so that the NTK of the real network lacks it too. Source: Cho and Saul 2009, n = 0.
    """
    at = angle(k, v1, v2, gap, deviation)
    alive = at.alive
    square, mean = (left**2 + right**2) / 2, (left + right) / 2

    def dead(v: Tensor) -> Tensor:
        return torch.where(v > 0, mean, torch.full_like(v, zero))

    def own(v: Tensor) -> Tensor:
        return torch.where(v > 0, square, torch.full_like(v, zero**2))

    change = (right - left) ** 2 * at.theta / (2 * pi)
    value = torch.where(alive, square - change, dead(v1) * dead(v2))
    after = torch.where(alive, change, ((own(v1) + own(v2)) / 2 - dead(v1) * dead(v2)).to(change.dtype))
    beside = None
    if deviation is not None:
        more = (left + right) ** 2 / 2 + (right - left) ** 2 * at.rest / (2 * pi)
        # A value of variance zero has no angle; what it becomes has one with itself only.
        size = root(own(v1)) * root(own(v2))
        beside = torch.where(alive, torch.where(value < 0, more, change), size - value.abs()).to(k.dtype)
    return Expectations(value.to(k.dtype), torch.zeros_like(at.theta), after.to(k.dtype), deviation=beside)


def powers(
    k: Tensor, v1: Tensor, v2: Tensor, gap: Tensor, deviation: Tensor | None, left: float, right: float, degree: int
) -> Expectations:
    """φ of degree 2 or more: s^n [(l² + r²) f_n(ρ) + 2lr f_n(−ρ)], s = √(v1 v2), f_n = [P sin θ + (π − θ) Q]/2π.

    The derivative's moment is the same with n − 1, −n·left and n·right. Source: Cho and Saul 2009, where J_n = 2π f_n.
    """
    at = angle(k, v1, v2, gap, deviation)
    size, theta, rest = at.size, at.theta, at.rest
    rho = torch.where(at.alive, torch.cos(theta), 0.0)
    sine = torch.sin(theta)
    same, cross = left**2 + right**2, 2 * left * right

    def moment(n: int, same: float, cross: float) -> Tensor:
        p, q = _polynomials(n)
        here = _horner(p, rho) * sine + rest * _horner(q, rho)
        there = _horner(p, -rho) * sine + theta * _horner(q, -rho)
        return size**n * (same * here + cross * there) / (2 * pi)

    # f(1) − f(ρ): π (Q(1) − Q(ρ)), divided by 1 − ρ exactly, and what is of higher order in θ.
    p, q = _polynomials(degree)
    quotient = np.polynomial.polynomial.polydiv(np.array([sum(q), *(0.0 for _ in q[1:])]) - np.array(q), [1.0, -1.0])[0]
    fall = pi * 2 * torch.sin(theta / 2).square() * _horner(tuple(quotient), rho)
    fall = fall + theta * _horner(q, rho) - _horner(p, rho) * sine
    opposite = _horner(p, -rho) * sine + theta * _horner(q, -rho)
    peak = sum(q) / 2
    spread = same * peak * (root(v1) ** degree - root(v2) ** degree).square() / 2
    less = size**degree * (same * fall - cross * opposite) / (2 * pi)
    derivative = degree**2 * moment(degree - 1, same, -cross)
    value, beside = moment(degree, same, cross), None
    if deviation is not None:
        beside = torch.where(value < 0, size**degree * same * peak + value, less).clamp_min(0)
    return Expectations(value, derivative, (spread + less).clamp_min(0), deviation=beside)


@lru_cache(maxsize=32)
def _polynomials(n: int) -> Polynomials:
    """P and Q of f_n: Q = E[u^n v^n] at unit variances, and f_n' = n² f_{n−1} gives P from that of n − 1."""
    if n == 0:
        return (0.0,), (1.0,)
    before = _polynomials(n - 1)[0]
    q = [0.0] * (n + 1)
    for j in range(n % 2, n + 1, 2):
        i = (n - j) // 2
        q[j] = (factorial(n) / (2**i * factorial(i) * factorial(j))) ** 2 * factorial(j)
    p = [0.0] * (n + 2)
    p[0] = float((2 ** ((n - 1) // 2) * factorial((n - 1) // 2)) ** 2) if n % 2 else 0.0

    def at(values: list[float] | tuple[float, ...], m: int) -> float:
        return values[m] if 0 <= m < len(values) else 0.0

    for m in range(n + 1):
        right = n * n * (at(before, m) - at(before, m - 2)) - at(q, m) + m * at(p, m - 1)
        p[m + 1] = right / (m + 1)
    return tuple(p[:n]), tuple(q)


def _horner(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    total = torch.zeros_like(x)
    for c in reversed(coefficients):
        total = total * x + c
    return total
