"""The linear datamodelling score: how well attributions order what networks do that are really trained on subsets."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import rankdata
from torch import Tensor

from ..errors import DataError
from ..results import Result
from ..training.subsets import check_subsets

LEAST = 3
"""With two subsets a rank correlation is ±1 whatever was predicted."""


@dataclass(frozen=True, eq=False)
class DatamodellingScore(Result):
    """How well predicted outputs order the measured ones over subsets of the training data.

    Args:
        value: the mean of `by_point`. 1: every order is right; about 0: chance.
        by_point: (m,), Spearman's rank correlation over the s subsets, of each new point.
        standard_error: of the value over draws of the subsets (the jackknife).
        subsets: s.
    """

    value: float
    by_point: Float[Tensor, " m"]
    standard_error: float
    subsets: int


def datamodelling_score(predicted: Tensor, measured: Tensor, subsets: Tensor | None = None) -> DatamodellingScore:
    """The linear datamodelling score: the rank correlation of predicted and measured outputs over subsets of the data.

    LDS = mean over x of Spearman's ρ over subsets S of (g(x, S), f(x; θ(S))); for attributions τ of each training
    point, g(x, S) = Σ_{i ∈ S} τ_i(x).

    Args:
        predicted: (s, m), outputs predicted for each subset; with `subsets`, attributions (m, n).
        measured: (s, m), outputs of networks that were really trained on each: see `retrain`.
        subsets: (s, n) booleans, true for points that were trained on; None where outputs are predicted.

    Returns:
        A `DatamodellingScore`.

    Raises:
        DataError: shapes that do not fit, fewer than 3 subsets, or outputs that do not differ between subsets.

    Source: Ilyas et al. 2022 (2202.00622); Park et al. 2023 (2303.14186).

    Only the order counts:

    >>> outputs = torch.tensor([[0.0, 3.0], [1.0, 2.0], [5.0, 1.0]])
    >>> datamodelling_score(outputs.exp(), outputs).value
    1.0
    """
    _check(measured, "measured")
    if subsets is not None:
        if predicted.ndim != 2:
            raise DataError("predicted", f"has shape {tuple(predicted.shape)}", "Give attributions (m, n) with subsets")
        check_subsets(subsets, predicted.shape[1])
        predicted = subsets.to(predicted) @ predicted.T
    _check(predicted, "predicted")
    if predicted.shape != measured.shape:
        cause = f"predicted has shape {tuple(predicted.shape)}, measured {tuple(measured.shape)}"
        raise DataError("datamodelling_score", cause, "Give both as (s, m): one output of m points for s subsets")
    first, second = (v.detach().cpu().to(torch.float64).numpy() for v in (predicted, measured))
    for name, values in (("predicted", first), ("measured", second)):
        constant = np.ptp(values, axis=0) == 0
        if constant.any():
            point = int(constant.nonzero()[0][0])
            raise DataError(name, f"is the same for all subsets at point {point}", "Leave that point out")
    s = len(first)
    by_point = _spearman(first, second)
    without = np.array([_spearman(np.delete(first, i, 0), np.delete(second, i, 0)).mean() for i in range(s)])
    error = float(np.sqrt((s - 1) / s * np.square(without - without.mean()).sum()))
    return DatamodellingScore(float(by_point.mean()), torch.from_numpy(by_point), error, s)


def _check(values: Tensor, name: str) -> None:
    if values.ndim != 2 or len(values) < LEAST:
        raise DataError(
            name, f"has shape {tuple(values.shape)}", f"Give (s, m), for at least {LEAST} subsets: one output at a time"
        )
    if not bool(torch.isfinite(values).all()):
        raise DataError(name, "has entries that are NaN or infinite", "Drop those subsets")


def _spearman(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(m,), over the first axis; equal values share their mean rank. 0 where one is constant."""
    a, b = (rankdata(values, axis=0) for values in (first, second))
    a, b = a - a.mean(0), b - b.mean(0)
    scale = np.sqrt(np.square(a).sum(0) * np.square(b).sum(0))
    return (a * b).sum(0) / np.where(scale > 0, scale, 1.0)
