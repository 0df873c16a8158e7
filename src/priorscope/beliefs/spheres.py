"""Spectra in closed form: kernels of the inner product on spheres (the circle is one) and on the Boolean cube.

Whatever rotates the sphere, or permutes and flips the cube's coordinates, commutes with such a kernel, so its modes
are known beforehand: spherical harmonics, and parities of subsets. Their eigenvalues are one-dimensional integrals.
"""

from math import comb, pi

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import DataError
from ..kernels.kernel import Kernel
from .coupling import GivenKernel, check_kernel
from .operator import OperatorSpectrum

NODES = 1024
"""Of the quadrature over angles; kernels of networks are smooth in the angle up to both ends."""
ROUNDING = 1e-13
"""Relative to E|κ|: what the rounding of a kernel's values and of the quadrature leaves of an eigenvalue 0."""
LARGEST_CUBE = 1000
"""Beyond, the number of points is no float64."""
INVARIANT = 1e-8
"""Relative: how far a kernel's values may move when both points are turned alike."""


def sphere_spectrum(kernel: GivenKernel, dimension: int, degrees: int, radius: float = 1.0) -> OperatorSpectrum:
    """The operator's eigenvalues on the sphere of R^d, uniform density, by degree of the spherical harmonics.

    λ_k = E_t[κ(t) P_k(t)], P_k the Gegenbauer polynomial with P_k(1) = 1 and t = cos θ of density ∝ sin^(d−2) θ dθ
    (Funk and Hecke). On the circle, d = 2: λ_k = (1/π) ∫ κ(cos θ) cos kθ dθ over a half turn, the constant once, all
    others twice.

    Args:
        kernel: one that depends on inner products of points (n, d) alone.
        dimension: d ≥ 2, of the space around the sphere.
        degrees: eigenvalues of degree 0 to degrees − 1.
        radius: of the sphere.

    Returns:
        The eigenvalues by degree, (degrees,), with the number of harmonics of each. An eigenvalue under 1e-13 E|κ|
        cannot be told from zero in float64, and is 0; many such modes together are in `rest`.

    Raises:
        DataError: degrees with more harmonics than a float64 holds; a kernel whose values change when both points
            are turned alike.

    Source: Bach 2017 (1412.8690), appendix D; Bietti and Mairal 2019 (1905.12173).

    A linear kernel has its three modes of degree 1 alone, of eigenvalue 1/d:

    >>> from priorscope.kernels import Linear
    >>> [round(v, 12) for v in sphere_spectrum(Linear(), dimension=3, degrees=3).values.tolist()]
    [0.0, 0.333333333333, 0.0]
    """
    kernel = check_kernel(kernel, "sphere_spectrum")
    if dimension < 2 or not 1 <= degrees <= NODES // 2:
        cause = f"was given dimension {dimension}, {degrees} degrees"
        raise DataError("the sphere", cause, f"Give a dimension of at least 2, and 1 to {NODES // 2} degrees")
    counts = torch.tensor([harmonics(dimension, k) for k in range(degrees)], dtype=torch.float64)
    angles, weights = angular_quadrature(dimension)
    values = profile(kernel, dimension, angles, radius)
    table = gegenbauer(degrees, dimension, angles.cos())
    eigen = _without_rounding(table @ (weights * values), weights, values)
    top = float(profile(kernel, dimension, torch.zeros(1, dtype=torch.float64), radius)[0])
    return OperatorSpectrum(eigen, counts, top)


def cube_spectrum(kernel: GivenKernel, dimension: int) -> OperatorSpectrum:
    """The operator's eigenvalues on the Boolean cube {±1}^d, uniform, by degree of the parities; no quadrature.

    λ_k = 2^(−d) Σ_j C(d, j) κ(1 − 2j/d) K_j(k)/C(d, j), with Krawtchouk's K_j(k) = Σ_i (−1)^i C(k, i) C(d−k, j−i):
    the mean of κ(x, x') times the parity of any k coordinates in which x and x' differ. C(d, k) modes each.

    Args:
        kernel: one that depends on inner products of points (n, d) alone.
        dimension: d, 1 to 1000.

    Returns:
        The eigenvalues by degree, (d + 1,), each with C(d, k) modes; the population is 2^d. An eigenvalue under
        1e-13 E|κ| cannot be told from zero in float64, and is 0; many such modes together are in `rest`.

    Raises:
        DataError: a kernel whose values change when both points are turned alike.

    Source: O'Donnell 2014, chapter 1 (parities); Yang and Salman 2019 (1907.10599).

    >>> from priorscope.kernels import Linear
    >>> cube_spectrum(Linear(), dimension=3).values.tolist()
    [0.0, 1.0, 0.0, 0.0]
    """
    kernel = check_kernel(kernel, "cube_spectrum")
    if not 1 <= dimension <= LARGEST_CUBE:
        raise DataError("the cube", f"was given dimension {dimension}", f"Give 1 to {LARGEST_CUBE}")
    d, flips = dimension, range(dimension + 1)
    values = _cube_profile(kernel, d)
    weights = torch.tensor([comb(d, j) / 2**d for j in flips], dtype=torch.float64)
    # Whole numbers first: only their ratio to the number of pairs at that distance is rounded.
    rows = [[value / comb(d, j) for j, value in enumerate(krawtchouk(d, k))] for k in flips]
    table = torch.tensor(rows, dtype=torch.float64)
    eigen = _without_rounding(table @ (weights * values), weights, values)
    counts = torch.tensor([float(comb(d, k)) for k in flips], dtype=torch.float64)
    return OperatorSpectrum(eigen, counts, float(values[0]), population=2**d)


