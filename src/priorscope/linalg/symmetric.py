"""A symmetric positive semi-definite matrix through its one decomposition, K = V diag(λ) Vᵀ.

Everything above solves, takes functions and measures rank through `Eigendecomposition`; nothing else factors.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor


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


def decompose(matrix: Float[Tensor, "m m"], precision: torch.dtype | None = None) -> Eigendecomposition:
    """The eigendecomposition of a symmetric matrix, in float64.

    Args:
        matrix: (m, m), symmetric up to rounding; the mean with its transpose is used.
        precision: the dtype in which the matrix was computed, if it is not the matrix's own. The rank
            tolerance is m · eps(precision) · λ_max.

    Each eigenvector's sign is fixed: the first entry of at least half of its largest size is positive.
    """
    eps = torch.finfo(precision or matrix.dtype).eps
    matrix = matrix.detach().to(torch.float64)
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    values, vectors = values.flip(0), vectors.flip(1)
    tolerance = len(values) * eps * float(values[0].clamp_min(0))
    return Eigendecomposition(values, fix_signs(vectors), tolerance)


def fix_signs(vectors: Float[Tensor, "m r"]) -> Float[Tensor, "m r"]:
    """Columns with the sign that makes the first entry of at least half of the column's largest size positive."""
    size = vectors.abs()
    leading = (size >= size.amax(0, keepdim=True) / 2).to(torch.int8).argmax(0)
    sign = torch.where(vectors.gather(0, leading[None])[0] < 0, -1.0, 1.0)
    return vectors * sign.to(vectors.dtype)
