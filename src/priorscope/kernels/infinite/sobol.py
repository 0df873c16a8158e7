"""Expectations of functions of several independent Gaussian values by scrambled Sobol sequences, with their error."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from .fusion import Fused
from .moments import Moments, Refused, root

POINTS = 2**12
SCRAMBLES = 8
"""Independent scrambles of one Sobol sequence: the spread of their means says how exact the mean of all is."""
DEVIATIONS = 4
"""The error that is stated, in standard errors of the mean over scrambles."""
LARGEST_ERROR = 0.1
"""Beyond it the moments may not even exist."""
NUMBERS_AT_ONCE = 2**18


class Sobol:
    """Of one function of m values: its powers at single points, and what is between pairs of points.

    Between pairs come squared differences, E[φφ'] = (E[φ²] + E[φ'²] − E[(φ − φ')²])/2, so that nearly equal points
    keep their digits. `error`: the largest of 4 standard errors so far, relative to the largest power.

    Source: Owen 1998, scrambled nets.
    """

    def __init__(self, function: Fused):
        self.function, self.error = function, 0.0

    def powers(self, variances: list[Tensor]) -> Tensor:
        """E[φ²], and E[(∂_iφ)²] by each value: (1 + m, *points)."""
        means = []
        deviations = [root(v.double()) for v in variances]
        self.function.check_defined([float(d.max()) for d in deviations])
        for scramble in range(SCRAMBLES):
            normal = _normals(len(variances), 4 * POINTS, scramble)
            total: Any = 0
            for part in _slices(len(normal), deviations[0].numel()):
                z = normal[part].to(deviations[0].device)
                x = [d * z[(..., i, *(None,) * d.ndim)] for i, d in enumerate(deviations)]
                total = total + torch.stack([value.square().sum(0) for value in self._with_slopes(x)])
            means.append(total / len(normal))
        return self._mean(means)

    def gaps(self, roots: list[Moments], powers1: Tensor, powers2: Tensor) -> list[Tensor]:
        """(E[φ²] + E[φ'²])/2 − E[φφ'], and E[∂_iφ ∂_iφ'] by each value, between pairs."""
        first = roots[0]
        one, two, along, across = [], [], [], []
        for m in roots:
            r1, r2 = root(m.rows.double()), root(m.columns.double())
            less = m.less
            one.append(r1)
            two.append(r2)
            along.append(1 - less)
            across.append((less * (2 - less)).sqrt())
        axes = (None,) * first.nngp.ndim
        means = []
        for scramble in range(SCRAMBLES):
            normal = _normals(2 * len(roots), POINTS, scramble)
            total: Any = 0
            for part in _slices(len(normal), first.nngp.numel()):
                z = normal[part].to(first.nngp.device)
                u = [z[(..., 2 * i, *axes)] for i in range(len(roots))]
                x = [r * a for r, a in zip(one, u, strict=True)]
                y = [
                    r * (c * a + s * z[(..., 2 * i + 1, *axes)])
                    for i, (r, c, s, a) in enumerate(zip(two, along, across, u, strict=True))
                ]
                pairs = zip(self._with_slopes(x), self._with_slopes(y), strict=True)
                total = total + torch.stack([(a - b).square().sum(0) / 2 for a, b in pairs])
            means.append(total / len(normal))
        largest = torch.maximum(powers1.flatten(1).amax(1), powers2.flatten(1).amax(1))
        gap, *gaps = self._mean(means, largest)
        halves = [first.along_rows(a) / 2 + first.along_columns(b) / 2 for a, b in zip(powers1, powers2, strict=True)]
        return [gap, *(half - g for half, g in zip(halves[1:], gaps, strict=True))]

    def _with_slopes(self, x: list[Tensor]) -> tuple[Tensor, ...]:
        """φ and its derivatives by each value."""
        with torch.enable_grad():
            x = [one.detach().requires_grad_() for one in x]
            value = self.function(*x)
            found = torch.autograd.grad(value.sum(), x, allow_unused=True) if value.requires_grad else [None] * len(x)
        zero = torch.zeros_like(value)
        return value.detach(), *(zero if slope is None else slope for slope in found)

    def _mean(self, means: list[Tensor], largest: Tensor | None = None) -> Tensor:
        values = torch.stack(means)
        mean, deviation = values.mean(0), values.std(0) / math.sqrt(SCRAMBLES)
        sizes = mean.flatten(1).amax(1) if largest is None else largest
        for spread, size in zip(deviation, sizes.tolist(), strict=True):
            if size > 0:
                self.error = max(self.error, DEVIATIONS * float(spread.max()) / size)
        if not self.error <= LARGEST_ERROR:
            raise Refused(
                f"is a function of several Gaussian values that sampling does not reach: a relative error of "
                f"{self.error:.1g}",
                "Make the variances smaller, or use EmpiricalNTK",
            )
        return mean


def _normals(dimensions: int, points: int, scramble: int) -> Tensor:
    """(points, dimensions) standard normal values of low discrepancy."""
    engine = torch.quasirandom.SobolEngine(dimensions, scramble=True, seed=scramble)
    uniform = engine.draw(points, dtype=torch.float64)
    return torch.special.ndtri(uniform.clamp(2.0**-40, 1 - 2.0**-40))


def _slices(points: int, numbers: int) -> Iterable[slice]:
    size = max(1, NUMBERS_AT_ONCE // max(numbers, 1))
    return (slice(start, start + size) for start in range(0, points, size))
