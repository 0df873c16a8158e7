"""Probabilities and second moments on orthants of z, s = p z + g at one point and z', s' = q z' + g' at another.

z and g are independent centred Gaussians, each correlated between the two points. An orthant probability of four
Gaussians has no closed form, but its derivative along growing covariances has (Plackett 1954), so that one integral
gives it; second moments follow (Tallis 1961). All is written by sines, so that nearly equal points keep their digits.
"""

from functools import lru_cache
from itertools import pairwise
from math import pi
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

PANELS, NODES, RATIO = 14, 10, 0.25
"""Gauss-Legendre panels that shrink towards the end of the path, where nearly equal points have their features."""
NUMBERS_AT_ONCE = 2**17
SMALLEST_SINE = 1e-30
"""Of points on one line: angles between what vanishes there are then those of their limit."""


class TwoPoints(NamedTuple):
    """Pairs of points, all of one shape. a1, a2: variances of z. b1, b2: of g. less_a, less_b: 1 − correlation."""

    a1: Tensor
    a2: Tensor
    b1: Tensor
    b2: Tensor
    less_a: Tensor
    less_b: Tensor


class Signs(NamedTuple):
    """±1 for each of z, s, z' and s': the orthant where they have these signs."""

    z: int
    s: int
    other_z: int
    other_s: int


def quadrant(a: Tensor, b: Tensor, p: float, z: int, s: int) -> tuple[Tensor, Tensor]:
    """P and E[s²] where z and s = p z + g have the signs, at single points; a, b: variances of z and g."""
    p = z * s * p
    probability = 0.25 + torch.atan2(p * root(a), root(b)) / (2 * pi)
    return probability, (p * p * a + b) * probability + p * root(a * b) / (2 * pi)


