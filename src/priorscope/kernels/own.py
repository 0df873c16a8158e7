"""The user's own kernels: a function of two points, or a matrix computed elsewhere."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..data.inputs import Inputs, count, take
from ..errors import DataError
from .kernel import Kernel, Origin


class FunctionKernel(Kernel):
    """A kernel from a function of two sets of points.

    Args:
        function: (x1, x2) -> (n1, n2), symmetric and positive semi-definite.
        diagonal: x -> (n,), k(x_i, x_i); without it the function is called for every point alone.

    >>> k = FunctionKernel(lambda a, b: torch.exp(-torch.cdist(a, b)))
    >>> x = torch.linspace(0, 1, 4)[:, None]
    >>> bool(torch.equal(k(x), k(x).T))
    True
    """

    origin = Origin("user")

    def __init__(
        self, function: Callable[[Inputs, Inputs], Tensor], diagonal: Callable[[Inputs], Tensor] | None = None
    ):
        self.function, self._diagonal = function, diagonal

    def matrix(self, x1: Inputs, x2: Inputs | None) -> Tensor:
        matrix = self.function(x1, x1 if x2 is None else x2)
        expected = (count(x1), count(x1 if x2 is None else x2))
        if tuple(matrix.shape) != expected:
            raise DataError("the function of FunctionKernel", f"gave {tuple(matrix.shape)}", f"Return {expected}")
        return matrix

    def variances(self, x: Inputs) -> Tensor:
        if self._diagonal is not None:
            return self._diagonal(x)
        points = (take(x, slice(i, i + 1)) for i in range(count(x)))
        return torch.cat([self.function(point, point).reshape(1) for point in points])


class PrecomputedKernel(Kernel):
    """A kernel matrix computed elsewhere; points are row indices.

    Args:
        matrix: (N, N), floating, symmetric and positive semi-definite. Points x are integer tensors (n,) of rows.

    >>> k = PrecomputedKernel(torch.tensor([[2.0, 1.0], [1.0, 3.0]]))
    >>> k(torch.tensor([1]), torch.tensor([0, 1])).tolist()
    [[1.0, 3.0]]
    """

    origin = Origin("user")

    def __init__(self, matrix: Any):
        if not isinstance(matrix, Tensor) or not matrix.is_floating_point():
            what = f"has dtype {matrix.dtype}" if isinstance(matrix, Tensor) else f"is a {type(matrix).__name__}"
            raise DataError("matrix", what, "Give a floating tensor (N, N): torch.as_tensor(..., dtype=torch.float64)")
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise DataError("matrix", f"has shape {tuple(matrix.shape)}", "Give a square matrix (N, N)")
        if not bool(torch.isfinite(matrix).all()):
            raise DataError("matrix", "has entries that are NaN or infinite", "Give a finite matrix")
        gap = float((matrix - matrix.T).abs().max())
        if gap > 1e-6 * float(matrix.abs().max()):
            raise DataError("matrix", f"is not symmetric (largest difference {gap:.2g})", "Give a symmetric matrix")
        self.values = matrix

    def matrix(self, x1: Inputs, x2: Inputs | None) -> Tensor:
        rows, columns = self._rows(x1), self._rows(x1 if x2 is None else x2)
        return self.values[rows][:, columns]

    def variances(self, x: Inputs) -> Tensor:
        return self.values.diagonal()[self._rows(x)]

    def _rows(self, x: Inputs) -> Tensor:
        if not isinstance(x, Tensor) or x.is_floating_point() or x.ndim != 1:
            raise DataError("x", "is not a vector of row indices", "Give an integer tensor (n,)")
        if int(x.min()) < 0 or int(x.max()) >= len(self.values):
            raise DataError("x", f"names rows outside 0..{len(self.values) - 1}", "Give rows of the matrix")
        return x
