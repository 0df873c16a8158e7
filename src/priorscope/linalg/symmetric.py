"""A symmetric positive semi-definite matrix through its one decomposition, K = V diag(λ) Vᵀ.

Everything above solves, takes functions and measures rank through `Eigendecomposition`; nothing else factors.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import DataError


@dataclass(frozen=True)
class Eigendecomposition:
    """Eigenvalues (m,), descending, and unit eigenvectors (m, m) as columns, float64.

    Values at or under `tolerance` are null: they are what rounding leaves of zero.
    """

    values: Float[Tensor, " m"]
    vectors: Float[Tensor, "m m"]
    tolerance: float

    @cached_property
    def rank(self) -> int:
        """The number of eigenvalues above the tolerance."""
        return int((self.values > self.tolerance).sum())

    @property
    def is_singular(self) -> bool:
        return self.rank < len(self.values)

    def apply(self, function: Callable[[Tensor], Tensor], y: Float[Tensor, "m *c"]) -> Float[Tensor, "m *c"]:
        """V f(λ) Vᵀ y, where null modes contribute exactly 0."""
        vectors, values = self.vectors[:, : self.rank], self.values[: self.rank]
        weights = function(values)
        projected = vectors.T @ y
        return vectors @ (weights.reshape(-1, *(1,) * (projected.ndim - 1)) * projected)

    def solve(self, y: Float[Tensor, "m *c"], shift: float = 0.0) -> Float[Tensor, "m *c"]:
        """(K + shift·I)⁻¹ y; for shift = 0 the pseudo-inverse, K⁺ y."""
        if shift == 0.0:
            return self.apply(lambda values: 1 / values, y)
        weights = 1 / (self.values.clamp_min(0) + shift)
        projected = self.vectors.T @ y
        return self.vectors @ (weights.reshape(-1, *(1,) * (projected.ndim - 1)) * projected)


def decompose(
    matrix: Float[Tensor, "m m"], precision: torch.dtype | None = None, tolerance: float | None = None
) -> Eigendecomposition:
    """The eigendecomposition of a symmetric positive semi-definite matrix, in float64.

    Args:
        matrix: (m, m), symmetric up to rounding; the mean with its transpose is used.
        precision: the dtype in which the matrix was computed, if it is not the matrix's own.
        tolerance: eigenvalues at or under it are null; None for m · eps(precision) · λ_max.

    Each eigenvector's sign is fixed: the first entry of at least half of its largest size is positive.

    Raises:
        DataError: entries that are NaN or infinite; a matrix that is, by much more than rounding, not symmetric or
            not positive semi-definite.
    """
    eps = torch.finfo(precision or matrix.dtype).eps
    # A given tolerance bounds what rounding leaves, which may be all that there is.
    loose, slack = max(1e-6, 1e4 * eps), 1e3 * (tolerance or 0.0)
    matrix = matrix.detach().to(torch.float64)
    _check_symmetric(matrix, loose, slack)
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    values, vectors = values.flip(0), vectors.flip(1)
    largest, least = float(values[0].clamp_min(0)), float(values[-1])
    rounding = len(values) * eps * largest
    if least < -max(loose * largest, rounding, slack):
        raise DataError(
            "the matrix",
            f"is not positive semi-definite: its least eigenvalue is {least:.3g}, its largest {largest:.3g}",
            "Give a kernel or covariance that is, or add a multiple of the identity to it",
        )
    return Eigendecomposition(values, fix_signs(vectors), rounding if tolerance is None else tolerance)


def _check_symmetric(matrix: Float[Tensor, "m m"], loose: float, slack: float) -> None:
    if not bool(torch.isfinite(matrix).all()):
        bad = int((~torch.isfinite(matrix)).sum())
        raise DataError("the matrix", f"has {bad} entries that are NaN or infinite", "Give a kernel that is finite")
    gap, size = float((matrix - matrix.T).abs().max()), float(matrix.abs().max())
    if gap > max(loose * size, slack):
        cause = f"is not symmetric (largest difference {gap:.3g}, largest entry {size:.3g})"
        raise DataError("the matrix", cause, "Give a kernel with k(x, x') = k(x', x)")


def fix_signs(vectors: Float[Tensor, "m r"]) -> Float[Tensor, "m r"]:
    """Columns with the sign that makes the first entry of at least half of the column's largest size positive."""
    size = vectors.abs()
    leading = (size >= size.amax(0, keepdim=True) / 2).to(torch.int8).argmax(0)
    sign = torch.where(vectors.gather(0, leading[None])[0] < 0, -1.0, 1.0)
    return vectors * sign.to(vectors.dtype)