def orthant(points: TwoPoints, p: float, q: float, signs: Signs) -> tuple[Tensor, Tensor]:
    """P and E[|s s'|] where z, s, z' and s' have the signs.

    Source: Plackett 1954 for the probability, along covariances between the points that grow from 0; Tallis 1961 for
    the moment.
    """
    shape = torch.broadcast_shapes(*(part.shape for part in points))
    flat = [part.expand(shape).reshape(-1) for part in points]
    step = max(1, NUMBERS_AT_ONCE // (PANELS * NODES))
    parts = [
        _Path(TwoPoints(*part), p, q, signs).ends() for part in zip(*(one.split(step) for one in flat), strict=True)
    ]
    probability, moment = (torch.cat(part).reshape(shape) for part in zip(*parts, strict=True))
    return probability, moment


class _Path:
    """Covariances between the points times t = sin(u π/2), with the signs taken into p, q and the correlations."""

    def __init__(self, points: TwoPoints, p: float, q: float, signs: Signs):
        self.a1, self.a2, self.b1, self.b2 = (part[:, None] for part in points[:4])
        less_a, less_b = points.less_a[:, None], points.less_b[:, None]
        self.p, self.q = signs.z * signs.s * p, signs.other_z * signs.other_s * q
        self.cos_a = signs.z * signs.other_z * (1 - less_a)
        self.cos_b = signs.s * signs.other_s * (1 - less_b)
        self.sine_a, self.sine_b = ((less * (2 - less)).clamp_min(SMALLEST_SINE) for less in (less_a, less_b))
        # Neither of these two changes with the signs.
        self.apart = (p * root(self.a1 * self.b2) - q * root(self.a2 * self.b1)).square()
        self.together = 2 * p * q * root(self.a1 * self.a2 * self.b1 * self.b2)
        self.less_ab = less_a + less_b - less_a * less_b

    def ends(self) -> tuple[Tensor, Tensor]:
        """Probability and moment at the end of the path."""
        if self.p == self.q == 0:
            apart = (_angle(cos, root(sine)) for cos, sine in ((self.cos_a, self.sine_a), (self.cos_b, self.sine_b)))
            probability = next(apart) * next(apart)
            return probability[:, 0], self.moment(probability)[:, 0]
        nodes, weights = (part.to(self.a1.device) for part in _nodes())
        t, rest = (nodes * pi / 2).sin(), (nodes * pi / 2).cos()
        growth = self.growth(t, rest.square())
        start = [_angle(p * root(a), root(b)) for p, a, b in ((self.p, self.a1, self.b1), (self.q, self.a2, self.b2))]
        probability = (start[0] * start[1])[:, 0] + growth @ (weights * rest * pi / 2)
        return probability, self.moment(probability[:, None])[:, 0]

    def growth(self, t: Tensor, rest: Tensor) -> Tensor:
        """The probability's derivative by t; rest: 1 − t²."""
        a, b = self.a1 * self.a2, self.b1 * self.b2
        s = self.sines(t, rest)
        by_z = _over(self.cos_a, root(s.a)) * self.given_zz(t, s)
        by_zs = self.q * _over(self.cos_a * root(self.a2), root(s.zs)) * self.given_zs(t, s)
        by_sz = self.p * _over(self.cos_a * root(self.a1), root(s.sz)) * self.given_sz(t, s)
        covariance = self.p * self.q * self.cos_a * root(a) + self.cos_b * root(b)
        by_s = _over(covariance, root(s.s)) * self.given_ss(t, s)
        return (by_z + by_zs + by_sz + by_s) / (2 * pi)

    def moment(self, probability: Tensor) -> Tensor:
        """E[|s s'|] from the probability."""
        s = self.sines(1.0, 0.0)
        a, b = self.a1 * self.a2, self.b1 * self.b2
        covariance = self.p * self.q * self.cos_a * root(a) + self.cos_b * root(b)
        within1 = _angle(self.q * root(self.a2 * s.a), root(self.b2 * s.b))
        within2 = _angle(self.p * root(self.a1 * s.a), root(self.b1 * s.b))
        faces = (
            self.p * self.q * root(a * s.a) * self.given_zz(1.0, s)
            + self.q * self.cos_a * root(self.a2 * self.b1) * within1
            + self.p * self.cos_a * root(self.a1 * self.b2) * within2
            + self.p * root(self.a1 * s.zs) * self.given_zs(1.0, s)
            + self.q * root(self.a2 * s.sz) * self.given_sz(1.0, s)
            + root(s.s) * self.given_ss(1.0, s)
        )
        return covariance * probability + faces / (2 * pi)

    def sines(self, t: Tensor | float, rest: Tensor | float) -> "_Sines":
        sine_a, sine_b = rest + t * t * self.sine_a, rest + t * t * self.sine_b
        zs, sz = self.q**2 * self.a2 * sine_a + self.b2, self.p**2 * self.a1 * sine_a + self.b1
        mixed = self.apart + self.together * (rest + t * t * self.less_ab)
        both = self.b1 * self.b2 * sine_b + (self.p * self.q) ** 2 * self.a1 * self.a2 * sine_a + mixed
        return _Sines(sine_a, sine_b, zs, sz, both.clamp_min(0))

    # Probabilities that the other two are positive where two are 0.

    def given_zz(self, t: Tensor | float, s: "_Sines") -> Tensor:
        return _angle(t * self.cos_b, root(s.b))

    def given_zs(self, t: Tensor | float, s: "_Sines") -> Tensor:
        return _angle(-self.q * t * self.cos_b * root(self.a2 * s.a), root(s.b * s.zs))

    def given_sz(self, t: Tensor | float, s: "_Sines") -> Tensor:
        return _angle(-self.p * t * self.cos_b * root(self.a1 * s.a), root(s.b * s.sz))

    def given_ss(self, t: Tensor | float, s: "_Sines") -> Tensor:
        a, b = root(self.a1 * self.a2), root(self.b1 * self.b2)
        along = t * (self.cos_a * b * s.b + self.p * self.q * self.cos_b * a * s.a)
        return _angle(along, root(s.a * s.b * s.s))


class _Sines(NamedTuple):
    """1 − ρ² of z and of g between the points; the variance of s' where z = 0, of s where z' = 0; and the determinant
    of the covariance of s and s'."""

    a: Tensor
    b: Tensor
    zs: Tensor
    sz: Tensor
    s: Tensor


def _angle(along: Tensor, across: Tensor) -> Tensor:
    """P(both > 0) of two Gaussians whose correlation is along/√(along² + across²)."""
    return 0.25 + torch.atan2(along, across) / (2 * pi)


def root(x: Tensor) -> Tensor:
    """√x, and 0 with derivative 0 where x is not positive."""
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1.0).sqrt(), 0.0)


def _over(value: Tensor, size: Tensor) -> Tensor:
    return torch.where(size > 0, value / torch.where(size > 0, size, 1.0), 0.0)


@lru_cache(maxsize=1)
def _nodes() -> tuple[Tensor, Tensor]:
    x, w = np.polynomial.legendre.leggauss(NODES)
    edges = [*(1 - RATIO**k for k in range(PANELS)), 1.0]
    nodes = np.concatenate([a + (b - a) * (x + 1) / 2 for a, b in pairwise(edges)])
    weights = np.concatenate([(b - a) * w / 2 for a, b in pairwise(edges)])
    return torch.from_numpy(nodes), torch.from_numpy(weights)
