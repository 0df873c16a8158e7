"""Which symmetry of the data a kernel has: whether a transformation commutes with it, and the modes that it explains.

A transformation is a permutation of the points, a matrix that acts on functions of them, or the user's own function of
the points (a rotation, a shift of images), whose results may lie off the data.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Complex, Float, Int
from scipy.linalg import schur
from torch import Tensor

from ..data.inputs import Inputs, check_inputs, count, leaves, loaded
from ..errors import DataError
from ..kernels.frozen import takes_kernel_on_data
from ..kernels.on_data import OnData
from ..linalg.memory import check_memory
from ..linalg.symmetric import Eigendecomposition
from ..results import Result
from .coupling import GivenKernel, check_kernel

MATCH, APART = 100.0, 100.0
"""A moved point is a point of the data where it is nearer to it than MATCH·√d roundings of the largest entry, and
APART times nearer than to any other."""


@dataclass(frozen=True, eq=False)
class Commutator(Result):
    """How nearly a transformation R of the data is a symmetry of a kernel, and how it acts on the kernel's modes.

    Args:
        norm: ‖RK − KR‖_F/‖K‖_F for a matrix or a permutation of the points; ‖K(RX, RX) − K(X, X)‖_F/‖K‖_F for a
            function of points, which is the same where R permutes the data. 0: a symmetry.
        chance: the root mean square of the same number for a random permutation in the place of R (for a matrix, a
            random rotation), in closed form; NaN for a matrix that is not orthogonal. A kernel that is nearly constant
            commutes nearly with everything: norm says little where chance is small.
        how: "permutation of the points", "matrix", or "points off the data".
        values: (r,), eigenvalues of the Gram matrix, descending.
        eigenspace: (r,), the number of the eigenspace that each mode belongs to; equal eigenvalues share one.
        kept: (r,), of each mode v, the share of ‖Rv‖² that stays in v's eigenspace: 1 where the symmetry explains it.
        size, phase: (r,), R within each eigenspace has the eigenvalues size·e^(i·phase), in ascending phase. Size 1
            everywhere for an orthogonal symmetry; a pair of phases ±θ is what makes two modes degenerate.
        parts: (n, r, 2), real and imaginary parts of `modes`.
    """

    norm: float
    chance: float
    how: str
    values: Float[Tensor, " r"]
    eigenspace: Int[Tensor, " r"]
    kept: Float[Tensor, " r"]
    size: Float[Tensor, " r"]
    phase: Float[Tensor, " r"]
    parts: Float[Tensor, "n r 2"]

    @property
    def modes(self) -> Complex[Tensor, "n r"]:
        """The symmetry's own basis of each eigenspace: R u = size·e^(i·phase) u. Of a cyclic shift, Fourier modes."""
        return torch.view_as_complex(self.parts.contiguous())


@takes_kernel_on_data
def commutator(kernel: GivenKernel, x: Inputs, R: Any) -> Commutator:
    """How nearly a transformation of the data commutes with a kernel, ‖RK − KR‖_F/‖K‖_F, and the modes it explains.

    Where RK = KR, every eigenspace of K is mapped to itself, and R's own modes (of a cyclic shift, sines and cosines)
    are eigenvectors of K. Off the data a mode is continued by K(x, X) v/λ.

    Args:
        kernel: a kernel, or `kernel.on(x)` (and then x is left out). Of coupled outputs, the trace kernel.
        x: n points.
        R: a function that takes the n points to n points of the same kind; or (n,) integers, the point that each is
            taken to; or (n, n) floating, a matrix that acts on functions of the points.

    Returns:
        A `Commutator`.

    Raises:
        DataError: an R of another shape, integers that are no permutation, a kernel that is 0 on x.

    A circle, and a rotation by one of its eight even points:

    >>> from priorscope.kernels import ArcCosine
    >>> angle = torch.arange(8, dtype=torch.float64) * math.pi / 4
    >>> circle = torch.stack([angle.cos(), angle.sin()], 1)
    >>> turned = commutator(ArcCosine(1), circle, (torch.arange(8) + 1) % 8)
    >>> turned.norm < 1e-12, bool((turned.kept > 1 - 1e-9).all())
    (True, True)
    >>> [round(float(p) / math.pi * 4) for p in turned.phase[:3]]  # the constant, and the first Fourier pair
    [0, -1, 1]
    """
    data = check_kernel(kernel, "commutator").on(x)
    gram, n = data.gram, count(data.x)
    length = float(gram.norm())
    if not length > 0:
        raise DataError("the kernel", "is 0 on all of x", "Give points where it is not")
    if callable(R):
        norm, chance, how, act = _of_function(data, R)
    else:
        norm, chance, how, act = _of_matrix(gram, _matrix(R, n).to(gram), isinstance(R, Tensor) and R.ndim == 1)
    return Commutator(norm / length, chance, how, *_by_mode(data.eigen, act))


Action = Callable[[Float[Tensor, "n d"], float], Float[Tensor, "n d"]]
"""What R does to modes (n, d) of one eigenvalue λ."""


def _of_function(data: OnData, R: Callable[[Inputs], Inputs]) -> tuple[float, float, str, Action]:
    n = count(data.x)
    moved = check_inputs(R(data.x), "R(x)")
    if count(moved) != n:
        raise DataError("R(x)", f"has {count(moved)} points, x {n}", "Give a function that takes each point to one")
    image = _image(data.x, moved)
    if image is not None:
        return _of_matrix(data.gram, torch.eye(n).to(data.gram)[image.to(data.gram.device)], True)
    check_memory(3 * 8 * n * n, "the kernel between all moved points", data.memory)
    across = data.cross(moved)
    defect = float((data(moved).detach().to(data.gram) - data.gram).norm())
    return defect, _chance(data.gram), "points off the data", lambda modes, value: across @ modes / value


