"""The waist of the hourglass: a kernel is a function of two sets of points.

A subclass gives `matrix` and `variances` (and `tensor4`, where its outputs are coupled); the calls that users make
check the input and the memory first. Sums, products and scalings are kernels (`combination.py`), and so is a kernel
that is frozen on its data (`on_data.py`).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..data.inputs import Inputs, check_inputs, count, dtype_of, leaves, take
from ..errors import DataError
from ..linalg.memory import check_memory

if TYPE_CHECKING:
    from .on_data import OnData


@dataclass(frozen=True)
class Origin:
    """Where a kernel comes from.

    kind: "nngp", "ntk" (infinite width), "empirical ntk", "classical", "user" or "combination".
    rates: {parameter name: c} of an NTK, else None. standard: all trainable parameters have the rate 1.
    """

    kind: Literal["nngp", "ntk", "empirical ntk", "classical", "user", "combination"]
    rates: Mapping[str, float] | None = None

    @property
    def standard(self) -> bool:
        """Whether plain gradient descent, one rate for all that learns, is what this NTK describes."""
        return self.rates is not None and all(rate in (0.0, 1.0) for rate in self.rates.values())


class Kernel(ABC):
    """A positive semi-definite function of two points: k(x1, x2) -> (n1, n2)."""

    origin: Origin = Origin("user")
    coupled: bool = False
    """Whether several outputs have more than k ⊗ identity between them."""

    @abstractmethod
    def matrix(self, x1: Inputs, x2: Inputs | None) -> Tensor:
        """(n1, n2) for checked inputs; x2 = None asks for the Gram matrix of x1, symmetric."""

    @abstractmethod
    def variances(self, x: Inputs) -> Tensor:
        """(n,) for checked inputs: k(x, x), computed as accurately as the Gram matrix's diagonal."""

    def tensor4(self, x1: Inputs, x2: Inputs | None) -> Tensor:
        """(n1, o, n2, o) for checked inputs."""
        return self.matrix(x1, x2)[:, None, :, None]

    def outputs(self, x: Inputs) -> int | None:
        """The number of outputs that the model of this kernel has on such points; None: it serves any number."""
        return self.tensor4(take(x, slice(0, 1)), None).shape[1] if self.coupled else None

    def __call__(self, x1: Inputs, x2: Inputs | None = None) -> Float[Tensor, "n1 n2"]:
        """The kernel between two sets of points; with one, the Gram matrix (never its diagonal)."""
        self._check(x1, x2)
        return self.matrix(x1, x2)

    def diagonal(self, x: Inputs) -> Float[Tensor, " n"]:
        """k(x_i, x_i) for every point."""
        return self.variances(check_inputs(x))

    def blocks(self, x1: Inputs, x2: Inputs | None = None) -> Float[Tensor, "n1 o n2 o"]:
        """The kernel between all outputs; its mean over equal outputs is `kernel(x1, x2)`."""
        self._check(x1, x2)
        return self.tensor4(x1, x2)

    def on(self, x: Inputs, memory: int | None = None) -> "OnData":
        """This kernel, frozen on its data: owns the Gram matrix and its one factorisation.

        Args:
            x: n points.
            memory: bytes that the matrix and its factorisation may take; default what the machine has free.

        Raises:
            MemoryBudgetError: before anything is computed that would not fit.
        """
        from .on_data import OnData

        return OnData(self, x, memory)

    def __add__(self, other: "Kernel") -> "Kernel":
        from .combination import Sum

        return Sum(self, other) if isinstance(other, Kernel) else NotImplemented

    def __mul__(self, other: "Kernel | float") -> "Kernel":
        from .combination import Product, Scaled

        if isinstance(other, Kernel):
            return Product(self, other)
        return Scaled(self, other) if isinstance(other, (int, float)) else NotImplemented

    __rmul__ = __mul__

    @staticmethod
    def _check(x1: Inputs, x2: Inputs | None) -> None:
        check_inputs(x1, "x1")
        if x2 is not None:
            check_inputs(x2, "x2")
            shapes = [[torch.Size(leaf.shape[1:]) for leaf in leaves(x)] for x in (x1, x2)]
            if shapes[0] != shapes[1]:
                raise DataError("x2", f"its points have shapes {shapes[1]}, x1's {shapes[0]}", "Give the same kind")
            for first, second in zip(map(dtype_of, leaves(x1)), map(dtype_of, leaves(x2)), strict=True):
                if first != second and (first.is_floating_point or second.is_floating_point):
                    cause = f"has the dtype {second}, x1 {first}"
                    raise DataError("x2", cause, "Give both in one dtype: x.to(torch.float64)")
        check_memory(
            count(x1) * count(x1 if x2 is None else x2) * dtype_of(leaves(x1)[0]).itemsize, "the kernel matrix"
        )
