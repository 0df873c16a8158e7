"""One entry through a function of two straight pieces (ReLU, LeakyReLU, abs), with algebraic operations only.

Loops over it vectorise: library functions would not. k, gap, Θ ↦ those after φ(x) = left·x below 0, right·x above.
With y = sin²(θ'/2), θ' the smaller of θ and π − θ: E[relu relu] = (max(k, 0) + √(v1 v2)(sin θ' − θ' cos θ')/π)/2.
"""

import inspect
from collections.abc import Callable
from math import pi
from typing import Any, NamedTuple

import numba
import numpy as np

from .coefficients import ARC, EXCESS

OPTIONS: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": {"contract", "nsz"}}
"""No 'reassoc' and no 'nnan': differences keep their digits, and what is not a number stays so."""


def compiled(inside: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """A decorator that compiles the function itself, whatever type checkers put around it.

    Args:
        inside: whether its body goes into the loops that call it, which vectorise only then.
    """
    return lambda function: numba.njit(forceinline=inside, **OPTIONS)(inspect.unwrap(function))


class Pieces(NamedTuple):
    """φ(x) = left·x below 0, right·x above: left·right, (right − left)², whether φ is even, and its slopes where a
    variance is positive and where it is zero."""

    mixed: float
    bend: float
    even: bool
    slope: float
    slope_at_zero: float

    @property
    def power(self) -> float:
        """E[φ(u)²]/E[u²]."""
        return self.mixed + self.bend / 2


CHUNK = 8


def _chunks(table: dict[str, tuple[float, ...]], dtype: Any) -> tuple[Any, ...]:
    """Three polynomials of 8 terms, padded with zeros."""
    terms = table[np.dtype(dtype).name]
    padded = (*terms, *(0.0,) * (3 * CHUNK - len(terms)))
    return tuple(tuple(dtype(c) for c in padded[i : i + CHUNK]) for i in range(0, 3 * CHUNK, CHUNK))


@compiled(inside=True)
def _eight(c, y):  # type: ignore[no-untyped-def]
    """A polynomial of eight terms, written out: loops inside would keep the loop around them from vectorising."""
    return c[0] + y * (c[1] + y * (c[2] + y * (c[3] + y * (c[4] + y * (c[5] + y * (c[6] + y * c[7]))))))


def _made(dtype: Any) -> Any:
    (a0, a1, a2), (e0, e1, e2) = _chunks(ARC, dtype), _chunks(EXCESS, dtype)
    long = dtype == np.float64
    half, one, two, zero = dtype(0.5), dtype(1), dtype(2), dtype(0)
    over_pi, over_2_pi, rounding = dtype(1 / pi), dtype(1 / (2 * pi)), dtype(8 * np.finfo(dtype).eps)

    @compiled(inside=True)
    def bent(k, gap, tangent, root1, root2, mixed, bend, slope, at_zero, even):  # type: ignore[no-untyped-def]
        negative = k < zero
        if even:
            # |−u| = |u|: the gap to the opposite point.
            gap = gap + two * k if negative else gap
        difference = root1 - root2
        spread = half * difference * difference
        # Between parallel points of different lengths the two cancel; what rounding leaves is no angle.
        x = gap - spread
        x = x if x > rounding * (spread + abs(difference) * (root1 + root2)) else zero
        size = root1 * root2
        alive = size > zero
        less = x / size if alive else zero
        far = less > one
        y = half * less
        y = one - y if far else y
        y = y if y > zero else zero
        root = np.sqrt(y)
        a, e = _eight(a0, y), _eight(e0, y)
        power = y * y
        power = power * power
        power = power * power
        if long:
            a += power * (_eight(a1, y) + power * _eight(a2, y))
            e += power * (_eight(e1, y) + power * _eight(e2, y))
        else:
            a += power * a1[0]
            e += power * e1[0]
        excess_here = size * (two * over_pi) * y * root * e
        theta = two * over_2_pi * root * a
        up = k if k > zero else zero
        if even:
            up = up if up > zero else -k
            derivative = half - theta
            after = half * (gap - excess_here)
            nngp = half * (up + excess_here)
            down = up
        else:
            derivative = theta if far else half - theta
            low = k if negative else zero
            after = half * (gap + low - excess_here)
            nngp = half * (up + excess_here)
            down = k
        derivative = mixed + bend * derivative
        if even:
            derivative = -derivative if negative else derivative
        dead = (slope if root1 > zero else at_zero) * (slope if root2 > zero else at_zero)
        derivative = derivative if alive else dead
        gap = mixed * gap + bend * after
        gap = gap if gap > zero else zero
        return mixed * down + bend * nngp, gap, tangent * derivative

    return bent


BENT = {np.dtype(np.float32): _made(np.float32), np.dtype(np.float64): _made(np.float64)}