def _of_matrix(gram: Tensor, matrix: Float[Tensor, "n n"], permutes: bool) -> tuple[float, float, str, Action]:
    norm = float((matrix @ gram - gram @ matrix).norm())
    if permutes:
        return norm, _chance(gram), "permutation of the points", lambda modes, value: matrix @ modes
    n = len(gram)
    identity = torch.eye(n).to(gram)
    orthogonal = bool(torch.allclose(matrix @ matrix.T, identity, atol=1e-8))
    mean = float(gram.trace()) ** 2 / n
    chance = math.sqrt(max(0.0, 2 - 2 * mean / float(gram.square().sum()))) if orthogonal else math.nan
    return norm, chance, "matrix", lambda modes, value: matrix @ modes


def _chance(gram: Float[Tensor, "n n"]) -> float:
    """The root mean square of ‖PK − KP‖/‖K‖ over permutations P: E⟨PKPᵀ, K⟩ needs two means of K alone."""
    n, trace = len(gram), gram.trace()
    rest = gram.sum() - trace
    mean = float(trace.square() / n + (rest.square() / (n * (n - 1)) if n > 1 else 0.0))
    return math.sqrt(max(0.0, 2 - 2 * mean / float(gram.square().sum())))


def _by_mode(eigen: Eigendecomposition, act: Action) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    r = eigen.rank
    values, vectors = eigen.values[:r], eigen.vectors[:, :r]
    spaces = _eigenspaces(values, eigen.tolerance)
    number, kept, size, phase, parts = [], [], [], [], []
    for s, (first, last) in enumerate(spaces):
        some = vectors[:, first:last]
        image = act(some, float(values[first:last].mean()))
        block = some.T @ image
        inside, whole = block.square().sum(0), image.square().sum(0)
        kept.append(torch.where(whole > 0, inside / whole.clamp_min(torch.finfo(whole.dtype).tiny), 1.0).clamp(max=1))
        # Schur's basis stays orthonormal where eigenvalues of R coincide; for a symmetry it is diagonal.
        triangle, basis = (torch.from_numpy(m).to(some.device) for m in schur(block.cpu().numpy(), output="complex"))
        eigenvalues = triangle.diagonal()
        order = eigenvalues.angle().argsort(stable=True)
        number += [s] * (last - first)
        size.append(eigenvalues.abs()[order])
        phase.append(eigenvalues.angle()[order])
        parts.append(torch.view_as_real(some.to(basis.dtype) @ basis[:, order]))
    return (
        values,
        torch.tensor(number, device=values.device),
        torch.cat(kept),
        torch.cat(size),
        torch.cat(phase),
        torch.cat(parts, 1),
    )


def _eigenspaces(values: Float[Tensor, " r"], tolerance: float) -> list[tuple[int, int]]:
    """Ranges of eigenvalues that are equal to the kernel's precision."""
    eps = tolerance / (len(values) * float(values[0]))
    ends = (values[:-1] - values[1:] > eps**0.5 * values[:-1] + tolerance).nonzero()[:, 0] + 1
    edges = [0, *ends.tolist(), len(values)]
    return list(pairwise(edges))


def _image(x: Inputs, moved: Inputs) -> Int[Tensor, " n"] | None:
    """The point of x that each point is moved to; None where some lie off the data, or two on one."""
    before, after = _rows(x), _rows(moved)
    if before.shape != after.shape:
        return None
    check_memory(8 * len(before) ** 2, "the distances between all points and their images")
    # By differences: distances from inner products lose half the digits.
    distance = torch.cdist(after, before, compute_mode="donot_use_mm_for_euclid_dist")
    nearest, images = distance.topk(min(2, len(before)), dim=1, largest=False)
    near, image = nearest[:, 0], images[:, 0]
    eps = max(torch.finfo(leaf.dtype).eps if leaf.dtype.is_floating_point else 0.0 for leaf in leaves(loaded(x)))
    same = near <= MATCH * before.shape[1] ** 0.5 * eps * before.abs().max()
    # Coarse digits would take every point for its nearest one.
    alone = near * APART <= nearest[:, 1] if len(before) > 1 else torch.ones_like(same)
    return image if bool((same & alone).all()) and len(image.unique()) == len(image) else None


def _rows(x: Inputs) -> Float[Tensor, "n d"]:
    flat = [torch.view_as_real(leaf) if leaf.is_complex() else leaf for leaf in leaves(loaded(x))]
    return torch.cat([leaf.detach().to(torch.float64).reshape(len(leaf), -1) for leaf in flat], 1)


def _matrix(R: Any, n: int) -> Float[Tensor, "n n"]:
    """R as a matrix that acts on functions of the points: (Rf)(x_i) = f(R x_i)."""
    if not isinstance(R, Tensor):
        raise DataError("R", f"is a {type(R).__name__}", "Give a function of points, (n,) integers or an (n, n) matrix")
    if R.ndim == 1:
        whole = not (R.is_floating_point() or R.is_complex() or R.dtype == torch.bool)
        if not whole or R.sort().values.tolist() != list(range(n)):
            raise DataError("R", f"is no permutation of {n} points", f"Give each of 0..{n - 1} once, as integers")
        return torch.eye(n)[R.cpu()]
    if tuple(R.shape) != (n, n) or not R.is_floating_point():
        raise DataError("R", f"has shape {tuple(R.shape)} and dtype {R.dtype}", f"Give ({n}, {n}), floating")
    if not bool(torch.isfinite(R).all()):
        raise DataError("R", "has entries that are NaN or infinite", "Give a finite matrix")
    return R.detach()
