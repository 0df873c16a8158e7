"""φ(z, g) = ψ(χ(z) + g) of two independent Gaussian values, ψ and χ of two straight pieces: exactly, by orthants.

ReLU behind an identity shortcut whose input is a ReLU's output, `relu(relu(z) + g)`, the block of most ResNets; leaky
ReLUs and multiples as well. Between the signs of z, of s = χ(z) + g and of both at the other
point φφ' is s s' and its slopes are constants, so that all expectations are orthants' probabilities and moments.
"""

from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import torch
from torch import Tensor

from ...linalg.orthants import Signs, TwoPoints, orthant, quadrant
from .fusion import Fused
from .moments import Moments

SIGNS = (1, -1)
FAR = 64.0
"""Beyond where slopes of χ bring s to the other side of 0."""


@dataclass(frozen=True)
class Shortcut:
    """behind, within: which roots are g and z. outer: ψ's slopes above and below 0. inner: χ's."""

    error: ClassVar[float] = 0.0
    """Of the probabilities, whose integral along a path is exact to 1e-11."""
    behind: int
    within: int
    outer: tuple[float, float]
    inner: tuple[float, float]

    def __call__(self, z: Tensor, g: Tensor) -> Tensor:
        s = torch.where(z > 0, self.inner[0] * z, self.inner[1] * z) + g
        return torch.where(s > 0, self.outer[0] * s, self.outer[1] * s)

    def powers(self, variances: list[Tensor]) -> Tensor:
        """E[φ²], and E[(∂φ)²] by each root, at single points: (3, *points)."""
        a, b = (variances[i].double() for i in (self.within, self.behind))
        found = torch.zeros(3, *a.shape, dtype=torch.float64, device=a.device)
        for i, sign in enumerate(SIGNS):
            p = self.inner[i]
            for j, side in enumerate(SIGNS):
                slope = self.outer[j] ** 2
                if slope:
                    probability, square = quadrant(a, b, p, sign, side)
                    found[0] += slope * square
                    found[1 + self.behind] += slope * probability
                    found[1 + self.within] += slope * p * p * probability
        return found

    def gaps(self, roots: list[Moments], powers1: Tensor, powers2: Tensor) -> list[Tensor]:
        """(E[φ²] + E[φ'²])/2 − E[φφ'], and E[∂φ ∂φ'] by each root, between pairs."""
        first = roots[0]
        product, *slopes = self.products(roots)
        return [(first.along_rows(powers1[0]) + first.along_columns(powers2[0])) / 2 - product, *slopes]

    def products(self, roots: list[Moments]) -> Tensor:
        """E[φφ'], and E[∂φ ∂φ'] by each root, between pairs: (3, *pairs)."""
        z, g = roots[self.within], roots[self.behind]
        points = TwoPoints(*_variances(z), *_variances(g), z.less, g.less)
        found = torch.zeros(3, *z.nngp.shape, dtype=torch.float64, device=z.nngp.device)
        for (i, sign), (k, other) in product(enumerate(SIGNS), repeat=2):
            p, q = self.inner[i], self.inner[k]
            for (j, side), (m, beyond) in product(enumerate(SIGNS), repeat=2):
                slope = self.outer[j] * self.outer[m]
                if slope:
                    probability, moment = orthant(points, p, q, Signs(sign, side, other, beyond))
                    found[0] += slope * side * beyond * moment
                    found[1 + self.behind] += slope * probability
                    found[1 + self.within] += slope * p * q * probability
        return found


def shortcut(function: Fused) -> Shortcut | None:
    """The form of a function of two roots, where it is ψ(χ(z) + g); None where it is not."""
    if len(function.roots) != 2:
        return None
    for behind, within in ((1, 0), (0, 1)):
        found = _probed(function, behind, within)
        if found is not None:
            return found
    return None


def _probed(function: Fused, behind: int, within: int) -> Shortcut | None:
    def at(z: list[float] | Tensor, g: list[float] | Tensor) -> Tensor:
        values = [torch.as_tensor(z, dtype=torch.float64), torch.as_tensor(g, dtype=torch.float64)]
        with torch.no_grad():
            return function(values[within], values[behind]) if within == 0 else function(values[1], values[0])

    up, down, far, with_z, with_minus = at([0, 0, 0, 1, -1], [1, -1, FAR, FAR, FAR]).tolist()
    below, low_z, low_minus = at([0, 1, -1], [-FAR, -FAR, -FAR]).tolist()
    outer = (up, -down)
    if outer == (0.0, 0.0):
        return None
    if abs(outer[0]) >= abs(outer[1]):
        inner = ((with_z - far) / outer[0], (far - with_minus) / outer[0])
    else:
        inner = ((low_z - below) / outer[1], (below - low_minus) / outer[1])
    found = Shortcut(behind, within, outer, inner)
    generator = torch.Generator().manual_seed(0)
    z, g = 3 * torch.randn(2, 2000, generator=generator, dtype=torch.float64)
    small = 0.1 * torch.randn(2000, generator=generator, dtype=torch.float64)
    for other in (g, small, small - torch.where(z > 0, inner[0] * z, inner[1] * z)):
        ours, theirs = found(z, other), at(z, other)
        if not bool(((ours - theirs).abs() <= 1e-11 * (1 + theirs.abs() + z.abs())).all()):
            return None
    return found


def _variances(m: Moments) -> tuple[Tensor, Tensor]:
    return m.rows.double().expand_as(m.nngp), m.columns.double().expand_as(m.nngp)
