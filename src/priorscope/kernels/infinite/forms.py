"""Which of the families with closed forms a fused scalar function is: a polynomial, two power sides, a wave, …

Forms are composed operation by operation, never fitted: an operation without a line here gives no form, and the
function is integrated numerically.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ...network.watching import Node, Ref
from . import pointwise as ops
from .duals.polynomial import Coefficients
from .fusion import Fused, constant

DEGREE = 24


@dataclass(frozen=True)
class Polynomial:
    """Σ c_m x^m."""

    c: Coefficients

    @property
    def number(self) -> float | None:
        return self.c[0] if len(self.c) == 1 else None


@dataclass(frozen=True)
class Sides:
    """right·x^degree above 0, left·|x|^degree below it; `zero` at 0 (for degree 0)."""

    degree: int
    left: float
    right: float
    zero: float = 0.0


@dataclass(frozen=True)
class Wave:
    """a·sin(b·x + c)."""

    a: float
    b: float
    c: float


@dataclass(frozen=True)
class Exponential:
    """a·exp(b·x)."""

    a: float
    b: float


@dataclass(frozen=True)
class Bell:
    """a·exp(b·x²)."""

    a: float
    b: float


@dataclass(frozen=True)
class Scaled:
    """a·ψ(b·x), ψ = erf or GELU."""

    a: float
    b: float
    function: Any


Form = Polynomial | Sides | Wave | Exponential | Bell | Scaled


def recognised(fused: Fused) -> Form | None:
    """The closed form of a fused function, or None."""
    forms: dict[int, Form | None] = {fused.root.index: Polynomial((0.0, 1.0))}
    for node in fused.nodes:
        forms[node.index] = _form(node, forms)
    return forms[fused.nodes[-1].index]


def _form(node: Node, forms: dict[int, Form | None]) -> Form | None:
    def given(leaf: Any) -> Any:
        if isinstance(leaf, Ref):
            if leaf.node.index in forms:
                return forms[leaf.node.index]
            value = constant(leaf.node)
            return Polynomial((float(value),)) if value is not None else None
        return Polynomial((float(leaf),)) if isinstance(leaf, (int, float)) and not isinstance(leaf, bool) else leaf

    kwargs = dict(node.kwargs)
    args = (kwargs.pop("input"), *node.args) if "input" in kwargs else node.args
    kwargs.pop("inplace", None)
    args, kwargs = tree_map(given, (args, kwargs))
    if node.kind == "module":
        return _of_module(node.target, args[0])
    return _of_call(node.target, args, kwargs)


def _of_module(module: nn.Module, x: Form | None) -> Form | None:
    if isinstance(module, (nn.Identity, nn.Dropout)):
        return x
    if isinstance(module, nn.ReLU):
        return _sides_of(x, lambda value: max(value, 0.0))
    if isinstance(module, nn.LeakyReLU):
        return _leaky(x, module.negative_slope)
    if isinstance(module, nn.GELU) and module.approximate == "none":
        return _scaled(x, F.gelu)
    return None


def _of_call(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Form | None:
    x, *rest = args
    if target in (torch.zeros_like, torch.ones_like):
        return Polynomial((float(target is torch.ones_like),))
    if target in ops.SAME or target in ops.CAST:
        return x
    if target is F.leaky_relu or target is F.leaky_relu_:
        slope = rest[0] if rest else kwargs.get("negative_slope", Polynomial((0.01,)))
        return _leaky(x, slope.number) if isinstance(slope, Polynomial) else None
    if target is F.gelu:
        return _scaled(x, F.gelu) if not rest and kwargs.get("approximate", "none") == "none" else None
    if target in ops.WHERE and len(args) == 3 and not kwargs:
        return _where(*args)
    if target in ops.CLAMP or target in ops.CLAMP_ONE:
        return _clamped(target, x, rest, kwargs)
    if target in ops.STEP:
        values = rest[0] if rest else kwargs.get("values")
        at_zero = values.number if isinstance(values, Polynomial) else None
        return None if at_zero is None else _sides_of(x, lambda value: at_zero if value == 0 else float(value > 0))
    if target in ops.ADD or target in ops.SUBTRACT:
        factor = kwargs.pop("alpha", Polynomial((1.0,)))
        other = rest[0] if rest else kwargs.pop("other", None)
        sign = -1.0 if target in ops.SUBTRACT else 1.0
        return None if kwargs else _sum(x, _product(_product(other, factor), Polynomial((sign,))))
    if kwargs:
        return None
    if rest:
        return _of_two(target, x, rest[0]) if len(rest) == 1 else None
    return _of_one(target, x)


def _of_one(target: Any, x: Form | None) -> Form | None:
    if target in ops.NEGATE:
        return _product(x, Polynomial((-1.0,)))
    if target in ops.SQUARE:
        return _power(x, 2)
    if target in ops.RELU:
        return _sides_of(x, lambda value: max(value, 0.0))
    if target in ops.ABSOLUTE:
        return _sides_of(x, abs)
    if target in ops.SIGN:
        return _sides_of(x, lambda value: float(value > 0) - float(value < 0), jump=True)
    if target in ops.ERF:
        return _scaled(x, torch.erf)
    line = _line(x)
    if target in ops.SINE and line:
        return Wave(1.0, line[1], line[0])
    if target in ops.COSINE and line:
        return Wave(1.0, line[1], line[0] + math.pi / 2)
    if target in ops.EXPONENTIAL and line:
        return Exponential(math.exp(line[0]), line[1]) if line[0] < 300 else None
    if target in ops.EXPONENTIAL and isinstance(x, Polynomial) and len(x.c) == 3 and x.c[1] == 0 and x.c[0] < 300:
        return Bell(math.exp(x.c[0]), x.c[2])
    return None


def _of_two(target: Any, x: Any, y: Any) -> Form | None:
    if target in ops.REVERSED:
        return _sum(y, _product(x, Polynomial((-1.0,))))
    if target in ops.MULTIPLY:
        return _product(x, y)
    if target in ops.DIVIDE:
        number = y.number if isinstance(y, Polynomial) else None
        return _product(x, Polynomial((1 / number,))) if number else None
    if target in ops.POWER:
        number = y.number if isinstance(y, Polynomial) else None
        return _power(x, int(number)) if number is not None and number.is_integer() and number > 0 else None
    if target in ops.COMPARE and isinstance(y, Polynomial) and y.number == 0:
        return _sides_of(x, lambda value: float(bool(target(torch.tensor(value), 0.0))), jump=True)
    return _extreme(target, x, y) if target in ops.LARGER else None


def _line(x: Any) -> tuple[float, float] | None:
    """c and b of c + b·x, b ≠ 0."""
    return (x.c[0], x.c[1]) if isinstance(x, Polynomial) and len(x.c) == 2 else None


def _polynomial(c: Any) -> Polynomial | None:
    c = list(c)
    while len(c) > 1 and c[-1] == 0:
        c.pop()
    return Polynomial(tuple(c)) if len(c) <= DEGREE + 1 and all(map(math.isfinite, c)) else None


def _sides(x: Any) -> Sides | None:
    """A form as two sides: one power c·x^n is that too."""
    if isinstance(x, Sides):
        return x
    if not isinstance(x, Polynomial) or any(x.c[:-1]):
        return None
    n, c = len(x.c) - 1, x.c[-1]
    return Sides(n, (-1) ** n * c, c, c if n == 0 else 0.0)


def _simple(sides: Sides) -> Form:
    """Two sides that are one power are a polynomial."""
    n, r = sides.degree, sides.right
    one = sides.left == (-1) ** n * r and (n > 0 or sides.zero == r)
    return _polynomial([0.0] * n + [r]) or sides if one else sides


def _sides_of(x: Any, function: Any, jump: bool = False) -> Form | None:
    """relu, |·| (which commute with factors above 0) of two sides; signs and steps (jump) of them."""
    sides = _sides(x)
    if sides is None:
        return None
    at = [float(function(value)) for value in (sides.left, sides.right, sides.zero)]
    if jump or function(1.0) == function(2.0):
        return _simple(Sides(0, at[0], at[1], at[2] if sides.degree == 0 else float(function(0.0))))
    return _simple(Sides(sides.degree, *at))


def _leaky(x: Any, slope: float | None) -> Form | None:
    return None if slope is None else _sides_of(x, lambda value: value if value > 0 else slope * value)


def _scaled(x: Any, function: Any) -> Form | None:
    line = _line(x)
    return Scaled(1.0, line[1], function) if line and line[0] == 0 else None


def _sum(x: Any, y: Any) -> Form | None:
    if isinstance(x, Polynomial) and isinstance(y, Polynomial):
        size = max(len(x.c), len(y.c))
        first, second = ((*p.c, *[0.0] * (size - len(p.c))) for p in (x, y))
        return _polynomial(a + b for a, b in zip(first, second, strict=True))
    a, b = _sides(x), _sides(y)
    if a and b and a.degree == b.degree:
        return _simple(Sides(a.degree, a.left + b.left, a.right + b.right, a.zero + b.zero))
    for one, other in ((x, y), (y, x)):
        if isinstance(one, Polynomial) and one.number == 0:
            return other
    return None


def _product(x: Any, y: Any) -> Form | None:
    if isinstance(x, Polynomial) and isinstance(y, Polynomial):
        c = [0.0] * (len(x.c) + len(y.c) - 1)
        for i, p in enumerate(x.c):
            for j, q in enumerate(y.c):
                c[i + j] += p * q
        return _polynomial(c)
    a, b = _sides(x), _sides(y)
    if a and b and a.degree + b.degree <= DEGREE:
        # A jump at 0 times a power that vanishes there has no jump left.
        return _simple(Sides(a.degree + b.degree, a.left * b.left, a.right * b.right, a.zero * b.zero))
    for one, other in ((x, y), (y, x)):
        factor = one.number if isinstance(one, Polynomial) else None
        if factor is not None and isinstance(other, (Wave, Exponential, Bell, Scaled)):
            return replace(other, a=other.a * factor) if factor else Polynomial((0.0,))
    return None


def _power(x: Any, n: int) -> Form | None:
    answer = x
    for _ in range(n - 1):
        answer = _product(answer, x)
    return answer


def _where(condition: Any, x: Any, y: Any) -> Form | None:
    c, a, b = _sides(condition), _sides(x), _sides(y)
    zero = Polynomial((0.0,))
    if a and x == zero and b:
        a = Sides(b.degree, 0.0, 0.0)
    if b and y == zero and a:
        b = Sides(a.degree, 0.0, 0.0)
    if c is None or c.degree or a is None or b is None or a.degree != b.degree:
        return None
    left, right, at_zero = (getattr(a if getattr(c, s) else b, s) for s in ("left", "right", "zero"))
    return _simple(Sides(a.degree, left, right, at_zero))


def _extreme(target: Any, x: Any, y: Any) -> Form | None:
    a, b = _sides(x), _sides(y)
    zero = Polynomial((0.0,))
    if a and x == zero and b:
        a = Sides(b.degree, 0.0, 0.0)
    if b and y == zero and a:
        b = Sides(a.degree, 0.0, 0.0)
    if a is None or b is None or a.degree != b.degree:
        return None
    best = min if target in (torch.minimum, torch.min, torch.fmin) else max
    return _simple(Sides(a.degree, best(a.left, b.left), best(a.right, b.right), best(a.zero, b.zero)))


def _clamped(target: Any, x: Any, rest: list[Any], kwargs: dict[str, Any]) -> Form | None:
    """clamp at 0 on one side is a relu."""
    names = ("min", "max")
    if target in (torch.clamp_min, Tensor.clamp_min, Tensor.clamp_min_):
        names = ("min", "none")
    elif target in (torch.clamp_max, Tensor.clamp_max, Tensor.clamp_max_):
        names = ("max", "none")
    bounds = {name: bound for name, bound in {**dict(zip(names, rest, strict=False)), **kwargs}.items() if bound}
    if len(bounds) != 1 or not all(isinstance(b, Polynomial) and b.number == 0 for b in bounds.values()):
        return None
    return _sides_of(x, (lambda value: max(value, 0.0)) if "min" in bounds else (lambda value: min(value, 0.0)))
