"""Inputs and labels as everything above takes them: checked once, with a clear error, before any work starts.

Inputs are a tensor or a pytree of tensors with a common first axis. Labels are (n,), (n, o), or integer classes.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from ..errors import DataError

Inputs = Any  # a tensor, or a pytree of tensors with a common first axis


def count(x: Inputs) -> int:
    """The number of points: the common length of the first axes."""
    return len(leaves(x)[0])


def leaves(x: Inputs) -> list[Tensor]:
    return [leaf for leaf in tree_flatten(x)[0] if isinstance(leaf, Tensor)]


def take(x: Inputs, index: Any) -> Inputs:
    """The points x[index] of a tensor or pytree."""
    return tree_map(lambda leaf: leaf[index] if isinstance(leaf, Tensor) else leaf, x)


def equal(x1: Inputs, x2: Inputs) -> bool:
    """Whether two inputs are the same: one structure, and tensors of one dtype and device with equal entries."""
    (first, structure), (second, other) = tree_flatten(x1), tree_flatten(x2)
    return structure == other and all(map(_equal, first, second))


def _equal(a: Any, b: Any) -> bool:
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return a is b or (isinstance(a, (int, float, str)) and type(a) is type(b) and a == b)
    return a is b or (a.dtype == b.dtype and a.device == b.device and torch.equal(a, b))


def check_inputs(x: Inputs, name: str = "x") -> Inputs:
    """x itself, if it has at least one point, one length, and no NaN or infinity; else a DataError that says what."""
    tensors = leaves(x)
    if not tensors:
        raise DataError(name, f"holds no tensor ({type(x).__name__})", "Give a tensor or a pytree of tensors")
    lengths = {leaf.shape[0] if leaf.ndim else 0 for leaf in tensors}
    if len(lengths) > 1:
        raise DataError(name, f"its tensors have different first axes {sorted(lengths)}", "Give one entry per point")
    if lengths == {0}:
        raise DataError(name, "is empty", "Give at least one point; the first axis counts the points")
    for leaf in tensors:
        if (leaf.is_floating_point() or leaf.is_complex()) and not bool(torch.isfinite(leaf).all()):
            bad = int((~torch.isfinite(leaf)).sum())
            raise DataError(name, f"has {bad} entries that are NaN or infinite", "Drop or fill them first")
    return x


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
