"""`KernelOperator`: kernel-vector products without the kernel, for iterative solvers."""

import copy
from collections.abc import Mapping
from math import isfinite, sqrt
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from ...data.inputs import Inputs
from ...errors import DataError, ModelError, NotExactError
from ...linalg.memory import check_memory
from ...network.function import place_of
from ...network.snapshot import Snapshot
from .products import JacobianProducts, inner, random_like


class KernelOperator:
    """The empirical neural tangent kernel between two sets of points as a linear map, (n1·o, n2·o), points first.

    Θ v = J(x1) diag(c) J(x2)ᵀ v: one backward pass gives t = c ∘ Jᵀ v, one forward derivative along t gives J t. The
    matrix never exists: memory is a few vectors of all parameters and the activations of one batch of points.

    It is made by `EmpiricalNTK.operator`, which also checks it: outputs do not depend on the batch or on chance, and
    uᵀ(Θ v), (Θᵀ u)ᵀ v and plain autograd's ⟨J(x1)ᵀ u, c ∘ J(x2)ᵀ v⟩ are one number, on all points.

    scipy takes it wherever it takes a linear operator; `matmul` and `@` take tensors and arrays, (N,) or (N, k), and
    give back what they were given: array or tensor, dtype and device. Products run in the model's dtype.

    `method` says how J t is taken ("forward mode" or "two backward passes"), `reason` why; `batch` is the number of
    points that run at once; `outputs` is o.

    Source: Pearlmutter 1994 (products by differentiation); Novak et al. 2022 (2206.08720, NTK-vector products).

    >>> from priorscope import EmpiricalNTK
    >>> ntk, x = EmpiricalNTK(torch.nn.Linear(3, 2)), torch.randn(4, 3)
    >>> v = torch.randn(8)
    >>> torch.allclose(ntk.operator(x) @ v, ntk.blocks(x).reshape(8, 8) @ v, atol=1e-4)
    True
    """

    __array_ufunc__ = None  # numpy must not take the operator for a number in `array @ operator`

    def __init__(
        self,
        snapshot: Snapshot,
        rates: Mapping[str, float],
        x1: Inputs,
        x2: Inputs | None,
        memory: int,
        batch: int | None = None,
        progress: bool = False,
    ):
        self.snapshot, self.rates, self.memory, self.progress = snapshot, dict(rates), memory, progress
        self.shift = 0.0
        with snapshot.installed(rates):
            self._first = JacobianProducts(snapshot, tuple(rates), x1, memory, batch)
            same = x2 is None
            self._second = self._first if same else JacobianProducts(snapshot, tuple(rates), x2, memory, batch)
            if self._second.outputs != self.outputs:
                cause = f"the model has {self._second.outputs} outputs there, {self.outputs} at x1"
                raise DataError("x2", cause, "Give points of one shape")
            self._check_symmetry()

    @property
    def outputs(self) -> int:
        return self._first.outputs

    @property
    def method(self) -> str:
        return self._first.method

    @property
    def reason(self) -> str:
        return self._first.reason

    @property
    def batch(self) -> int:
        return self._first.batch

    @property
    def is_symmetric(self) -> bool:
        """Whether it is of one set of points: Θ(x, x)."""
        return self._second is self._first

    @property
    def shape(self) -> tuple[int, int]:
        return self._first.points * self.outputs, self._second.points * self.outputs

    @property
    def dtype(self) -> np.dtype:
        """The model's dtype as numpy's; a ModelError for those that numpy has not."""
        if self.snapshot.dtype == torch.bfloat16:
            raise ModelError("the model", "has dtype torch.bfloat16, which numpy has not", "Call model.float()")
        return torch.zeros(0, dtype=self.snapshot.dtype).numpy().dtype

    def plus(self, noise: float) -> "KernelOperator":
        """Θ + noise · I, for ridge regression and observations with noise.

        Args:
            noise: the ridge, or the variance of the noise, ≥ 0.

        Raises:
            DataError: a negative or infinite noise, or an operator between two sets of points.
        """
        if not isfinite(noise) or noise < 0:
            raise DataError("noise", f"is {noise}", "Give a finite variance of at least 0")
        if not self.is_symmetric:
            raise DataError("noise", "was added to a kernel between two sets of points", "Use operator(x) of one set")
        shifted = copy.copy(self)
        shifted.shift = self.shift + float(noise)
        return shifted

    def matmul(self, v: Any) -> Any:
        """Θ v.

        Args:
            v: (n2·o,) or (n2·o, k), a tensor or a numpy array.

        Returns:
            (n1·o,) or (n1·o, k), like v.

        Raises:
            DataError: another shape, complex numbers, NaN or infinity.
            ModelError: a product that is not finite.
        """
        return self._applied(v, self._first, self._second)

    __matmul__ = matvec = matmat = matmul

    def rmatmul(self, u: Any) -> Any:
        """Θᵀ u, for u (n1·o,) or (n1·o, k); the same otherwise."""
        return self._applied(u, self._second, self._first)

    rmatvec = rmatmat = rmatmul

    def dense(self, form: str = "blocks") -> Tensor:
        """The whole matrix, column by column: for each point and output one row of J, and J's product with it.

        It costs n2·o products with J(x1), half of that where x2 is x1, and never holds more than one row of J.

        Args:
            form: "blocks", or "trace" for the mean over equal outputs.

        Returns:
            (n1, o, n2, o), or (n1, n2); it includes what `plus` added.

        Raises:
            DataError: another form.
            MemoryBudgetError: the matrix does not fit.
        """
        if form not in ("blocks", "trace"):
            raise DataError("form", f"is {form!r}", 'Give "blocks" or "trace"')
        n1, n2, o = self._first.points, self._second.points, self.outputs
        blocks = form == "blocks"
        element = torch.finfo(self.snapshot.dtype).bits // 8
        check_memory(n1 * n2 * (o * o if blocks else 1) * element, "the dense kernel", self.memory)
        like = next(iter(self.snapshot.values.values()))
        shape = (n1, o, n2, o) if blocks else (n1, n2)
        result = torch.zeros(shape, dtype=self.snapshot.dtype, device=like.device)
        with self.snapshot.installed(self.rates):
            for j in tqdm(range(n2), desc="kernel by products", disable=not self.progress, leave=False):
                self._fill(result, j, blocks)
        if self.is_symmetric:
            flat = result.view(n1 * o, n1 * o) if blocks else result
            flat.copy_((flat + flat.T) / 2)  # a point's own block has both of its halves
            flat.diagonal().add_(self.shift)
        return result

    def _fill(self, result: Tensor, j: int, blocks: bool) -> None:
        """The column of point j; of a symmetric matrix its first j + 1 entries, and what mirrors them."""
        upto = j + 1 if self.is_symmetric else self._first.points
        rows = (self._scaled(row) for row in self._second.rows(j))
        for b, column in enumerate(self._first.times_each(rows, upto)):
            if blocks:
                result[:upto, :, j, b] = column
                if self.is_symmetric:
                    result[j, b, :j] = column[:j]
            else:
                result[:upto, j] += column[:, b] / self.outputs
        if self.is_symmetric and not blocks:
            result[j, :j] = result[:j, j]

    def _applied(self, v: Any, left: JacobianProducts, right: JacobianProducts) -> Any:
        columns, restore = _as_columns(v, right.points * self.outputs, self.snapshot)
        with self.snapshot.installed(self.rates):
            vectors = (
                self._scaled(right.transposed(column.reshape(right.points, self.outputs)))
                for column in columns.unbind(1)
            )
            products = [product.flatten() for product in left.times_each(vectors)]
        result = torch.stack(products, 1) if products else columns.new_zeros(left.points * self.outputs, 0)
        return restore(result + self.shift * columns if self.shift else result)

    def _scaled(self, vector: dict[str, Tensor]) -> dict[str, Tensor]:
        """c ∘ t."""
        return {name: t * self.rates[name] if self.rates[name] != 1 else t for name, t in vector.items()}

    def _check_symmetry(self) -> None:
        """uᵀ(Θ v) = (Θᵀ u)ᵀ v = ⟨J(x1)ᵀ u, c ∘ J(x2)ᵀ v⟩ for random u and v."""
        first, second = self._first, self._second
        u, v = (random_like(p.points, self.outputs, self.snapshot, seed) for p, seed in ((first, 1), (second, 2)))
        left, right = first.transposed(u), second.transposed(v)
        expected = sum(c * inner(left[name], right[name]) for name, c in self.rates.items())
        size = sqrt(self._square(left) * self._square(right))
        found = {
            "uᵀ(Θ v)": inner(u, first.times(self._scaled(right))),
            "(Θᵀ u)ᵀ v": inner(v, second.times(self._scaled(left))),
        }
        for name, value in found.items():
            if not abs(value - expected) <= torch.finfo(self.snapshot.dtype).eps ** 0.5 * size:
                raise NotExactError(
                    place_of(self.snapshot.model),
                    f"its kernel-vector product is wrong: {name} = {value:.6g}, by plain autograd {expected:.6g}",
                    "Use EmpiricalNTK's own matrices, and report the model",
                )

    def _square(self, vector: Mapping[str, Tensor]) -> float:
        return sum(c * inner(vector[name], vector[name]) for name, c in self.rates.items())

    def __repr__(self) -> str:
        n1, n2 = self.shape
        ridge = f" + {self.shift:.3g} I" if self.shift else ""
        return f"KernelOperator({n1} x {n2}{ridge}, {self.snapshot.dtype}, {self.method}, batches of {self.batch})"


