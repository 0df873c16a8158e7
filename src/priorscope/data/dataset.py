"""A data set as it was read, and its split into standardised training and test points."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import DataError
from .inputs import check_inputs, encode


@dataclass(frozen=True)
class Dataset:
    """Points and labels as they were read.

    x: (n, d) or (n, *image_shape), floating, in the units of the source. y: (n,) floating (regression) or integer
    classes. features: a name per column, where x are rows. numeric: which columns are numbers (the others are
    indicators of categories). notes: what was done to the source, in words.
    """

    name: str
    x: Tensor
    y: Tensor
    features: tuple[str, ...] | None = None
    numeric: Tensor | None = None
    class_names: tuple[str, ...] | None = None
    target: str = "y"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_inputs(self.x, f"the inputs of {self.name}")
        if len(self.y) != len(self.x):
            raise DataError(self.name, f"has {len(self.x)} points and {len(self.y)} labels", "Give one label per point")
        if self.y.is_floating_point():
            check_inputs(self.y, f"the labels of {self.name}")

    @property
    def task(self) -> Literal["regression", "classification"]:
        return "regression" if self.y.is_floating_point() else "classification"

    @property
    def classes(self) -> int | None:
        """The number of classes in all of the data, whatever a split holds; None for numbers and for ±1."""
        return encode(self.y, len(self.y), len(self.class_names or ())).classes

    @property
    def is_image(self) -> bool:
        return self.x.ndim > 2


@dataclass(frozen=True)
class Split:
    """Training and test points of a data set, standardised by the training points' statistics.

    x, y: training points. x_test, y_test: test points. raw, raw_test: the same points in the source's units.
    """

    dataset: Dataset
    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor
    raw: Tensor
    raw_test: Tensor
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Scale:
    """What standardises points by the training points' statistics: numeric columns one by one, images as a whole.

    notes: what it does, in words.
    """

    mean: Tensor
    size: Tensor
    notes: tuple[str, ...]

    @classmethod
    def of(cls, raw: Tensor, dataset: Dataset) -> "Scale":
        """Of these training points."""
        if dataset.is_image:
            mean, size = raw.mean(), raw.std()
            note = "pixels minus their mean, over their standard deviation (one of each, of the training images)"
        else:
            mean, size = raw.mean(0), raw.std(0, unbiased=False)
            size = torch.where(raw.amax(0) > raw.amin(0), size, 0.0)  # not the rounding of a constant's mean
            if dataset.numeric is not None:
                mean, size = torch.where(dataset.numeric, mean, 0.0), torch.where(dataset.numeric, size, 1.0)
            note = "numeric columns standardised by the training points' mean and standard deviation"
        return cls(mean, torch.where(size > 0, size, 1.0), (note,))

    def __call__(self, raw: Tensor) -> Tensor:
        return (raw - self.mean) / self.size


def target_scale(y: Tensor, dataset: Dataset) -> tuple[float, float]:
    """Mean and standard deviation of the training points' numbers; a DataError where they do not vary."""
    centre, spread = float(y.mean()), float(y.std(unbiased=False))
    if not spread > 0:
        place = f"the target of {dataset.name}"
        raise DataError(place, "is constant on the training points", "Choose another target")
    return centre, spread


def split(dataset: Dataset, train: int | None = None, test: int | None = None, seed: int = 0) -> Split:
    """Shuffles, splits and standardises: numeric columns one by one, images by one mean and one size.

    Args:
        train: number of training points; default 4/5 of the data.
        test: number of test points; default what is left, at most a quarter of `train`.
    """
    n = len(dataset.x)
    train = max(1, n * 4 // 5) if train is None else train
    test = max(1, min(n - train, train // 4)) if test is None else test
    if train < 1 or test < 1 or train + test > n:
        raise DataError(dataset.name, f"has {n} points, {train} + {test} are asked", "Ask for fewer")
    if train < 2:
        raise DataError(dataset.name, f"has {n} points, of which 1 is for training", "Give at least 2 training points")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    chosen, held_out = order[:train], order[train : train + test]
    raw, raw_test = dataset.x[chosen], dataset.x[held_out]
    scale = Scale.of(raw, dataset)
    notes = list(scale.notes)
    y, y_test = dataset.y[chosen], dataset.y[held_out]
    if dataset.task == "regression":
        centre, spread = target_scale(y, dataset)
        y, y_test = (y - centre) / spread, (y_test - centre) / spread
        notes.append(f"the target standardised ({dataset.target} = {centre:.4g} + {spread:.4g}·y)")
    elif bool((y == y[0]).all()):
        raise DataError(
            f"the target of {dataset.name}",
            f"has a single class on the {train} training points",
            "Ask for more training points, another seed, or another target",
        )
    return Split(
        dataset,
        scale(raw),
        y,
        scale(raw_test),
        y_test,
        raw,
        raw_test,
        (*dataset.notes, *notes),
    )
