"""Generalised cross-validation against its definition, and against points outside."""

import pytest
import torch

from priorscope.beliefs import leave_out
from priorscope.errors import DataError, SingularKernelError
from priorscope.generalization.risk import Risk, gcv
from priorscope.kernels import RBF, Linear, Periodic
from tests.beliefs.kernels import Features
from tests.beliefs.test_spheres import relu_ntk


def by_hand(gram, y, ridge):
    hat = gram @ torch.linalg.inv(gram + ridge * torch.eye(len(gram)))
    return (y - hat @ y).square().mean(0) / (1 - hat.trace() / len(gram)) ** 2


@pytest.mark.parametrize("ridge", [1e-3, 0.1, 10.0])
def test_the_definition(ridge):
    x, y = torch.randn(30, 2), torch.randn(30, 3)
    kernel = RBF(0.7).on(x)
    risk = gcv(kernel, y, ridge)
    assert torch.allclose(risk.by_output, by_hand(kernel.gram, y, ridge))
    assert float(risk.error) == pytest.approx(float(risk.by_output.mean()))
    hat = kernel.gram @ torch.linalg.inv(kernel.gram + ridge * torch.eye(30))
    assert risk.degrees == pytest.approx(float(hat.trace()) / 30)
    assert float(risk.train_error) == pytest.approx(float((y - hat @ y).square().mean()))
    alone = gcv(RBF(0.7), x, y[:, 0], ridge)
    assert torch.allclose(alone.error, risk.by_output[0])


def test_it_is_leave_one_out_where_all_points_are_alike():
    angles = 2 * torch.pi * torch.arange(12) / 12
    kernel, y = Periodic(lengthscale=0.5), torch.randn(12)
    left = leave_out(kernel, angles[:, None], y, ridge=0.1).mean_squared_error
    assert float(gcv(kernel, angles[:, None], y, 0.1).error) == pytest.approx(left)


def test_without_a_ridge_it_is_the_limit():
    x, y = torch.randn(15, 2), torch.randn(15)
    gram = RBF(0.7)(x)
    inverse = torch.linalg.inv(gram)
    risk = gcv(RBF(0.7), x, y)
    assert float(risk.error) == pytest.approx(float(15 * (inverse @ y).square().sum() / inverse.trace() ** 2))
    assert float(risk.error) == pytest.approx(float(by_hand(gram, y, 1e-9)), rel=1e-4)
    assert risk.train_error == 0
    assert risk.degrees == 1


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_points_outside(ridge):
    kernel, told, found = relu_ntk(8, 2, 0.1), [], []
    for _ in range(30):
        x = torch.nn.functional.normalize(torch.randn(300, 8), dim=1)
        y = 3 * x[:, 0] + 0.3 * torch.randn(300)
        gram = kernel(x, x[:100])
        f = gram[100:] @ torch.linalg.solve(gram[:100] + ridge * torch.eye(100), y[:100])
        told.append(float(gcv(kernel, x[:100], y[:100], ridge).error))
        found.append(float((f - y[100:]).square().mean()))
    assert sum(told) == pytest.approx(sum(found), rel=0.06)


def test_coupled_outputs():
    kernel, x, y = Features(2, 2, 60), torch.randn(8, 2), torch.randn(8, 2)
    gram = kernel.blocks(x).reshape(16, 16)
    risk = gcv(kernel, x, y, 0.2)
    assert float(risk.error) == pytest.approx(float(by_hand(gram, y.reshape(16), 0.2)))
    assert risk.note == "coupled"


def test_classes_are_one_hot():
    x, y = torch.randn(12, 2), torch.arange(12) % 3
    onehot = torch.nn.functional.one_hot(y).double() - 1 / 3
    assert torch.allclose(gcv(RBF(), x, y, 0.1).error, gcv(RBF(), x, onehot, 0.1).error)


def test_low_rank_is_named():
    x, y = torch.randn(10, 2), torch.randn(10)
    with pytest.raises(SingularKernelError, match=r"rank 2 of 10.*ridge > 0"):
        gcv(Linear(), x, y)
    assert float(gcv(Linear(), x, y, 0.1).error) == pytest.approx(float(by_hand(Linear()(x), y, 0.1)))
    with pytest.raises(DataError, match="ridge: is -1"):
        gcv(Linear(), x, y, -1.0)


def test_saved_and_loaded(tmp_path):
    risk = gcv(RBF(), torch.randn(10, 2), torch.randn(10), 0.1)
    assert Risk.load(risk.save(tmp_path / "risk.npz")).error == risk.error