def _as_columns(v: Any, rows: int, snapshot: Snapshot) -> tuple[Float[Tensor, "N k"], Any]:
    """A vector or matrix as the model's numbers, (N, k), and how to give a result back in its likeness."""
    if not isinstance(v, (Tensor, np.ndarray)):
        raise DataError("v", f"is a {type(v).__name__}", "Give a tensor or a numpy array")
    given = v if isinstance(v, Tensor) else torch.from_numpy(np.ascontiguousarray(v))
    if given.ndim not in (1, 2) or given.shape[0] != rows:
        raise DataError("v", f"has shape {tuple(given.shape)}", f"Give ({rows},) or ({rows}, k)")
    if given.is_complex():
        raise DataError("v", f"has dtype {given.dtype}", "Give real numbers: the real and imaginary parts apart")
    if not bool(torch.isfinite(given).all()):
        raise DataError("v", "has entries that are NaN or infinite", "Look at what the solver did before")
    like = next(iter(snapshot.values.values()))
    columns = given.detach().to(like.device, snapshot.dtype).reshape(rows, given[0].numel())
    dtype = given.dtype if given.is_floating_point() else snapshot.dtype

    def restore(result: Tensor) -> Any:
        result = result.to(given.device, dtype).reshape(len(result), *given.shape[1:])
        return result if isinstance(v, Tensor) else result.numpy()

    return columns, restore
