"""Pointwise functions and their Gaussian moments with 50 digits, and a network of them for one pair of points.

Moments are E[φ(u)φ(v)] from (k, v1, v2), as the literature prints them; E[φ'(u)φ'(v)] is their derivative by k (Price's
theorem), by a difference in 50 digits where the function is smooth.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mpmath
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from priorscope.kernels.infinite.duals.kernel_map import kernel_map

DIGITS = 50
STEP = mpmath.mpf(10) ** -16


@dataclass(frozen=True)
class Function:
    """φ, its second moments, those of φ' (None: by a difference), and the depths at which its variances stay finite."""

    scalar: Callable[[Tensor], Tensor]
    moment: Callable[[Any, Any, Any], Any]
    slope: Callable[[Any, Any, Any], Any] | None = None
    depths: tuple[int, ...] = (1, 3, 10)

    def derivative(self, k: Any, v1: Any, v2: Any) -> Any:
        if self.slope is not None:
            return self.slope(k, v1, v2)
        return (self.moment(k + STEP, v1, v2) - self.moment(k - STEP, v1, v2)) / (2 * STEP)

    @property
    def weight(self) -> float:
        """The σ_w² that brings variance 1 back to 1 through φ and a bias of variance 1/16."""
        return 15 / 16 / float(self.moment(mpmath.mpf(1), mpmath.mpf(1), mpmath.mpf(1)))


def _angle(k: Any, v1: Any, v2: Any) -> tuple[Any, Any]:
    size = mpmath.sqrt(v1 * v2)
    return size, mpmath.acos(max(min(k / size, mpmath.mpf(1)), mpmath.mpf(-1)))


def _arc_cosine(n: int, theta: Any) -> Any:
    """J_n/2π of Cho and Saul 2009, n = 0 to 3: E[relu(u)^n relu(v)^n] at unit variances."""
    sine, cosine, rest = mpmath.sin(theta), mpmath.cos(theta), mpmath.pi - theta
    j = (
        rest,
        sine + rest * cosine,
        3 * sine * cosine + rest * (1 + 2 * cosine**2),
        sine * (4 + 11 * cosine**2) + rest * (9 * cosine + 6 * cosine**3),
    )[n]
    return j / (2 * mpmath.pi)


def _sides(scalar: Any, left: float, right: float, n: int, depths: tuple[int, ...] = (1, 3, 10)) -> Function:
    """right·x^n above 0, left·|x|^n below."""

    def moment(k: Any, v1: Any, v2: Any, n: int = n, left: float = left, right: float = right) -> Any:
        size, theta = _angle(k, v1, v2)
        same, cross = _arc_cosine(n, theta), _arc_cosine(n, mpmath.pi - theta)
        l, r = mpmath.mpf(left), mpmath.mpf(right)  # noqa: E741
        return size**n * ((l**2 + r**2) * same + 2 * l * r * cross)

    def slope(k: Any, v1: Any, v2: Any) -> Any:
        # Almost everywhere, as autograd has it: a jump adds nothing.
        return mpmath.mpf(0) if n == 0 else n**2 * moment(k, v1, v2, n - 1, -left, right)

    return Function(scalar, moment, slope, depths)


def _erf(k: Any, v1: Any, v2: Any) -> Any:
    return 2 / mpmath.pi * mpmath.asin(2 * k / mpmath.sqrt((1 + 2 * v1) * (1 + 2 * v2)))


def _gelu(k: Any, v1: Any, v2: Any) -> Any:
    a, b = 1 + v1, 1 + v2
    root = mpmath.sqrt(a * b - k**2)
    orthant = mpmath.mpf(1) / 4 + mpmath.asin(k / mpmath.sqrt(a * b)) / (2 * mpmath.pi)
    return k * orthant + (v1 * v2 - k**2 + k**2 / a + k**2 / b) / (2 * mpmath.pi * root)


def _waves(sign: int) -> Callable[[Any, Any, Any], Any]:
    return lambda k, v1, v2: mpmath.exp(-(v1 + v2) / 2) * (mpmath.exp(k) + sign * mpmath.exp(-k)) / 2


