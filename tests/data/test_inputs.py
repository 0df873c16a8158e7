"""Inputs that are no tensors in memory: what is taken of them is what a tensor would give, and no more is read."""

from collections import OrderedDict

import numpy as np
import pytest
import torch

from priorscope import EmpiricalNTK, eigenmodes
from priorscope.data import inputs
from priorscope.data.inputs import check_inputs, count, dtype_of, equal, leaves, loaded, pieces, take
from priorscope.errors import DataError
from priorscope.network.function import cast, evaluate, pair_of_points
from priorscope.training.run import train
from priorscope.training.training import Training
from tests.cases import mlp


class Stored:
    """An array as zarr and h5py have it: shape, dtype and slices of neighbours; it notes what is read."""

    def __init__(self, values: np.ndarray):
        self._values, self.shape, self.dtype, self.read = values, values.shape, values.dtype, []

    def __getitem__(self, index: slice) -> np.ndarray:
        assert isinstance(index, slice)
        assert index.step in (None, 1)
        self.read.append(index)
        return self._values[index]


@pytest.fixture
def memmap(tmp_path) -> np.memmap:
    values = np.random.default_rng(0).standard_normal((7, 3))
    np.save(tmp_path / "x.npy", values)
    return np.load(tmp_path / "x.npy", mmap_mode="r")


INDICES = [
    slice(None),
    slice(2, 5),
    slice(-2, None),
    slice(0, 99),
    slice(5, 2),
    slice(None, None, 3),
    [0, -1],
    [3, 3, 1],
    [],
    torch.tensor([4, 0]),
    torch.tensor([True, False, True, False, False, False, True]),
]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_what_is_taken_is_what_a_tensor_gives(memmap, index):
    x = torch.from_numpy(np.array(memmap))
    for array in (memmap, np.asarray(memmap), Stored(np.asarray(memmap))):
        assert torch.equal(take(array, index), x[index])
        both = take({"a": array, "b": (x, None)}, index)
        assert torch.equal(both["a"], both["b"][0])
        assert both["b"][1] is None


def test_an_index_beyond_the_end_raises(memmap):
    for index in ([7], [-8]):
        with pytest.raises(IndexError):
            take(memmap, index)


def test_reading_takes_no_more_than_is_asked_for():
    stored = Stored(np.arange(12.0).reshape(6, 2))
    take(stored, slice(2, 4))
    take(stored, [5, 0])
    assert stored.read == [slice(2, 4), slice(5, 6), slice(0, 1)]
    assert len(leaves(stored)) == 1
    assert count(stored) == 6
    assert len(stored.read) == 3


@pytest.mark.parametrize(
    "values",
    [
        np.arange(6, dtype=np.int32).reshape(3, 2),
        np.array([True, False, True]),
        np.arange(6, dtype=">f4").reshape(3, 2),
        np.arange(6.0).reshape(2, 3).T,
        np.arange(6.0)[::-2],
        np.arange(3, dtype=np.float16),
        np.array([1 + 2j, 3, 4]),
    ],
    ids=lambda values: str(values.dtype),
)
def test_dtypes_orders_and_strides(values):
    found = take(values, slice(None))
    assert found.numpy().tolist() == values.tolist()
    assert found.dtype == dtype_of(values) == dtype_of(found)
    check_inputs(values)


def test_what_is_taken_is_a_copy():
    values = np.zeros((3, 2))
    taken = take(values, slice(0, 2))
    taken += 1
    assert not values.any()


def test_arrays_without_numbers_raise():
    for values in (np.array(["a", "b"]), np.array([object()]), np.zeros(2, dtype=[("a", int)])):
        with pytest.raises(DataError, match=r"has the dtype .*Give an array of numbers"):
            check_inputs(values)


