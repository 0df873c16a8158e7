"""Which points a network takes for like: cosines, dual weights, nearest points, and points it cannot tell apart."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..data.inputs import Inputs, check_inputs, count, take
from ..errors import DataError
from ..kernels.frozen import takes_kernel_on_data
from ..kernels.on_data import OnData
from ..results import Result
from .coupling import GivenKernel, check_kernel

CHUNK = 2**22
"""Entries of a kernel matrix that are held at a time."""

RESOLUTION = {torch.float64: 1e-12, torch.float32: 4e-6}
"""The relative squared feature distance that rounding leaves between equal points, by the kernel's dtype."""


def cosine(kernel: GivenKernel, x1: Inputs, x2: Inputs | None = None) -> Float[Tensor, "n1 n2"]:
    """The cosine between features, k(x, x') / √(k(x, x) k(x', x')).

    Args:
        kernel: a kernel.
        x1: n1 points.
        x2: n2 points; None for x1.

    Returns:
        (n1, n2), within [−1, 1]; 0 where a variance is 0.

    >>> from priorscope.kernels import Linear
    >>> cosine(Linear(), torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]])).tolist()[0]
    [1.0, 1.0, 0.0]
    """
    kernel = check_kernel(kernel, "cosine")
    matrix = kernel(x1, x2)
    first = kernel.diagonal(x1)
    second = first if x2 is None else kernel.diagonal(x2)
    size = first.sqrt()[:, None] * second.sqrt()
    return torch.where(size > 0, matrix / size.clamp_min(torch.finfo(size.dtype).tiny), 0.0).clamp(-1, 1)


@takes_kernel_on_data
def influence(kernel: GivenKernel, x: Inputs, x_new: Inputs, ridge: float = 0.0) -> Float[Tensor, "m n"]:
    """The dual weights K(x_new, X) (K + ridge·I)⁻¹: how much each training label moves each prediction.

    Args:
        kernel: a kernel, or `kernel.on(x)` (and then x is left out). Of coupled outputs, the trace kernel.
        x: n training points.
        x_new: m points.
        ridge: at least 0; 0 is the limit ridge → 0 (the pseudo-inverse, where the kernel is singular).

    Returns:
        (m, n), in the kernel's dtype. Weights can be negative and need not sum to 1.
    """
    if not ridge >= 0:
        raise DataError("ridge", f"is {ridge}", "Give a number of at least 0")
    data = check_kernel(kernel, "influence").on(x)
    return data.eigen.solve(data.cross(x_new).T, ridge).T.to(data(data.x).dtype)


@dataclass(frozen=True, eq=False)
class Neighbours(Result):
    """The training points most like each new point, by cosine.

    Args:
        index: (m, k), rows of the training data, most similar first.
        cosine: (m, k), their cosines.
    """

    index: Int[Tensor, "m k"]
    cosine: Float[Tensor, "m k"]


@takes_kernel_on_data
def most_similar(kernel: GivenKernel, x: Inputs, x_new: Inputs, k: int = 5) -> Neighbours:
    """The k training points most like each new point.

    Args:
        kernel: a kernel, or `kernel.on(x)` (and then x is left out).
        x: n training points.
        x_new: m points.
        k: how many, at most n.
    """
    check_inputs(x)
    if not 1 <= k <= count(x):
        raise DataError("k", f"is {k} for {count(x)} points", f"Give 1 to {count(x)}")
    found = cosine(kernel, x_new, x).topk(k, dim=1)
    return Neighbours(found.indices, found.values)


@takes_kernel_on_data
def indistinguishable(kernel: GivenKernel, x: Inputs, x_new: Inputs) -> Bool[Tensor, " m"]:
    """Whether the kernel cannot tell a new point from some training point; see `indistinguishable_pairs`.

    >>> from priorscope.kernels import Linear
    >>> x, x_new = torch.tensor([[1.0], [2.0]]), torch.tensor([[2.0], [3.0]])
    >>> indistinguishable(Linear(), x, x_new).tolist()
    [True, False]
    """
    pairs = indistinguishable_pairs(kernel, x, x_new)
    return torch.zeros(count(x_new), dtype=torch.bool, device=pairs.device).index_fill(0, pairs[:, 0], True)


@takes_kernel_on_data
def indistinguishable_pairs(kernel: GivenKernel, x: Inputs, x_new: Inputs) -> Int[Tensor, "p 2"]:
    """Pairs (row of x_new, row of x) that the kernel cannot tell apart, equal to rounding in feature space.

    ‖φ(a) − φ(b)‖² = k(a, a) + k(b, b) − 2 k(a, b) ≤ tolerance · (k(a, a) + k(b, b)), with a tolerance of 1e-12 in
    float64 and 4e-6 in float32: no prediction depends on which of the two is meant.

    Args:
        kernel: a kernel, or `kernel.on(x)` (and then x is left out).
        x: n training points.
        x_new: m points.

    Returns:
        (p, 2), integers.
    """
    kernel = check_kernel(kernel, "indistinguishable")
    check_inputs(x_new, "x_new")
    train = kernel.diagonal(x).detach().to(torch.float64)
    found, rows = [], max(1, CHUNK // count(x))
    known = kernel(x).detach() if x_new is x and isinstance(kernel, OnData) else None
    for begin in range(0, count(x_new), rows):
        some = take(x_new, slice(begin, begin + rows))
        cross = kernel(some, x).detach() if known is None else known[begin : begin + rows]
        tolerance = RESOLUTION.get(cross.dtype, 1e-2)
        sizes = kernel.diagonal(some).detach().to(torch.float64)[:, None] + train
        near = (sizes - 2 * cross.to(torch.float64)) <= tolerance * sizes
        found.append(near.nonzero() + torch.tensor([begin, 0], device=near.device))
    return torch.cat(found)
