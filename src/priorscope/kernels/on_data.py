"""A kernel, frozen on its data: it owns the Gram matrix and its one factorisation."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..data.inputs import Inputs, check_inputs, count, leaves, pieces
from ..errors import DataError
from ..linalg.memory import check_memory
from ..linalg.symmetric import Eigendecomposition, decompose
from .kernel import Kernel


class OnData(Kernel):
    """A kernel on its data x: the float64 Gram matrix and its one eigendecomposition, each computed once.

    It is itself a kernel (of any points), so it goes wherever a kernel goes. It keeps x itself, not a copy: once x
    was changed in place, whatever needs x raises a DataError.
    """

    def __init__(self, kernel: Kernel, x: Inputs, memory: int | None = None):
        self.kernel, self._x, self.memory = kernel, check_inputs(x), memory
        self.origin, self.coupled = kernel.origin, kernel.coupled
        self._versions = _versions(x)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _versions=_versions(state["_x"]))

    @property
    def x(self) -> Inputs:
        """The data."""
        if _versions(self._x) != self._versions:
            cause = "was changed in place since the kernel was frozen on it (or what it is a view of was)"
            raise DataError("x", cause, "Give kernel.on(x.clone()), or don't change x")
        return self._x

    def matrix(self, x1: Inputs, x2: Inputs | None) -> Tensor:
        return self._raw if x2 is None and x1 is self.x else self.kernel.matrix(x1, x2)

    def variances(self, x: Inputs) -> Tensor:
        return self._raw.diagonal() if x is self.x else self.kernel.variances(x)

    def tensor4(self, x1: Inputs, x2: Inputs | None) -> Tensor:
        return self.kernel.tensor4(x1, x2)

    def outputs(self, x: Inputs) -> int | None:
        return self.kernel.outputs(x)

    def on(self, x: Inputs, memory: int | None = None) -> "OnData":
        return self if x is self.x else OnData(self.kernel, x, self.memory if memory is None else memory)

    @cached_property
    def _raw(self) -> Tensor:
        return self.kernel(self.x)

    @cached_property
    def gram(self) -> Float[Tensor, "n n"]:
        """k(X, X), detached, float64."""
        return self._raw.detach().to(torch.float64)

    @cached_property
    def fingerprint(self) -> Float[Tensor, "p n"]:
        """M u of the Gram matrix and of each tensor of x, one u: what a result saves to know its kernel and data again.

        The Gram matrix alone would not tell data from their rotation, or points from others in their places.
        """
        return torch.stack([torch.cat([_projected(m).to(self.gram) for m in table]) for table in self._tables])

    def is_known_by(self, fingerprint: Float[Tensor, "p n"]) -> bool:
        """Whether a fingerprint is that of this kernel on these data in this order, to rounding."""
        if fingerprint.shape != self.fingerprint.shape:
            return False
        distances = (fingerprint.to(self.gram) - self.fingerprint).norm(dim=1)
        sizes = torch.stack([torch.stack([m.norm().to(self.gram) for m in table]).norm() for table in self._tables])
        return bool((distances <= torch.finfo(self._raw.dtype).eps ** 0.5 * sizes).all())

    @property
    def _tables(self) -> list[Iterator[Tensor]]:
        """The Gram matrix and each tensor of x, as matrices with one row for each point; arrays in pieces."""
        return [iter([self.gram]), *(map(_matrix, pieces(leaf)) for leaf in leaves(self.x))]

    @cached_property
    def eigen(self) -> Eigendecomposition:
        """Of the Gram matrix; the rank tolerance is that of the dtype in which the kernel was computed."""
        self._check_factorisation(count(self.x))
        return decompose(self.gram, self._raw.dtype)

    @cached_property
    def _coupled_gram(self) -> Tensor:
        blocks = self.kernel.blocks(self.x)
        return blocks.detach().reshape(blocks.shape[0] * blocks.shape[1], -1)

    @cached_property
    def coupled_eigen(self) -> Eigendecomposition:
        """Of the blocks as one (n·o, n·o) matrix, points first."""
        self._check_factorisation(len(self._coupled_gram))
        return decompose(self._coupled_gram)

    def _check_factorisation(self, size: int) -> None:
        # Raw and float64 matrix, eigenvectors, and the solver's workspace of about two matrices more.
        check_memory(5 * 8 * size**2, f"the factorisation of a kernel on {size} points", self.memory)

    def cross(self, x_new: Inputs) -> Float[Tensor, "m n"]:
        """k(x_new, X), detached, float64."""
        return self.gram if x_new is self.x else self.kernel(x_new, self.x).detach().to(torch.float64)


def _matrix(points: Tensor) -> Tensor:
    """One row for each point."""
    real = torch.view_as_real(points) if points.is_complex() else points
    real = (real if real.is_floating_point() else real.to(torch.float64)).detach()
    return real.reshape(len(real), real.numel() // len(real))


def _projected(m: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    return m @ torch.cos(torch.arange(1, m.shape[1] + 1).to(m))


def _versions(x: Inputs) -> list[int]:
    """How often each tensor was changed in place; tensors of inference mode and arrays do not count it."""
    return [leaf._version if isinstance(leaf, Tensor) and not leaf.is_inference() else 0 for leaf in leaves(x)]
