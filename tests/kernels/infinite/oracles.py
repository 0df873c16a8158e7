"""The slow, obvious ways: one pair at a time, by quadrature in polar coordinates, or with 50 digits."""

from itertools import pairwise
from math import atan2, pi

import mpmath
import numpy as np


def _legendre(a: float, b: float, n: int):
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return (b - a) / 2 * nodes + (a + b) / 2, (b - a) / 2 * weights


def expectation(f, g, v1: float, v2: float, k: float) -> float:
    """E[f(u) g(w)] for one Gaussian pair: polar coordinates, split where u or w changes its sign."""
    a, b, c = v1**0.5, k / v1**0.5, max(v2 - k * k / v1, 0.0) ** 0.5
    kinks = sorted({0.0, 2 * pi, pi / 2, 3 * pi / 2} | {atan2(-b, c) % pi, atan2(-b, c) % pi + pi})
    r, wr = _legendre(0, 12, 200)
    total = 0.0
    for low, high in pairwise(kinks):
        t, wt = _legendre(low, high, 60)
        u = a * np.outer(r, np.cos(t))
        w = np.outer(r, b * np.cos(t) + c * np.sin(t))
        total += wr * r * np.exp(-r * r / 2) @ (f(u) * g(w)) @ wt
    return total / (2 * pi)


def network(x1, x2, layers: list, weight: float, bias: float, rates: list) -> tuple[float, float]:
    """NNGP and NTK of one pair of points; layers: (fan_in, (φ, φ') or None); rates: (c_w, c_b) of each layer."""
    moments = np.array([x1 @ x2, x1 @ x1, x2 @ x2]) / len(x1)
    tangent = 0.0
    for (fan_in, activation), (cw, cb) in zip(layers, rates, strict=True):
        tangent = weight * tangent + cw * fan_in * moments[0] + cb
        moments = weight * moments + bias
        if activation is not None:
            k, v1, v2 = moments
            f, slope = activation
            tangent *= expectation(slope, slope, v1, v2, k)
            moments = np.array(
                [expectation(f, f, v1, v2, k), expectation(f, f, v1, v1, v1), expectation(f, f, v2, v2, v2)]
            )
    return float(moments[0]), float(tangent)


def relu_in_50_digits(x1, x2, depth: int, weight: float, bias: float) -> tuple[float, float]:
    """NNGP and NTK in the NTK parameterization of `depth` hidden ReLU layers, for one pair of points."""
    with mpmath.workdps(50):
        a, b = ([mpmath.mpf(float(entry)) for entry in x] for x in (x1, x2))

        def mean(p, q):
            return mpmath.fsum(s * t for s, t in zip(p, q, strict=True)) / len(p)

        w, c = mpmath.mpf(weight), mpmath.mpf(bias)
        k, v1, v2, tangent = mean(a, b), mean(a, a), mean(b, b), mpmath.mpf(0)
        for layer in range(depth + 1):
            tangent = w * tangent + w * k + c
            k, v1, v2 = w * k + c, w * v1 + c, w * v2 + c
            if layer < depth:
                size = mpmath.sqrt(v1 * v2)
                theta = mpmath.acos(max(min(k / size, mpmath.mpf(1)), mpmath.mpf(-1)))
                k = size * (mpmath.sin(theta) + (mpmath.pi - theta) * mpmath.cos(theta)) / (2 * mpmath.pi)
                tangent *= (mpmath.pi - theta) / (2 * mpmath.pi)
                v1, v2 = v1 / 2, v2 / 2
        return float(k), float(tangent)
