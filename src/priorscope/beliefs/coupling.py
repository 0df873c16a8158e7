"""How a kernel acts on labels with several outputs: independent, coupled, or by its trace kernel.

The one place that decides it. Independent outputs share one (n, n) matrix; coupled ones need the blocks as one
(n·o, n·o) matrix, points first; above `COUPLED_LIMIT` points × outputs the trace kernel stands in, and says so.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..data.inputs import Inputs, Labels, count, encode
from ..errors import DataError
from ..kernels.kernel import Kernel
from ..kernels.on_data import OnData
from ..kernels.pair import KernelPair
from ..linalg.symmetric import Eigendecomposition

COUPLED_LIMIT = 2000
"""Above this many (points × outputs), coupled outputs are treated as independent: trace kernel ⊗ identity."""

GivenKernel = Any
"""A Kernel, as users give it: `check_kernel` says what else was given."""


@dataclass(frozen=True, eq=False)
class Operator:
    """A kernel on its data as a matrix that acts on (folded) labels.

    data: the kernel on its data. outputs: o. coupled: whether the matrix is (n·o, n·o). note: what was chosen.
    """

    data: OnData
    outputs: int
    coupled: bool
    note: str

    @property
    def eigen(self) -> Eigendecomposition:
        return self.data.coupled_eigen if self.coupled else self.data.eigen

    @property
    def precision(self) -> torch.dtype:
        """The dtype in which the kernel was computed."""
        return self.data(self.data.x).dtype

    def fold(self, values: Float[Tensor, "m o"]) -> Float[Tensor, "k c"]:
        """Labels as the columns that the matrix acts on: (m·o, 1) if coupled, else (m, o) as they are."""
        return values.reshape(-1, 1) if self.coupled else values

    def unfold(self, values: Float[Tensor, "*t k c"]) -> Float[Tensor, "*t m o"]:
        """What `fold` did, undone."""
        return values.reshape(*values.shape[:-2], -1, self.outputs) if self.coupled else values

    def cross(self, x_new: Inputs) -> Float[Tensor, "k l"]:
        """K(x_new, X), float64."""
        if not self.coupled:
            return self.data.cross(x_new)
        return _matrix(self.data.blocks(x_new, None if x_new is self.data.x else self.data.x))

    def gram(self, x_new: Inputs) -> Float[Tensor, "k k"]:
        """K(x_new, x_new), float64."""
        if not self.coupled:
            return self.data.gram if x_new is self.data.x else self.data(x_new).detach().to(torch.float64)
        return _matrix(self.data.blocks(x_new))

    def lift(self, matrix: Float[Tensor, "m n"]) -> Float[Tensor, "k l"]:
        """A matrix between points as one that acts on folded labels: matrix ⊗ identity if coupled."""
        return torch.kron(matrix, torch.eye(self.outputs).to(matrix)) if self.coupled else matrix


def labelled(data: OnData, y: Tensor) -> tuple[Labels, Operator]:
    """Labels for this kernel, and how it acts on them. Integer classes are as many as its model has outputs.

    For independent outputs, any multiple of the model's outputs is several sets of labels at once.

    Raises:
        DataError: labels that cannot be used, or that are not of the model's outputs.
    """
    own = data.outputs(data.x)
    labels = encode(y, count(data.x), classes=own if own != 1 else None)
    return labels, on_labels(data, labels)


def on_labels(data: OnData, labels: Labels) -> Operator:
    """How this kernel acts on these labels; DataError where they are not of its model's outputs."""
    own, given = data.outputs(data.x), labels.outputs
    several = not data.coupled and labels.classes is None
    if own is not None and (given % own if several else given != own):
        what = "outputs" if labels.classes is None else "classes"
        raise DataError("y", f"has {given} {what}, the kernel has {own} outputs", "Give labels of the model's outputs")
    return on_outputs(data, given)


def on_outputs(data: OnData, outputs: int) -> Operator:
    """How this kernel acts on labels of so many outputs, which are those of its own where it couples them."""
    if not data.coupled or outputs == 1:
        return Operator(data, outputs, coupled=False, note="independent")
    size = count(data.x) * outputs
    if size <= COUPLED_LIMIT:
        return Operator(data, outputs, coupled=True, note="coupled")
    note = f"trace kernel, because {count(data.x)} points × {outputs} outputs exceed {COUPLED_LIMIT}"
    return Operator(data, outputs, coupled=False, note=note)


def check_kernel(kernel: GivenKernel, place: str) -> Kernel:
    """The kernel itself, or a DataError that says what was given instead."""
    if isinstance(kernel, KernelPair):
        raise DataError(place, "was given a KernelPair", "Give one of its kernels: pair.nngp or pair.ntk")
    if not isinstance(kernel, Kernel):
        remedy = "Give a kernel; wrap a function in FunctionKernel, a matrix in PrecomputedKernel"
        raise DataError(place, f"was given a {type(kernel).__name__} as its kernel", remedy)
    return kernel


def restored(kernel: GivenKernel, fingerprint: Float[Tensor, "p n"], place: str, remedy: str) -> OnData:
    """The kernel on its data that a result needs again after loading, or a DataError that says what is wrong with it.

    Args:
        kernel: what was given when loading; None where nothing was.
        fingerprint: `OnData.fingerprint` of the kernel that the result was made with.
        place, remedy: for the error.
    """
    if kernel is None:
        raise DataError(place, "was loaded without its kernel", remedy)
    if not isinstance(kernel, OnData):
        raise DataError(place, f"was given a {type(kernel).__name__} that is not on data", remedy)
    if not kernel.is_known_by(fingerprint):
        n, given = fingerprint.shape[1], count(kernel.x)
        cause = "was given another kernel, or other data, than it was made with"
        raise DataError(place, cause + (f" ({given} points, not {n})" if n != given else ""), remedy)
    return kernel


def _matrix(blocks: Tensor) -> Tensor:
    m, o, n, p = blocks.shape
    return blocks.detach().to(torch.float64).reshape(m * o, n * p)