def _polynomial(*c: float) -> Callable[[Any, Any, Any], Any]:
    """Σ c_i c_j E[u^i v^j], by Isserlis: sums over how many pairs join the two."""

    def joint(i: int, j: int, k: Any, v1: Any, v2: Any) -> Any:
        total = mpmath.mpf(0)
        for r in range(min(i, j) + 1):
            if (i - r) % 2 == 0 and (j - r) % 2 == 0:
                count = math.comb(i, r) * math.comb(j, r) * math.factorial(r)
                a, b = i - r, j - r
                total += count * mpmath.fac2(a - 1) * mpmath.fac2(b - 1) * v1 ** (a // 2) * v2 ** (b // 2) * k**r
        return total

    return lambda k, v1, v2: mpmath.fsum(
        mpmath.mpf(p) * mpmath.mpf(q) * joint(i, j, k, v1, v2)
        for i, p in enumerate(c)
        for j, q in enumerate(c)
        if p * q
    )


class NormalizedExp(nn.Module):
    """Stands for the kernel map size·exp(k/size − 1)."""

    def forward(self, x: Tensor) -> Tensor:
        return x


@kernel_map(NormalizedExp)
def normalized_exp(inner: Any, norm1: Any, norm2: Any) -> Any:
    """√(v1 v2) e^{cos θ − 1}."""
    size = norm1 * norm2
    safe = torch.where(size > 0, size, 1.0)
    return size * torch.exp(inner / safe - 1)


def _normalized(k: Any, v1: Any, v2: Any) -> Any:
    size = mpmath.sqrt(v1 * v2)
    return size * mpmath.exp(k / size - 1)


def _bell(k: Any, v1: Any, v2: Any) -> Any:
    return 1 / mpmath.sqrt((1 + 2 * v1) * (1 + 2 * v2) - 4 * k**2)


SHALLOW = (1, 3)
FUNCTIONS: dict[str, Function] = {
    "relu": _sides(torch.relu, 0, 1, 1),
    "leaky relu": _sides(lambda x: F.leaky_relu(x, 0.25), -0.25, 1, 1),
    "abs": _sides(torch.abs, 1, 1, 1),
    "sign": _sides(torch.sign, -1, 1, 0),
    "step": _sides(lambda x: torch.heaviside(x, torch.tensor(0.5, dtype=x.dtype)), 0, 1, 0),
    "erf": Function(torch.erf, _erf),
    "gelu": Function(F.gelu, _gelu),
    "sin": Function(torch.sin, _waves(-1)),
    "cos": Function(torch.cos, _waves(1)),
    "gaussian": Function(lambda x: torch.exp(-x * x), _bell),
    "rbf": Function(
        lambda x: math.sqrt(2) * torch.sin(x + math.pi / 4), lambda k, v1, v2: mpmath.exp(k - (v1 + v2) / 2)
    ),
    "exp": Function(torch.exp, lambda k, v1, v2: mpmath.exp(k + (v1 + v2) / 2), None, (1,)),
    "square": Function(torch.square, _polynomial(0, 0, 1), None, SHALLOW),
    "cube": Function(lambda x: x**3, _polynomial(0, 0, 0, 1), None, SHALLOW),
    "rectified square": _sides(lambda x: torch.relu(x) ** 2, 0, 1, 2, SHALLOW),
    "rectified cube": _sides(lambda x: torch.relu(x) ** 3, 0, 1, 3, SHALLOW),
    "polynomial": Function(
        lambda x: 1 - 0.5 * x + 0.25 * x**2 + 0.125 * x**3, _polynomial(1, -0.5, 0.25, 0.125), None, SHALLOW
    ),
    "normalized exp": Function(NormalizedExp(), _normalized),
}


class Applied(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def network_in_50_digits(
    function: Function, x1: Tensor, x2: Tensor, depth: int, weight: float, bias: float
) -> tuple[float, float]:
    """NNGP and NTK, in the NTK parameterization, of `depth` hidden layers of the function, for one pair of points."""
    with mpmath.workdps(DIGITS):
        a, b = ([mpmath.mpf(float(entry)) for entry in x] for x in (x1, x2))

        def mean(p: Any, q: Any) -> Any:
            return mpmath.fsum(s * t for s, t in zip(p, q, strict=True)) / len(p)

        w, c = mpmath.mpf(weight), mpmath.mpf(bias)
        own = functools.cache(lambda v: function.moment(v, v, v))
        k, v1, v2, tangent = mean(a, b), mean(a, a), mean(b, b), mpmath.mpf(0)
        for layer in range(depth + 1):
            k, v1, v2 = w * k + c, w * v1 + c, w * v2 + c
            tangent = w * tangent + k
            if layer < depth:
                tangent *= function.derivative(k, v1, v2)
                k, v1, v2 = function.moment(k, v1, v2), own(v1), own(v2)
        return float(k), float(tangent)
