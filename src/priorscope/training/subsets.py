"""The same network, really trained anew on each of many subsets of the data: what removal is judged by."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from ..data.inputs import Inputs, check_inputs, count, encode, take
from ..errors import DataError
from .run import train
from .training import Training


def retrain(
    model: nn.Module,
    x: Inputs,
    y: Tensor,
    subsets: Tensor,
    x_new: Inputs,
    training: Training,
    rates: Any = None,
    seed: int = 0,
    progress: bool = False,
) -> Float[Tensor, "s m *o"]:
    """Really trains a copy of the network on each subset of the data, from the same weights, and asks it at new points.

    Args:
        model: the network at its start.
        x: n points. y: (n,), (n, o), or (n,) integer classes, as in `train`.
        subsets: (s, n) booleans, true for points that are trained on.
        x_new: m points.
        training: discrete steps, the same for each subset.
        rates, seed: as in `train`.
        progress: shows a bar.

    Returns:
        (s, m, o), or (s, m) where y is (n,): outputs at the end, in the model's dtype.

    Raises:
        DataError: subsets that do not fit, or are empty.
        and what `train` raises.

    A PriorscopeWarning says that a training diverged; its outputs are NaN.

    >>> net, x = nn.Linear(1, 1), torch.tensor([[1.0], [2.0], [3.0]])
    >>> subsets = torch.tensor([[True, True, False], [False, True, True]])
    >>> retrain(net, x, x[:, 0], subsets, x, Training(learning_rate=0.1, steps=3000)).round(decimals=2).tolist()
    [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]
    """
    labels = encode(y, count(check_inputs(x)))
    check_subsets(subsets, labels.values.shape[0])
    # Classes stay classes: how many there are is the model's to say. Signs of a subset might be taken for classes.
    given = labels.values.to(labels.dtype) if labels.classes is None else y
    outputs = []
    for chosen in tqdm(subsets, disable=not progress, desc="training on subsets", leave=False):
        rows = chosen.nonzero()[:, 0]
        some = train(model, take(x, rows), given[rows.to(given.device)], training, rates, x_new, at=[], seed=seed)
        end = some.outputs[-1]
        outputs.append(end if some.diverged_at is None else torch.full_like(end, torch.nan))
    stacked = torch.stack(outputs)
    return stacked[..., 0] if labels.flat else stacked


def check_subsets(subsets: Tensor, n: int) -> None:
    """Raises a DataError where subsets are not (s, n) booleans with a point each."""
    if subsets.dtype != torch.bool or subsets.ndim != 2 or subsets.shape[1] != n:
        what = f"is {subsets.dtype}, {tuple(subsets.shape)} for {n} points"
        raise DataError("subsets", what, f"Give booleans of shape (s, {n})")
    if not bool(subsets.any(1).all()):
        raise DataError("subsets", f"number {int((~subsets.any(1)).nonzero()[0])} is empty", "Drop it")
