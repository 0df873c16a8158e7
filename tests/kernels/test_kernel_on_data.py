"""A kernel on its data: accepted wherever (kernel, x) is, with x left out or given nevertheless."""

import copy

import pytest
import torch

from priorscope.errors import DataError
from priorscope.kernels import RBF, KernelPair
from priorscope.kernels.kernel import takes_kernel_on_data
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
