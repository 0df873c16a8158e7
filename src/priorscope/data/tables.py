"""The user's own files: a CSV with a target column, or an NPZ with x and y."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from ..errors import DataError
from .dataset import Dataset
from .named import NAMES, named

FEW_CLASSES = 20
"""An integer target with at most this many different values is taken as classes."""


def load(
    source: str, target: str | None = None, task: Literal["regression", "classification"] | None = None
) -> Dataset:
    """A data set by name, or from a `.csv` (with `target`) or `.npz` (with arrays x and y) file.

    Args:
        source: a name of NAMES, or a path.
        target: the CSV's column to predict. Other numeric columns are inputs as they are; text, category and
            boolean columns become one indicator per value.
        task: what the target is, where its type does not say: floats are regression; text, booleans, and integers
            with at most 20 values are classes.
    """
    path = Path(source)
    if path.suffix == "" and not path.exists():
        if target is not None:
            raise DataError(f"--target {target}", f"has no meaning for the named data set {source!r}", "Leave it out")
        return named(source)
    if path.suffix not in (".csv", ".npz"):
        raise DataError(source, "is neither a name nor a .csv or .npz file", f"Names are {', '.join(sorted(NAMES))}")
    if not path.is_file():
        raise DataError(source, "does not exist", "Give the path of a .csv or .npz file")
    if path.suffix == ".csv":
        return _read_csv(path, target, task)
    if target is not None:
        raise DataError(
            f"--target {target}", f"has no meaning for {source!r}, whose target is its array y", "Leave it out"
        )
    return _read_npz(path, task)


def _read_csv(path: Path, target: str | None, task: str | None) -> Dataset:
    table = read_table(str(path))
    if target is None:
        columns = ", ".join(map(str, table.columns[:12]))
        raise DataError(str(path), "needs a target", f"Name the column to predict; columns are {columns}")
    return dataset_of(table, path, target, task)


def read_table(source: str) -> pd.DataFrame:
    """A CSV as it is."""
    path = Path(source)
    if not path.is_file():
        raise DataError(source, "does not exist", "Give the path of a .csv file")
    try:
        return pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(source, f"is not a readable CSV ({error})", "Give a CSV with one header line") from error


def check_table(table: pd.DataFrame, source: str) -> pd.DataFrame:
    """The table itself, if it has rows and no missing values."""
    if table.empty:
        raise DataError(source, "has no rows", "Give at least two rows")
    holes = table.isna().sum()
    if holes.any():
        listed = ", ".join(f"{name} ({number})" for name, number in holes[holes > 0].items())
        raise DataError(source, f"has missing values in {listed}", "Fill them or drop those rows first")
    return table


def dataset_of(table: pd.DataFrame, path: Path, target: str, task: str | None) -> Dataset:
    """A table with a target as points and labels."""
    if target not in table.columns:
        columns = ", ".join(map(str, table.columns[:12]))
        raise DataError(str(path), f"has no column {target!r}", f"Columns are {columns}")
    inputs = check_table(table, str(path)).drop(columns=target)
    if inputs.empty:
        raise DataError(str(path), "has no column besides the target", "Give at least one input column")
    categorical = [str(name) for name in inputs.columns if not is_number(inputs[name])]
    for name in categorical:
        if inputs[name].nunique() > max(50, len(inputs) // 2):
            raise DataError(
                f"the column {name!r}", f"has {inputs[name].nunique()} different values", "Drop it or make it a number"
            )
    made_of = features_of(inputs)
    numeric = torch.tensor([value is None for _, value in made_of.values()])
    y, class_names = _target(table[target], task)
    notes = [f"{len(table)} rows of {path.name}, {int(numeric.sum())} numeric columns"]
    if categorical:
        notes.append(f"categorical columns one-hot: {', '.join(categorical)}")
    return Dataset(
        path.stem,
        points_of(inputs, made_of),
        y,
        features=tuple(made_of),
        numeric=numeric,
        class_names=class_names,
        target=target,
        notes=tuple(notes),
    )


def features_of(inputs: pd.DataFrame) -> dict[str, tuple[str, str | None]]:
    """{feature: (its column, and the value that it indicates; None of numbers)}, numbers first.

    Raises:
        DataError: two columns that would give features of one name.
    """
    numbers = [str(name) for name in inputs.columns if is_number(inputs[name])]
    made_of: dict[str, tuple[str, str | None]] = {name: (name, None) for name in numbers}
    for name in (str(name) for name in inputs.columns if str(name) not in numbers):
        for value in sorted(set(inputs[name].astype(str))):
            feature = f"{name}_{value}"
            if feature in made_of:
                cause = f"both give a feature {feature!r}"
                raise DataError(f"the columns {made_of[feature][0]!r} and {name!r}", cause, "Rename one of them")
            made_of[feature] = (name, value)
    return made_of


def points_of(table: pd.DataFrame, made_of: Mapping[str, tuple[str, str | None]]) -> Float[torch.Tensor, "n d"]:
    """Rows of a table in these features: numbers as they are, and 1 where a column has the value, else 0."""
    columns = [
        table[column].astype(float) if value is None else table[column].astype(str) == value
        for column, value in made_of.values()
    ]
    return torch.tensor(np.stack([each.to_numpy(dtype=np.float64) for each in columns], 1))


def is_number(column: pd.Series) -> bool:
    """Whether a column holds numbers; truth values are none."""
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _target(column: pd.Series, task: str | None) -> tuple[torch.Tensor, tuple[str, ...] | None]:
    is_float = pd.api.types.is_float_dtype(column)
    if task is None:
        classes = not is_number(column) or (not is_float and column.nunique() <= FEW_CLASSES)
    else:
        classes = task == "classification"
    if not classes:
        if not is_number(column):
            raise DataError(f"the target {column.name!r}", "is not a number", "Ask for classification")
        return torch.tensor(column.to_numpy(dtype=np.float64)), None
    if column.nunique() < 2:
        raise DataError(f"the target {column.name!r}", "has a single value", "Choose another target")
    codes, values = pd.factorize(column, sort=True)
    return torch.as_tensor(codes.astype(np.int64)), tuple(map(str, values))


def _read_npz(path: Path, task: str | None) -> Dataset:
    try:
        with np.load(path, allow_pickle=False) as file:
            names = list(file)
            missing = [name for name in ("x", "y") if name not in names]
            if missing:
                raise DataError(str(path), f"has no array {missing[0]!r}", f"It has {', '.join(names)}; give x and y")
            x, y = file["x"], file["y"]
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            str(path), f"is not a readable NPZ ({error})", "Write it with numpy.savez(path, x=, y=)"
        ) from error
    if x.ndim < 2 or y.ndim != 1 or x.dtype.kind not in "fiub":
        raise DataError(str(path), f"has x {x.shape} {x.dtype} and y {y.shape}", "Give numbers x (n, ...) and y (n,)")
    labels, class_names = _target(pd.Series(y, name="y"), task)
    return Dataset(path.stem, torch.as_tensor(x.astype(np.float64)), labels, class_names=class_names)
