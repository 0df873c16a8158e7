"""A kernel's modes from the covariance of the data, without any kernel matrix: the Hermite eigenstructure.

For centred Gaussian data with variances γ along their principal axes, and a kernel of inner products, the modes are
near products of Hermite polynomials h_α(z) of the whitened coordinates z, with eigenvalues c_|α| Π (γᵢ/Σγ)^αᵢ: one
number c_ℓ for each level from the kernel, one variance for each axis from the data. Real data are not Gaussian; how
near this comes to them is measured, not promised.
"""

import heapq
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from math import exp, log
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..data.inputs import check_inputs, encode
from ..errors import DataError, PriorscopeWarning
from ..linalg.symmetric import decompose
from ..results import Result
from .coupling import GivenKernel, check_kernel
from .operator import OperatorSpectrum
from .spheres import ROUNDING, angular_quadrature, gegenbauer, profile

LEVELS = 8
LEAST_DIMENSION = 1.8
CENTRED = 1e-6
"""The largest share of the mean square that the data's mean may have."""


class TargetPower(NamedTuple):
    """What of E[f*²] lies in each mode, (r,), and off all of them: unbiased estimates, of which some are negative."""

    power: Float[Tensor, " r"]
    off: float


@dataclass(frozen=True, eq=False)
class HermiteModes(Result):
    """Products of Hermite polynomials of whitened data, with their predicted operator eigenvalues.

    Args:
        values: (r,), operator eigenvalues, descending.
        factors: (p, L), the axes of each product, one for each factor, −1 where there are fewer: (0, 0, 3) is
            h₂(z₀) h₁(z₃).
        levels: (L + 1,), c_ℓ.
        variances: (q,), γ, descending. axes: (d, q), the principal axes.
        trace: the kernel at coinciding points of the data's mean square length.
        mixing: (p, r), each mode as a combination of the p products; None where it is a product itself.
    """

    values: Float[Tensor, " r"]
    factors: Int[Tensor, "p L"]
    levels: Float[Tensor, " l"]
    variances: Float[Tensor, " q"]
    axes: Float[Tensor, "d q"]
    trace: float
    mixing: Float[Tensor, "p r"] | None = None

    @property
    def effective_dimension(self) -> float:
        """(Σγ)²/Σγ²: the eigenvalues are exact for many even dimensions, and err by about one over this number."""
        return float(self.variances.sum().square() / self.variances.square().sum())

    @property
    def spectrum(self) -> OperatorSpectrum:
        """The operator's spectrum; what the listed modes leave of the trace is its `rest`."""
        return OperatorSpectrum(self.values, torch.ones_like(self.values), self.trace)

    def features(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n r"]:
        """The modes at points x. Products h_α(z) are orthonormal under Gaussian data of this covariance."""
        z = x.to(torch.float64) @ self.axes / self.variances.sqrt()
        table = [torch.ones_like(z), z]
        for j in range(2, self.factors.shape[1] + 1):
            table.append((z * table[-1] - (j - 1) ** 0.5 * table[-2]) / j**0.5)
        columns = torch.ones(len(z), len(self.factors), dtype=torch.float64)
        for i, axes in enumerate(self.factors.tolist()):
            used = [axis for axis in axes if axis >= 0]
            for axis in set(used):
                columns[:, i] *= table[used.count(axis)][:, axis]
        return columns if self.mixing is None else columns @ self.mixing

    def adapted(self, x: Float[Tensor, "n d"]) -> "HermiteModes":
        """These modes as data have them that are not Gaussian: the modes of Σ λ_α h_α(x) h_α(x') on the points x.

        With H the (n, p) values of the products, they diagonalise Λ^½ (HᵀH/n) Λ^½, a (p, p) matrix of moments; for
        Gaussian data that is Λ already. The largest modes move most where classes are clusters.

        Args:
            x: n > p points.
        """
        if self.mixing is not None:
            raise DataError("these modes", "are adapted to data already", "Adapt those of hermite_modes")
        _check_enough(x, len(self.values))
        scaled = self.features(x) * self.values.sqrt()
        eigen = decompose(scaled.T @ scaled / len(x))
        kept = slice(eigen.rank)
        mixing = self.values.sqrt()[:, None] * eigen.vectors[:, kept] / eigen.values[kept].sqrt()
        return replace(self, values=eigen.values[kept], mixing=mixing)

    def power(self, x: Float[Tensor, "n d"], y: Tensor) -> TargetPower:
        """The target's power in each mode, estimated from n points; several outputs: the mean over them.

        The modes are made orthogonal on the points in their order (real data are not Gaussian). By chance each
        direction of n points holds 1/n of what the modes leave over: that much is taken off each, and counted as off.

        Args:
            x: n > r points. y: (n,) or (n, o), or integer classes (n,).
        """
        values = encode(y, len(x)).values
        n, r = len(x), len(self.values)
        _check_enough(x, r)
        columns = self.features(x)
        steps = torch.linalg.qr(columns, mode="r").R.diagonal().abs()
        new = steps > 1e-8 * columns.norm(dim=0)
        basis = torch.linalg.qr(columns[:, new]).Q
        raw = (basis.T @ values).square().mean(1) / n
        chance = max(0.0, float(values.square().mean() - raw.sum())) / (n - len(raw))
        power = torch.zeros(r, dtype=torch.float64)
        power[new] = raw - chance
        return TargetPower(power, chance * n)


def hermite_modes(kernel: GivenKernel, x: Float[Tensor, "n d"], count: int, levels: int = LEVELS) -> HermiteModes:
    """The largest modes that a kernel of inner products has on data of this covariance, without its matrix.

    λ_α = c_|α| Π (γᵢ/Σγ)^αᵢ, c_ℓ = D^ℓ E_t[κ(t) P_ℓ(t)], t the cosine of two random directions in D = (Σγ)²/Σγ²
    dimensions, P_ℓ Gegenbauer's polynomial for these, κ(t) the kernel at that cosine, both points of length √Σγ. As D
    grows, c_ℓ tends to the derivative κ^(ℓ)(0); on the even sphere of R^D the λ are exact at any D.

    Args:
        kernel: one that depends on inner products (and perhaps lengths) of points (n, d) alone.
        x: data, (n, d), centred; they are best of about one length.
        count: how many modes.
        levels: the highest degree of a product.

    Raises:
        DataError: data that are not centred; a kernel whose values change when both points are turned alike.

    Warns:
        PriorscopeWarning: data of an effective dimension well below 2, where the eigenvalues are not near.

    Source: Karkada, Turnbull, Liu and Simon 2025 (2510.14878), where c_ℓ = κ^(ℓ)(0); that in D dimensions is ours.

    >>> from priorscope.kernels import Linear
    >>> x = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 2.0, 1.0])
    >>> modes = hermite_modes(Linear(), x.double() - x.double().mean(0), count=3)
    >>> bool(torch.allclose(modes.values, modes.variances))  # a linear kernel's modes are the principal axes
    True
    """
    kernel = check_kernel(kernel, "hermite_modes")
    check_inputs(x)
    if x.ndim != 2 or x.shape[1] < 2 or count < 1 or levels < 1:
        cause = f"has shape {tuple(x.shape)}; {count} modes of {levels} levels are asked"
        raise DataError("x", cause, "Give vectors (n, d) with d ≥ 2, and at least 1 of both")
    points = x.detach().to(torch.float64)
    square = float(points.square().sum(1).mean())
    if float(points.mean(0).square().sum()) > CENTRED * square or square == 0:
        raise DataError("x", "is not centred", "Give x - x.mean(0)")
    gamma, axes = torch.linalg.eigh(points.T @ points / len(points))
    gamma, axes = gamma.flip(0), axes.flip(1)
    kept = gamma > 1e-12 * gamma[0]
    gamma, axes = gamma[kept], axes[:, kept]
    dimension = float(gamma.sum().square() / gamma.square().sum())
    if dimension < LEAST_DIMENSION:
        warnings.warn(
            f"hermite_modes: the effective dimension (Σγ)²/Σγ² is {dimension:.3g}, one direction holds nearly all "
            "variance. Eigenvalues may be off by several times, and sum to more than the trace: take .adapted(x), or "
            "eigenmodes on data.",
            PriorscopeWarning,
            stacklevel=2,
        )
    dimension, radius = max(2.0, dimension), square**0.5
    angles, weights = angular_quadrature(dimension)
    kappa = profile(kernel, x.shape[1], angles, radius)
    trace = float(profile(kernel, x.shape[1], torch.zeros(1, dtype=torch.float64), radius)[0])
    masses = gegenbauer(levels + 1, dimension, angles.cos()) @ (weights * kappa)
    # Rounding is not to become a level of its own, times D^ℓ.
    masses = torch.where(masses > ROUNDING * trace, masses, torch.zeros_like(masses))
    coefficients = masses * dimension ** torch.arange(levels + 1, dtype=torch.float64)
    found = list(islice(_largest(coefficients.tolist(), (gamma / gamma.sum()).tolist()), count))
    factors = torch.tensor([[*product, *[-1] * (levels - len(product))] for _, product in found])
    values = torch.tensor([value for value, _ in found], dtype=torch.float64)
    return HermiteModes(values, factors, coefficients, gamma, axes, trace)


def _check_enough(x: Tensor, modes: int) -> None:
    if len(x) <= modes:
        raise DataError("x", f"has {len(x)} points for {modes} modes", "Give more points, or ask for fewer modes")


def _largest(coefficients: list[float], shares: list[float]) -> Iterator[tuple[float, tuple[int, ...]]]:
    """(λ, factors) of all products, largest first; each level comes in its order, and the levels are merged."""
    streams = [_level(c, shares, degree) for degree, c in enumerate(coefficients) if c > 0]
    return heapq.merge(*streams, key=lambda one: -one[0])


def _level(coefficient: float, shares: list[float], degree: int) -> Iterator[tuple[float, tuple[int, ...]]]:
    """The products of one degree, largest first: from each, the next are those with one factor moved one axis on."""
    logs = [log(share) for share in shares]
    first = (0,) * degree
    heap, seen = [(-degree * logs[0], first)], {first}
    while heap:
        size, product = heapq.heappop(heap)
        yield coefficient * exp(-size), product
        for i, axis in enumerate(product):
            last = i == degree - 1
            if axis + 1 == len(shares) or (not last and axis + 1 > product[i + 1]):
                continue
            moved = (*product[:i], axis + 1, *product[i + 1 :])
            if moved not in seen:
                seen.add(moved)
                heapq.heappush(heap, (size + logs[axis] - logs[axis + 1], moved))
