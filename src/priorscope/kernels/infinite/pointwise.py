"""The table of pointwise operations: which torch functions and modules they are, and where each of them is not smooth.

An operation's `switches` are values, computed from its arguments, at whose changes of sign it has a kink or a jump;
its `nonzero` values must keep away from 0 (divisors, arguments of roots and logarithms).
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .moments import Refused
from .registry import is_changed

Values = Callable[..., list[Any]]


def _none(*args: Any, **kwargs: Any) -> list[Any]:
    return []


@dataclass(frozen=True)
class Pointwise:
    """switches, nonzero: of the arguments (and of the module before them). apply: what to call on scalars instead."""

    switches: Values = _none
    nonzero: Values = _none
    apply: Callable[..., Any] | None = None


def _cast(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    # Truth values become numbers; numbers keep the precision in which they are integrated.
    wanted = [a for a in (*args, *kwargs.values()) if isinstance(a, torch.dtype)]
    if x.is_floating_point() and any(not dtype.is_floating_point for dtype in wanted):
        raise Refused("rounds values to whole numbers or truth values, which has no derivative", "Use EmpiricalNTK")
    return x if x.is_floating_point() else x.to(torch.get_default_dtype())


def _heaviside(x: Tensor, values: Any) -> Tensor:
    one = torch.ones_like(x)
    return torch.where(x > 0, one, torch.where(x < 0, 0 * one, values * one))


def _at(*points: float) -> Values:
    return lambda x, *args, **kwargs: [x - point for point in points]


def _clamp(x: Any, min: Any = None, max: Any = None) -> list[Any]:
    return [x - bound for bound in (min, max) if bound is not None]


def _difference(x: Any, other: Any, **kwargs: Any) -> list[Any]:
    return [x - other]


def _argument(x: Any, *args: Any, **kwargs: Any) -> list[Any]:
    return [x]


def _divisor(x: Any, other: Any) -> list[Any]:
    return [other]


def _exponent(x: Any, exponent: Any) -> list[Any]:
    whole = isinstance(exponent, (int, float)) and exponent >= 0 and float(exponent).is_integer()
    return [] if whole else [x]


ADD = (torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__radd__, Tensor.__iadd__, operator.add)
SUBTRACT = (torch.sub, torch.subtract, Tensor.sub, Tensor.sub_, Tensor.subtract, Tensor.__sub__, Tensor.__isub__)
REVERSED = (torch.rsub, Tensor.__rsub__)
MULTIPLY = (
    *(torch.mul, torch.multiply, Tensor.mul, Tensor.mul_, Tensor.multiply, Tensor.__mul__, Tensor.__rmul__),
    Tensor.__imul__,
)
DIVIDE = (
    *(torch.div, torch.divide, torch.true_divide, Tensor.div, Tensor.div_, Tensor.divide, Tensor.__truediv__),
    Tensor.__itruediv__,
)
NEGATE = (torch.neg, torch.negative, Tensor.neg, Tensor.neg_, Tensor.negative, Tensor.__neg__)
SAME = (torch.clone, Tensor.clone, Tensor.contiguous, torch.positive, Tensor.positive, Tensor.__pos__)
POWER = (torch.pow, Tensor.pow, Tensor.pow_, Tensor.__pow__, Tensor.__ipow__)
SQUARE = (torch.square, Tensor.square, Tensor.square_)
CAST = (Tensor.float, Tensor.double, Tensor.half, Tensor.bfloat16, Tensor.to, Tensor.type_as)
RELU = (F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_)
ABSOLUTE = (torch.abs, Tensor.abs, Tensor.abs_, Tensor.__abs__, torch.absolute, Tensor.absolute)
SIGN = (torch.sign, Tensor.sign, Tensor.sign_, torch.sgn, Tensor.sgn)
STEP = (torch.heaviside, Tensor.heaviside)
COMPARE = (
    *(torch.gt, Tensor.gt, Tensor.__gt__, torch.greater, torch.ge, Tensor.ge, Tensor.__ge__, torch.greater_equal),
    *(torch.lt, Tensor.lt, Tensor.__lt__, torch.less, torch.le, Tensor.le, Tensor.__le__, torch.less_equal),
)
LARGER = (torch.maximum, torch.minimum, torch.max, torch.min, torch.fmax, torch.fmin)
CLAMP = (torch.clamp, Tensor.clamp, Tensor.clamp_, torch.clip, Tensor.clip)
CLAMP_ONE = (torch.clamp_min, Tensor.clamp_min, Tensor.clamp_min_, torch.clamp_max, Tensor.clamp_max, Tensor.clamp_max_)
WHERE = (torch.where, Tensor.where)
SINE = (torch.sin, Tensor.sin, Tensor.sin_)
COSINE = (torch.cos, Tensor.cos, Tensor.cos_)
EXPONENTIAL = (torch.exp, Tensor.exp, Tensor.exp_)
ERF = (torch.erf, Tensor.erf, Tensor.erf_, torch.special.erf)
LIKE = (torch.zeros_like, torch.ones_like, torch.full_like)
CONSTANTS = (torch.tensor, torch.as_tensor, torch.scalar_tensor, torch.zeros, torch.ones, torch.full)
SMOOTH = (
    *(torch.tanh, F.tanh, Tensor.tanh, Tensor.tanh_, torch.tanh_, torch.sigmoid, F.sigmoid, Tensor.sigmoid),
    *(Tensor.sigmoid_, torch.sigmoid_, torch.special.expit, F.silu, F.mish, F.gelu, F.logsigmoid, F.tanhshrink),
    *(torch.erfc, Tensor.erfc, torch.special.erfc, torch.expm1, Tensor.expm1, torch.exp2, Tensor.exp2),
    *(torch.atan, Tensor.atan, torch.arctan, torch.sinh, Tensor.sinh, torch.cosh, Tensor.cosh),
    *(torch.asinh, Tensor.asinh, torch.arcsinh, torch.special.ndtr, torch.logaddexp),
)
AWAY_FROM_ZERO = (
    *(torch.sqrt, Tensor.sqrt, torch.rsqrt, Tensor.rsqrt, torch.log, Tensor.log, torch.log2, torch.log10),
    *(torch.reciprocal, Tensor.reciprocal),
)

FUNCTIONS: dict[Any, Pointwise] = {
    **dict.fromkeys(
        (*ADD, *SUBTRACT, *REVERSED, *MULTIPLY, *NEGATE, *SAME, *SQUARE, *SINE, *COSINE, *EXPONENTIAL), Pointwise()
    ),
    **dict.fromkeys((*ERF, *LIKE, *SMOOTH), Pointwise()),
    **dict.fromkeys(DIVIDE, Pointwise(nonzero=_divisor)),
    **dict.fromkeys((Tensor.__rtruediv__, Tensor.__rdiv__), Pointwise(nonzero=_argument)),
    **dict.fromkeys(AWAY_FROM_ZERO, Pointwise(nonzero=_argument)),
    **dict.fromkeys((torch.log1p, Tensor.log1p), Pointwise(nonzero=lambda x: [1 + x])),
    **dict.fromkeys(POWER, Pointwise(nonzero=_exponent)),
    **dict.fromkeys(CAST, Pointwise(apply=_cast)),
    **dict.fromkeys((*RELU, *ABSOLUTE, *SIGN), Pointwise(_at(0.0))),
    **dict.fromkeys(STEP, Pointwise(_at(0.0), apply=_heaviside)),
    **dict.fromkeys((F.leaky_relu, F.leaky_relu_), Pointwise(_at(0.0))),
    **dict.fromkeys((F.elu, F.elu_, F.selu, F.celu, F.softsign, torch.selu, torch.celu), Pointwise(_at(0.0))),
    **dict.fromkeys((*COMPARE, *LARGER), Pointwise(_difference)),
    **dict.fromkeys((*CLAMP, *CLAMP_ONE), Pointwise(_clamp)),
    **dict.fromkeys((torch.clamp_max, Tensor.clamp_max, Tensor.clamp_max_), Pointwise(lambda x, max: [x - max])),
    **dict.fromkeys(WHERE, Pointwise()),
    F.relu6: Pointwise(_at(0.0, 6.0)),
    F.hardsigmoid: Pointwise(_at(-3.0, 3.0)),
    F.hardswish: Pointwise(_at(-3.0, 3.0)),
    F.hardtanh: Pointwise(lambda x, min_val=-1.0, max_val=1.0, inplace=False: [x - min_val, x - max_val]),
    F.softshrink: Pointwise(lambda x, lambd=0.5: [x - lambd, x + lambd]),
    F.hardshrink: Pointwise(lambda x, lambd=0.5: [x - lambd, x + lambd]),
    F.threshold: Pointwise(lambda x, threshold, value, inplace=False: [x - threshold]),
    F.softplus: Pointwise(lambda x, beta=1.0, threshold=20.0: [beta * x - threshold]),
}

MODULES: dict[type, Pointwise] = {
    **dict.fromkeys((nn.Identity, nn.Tanh, nn.Sigmoid, nn.SiLU, nn.Mish, nn.GELU, nn.LogSigmoid), Pointwise()),
    nn.Tanhshrink: Pointwise(),
    **dict.fromkeys((nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.Softsign), Pointwise(lambda m, x: [x])),
    nn.ReLU6: Pointwise(lambda m, x: [x, x - 6]),
    nn.Hardtanh: Pointwise(lambda m, x: [x - m.min_val, x - m.max_val]),
    nn.Hardsigmoid: Pointwise(lambda m, x: [x + 3, x - 3]),
    nn.Hardswish: Pointwise(lambda m, x: [x + 3, x - 3]),
    nn.Softshrink: Pointwise(lambda m, x: [x - m.lambd, x + m.lambd]),
    nn.Hardshrink: Pointwise(lambda m, x: [x - m.lambd, x + m.lambd]),
    nn.Threshold: Pointwise(lambda m, x: [x - m.threshold]),
    nn.Softplus: Pointwise(lambda m, x: [m.beta * x - m.threshold]),
    nn.Dropout: Pointwise(apply=lambda m, x: x),
}


def pointwise(target: Any) -> Pointwise | None:
    """The table's row of a module or a torch function; None where it is no pointwise function of its arguments."""
    if not isinstance(target, nn.Module):
        return FUNCTIONS.get(target)
    if is_changed(target) or (isinstance(target, nn.Dropout) and target.training and target.p > 0):
        return None
    for kind in type(target).__mro__:
        if kind in MODULES:
            own: Any = type(target).forward
            return MODULES[kind] if own is getattr(kind, "forward", None) else None
    return None
