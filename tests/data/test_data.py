"""Named sets and files become tensors; what is wrong with a file is said before any work."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from priorscope import data
from priorscope.data.idx import read_idx
from priorscope.data.inputs import check_inputs, encode, equal
from priorscope.data.named import FASHION, FASHION_FOLDER
from priorscope.errors import DataError


@pytest.mark.parametrize("name", sorted(data.NAMES))
def test_named_sets_split_into_standardised_points(name):
    if name == "fashion_mnist" and not Path(FASHION_FOLDER).is_dir():
        pytest.skip("its files are installed by hand")
    s = data.split(data.named(name), train=60, test=20, seed=1)
    assert len(s.x) == len(s.y) == 60
    assert len(s.x_test) == 20
    assert abs(float(s.x.mean())) < 1e-9
    assert s.dataset.task == ("regression" if name == "diabetes" else "classification")
    again = data.split(data.named(name), train=60, test=20, seed=1)
    assert torch.equal(s.x, again.x)


def test_csv_columns_are_standardised_or_one_hot(tmp_path):
    path = tmp_path / "cars.csv"
    pd.DataFrame(
        {"power": [50, 60, 70, 80.0], "doors": [2, 4, 2, 4], "fuel": ["a", "b", "a", "b"], "price": [1.5, 2.5, 3, 4]}
    ).to_csv(path, index=False)
    d = data.load(str(path), "price")
    assert d.task == "regression"
    assert d.features == ("power", "doors", "fuel_a", "fuel_b")
    s = data.split(d, train=3, test=1)
    assert torch.allclose(s.x[:, :2].mean(0), torch.zeros(2), atol=1e-12)
    assert set(s.x[:, 2:].flatten().tolist()) <= {0.0, 1.0}
    assert "fuel" in " ".join(s.notes)
    assert data.load(str(path), "fuel").class_names == ("a", "b")


def test_npz(tmp_path):
    path = tmp_path / "mine.npz"
    np.savez(path, x=np.random.rand(6, 1, 4, 4), y=np.array([3, 3, 7, 7, 3, 7]))
    d = data.load(str(path))
    assert d.is_image
    assert d.class_names == ("3", "7")
    with pytest.raises(DataError, match="--target y: has no meaning"):
        data.load(str(path), "y")


def test_classes_are_counted_on_all_of_the_data():
    x = torch.randn(20, 2)
    y = torch.arange(20) % 2
    y[19] = 2
    assert data.Dataset("three", x, y).classes == 3
    assert data.Dataset("four", x, y, class_names=("a", "b", "c", "d")).classes == 4
    assert data.Dataset("numbers", x, torch.randn(20)).classes is None
    assert data.Dataset("signs", x, 2 * (torch.arange(20) % 2) - 1).classes is None


def test_splits_that_leave_nothing_to_learn_raise():
    x = torch.randn(20, 2)
    with pytest.raises(DataError, match="single class on the 16 training points"):
        data.split(data.Dataset("one", x, torch.zeros(20, dtype=torch.int64)))
    with pytest.raises(DataError, match="is constant on the training points"):
        data.split(data.Dataset("flat", x, torch.ones(20)))
    with pytest.raises(DataError, match="of which 1 is for training"):
        data.split(data.Dataset("two", x[:2], torch.randn(2)))


def test_files_that_cannot_be_used_say_why(tmp_path):
    path = tmp_path / "t.csv"
    pd.DataFrame({"a": [1.0, None], "b": [1, 2]}).to_csv(path, index=False)
    with pytest.raises(DataError, match=r"missing values in a \(1\)"):
        data.load(str(path), "b")
    with pytest.raises(DataError, match=r"no column 'c'\. Columns are a, b"):
        data.load(str(path), "c")
    with pytest.raises(DataError, match="needs a target"):
        data.load(str(path))
    with pytest.raises(DataError, match="does not exist"):
        data.load("nowhere.csv", "b")
    with pytest.raises(DataError, match="is not known"):
        data.load("imagenet")
    np.savez(tmp_path / "t.npz", x=np.ones(3))
    with pytest.raises(DataError, match="no array 'y'"):
        data.load(str(tmp_path / "t.npz"))
    (tmp_path / "u.csv").write_text("")
    with pytest.raises(DataError, match="not a readable CSV"):
        data.load(str(tmp_path / "u.csv"), "b")


def test_labels_are_encoded_by_their_kind():
    classes = encode(torch.tensor([0, 2, 1]), 3)
    assert classes.values.shape == (3, 3)
    assert torch.allclose(classes.values.sum(1), torch.zeros(3))
    signs = encode(torch.tensor([1, -1, 1]), 3)
    assert signs.values[:, 0].tolist() == [1, -1, 1]
    assert encode(torch.tensor([1, 1]), 2).classes == 2
    assert encode(torch.tensor([1, 1]), 2, signs=True).values[:, 0].tolist() == [1, 1]
    assert encode(torch.tensor([0, 1]), 2, signs=True).classes == 2
    flat = encode(torch.tensor([0.5, 1.0], dtype=torch.float32), 2)
    assert flat.restore(flat.values).dtype == torch.float32
    assert flat.restore(flat.values).shape == (2,)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (torch.ones(2), "for 3 points"),
        (torch.tensor([1.0, float("nan"), 0.0]), "NaN"),
        (torch.tensor([0, -3, 1]), "class -3"),
        (torch.ones(3, 2, dtype=torch.int64), "2 axes"),
    ],
)
def test_labels_that_cannot_be_used_say_why(y, message):
    with pytest.raises(DataError, match=message):
        encode(y, 3)


def test_inputs_are_checked():
    for x, message in [
        (torch.empty(0, 3), "empty"),
        (torch.tensor([[float("inf")]]), "NaN or infinite"),
        ({"a": torch.ones(2), "b": torch.ones(3)}, "different first axes"),
        ([], "no tensor"),
    ]:
        with pytest.raises(DataError, match=message):
            check_inputs(x)


def test_equal_inputs():
    x = torch.randn(3, 2)
    same = {"a": (x, x + 1), "mask": None}
    assert equal(x, x.clone())
    assert equal(same, {"a": (x.clone(), x + 1), "mask": None})
    for other in (x + 1, x.float(), x[:2], (x,), 4, None, {"a": x}):
        assert not equal(x, other)
        assert not equal(other, x)
    assert equal((x, 2), (x, 2))
    assert not equal((x, 2), (x, 2.0))
    assert equal((x, np.ones(2)), (x, np.ones(2)))


def idx(values):
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def test_fashion_mnist_is_read_from_its_files_compressed_or_not(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (30, 28, 28), dtype=np.uint8)
    classes = np.arange(30, dtype=np.uint8) % 10
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(classes))
    monkeypatch.setenv(FASHION, str(tmp_path))
    found = data.named("fashion_mnist")
    assert torch.equal(found.x[:, 0], torch.from_numpy(images).double())
    assert torch.equal(found.y, torch.from_numpy(classes).long())
    assert found.classes == 10


def test_files_that_are_not_idx_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv(FASHION, str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"fashion_mnist.*nowhere.*dataset-fashion-mnist"):
        data.named("fashion_mnist")
    path = tmp_path / "values"
    with pytest.raises(DataError, match="not there"):
        read_idx(path)
    whole = idx(np.zeros((3, 2), dtype=np.uint8))
    for content, cause in ((b"text", "no IDX file"), (whole[:6], "no IDX file"), (whole[:-1], "5 bytes for the shape")):
        path.write_bytes(content)
        with pytest.raises(DataError, match=cause):
            read_idx(path)
    path.with_name("zipped.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(path.with_name("zipped"))
