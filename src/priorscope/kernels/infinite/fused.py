"""A fused scalar function as an entry of the registry: closed form where it is recognised, else quadrature."""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .duals.closed import erf, gelu
from .duals.exponential import exponential, gaussian, wave
from .duals.homogeneous import jump, powers
from .duals.kinked import by_panels
from .duals.piecewise import absolute_value, two_pieces
from .duals.polynomial import polynomial
from .duals.smooth import by_series
from .forms import Bell, Exponential, Form, Polynomial, Scaled, Sides, Wave, recognised
from .fusion import Fused
from .moments import Moments, Refused, merged
from .registry import Dual, Expectations, Rule

WANTS = ("gap", "deviation")
SOURCES = {
    Polynomial: "Mehler's formula; Daniely et al. 2016 (1602.05897)",
    Sides: "Cho and Saul 2009",
    Wave: "E[exp(i(u ± v))]; Rahimi and Recht 2007",
    Exponential: "the moment-generating function",
    Bell: "the Gaussian integral",
}


@lru_cache(maxsize=64)
def entry(fused: Fused) -> Dual | Rule:
    """The dual of a fused function; of a straight line, the rule, which needs no Gaussian."""
    fused(torch.zeros(1, dtype=torch.float64))  # where a cast to whole numbers says no
    form = recognised(fused)
    if isinstance(form, Polynomial) and len(form.c) <= 2:
        return _line(form.c[0], form.c[1] if len(form.c) == 2 else 0.0)
    if form is None:
        return Dual(_by_quadrature(fused), fused.name, "Gauss-Legendre, Hermite series", WANTS, (), fused.is_odd, fused)
    source = SOURCES.get(type(form), "Williams 1997; Tsuchida et al. 2020 (2002.08517)")
    return Dual(_closed(form, fused), fused.name, source, WANTS, (), fused.is_odd, fused)


def _line(shift: float, factor: float) -> Rule:
    def line(call: Any, m: Moments, init: Any) -> Moments:
        after = m.scaled(factor)
        if shift == 0:
            return after
        if not m.mean_zero:
            raise Refused(
                "adds a constant to values whose mean is not zero, which has no rule",
                "Add it before the activation, or use EmpiricalNTK",
            )
        return after.replace(
            gains=merged(after.gains),
            nngp=after.nngp + shift**2,
            v1=after.v1 + shift**2,
            v2=after.v2 + shift**2,
            deviation=None,
            gaussian=False,
            mean_zero=False,
        )

    return Rule(line, "multiple" if shift == 0 else "multiple and shift", "bilinearity")


def _closed(form: Form, fused: Fused) -> Callable[..., Expectations]:
    if isinstance(form, Scaled):
        inner = erf if form.function is torch.erf else gelu

        def scaled(k: Any, v1: Any, v2: Any, gap: Any, deviation: Any) -> Expectations:
            return _times(
                form.a,
                form.b,
                inner(*(None if part is None else form.b**2 * part for part in (k, v1, v2, gap, deviation))),
            )

        return scaled
    if isinstance(form, Sides):
        return _of_sides(form, fused.slope_at_zero if form.degree == 1 else 0.0)

    def closed(k: Any, v1: Any, v2: Any, gap: Any, deviation: Any) -> Expectations:
        if isinstance(form, Polynomial):
            return polynomial(k, v1, v2, gap, form.c)
        if isinstance(form, Wave):
            return wave(k, v1, v2, gap, deviation, form.a, form.b, form.c)
        if isinstance(form, Exponential):
            return exponential(k, v1, v2, gap, form.a, form.b)
        return gaussian(k, v1, v2, gap, deviation, form.a, form.b)

    return closed


def _of_sides(form: Sides, slope_at_zero: float) -> Callable[..., Expectations]:
    left, right = form.left, form.right

    def sides(k: Any, v1: Any, v2: Any, gap: Any, deviation: Any) -> Expectations:
        if form.degree == 0:
            return jump(k, v1, v2, gap, deviation, left, right, form.zero)
        if form.degree > 1:
            return powers(k, v1, v2, gap, deviation, left, right, form.degree)
        if left == right:
            return _times(right, 1.0, absolute_value(k, v1, v2, gap, deviation))
        return two_pieces(k, v1, v2, gap, deviation, -left, right, slope_at_zero)

    return sides


def _times(a: float, b: float, inner: Expectations) -> Expectations:
    """Moments of a·ψ(b·x) from those of ψ at variances b²v."""
    gap = None if inner.gap is None else a * a * inner.gap
    deviation = None if inner.deviation is None else a * a * inner.deviation
    return Expectations(a * a * inner.nngp, (a * b) ** 2 * inner.derivative, gap, deviation=deviation)


def _by_quadrature(fused: Fused) -> Callable[..., Expectations]:
    found: dict[float, list[float]] = {}

    def integrated(k: Tensor, v1: Tensor, v2: Tensor, gap: Tensor, deviation: Any) -> Expectations:
        largest = float(torch.maximum(v1.detach().max(), v2.detach().max()))
        # Those of a somewhat larger variance serve all tiles of a matrix.
        bound = 2.0 ** math.ceil(math.log2(max(largest, 1e-12))) if math.isfinite(largest) else largest
        if bound not in found:
            found[bound] = fused.kinks(bound)
        kinks = found[bound]
        if not kinks:
            try:
                return by_series(fused, k, v1, v2, gap)
            except Refused:
                # A steep function has too many terms; panels follow it, where they can.
                return by_panels(fused, [0.0], k, v1, v2, gap)
        return by_panels(fused, kinks, k, v1, v2, gap)

    return integrated
