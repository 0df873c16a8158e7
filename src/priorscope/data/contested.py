"""Two tables of the user's own: one to train on, and rows whose labels are contested, a column for each hypothesis."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..errors import DataError
from .dataset import Dataset, Scale, target_scale
from .tables import check_table, dataset_of, features_of, is_number, points_of, read_table


@dataclass(frozen=True)
class Contested:
    """Training points and contested test points, all standardised by the training points' statistics.

    x, y: (n, d) and (n,). x_new: (m, d). candidates: {name: labels of the test points}, like y.
    dataset: the training table as it was read. notes: what was done, in words.
    """

    dataset: Dataset
    x: Tensor
    y: Tensor
    x_new: Tensor
    candidates: dict[str, Tensor]
    notes: tuple[str, ...]


def contested(
    train: str,
    target: str,
    test: str,
    hypotheses: Mapping[str, str],
    task: Literal["regression", "classification"] | None = None,
) -> Contested:
    """Reads both tables.

    Args:
        train: a CSV with the target's column; all others are inputs, as in `load`.
        target: the column to predict.
        test: a CSV with the same input columns, and the hypotheses' columns. Others are left out, and said.
        hypotheses: {name: column of the test table}, in the units or class names of the target.
        task: what the target is, where its type does not say. A target and hypotheses that are all ±1, of whatever
            type, are signs: numbers that are not standardised.

    Raises:
        DataError: files or columns that are missing; inputs that are of another kind than in training, or vary where
            they were constant; labels that the target does not have; values that are missing; a hypothesis that is
            called "neither", as the networks that realise none are.
    """
    if not hypotheses:
        raise DataError("--hypotheses", "are empty", "Name at least one: A=a_column")
    if "neither" in hypotheses:
        cause = "has the name of the networks that realise none"
        raise DataError("the hypothesis 'neither'", cause, "Give it another name")
    table, questions = read_table(train), read_table(test)
    if target not in table.columns:
        raise DataError(train, f"has no column {target!r}", f"Columns are {_listed(table.columns)}")
    inputs = [str(name) for name in table.columns if name != target]
    for name in inputs:
        if name not in questions.columns:
            raise DataError(test, f"has no column {name!r}, an input of {train}", "Give the same input columns")
    for name, column in hypotheses.items():
        if column not in questions.columns:
            cause = f"has no column {column!r}, which the hypothesis {name!r} names"
            raise DataError(test, cause, f"Columns are {_listed(questions.columns)}")
        if column in inputs:
            raise DataError(f"the column {column!r}", "is an input and a hypothesis", "Name another column")
    check_table(questions[[*inputs, *dict.fromkeys(hypotheses.values())]], test)
    varying, notes = _varying(questions[inputs], check_table(table, train)[inputs], test)
    signs = task != "classification" and _are_signs(table[target], questions[list(dict.fromkeys(hypotheses.values()))])
    dataset = dataset_of(table[[*varying, target]], Path(train), target, "regression" if signs else task)
    raw = points_of(questions, features_of(table[varying]))
    scale = Scale.of(dataset.x, dataset)
    candidates = {name: _labels(questions[column], dataset, name, table[target]) for name, column in hypotheses.items()}
    y, notes = dataset.y, (*dataset.notes, *notes, *scale.notes)
    if signs:
        notes += (f"the target and the hypotheses are signs, ±1, and not standardised ({target})",)
    elif dataset.task == "regression":
        centre, spread = target_scale(y, dataset)
        y = (y - centre) / spread
        candidates = {name: (labels - centre) / spread for name, labels in candidates.items()}
        notes += (f"the target standardised ({target} = {centre:.4g} + {spread:.4g}·y)",)
    elif int(dataset.y.min()) == int(dataset.y.max()):
        raise DataError(f"the target {target!r}", "has a single class", "Choose another target")
    asked = {*inputs, *hypotheses.values()}
    unused = [str(name) for name in questions.columns if name not in asked]
    if unused:
        notes += (f"columns of {Path(test).name} that are not used: {', '.join(unused)}",)
    return Contested(dataset, scale(dataset.x), y, scale(raw), candidates, notes)


def _varying(questions: pd.DataFrame, train: pd.DataFrame, test: str) -> tuple[list[str], tuple[str, ...]]:
    """The inputs that vary in training, and a note on the others; test rows of another kind are refused."""
    constant = []
    for name in map(str, train.columns):
        place, first = f"the column {name!r} of {test}", train[name].iloc[0]
        if not is_number(train[name]):
            if unknown := sorted(set(questions[name].astype(str)) - set(train[name].astype(str))):
                cause = f"has {unknown[0]!r}, which no training row has"
                raise DataError(place, cause, "Leave those rows out, or add training rows")
        elif not is_number(questions[name]):
            raise DataError(place, "is not a number, as it is in training", "Give numbers")
        if train[name].nunique() > 1:
            continue
        constant.append(name)
        if is_number(train[name]) and bool((questions[name] != first).any()):
            cause = f"has other values than {first}, which every training row has: training says nothing of them"
            raise DataError(place, cause, "Drop the column, or add training rows")
    varying = [str(name) for name in train.columns if name not in constant]
    if constant and not varying:
        raise DataError("the inputs", "are constant in training", "Give an input that varies")
    return varying, ((f"columns that are constant, left out: {', '.join(constant)}",) if constant else ())


def _are_signs(target: pd.Series, hypotheses: pd.DataFrame) -> bool:
    """Whether all are numbers and ±1, and the target has both."""
    numbers = is_number(target) and all(is_number(hypotheses[name]) for name in hypotheses.columns)
    return numbers and set(target) == {-1, 1} and bool(hypotheses.isin([-1, 1]).all(axis=None))


def _labels(column: pd.Series, dataset: Dataset, name: str, target: pd.Series) -> Tensor:
    """A hypothesis in the target's own terms: numbers, or the number of its class."""
    place = f"the hypothesis {name!r} (column {column.name!r})"
    if dataset.class_names is None:
        if not is_number(column):
            raise DataError(place, "is not a number, as the target is", "Give numbers")
        return torch.tensor(column.to_numpy(dtype=np.float64))
    # 1.0 of one table is the class 1 of the other.
    as_numbers = is_number(column) and is_number(target)
    given = [str(float(value)) if as_numbers else str(value) for value in column]
    known = {str(float(each)) if as_numbers else each: code for code, each in enumerate(dataset.class_names)}
    for value in given:
        if value not in known:
            cause = f"names the class {value}, the target has {', '.join(dataset.class_names[:8])}"
            raise DataError(place, cause, "Give classes of the target")
    return torch.tensor([known[value] for value in given])


def _listed(columns: pd.Index) -> str:
    return ", ".join(map(str, columns[:12]))
