"""Inputs and labels as everything above takes them: checked once, with a clear error, before any work starts.

Inputs are a tensor or a pytree of tensors with a common first axis. Labels are (n,), (n, o), or integer classes.

Arrays may stand for tensors: numpy.ndarray, numpy.memmap, and whatever else has shape, dtype and slices (zarr, h5py).
They may be larger than memory: `take` reads the points that are asked for and no others, in slices of neighbours, and
gives tensors.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from ..errors import DataError

Inputs = Any  # a tensor or an array, or a pytree of them with a common first axis

BYTES_AT_ONCE = 2**24
"""How much of an array is read at once."""


def count(x: Inputs) -> int:
    """The number of points: the common length of the first axes."""
    return int(leaves(x)[0].shape[0])


def leaves(x: Inputs) -> list[Any]:
    """The tensors and arrays of x, not what stands beside them (flags, None, numbers)."""
    return [leaf for leaf in tree_flatten(x)[0] if has_points(leaf)]


def has_points(leaf: Any) -> bool:
    """Whether a leaf is a tensor, or an array of at least one axis."""
    return isinstance(leaf, Tensor) or is_array(leaf)


def is_array(leaf: Any) -> bool:
    """Whether a leaf is no tensor, but has shape, dtype and slices: only what is taken of it becomes a tensor."""
    if isinstance(leaf, Tensor) or not all(hasattr(leaf, name) for name in ("shape", "dtype", "__getitem__")):
        return False
    return len(leaf.shape) > 0


def dtype_of(leaf: Any) -> torch.dtype:
    """The dtype of a leaf, an array's as torch has it; a DataError where torch has none like it."""
    if isinstance(leaf, Tensor):
        return leaf.dtype
    try:
        return torch.from_numpy(np.empty(0, _native(leaf.dtype))).dtype
    except TypeError as error:
        raise DataError("x", f"has the dtype {leaf.dtype}", "Give an array of numbers or booleans") from error