def test_checks_see_every_piece(monkeypatch):
    monkeypatch.setattr(inputs, "BYTES_AT_ONCE", 40)
    values = np.zeros((11, 2))
    stored = Stored(values)
    check_inputs(stored)
    assert [index.stop - index.start for index in stored.read] == [2, 2, 2, 2, 2, 1]
    assert torch.equal(torch.cat(list(pieces(stored))), torch.zeros(11, 2))
    values[10, 0], values[3, 1] = np.nan, np.inf
    with pytest.raises(DataError, match="has 2 entries that are NaN or infinite"):
        check_inputs(Stored(values))
    with pytest.raises(DataError, match="different first axes"):
        check_inputs((values[:3], torch.zeros(2)))
    with pytest.raises(DataError, match="is empty"):
        check_inputs(values[:0])
    with pytest.raises(DataError, match="holds no tensor"):
        check_inputs({"a": np.float64(3.0), "b": 4})


def test_equal_arrays(memmap, monkeypatch):
    monkeypatch.setattr(inputs, "BYTES_AT_ONCE", 40)
    x, stored = torch.from_numpy(np.array(memmap)), Stored(np.asarray(memmap))
    for a in (memmap, x, stored):
        for b in (memmap, x, stored):
            assert equal({"a": a}, {"a": b})
    other = np.array(memmap)
    other[6, 2] += 1
    for a in (other, memmap[:6], np.asarray(memmap, dtype=np.float32), None, 3, (memmap,), x.to("meta")):
        assert not equal(memmap, a)
        assert not equal(a, memmap)


def test_arrays_are_cast_after_they_are_taken(memmap):
    values = [torch.zeros(1, dtype=torch.float32)]
    assert cast(memmap, values) is memmap
    assert cast(take(memmap, [0]), values).dtype == torch.float32
    assert cast(loaded({"x": memmap}), values)["x"].shape == (7, 3)
    assert torch.equal(pair_of_points(memmap), take(memmap, [0, -1]))
    assert pair_of_points(memmap[:1]).shape == (2, 3)


def test_a_kernel_of_arrays_is_that_of_tensors(memmap):
    model, x = mlp(3, 4, 2), torch.from_numpy(np.array(memmap))
    kernel = EmpiricalNTK(model)
    for array in (memmap, Stored(np.array(memmap))):
        assert torch.equal(kernel(array), kernel(x))
        assert torch.equal(kernel(array, x[:2]), kernel(x, x[:2]))
        assert torch.equal(kernel.blocks(array), kernel.blocks(x))
        assert torch.equal(kernel.diagonal(array), kernel.diagonal(x))
        assert torch.equal(kernel.features(array), kernel.features(x))
        assert kernel.on(array).is_known_by(kernel.on(x).fingerprint)
        assert not kernel.on(array).is_known_by(kernel.on(x.flip(0)).fingerprint)
        torch.testing.assert_close(eigenmodes(kernel, array).values, eigenmodes(kernel, x).values)
        torch.testing.assert_close(eigenmodes(kernel.on(array), x).values, eigenmodes(kernel, x).values)
    assert torch.equal(evaluate(model, memmap), evaluate(model, x))
    with pytest.raises(DataError, match="x2: its points have shapes"):
        kernel(memmap, memmap[:, :2])
    with pytest.raises(DataError, match=r"x2: has the dtype torch\.float32"):
        kernel(memmap, x.float())


def test_training_reads_arrays_whole(memmap):
    x, y = torch.from_numpy(np.array(memmap)), torch.randn(7)
    training = Training(learning_rate=0.01, steps=3)
    model = mlp(3, 4, 1)
    runs = [train(model, points, y, training).outputs for points in (x, memmap)]
    assert torch.equal(*runs)


def test_other_containers():
    x = OrderedDict(a=np.zeros((2, 3)), b=[np.ones(2), True])
    assert count(x) == 2
    assert take(x, slice(0, 1))["b"][0].tolist() == [1.0]
    assert take(x, slice(0, 1))["b"][1] is True
