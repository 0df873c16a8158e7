"""Sums, products and scalings of kernels, coupled outputs included."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..data.inputs import Inputs, count, take
from ..errors import DataError
from .kernel import Kernel, Origin


@dataclass(frozen=True, eq=False)
class _Combination(Kernel):
    """Two kernels of the same points. Of outputs that one of them does not couple, it has k ⊗ identity."""

    first: Kernel
    second: Kernel
    origin: Origin = field(default=Origin("combination"))

    @property
    def coupled(self) -> bool:  # type: ignore[override]
        return self.first.coupled or self.second.coupled

    def outputs(self, x: Inputs) -> int | None:
        first, second = self.first.outputs(x), self.second.outputs(x)
        if first is not None and second is not None and first != second:
            cause = f"its kernels are of {first} and of {second} outputs"
            raise DataError("a combination of kernels", cause, "Combine kernels of as many outputs")
        return second if first is None else first

    def _pair(self, x1: Inputs, x2: Inputs | None) -> tuple[Tensor, Tensor]:
        """The blocks of both, (n1, o, n2, o) each; o = 1 where neither couples outputs."""
        outputs = self.outputs(x1) if self.coupled else 1
        first, second = (_blocks_of(kernel, x1, x2, outputs or 1) for kernel in (self.first, self.second))
        return first, second


def _blocks_of(kernel: Kernel, x1: Inputs, x2: Inputs | None, outputs: int) -> Tensor:
    if kernel.coupled:
        return kernel.tensor4(x1, x2)
    matrix = kernel.matrix(x1, x2)
    return matrix[:, None, :, None] * torch.eye(outputs).to(matrix)[:, None, :]


class Sum(_Combination):
    """(k + l)(x, x') = k(x, x') + l(x, x'), for every two outputs."""

    def matrix(self, x1: Inputs, x2: Inputs | None) -> Tensor:
        return self.first.matrix(x1, x2) + self.second.matrix(x1, x2)

    def variances(self, x: Inputs) -> Tensor:
        return self.first.variances(x) + self.second.variances(x)

    def tensor4(self, x1: Inputs, x2: Inputs | None) -> Tensor:
        first, second = self._pair(x1, x2)
        return first + second


class Product(_Combination):
    """(k · l)(x, x') = k(x, x') · l(x, x'), for every two outputs."""

    def matrix(self, x1: Inputs, x2: Inputs | None) -> Tensor:
        if self._mixes(x1):
            return self.tensor4(x1, x2).diagonal(dim1=1, dim2=3).mean(-1)
        return self.first.matrix(x1, x2) * self.second.matrix(x1, x2)

    def variances(self, x: Inputs) -> Tensor:
        if self._mixes(x):
            return torch.cat([self.matrix(take(x, slice(i, i + 1)), None)[0] for i in range(count(x))])
        return self.first.variances(x) * self.second.variances(x)

    def tensor4(self, x1: Inputs, x2: Inputs | None) -> Tensor:
        first, second = self._pair(x1, x2)
        return first * second

    def _mixes(self, x: Inputs) -> bool:
        """Whether the mean over outputs of products is not the product of the means."""
        return self.first.coupled and self.second.coupled and self.outputs(x) != 1


@dataclass(frozen=True, eq=False)
class Scaled(Kernel):
    """(a · k)(x, x') = a · k(x, x'), for a ≥ 0. It keeps the origin: regression does not feel the scale."""

    kernel: Kernel
    scale: float

    def __post_init__(self) -> None:
        if not self.scale >= 0:
            raise DataError("the scale of a kernel", f"is {self.scale}", "Give a number of at least 0")

    @property
    def origin(self) -> Origin:  # type: ignore[override]
        return self.kernel.origin

    @property
    def coupled(self) -> bool:  # type: ignore[override]
        return self.kernel.coupled

    def matrix(self, x1: Inputs, x2: Inputs | None) -> Tensor:
        return self.scale * self.kernel.matrix(x1, x2)

    def variances(self, x: Inputs) -> Tensor:
        return self.scale * self.kernel.variances(x)

    def tensor4(self, x1: Inputs, x2: Inputs | None) -> Tensor:
        return self.scale * self.kernel.tensor4(x1, x2)

    def outputs(self, x: Inputs) -> int | None:
        return self.kernel.outputs(x)
