"""The waist of the hourglass: a kernel is a function of two sets of points.

A subclass gives `matrix` and `variances` (and `tensor4`, where its outputs are coupled); the calls that users make
check the input and the memory first. `kernel.on(x)` is the same kernel, frozen on its data: it owns the Gram matrix
and its one factorisation, and is accepted wherever (kernel, x) is.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, wraps
from inspect import Signature, signature
from typing import Any, Literal, NamedTuple, Protocol, get_origin, runtime_checkable

import psutil
import torch
from jaxtyping import Float
from torch import Tensor

from ..data.inputs import Inputs, check_inputs, count, equal, leaves, take
from ..errors import DataError, MemoryBudgetError
from ..linalg.symmetric import Eigendecomposition, decompose

COUPLED_LIMIT = 2000
"""Above this many (points × outputs), coupled outputs are treated as independent: trace kernel ⊗ identity."""


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
        return OnData(self, x, memory)

    def __add__(self, other: "Kernel") -> "Kernel":
        return Sum(self, other) if isinstance(other, Kernel) else NotImplemented

    def __mul__(self, other: "Kernel | float") -> "Kernel":
        if isinstance(other, Kernel):
            return Product(self, other)
        return Scaled(self, other) if isinstance(other, (int, float)) else NotImplemented

    __rmul__ = __mul__

    @staticmethod
    def _check(x1: Inputs, x2: Inputs | None) -> None:
        check_inputs(x1, "x1")
        if x2 is not None:
            check_inputs(x2, "x2")
            shapes = [[leaf.shape[1:] for leaf in leaves(x)] for x in (x1, x2)]
            if shapes[0] != shapes[1]:
                raise DataError("x2", f"its points have shapes {shapes[1]}, x1's {shapes[0]}", "Give the same kind")
            for first, second in zip(leaves(x1), leaves(x2), strict=True):
                if first.dtype != second.dtype and first.is_floating_point() and second.is_floating_point():
                    cause = f"has the dtype {second.dtype}, x1 {first.dtype}"
                    raise DataError("x2", cause, "Give both in one dtype: x.to(torch.float64)")
        check_memory(count(x1) * count(x1 if x2 is None else x2) * leaves(x1)[0].element_size(), "the kernel matrix")


def check_memory(needed: int, what: str, memory: int | None = None) -> None:
    """Raises MemoryBudgetError where `needed` bytes exceed the budget, or what the machine has free."""
    allowed = psutil.virtual_memory().available if memory is None else memory
    if needed > allowed:
        raise MemoryBudgetError(
            what,
            f"needs {needed / 1e9:.3g} GB, {allowed / 1e9:.3g} GB are allowed",
            "Use fewer points, float32, or a larger `memory`",
        )


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
        return torch.stack([(m @ torch.cos(torch.arange(1, m.shape[1] + 1).to(m))).to(self.gram) for m in self._tables])

    def is_known_by(self, fingerprint: Float[Tensor, "p n"]) -> bool:
        """Whether a fingerprint is that of this kernel on these data in this order, to rounding."""
        if fingerprint.shape != self.fingerprint.shape:
            return False
        distances = (fingerprint.to(self.gram) - self.fingerprint).norm(dim=1)
        sizes = torch.stack([m.norm().to(self.gram) for m in self._tables])
        return bool((distances <= torch.finfo(self._raw.dtype).eps ** 0.5 * sizes).all())

    @property
    def _tables(self) -> list[Tensor]:
        """The Gram matrix and each tensor of x, as matrices with one row for each point."""
        parts = [torch.view_as_real(leaf) if leaf.is_complex() else leaf for leaf in leaves(self.x)]
        parts = [(leaf if leaf.is_floating_point() else leaf.to(torch.float64)).detach() for leaf in parts]
        return [self.gram, *(leaf.reshape(len(leaf), leaf.numel() // len(leaf)) for leaf in parts)]

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


def _versions(x: Inputs) -> list[int]:
    """How often each tensor was changed in place; tensors of inference mode do not count it."""
    return [0 if leaf.is_inference() else leaf._version for leaf in leaves(x)]


def takes_kernel_on_data(function: Callable) -> Callable:
    """Lets `function(kernel, x, ...)` also be called as `function(kernel.on(x), ...)`; pairs likewise.

    x may be given nevertheless; where it equals the data of the kernel, what these have computed is used. Other
    points in its place raise a DataError: they would be taken for the next argument. By name (x=) other data are
    other data.
    """
    face = signature(function)

    @wraps(function)
    def call(kernel: Any, *args: Any, **keywords: Any) -> Any:
        data = kernel.x if isinstance(kernel, (OnData, KernelPair)) else None
        if data is None:
            return function(kernel, *args, **keywords)
        if "x" in keywords:
            keywords["x"] = data if equal(keywords["x"], data) else keywords["x"]
            return function(kernel, *args, **keywords)
        given = bool(args) and _is_x(face, kernel, args, keywords)
        if given and not equal(args[0], data):
            if _has_points(args[0]):
                cause = "was given points, and a kernel that is frozen on other data"
                raise DataError(function.__name__, cause, "Give kernel.kernel, or the x that it is frozen on")
            given = False
        return function(kernel, data, *(args[1:] if given else args), **keywords)

    return call


def _is_x(face: Signature, kernel: Any, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> bool:
    """Whether the first argument stands in the place of x, and not in that of what follows it."""
    if not _fits(face, kernel, *args, **keywords):
        return False
    return not _fits(face, kernel, args[0], *args, **keywords) or len(args) == 1 or _has_points(args[1])


def _has_points(value: Any) -> bool:
    return any(leaf.ndim for leaf in leaves(value))


def _fits(face: Signature, *args: Any, **keywords: Any) -> bool:
    try:
        bound = face.bind(*args, **keywords)
    except TypeError:
        return False
    # The one kind of argument that tells (y, x_new, candidates, training) from (x, y, x_new, candidates).
    tables = [name for name, one in face.parameters.items() if get_origin(one.annotation) is Mapping]
    return all(isinstance(bound.arguments[name], Mapping) for name in tables if name in bound.arguments)


class KernelMatrices(NamedTuple):
    """Both kernels between the same points, (n1, n2) each."""

    nngp: Float[Tensor, "n1 n2"]
    ntk: Float[Tensor, "n1 n2"]


@runtime_checkable
class JointKernels(Protocol):
    """What computes both kernels of a limit in one pass, and can explain itself."""

    def both(self, x1: Inputs, x2: Inputs | None) -> KernelMatrices: ...

    def explain(self) -> Any: ...


@dataclass(frozen=True, eq=False)
class KernelPair:
    """The two kernels of one network: nngp, the covariance of its outputs at initialisation, and its ntk.

    Args:
        nngp, ntk: any two kernels of the same kind of points.
        joint: computes both in one pass (an infinite-width limit does).
    """

    nngp: Kernel
    ntk: Kernel
    joint: JointKernels | None = field(default=None, repr=False)

    def __call__(self, x1: Inputs, x2: Inputs | None = None) -> KernelMatrices:
        """Both matrices, in one pass where the pair comes from a limit."""
        Kernel._check(x1, x2)
        if self.joint is not None:
            return self.joint.both(x1, x2)
        return KernelMatrices(self.nngp.matrix(x1, x2), self.ntk.matrix(x1, x2))

    def explain(self) -> Any:
        """How a limit was derived: node, rule, variances, rates and source, of the last call."""
        if self.joint is None:
            raise DataError("this KernelPair", "was put together by hand", "Ask a pair from infinite_width")
        return self.joint.explain()

    def on(self, x: Inputs) -> "KernelPair":
        """The pair, frozen on its data; both Gram matrices come from one pass."""
        if self.x is not None and x is self.x:
            return self
        pair = KernelPair(self.nngp.on(x), self.ntk.on(x), self.joint)
        if self.joint is not None:
            check_inputs(x)
            pair.nngp.__dict__["_raw"], pair.ntk.__dict__["_raw"] = self(x)
        return pair

    @property
    def x(self) -> Inputs | None:
        """The data, where the pair is frozen on them."""
        if isinstance(self.nngp, OnData) and isinstance(self.ntk, OnData) and self.nngp.x is self.ntk.x:
            return self.ntk.x
        return None