def take(x: Inputs, index: Any) -> Inputs:
    """The points x[index] of a tensor or pytree; of arrays, read into tensors on the CPU.

    Args:
        index: a slice, a list of whole numbers, or a tensor of whole numbers or booleans.
    """

    def one(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return leaf[index]
        return _read(leaf, index) if is_array(leaf) else leaf

    return tree_map(one, x)


def loaded(x: Inputs) -> Inputs:
    """x itself, its arrays read whole into tensors."""
    return tree_map(lambda leaf: _read(leaf, slice(None)) if is_array(leaf) else leaf, x)


def joined(*parts: Inputs) -> Inputs:
    """Several inputs of one structure as one, one after the other; flags and numbers beside them are the first's."""

    def one(*same: Any) -> Any:
        if not has_points(same[0]):
            return same[0]
        try:
            return torch.cat(same)
        except (RuntimeError, TypeError) as error:
            shapes = " and ".join(str(tuple(leaf.shape)) for leaf in same)
            raise DataError("the inputs", f"of shapes {shapes} cannot be joined", "Give points of one kind") from error

    return tree_map(one, *map(loaded, parts))


def pieces(leaf: Any) -> Iterator[Tensor]:
    """A tensor as it is; an array in pieces of so many points as fit into BYTES_AT_ONCE, one after the other."""
    if isinstance(leaf, Tensor):
        yield leaf
        return
    n, one = int(leaf.shape[0]), max(1, int(np.prod(leaf.shape[1:]))) * np.dtype(_native(leaf.dtype)).itemsize
    step = max(1, BYTES_AT_ONCE // one)
    for start in range(0, n, step):
        yield _read(leaf, slice(start, min(start + step, n)))


def equal(x1: Inputs, x2: Inputs) -> bool:
    """Whether two inputs are the same: one structure, and tensors of one dtype and device with equal entries.

    An array equals a tensor on the CPU or another array of the same dtype and entries.
    """
    (first, structure), (second, other) = tree_flatten(x1), tree_flatten(x2)
    return structure == other and all(map(_equal, first, second))


def _equal(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if not has_points(a) or not has_points(b):
        return isinstance(a, (int, float, str)) and type(a) is type(b) and a == b
    if tuple(a.shape) != tuple(b.shape) or dtype_of(a) != dtype_of(b):
        return False
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.device == b.device and torch.equal(a, b)
    if any(isinstance(leaf, Tensor) and leaf.device.type != "cpu" for leaf in (a, b)):
        return False
    if isinstance(a, Tensor):
        a, b = b, a
    start = 0
    for piece in pieces(a):
        if not torch.equal(piece, take(b, slice(start, start + len(piece)))):
            return False
        start += len(piece)
    return True


def check_inputs(x: Inputs, name: str = "x") -> Inputs:
    """x itself, if it has at least one point, one length, and no NaN or infinity; else a DataError that says what.

    Arrays are read once, piece by piece.
    """
    found = leaves(x)
    if not found:
        raise DataError(name, f"holds no tensor ({type(x).__name__})", "Give a tensor or a pytree of tensors")
    lengths = {int(leaf.shape[0]) if len(leaf.shape) else 0 for leaf in found}
    if len(lengths) > 1:
        raise DataError(name, f"its tensors have different first axes {sorted(lengths)}", "Give one entry per point")
    if lengths == {0}:
        raise DataError(name, "is empty", "Give at least one point; the first axis counts the points")
    for leaf in found:
        if isinstance(leaf, Tensor) and leaf.is_meta:
            raise DataError(name, "is on the device meta, where tensors have no values", "Give it on cpu or cuda")
        if isinstance(leaf, Tensor) and leaf.layout != torch.strided:
            raise DataError(name, f"has the layout {leaf.layout}", "Give a dense tensor: x.to_dense()")
        dtype = dtype_of(leaf)
        if not (dtype.is_floating_point or dtype.is_complex):
            continue
        if bad := sum(_not_finite(piece) for piece in pieces(leaf)):
            raise DataError(name, f"has {bad} entries that are NaN or infinite", "Drop or fill them first")
    return x


def _not_finite(piece: Tensor) -> int:
    finite = torch.isfinite(piece)
    return 0 if bool(finite.all()) else int((~finite).sum())


def _read(leaf: Any, index: Any) -> Tensor:
    """The points of an array, copied into a tensor; by slices alone, which all arrays have."""
    n = int(leaf.shape[0])
    if isinstance(index, slice):
        start, stop, step = index.indices(n)
        if step == 1:
            return _tensor(leaf[start : max(start, stop)], leaf.dtype)
        index = range(start, stop, step)
    chosen = torch.as_tensor(index)
    chosen = chosen.nonzero()[:, 0] if chosen.dtype == torch.bool else chosen
    rows = []
    for i in chosen.tolist():
        if not -n <= i < n:
            raise IndexError(f"point {i} of {n}")
        rows.append(_tensor(leaf[i % n : i % n + 1], leaf.dtype))
    return torch.cat(rows) if rows else _tensor(leaf[0:0], leaf.dtype)


def _tensor(part: Any, dtype: Any) -> Tensor:
    # A copy: torch shares no memory that is read-only, reversed or not of the machine's byte order.
    dtype_of(part)
    return torch.from_numpy(np.array(part, dtype=_native(dtype), order="C"))


def _native(dtype: Any) -> np.dtype:
    """A numpy dtype in the machine's byte order."""
    return np.dtype(dtype).newbyteorder("=")


@dataclass(frozen=True)
class Labels:
    """Labels as the mathematics takes them.

    values: (n, o) float64. like: how to give results back in the shape and dtype of the user's y.
    """

    values: Tensor
    dtype: torch.dtype
    flat: bool
    classes: int | None = None

    @property
    def outputs(self) -> int:
        return self.values.shape[1]

    def restore(self, values: Tensor) -> Tensor:
        """(..., m, o) float64 -> like the user's y: (..., m) if y was (n,), in y's dtype."""
        return (values[..., 0] if self.flat else values).to(self.dtype)


def encode(y: Tensor, points: int, classes: int | None = None, name: str = "y", signs: bool = False) -> Labels:
    """The user's labels, checked and encoded.

    Args:
        y: (n,) or (n, o), floating; or (n,) integers. Integer ±1 stay as they are; other integers are classes
            0..C−1 and become one-hot − 1/C, (n, C).
        points: the number of inputs that y must match.
        classes: C, where more is known of it than y itself shows.
        signs: integers that are all 1 are signs too, not the class 1: for labels that stand beside other signs.
    """
    if not isinstance(y, Tensor):
        raise DataError(name, f"is a {type(y).__name__}", "Give a tensor: torch.as_tensor(...)")
    if y.ndim not in (1, 2) or len(y) != points:
        raise DataError(name, f"has shape {tuple(y.shape)} for {points} points", f"Give ({points},) or ({points}, o)")
    if y.is_floating_point():
        if not bool(torch.isfinite(y).all()):
            raise DataError(name, "has entries that are NaN or infinite", "Drop those points first")
        return Labels(y.reshape(points, -1).to(torch.float64), y.dtype, flat=y.ndim == 1)
    if y.is_complex() or y.ndim == 2:
        raise DataError(name, f"has dtype {y.dtype} and {y.ndim} axes", "Give classes as (n,) integers, or floats")
    default = torch.get_default_dtype()
    if y.dtype != torch.bool and bool((y.abs() == 1).all()) and (signs or bool((y == -1).any())):
        return Labels(y.to(torch.float64)[:, None], default, flat=True)
    y = y.to(torch.int64)
    if int(y.min()) < 0:
        raise DataError(name, f"has the class {int(y.min())}", "Number the classes 0..C-1, or give floats")
    classes = max(int(y.max()) + 1, classes or 2)
    onehot = torch.nn.functional.one_hot(y, classes).to(torch.float64) - 1 / classes
    return Labels(onehot, default, flat=False, classes=classes)
