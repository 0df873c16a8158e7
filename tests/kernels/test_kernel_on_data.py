"""A kernel on its data: accepted wherever (kernel, x) is, with x left out or given nevertheless."""

import copy
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from priorscope import Training, compare, trained_ensemble
from priorscope.beliefs import GaussianProcess, cosine, eigenmodes, indistinguishable, influence, most_similar
from priorscope.errors import DataError
from priorscope.kernels import RBF, KernelPair
from priorscope.kernels.frozen import takes_kernel_on_data
from priorscope.training.trajectory import trajectory

X, OTHER = torch.arange(3.0)[:, None], torch.ones(2, 1)


@takes_kernel_on_data
def called(kernel, x, x_new, k=5):
    return x, x_new, k


@takes_kernel_on_data
def alone(kernel, x, rank=None):
    return x, rank


@pytest.mark.parametrize("kernel", [RBF().on(X), KernelPair(RBF(), RBF()).on(X)], ids=["kernel", "pair"])
@pytest.mark.parametrize("x", [X, X.clone()], ids=["same", "equal"])
def test_the_data_may_be_left_out_or_given(kernel, x):
    for result in (
        called(kernel, OTHER, 2),
        called(kernel, OTHER, k=2),
        called(kernel, x_new=OTHER, k=2),
        called(kernel, x, OTHER, 2),
        called(kernel, x, OTHER, k=2),
        called(kernel, x, x_new=OTHER, k=2),
        called(kernel, x=x, x_new=OTHER, k=2),
    ):
        assert result[0] is X
        assert result[1] is OTHER
        assert result[2] == 2
    assert alone(kernel)[0] is alone(kernel, x)[0] is alone(kernel, x, 4)[0] is X
    assert alone(kernel, x, 4)[1] == alone(kernel, 4)[1] == 4


@pytest.mark.parametrize("x", [X, X.clone()], ids=["same", "equal"])
def test_new_points_that_equal_the_data_are_new_points(x):
    for result in (called(RBF().on(X), x), called(RBF().on(X), x, 5), called(RBF().on(X), x, k=5)):
        assert result[0] is X
        assert result[1] is x
        assert result[2] == 5


def test_other_data_by_name_are_other_data():
    assert called(RBF().on(X), x=OTHER, x_new=X)[0] is OTHER
    assert called(RBF(), OTHER, X)[0] is OTHER


@takes_kernel_on_data
def labelled(kernel, x, y, x_new, candidates: Mapping[str, Tensor], training=None):
    return x, y, x_new, candidates, training


def test_labels_that_look_like_points_are_labels():
    y, candidates, training = -X, {"A": OTHER}, object()
    for args in ((y, OTHER, candidates), (X, y, OTHER, candidates), (y, X, candidates), (X, y, X, candidates)):
        for more in ((), (training,)):
            result = labelled(RBF().on(X), *args, *more)
            assert result[0] is X
            assert result[1] is y
            assert result[3] is candidates
            assert result[4] is (training if more else None)
    with pytest.raises(DataError, match="frozen on other data"):
        labelled(RBF().on(X), OTHER, y, X, candidates)


def test_compare_takes_labels_that_look_like_points():
    x, y, x_new = torch.randn(4, 2), torch.randn(4, 2), torch.randn(4, 2)
    pair, candidates = KernelPair(RBF(), RBF()), {"A": torch.ones(4, 2), "B": -torch.ones(4, 2)}
    expected = compare(pair, x, y, x_new, candidates, Training(), samples=10)
    assert compare(pair.on(x), y, x_new, candidates, Training(), samples=10).nearest == expected.nearest
    assert compare(pair.on(x), x, y, x_new, candidates, Training(), samples=10).nearest == expected.nearest


def test_other_points_in_the_place_of_the_data_raise():
    x, y = torch.randn(4, 2), torch.randn(4, 2)
    frozen = RBF().on(x)
    for use in (
        lambda: eigenmodes(frozen, x[:3]),
        lambda: eigenmodes(frozen, x[:3], 2),
        lambda: eigenmodes(frozen, x.float()),
        lambda: trajectory(frozen, x[:3], y[:3]),
        lambda: trajectory(frozen, x[:3], y[:3], Training()),
        lambda: influence(frozen, x[:3], x),
    ):
        with pytest.raises(DataError, match=r"frozen on other data. Give kernel.kernel"):
            use()
    assert torch.equal(trajectory(frozen, y)(x), trajectory(frozen, x, y)(x)), "y looks like points"
    assert len(eigenmodes(frozen, x=x[:3]).vectors) == 3


def test_points_of_another_dtype_raise():
    for kernel in (RBF(), RBF().on(X), KernelPair(RBF(), RBF())):
        with pytest.raises(DataError, match=r"has the dtype torch.float32, x1 torch.float64"):
            kernel(X.double(), X.float())


def test_inputs_that_hold_no_tensor_raise():
    x, y, listed = torch.randn(2, 1), torch.randn(2), [[0.0], [1.0]]
    pair = KernelPair(RBF(), RBF())
    for use in (
        lambda: trajectory(RBF(), listed, y),
        lambda: trained_ensemble(pair, listed, y),
        lambda: compare(pair, listed, y, x, {"A": y}),
        lambda: GaussianProcess(RBF()).condition(listed, y),
        lambda: GaussianProcess(RBF()).prior(listed),
        lambda: eigenmodes(RBF(), listed),
        lambda: influence(RBF(), listed, x),
        lambda: most_similar(RBF(), listed, x, 1),
        lambda: most_similar(RBF(), x, listed, 1),
        lambda: indistinguishable(RBF(), x, listed),
        lambda: cosine(RBF(), listed),
        lambda: trajectory(RBF(), x, y)(listed),
    ):
        with pytest.raises(DataError, match=r"holds no tensor \(list\)"):
            use()


def test_data_that_are_changed_in_place_raise():
    x, y = torch.linspace(0, 1, 4)[:, None].clone(), torch.randn(4)
    frozen = RBF().on(x)
    path, pair = trajectory(frozen, x, y), KernelPair(RBF(), RBF()).on(x)
    copied = copy.deepcopy(frozen)
    new = OTHER.to(x)
    before = path(new)
    assert torch.equal(trajectory(copied, y)(new), before)
    x.mul_(2)
    for use in (lambda: path(new), lambda: frozen(new, frozen.x), lambda: trajectory(pair, y)):
        with pytest.raises(DataError, match="changed in place"):
            use()
    assert torch.equal(trajectory(copied, y)(new), before)
    with torch.inference_mode():
        inferred = torch.ones(2, 1)
    assert RBF().on(inferred).x is inferred