def krawtchouk(d: int, k: int) -> list[int]:
    """K_j(k), j = 0 … d: the sum of the parity of k given coordinates over all points with j of d coordinates flipped.

    (j + 1) K_{j+1} = (d − 2k) K_j − (d − j + 1) K_{j−1}, in whole numbers.
    """
    found = [1, d - 2 * k]
    for j in range(1, d):
        found.append(((d - 2 * k) * found[j] - (d - j + 1) * found[j - 1]) // (j + 1))
    return found


def harmonics(d: int, k: int) -> float:
    """The number of spherical harmonics of degree k on the sphere of R^d."""
    try:
        return float(comb(d + k - 1, k) - (comb(d + k - 3, k - 2) if k >= 2 else 0))
    except OverflowError:
        cause = f"of R^{d} has more harmonics of degree {k} than a float64 holds"
        raise DataError("the sphere", cause, "Ask for fewer degrees") from None


def angular_quadrature(dimension: float) -> tuple[Float[Tensor, " q"], Float[Tensor, " q"]]:
    """Angles θ, and weights of the law of the angle between random unit vectors, ∝ sin^(d−2) θ; d may be any ≥ 2."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    angles = (torch.from_numpy(nodes) + 1) * (pi / 2)
    density = torch.from_numpy(weights) * angles.sin() ** (dimension - 2)
    return angles, density / density.sum()


def gegenbauer(degrees: int, dimension: float, t: Float[Tensor, " q"]) -> Float[Tensor, "k q"]:
    """The polynomials of degree 0 to degrees − 1 that are orthogonal under that law, 1 at t = 1.

    (k + d − 2) P_{k+1} = (2k + d − 2) t P_k − k P_{k−1}: normalised so, none grows beyond 1.
    """
    found = [torch.ones_like(t), t]
    for k in range(1, degrees - 1):
        found.append(((2 * k + dimension - 2) * t * found[k] - k * found[k - 1]) / (k + dimension - 2))
    return torch.stack(found[:degrees])


def profile(kernel: Kernel, dimension: int, angles: Float[Tensor, " q"], radius: float = 1.0) -> Float[Tensor, " q"]:
    """κ at two points of that radius, at each angle, from the kernel's own values; checks that the angle decides."""
    first = torch.zeros(1, dimension, dtype=torch.float64)
    others = torch.zeros(len(angles), dimension, dtype=torch.float64)
    first[0, 0], others[:, 0], others[:, 1] = 1.0, angles.cos(), angles.sin()
    generator = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(dimension, dimension, generator=generator, dtype=torch.float64)).Q
    values = _row(kernel, radius * others, radius * first)
    few = slice(None, None, max(1, len(angles) // 8))
    _check_invariant(values[few], _row(kernel, radius * others[few] @ turn, radius * first @ turn))
    return values


def _cube_profile(kernel: Kernel, d: int) -> Float[Tensor, " j"]:
    first = torch.ones(1, d, dtype=torch.float64)
    flipped = torch.ones(d + 1, d, dtype=torch.float64)
    for j in range(d + 1):
        flipped[j, :j] = -1
    values = _row(kernel, flipped, first)
    generator = torch.Generator().manual_seed(0)
    sign = 1 - 2.0 * torch.randint(2, (d,), generator=generator).to(torch.float64)
    for order in (torch.arange(d).flip(0), torch.randperm(d, generator=generator)):
        _check_invariant(values, _row(kernel, (flipped * sign)[:, order], (first * sign)[:, order]))
    return values


def _row(kernel: Kernel, points: Tensor, first: Tensor) -> Tensor:
    return kernel(points, first)[:, 0].detach().to(torch.float64)


def _check_invariant(values: Tensor, turned: Tensor) -> None:
    gap = float((values - turned).abs().max())
    if gap > INVARIANT * float(values.abs().max()):
        cause = f"changes by {gap:.2g} when both points are turned alike, so it is no function of the inner product"
        raise DataError("the kernel", cause, "Give one of a fully connected network, or use eigenmodes on data")


def _without_rounding(eigen: Tensor, weights: Tensor, values: Tensor) -> Tensor:
    """Eigenvalues, those that are no more than what rounding leaves of zero set to 0; negative ones raise."""
    rounding = ROUNDING * float((weights * values.abs()).sum())
    if float(eigen.min()) < -1e2 * rounding:
        cause = f"has an operator eigenvalue of {float(eigen.min()):.3g}"
        raise DataError("the kernel", cause, "Give a positive semi-definite kernel")
    return torch.where(eigen > rounding, eigen, torch.zeros_like(eigen))
