"""Labels as a kernel takes them: the model's outputs, whatever kernel of it is asked."""

import pytest
import torch
from torch import nn

from priorscope import EmpiricalNTK, GaussianProcess, Initialization, infinite_width
from priorscope.errors import DataError
from priorscope.kernels import RBF, KernelPair
from priorscope.training.ensemble import trained_ensemble
from priorscope.training.trajectory import trajectory
from tests.cases import mlp

X, X_NEW = torch.randn(5, 2, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
CLASSES = torch.tensor([0, 1, 0, 1, 1])


def net(outputs: int) -> nn.Module:
    return Initialization(2.0, 0.1).apply_(mlp(2, 40, outputs), seed=0)


def limit(outputs: int) -> KernelPair:
    return infinite_width(net(outputs), Initialization(2.0, 0.1))


PREDICTIONS = {
    "trajectory": lambda pair, y: trajectory(pair, X, y)(X_NEW),
    "ensemble": lambda pair, y: trained_ensemble(pair, X, y)(X_NEW).mean,
    "posterior": lambda pair, y: GaussianProcess(pair.nngp).condition(X, y)(X_NEW).mean,
}


@pytest.mark.parametrize("predict", PREDICTIONS.values(), ids=PREDICTIONS)
def test_classes_are_as_many_as_the_model_has_outputs(predict):
    onehot = torch.nn.functional.one_hot(CLASSES, 3) - 1 / 3
    assert torch.allclose(predict(limit(3), CLASSES), predict(limit(3), onehot))
    pair = limit(3)
    scaled = KernelPair(2 * pair.nngp, (pair.ntk + pair.ntk).on(X))
    assert predict(scaled, CLASSES).shape == (3, 3)
    assert predict(KernelPair(RBF(), RBF()), CLASSES).shape == (3, 2)


@pytest.mark.parametrize("predict", PREDICTIONS.values(), ids=PREDICTIONS)
def test_labels_of_another_number_of_outputs_raise(predict):
    for outputs, y in ((2, torch.randn(5, 5)), (3, torch.randn(5)), (1, CLASSES), (3, CLASSES * 5)):
        with pytest.raises(DataError, match=f"y: has . (outputs|classes), the kernel has {outputs} outputs"):
            predict(limit(outputs), y)


@pytest.mark.parametrize("predict", PREDICTIONS.values(), ids=PREDICTIONS)
def test_several_sets_of_labels_at_once(predict):
    several = torch.randn(5, 6)
    together = predict(limit(2), several)
    assert torch.allclose(together[:, 2:4], predict(limit(2), several[:, 2:4]), atol=1e-9)


def test_an_empirical_kernel_says_its_outputs_without_its_blocks(monkeypatch):
    kernel = EmpiricalNTK(net(3))
    monkeypatch.setattr(kernel, "_compute", None)
    assert kernel.outputs(X) == 3
    assert trajectory(EmpiricalNTK(net(3)), X, CLASSES)(X_NEW).shape == (3, 3)


def test_the_prior_of_a_coupled_kernel_brings_its_outputs():
    assert GaussianProcess(EmpiricalNTK(net(2), rates={n: 0.5 for n, _ in net(2).named_parameters()})).prior(
        X
    ).mean.shape == (5, 2)
    with pytest.raises(DataError, match="outputs: is 3, the kernel has 2"):
        GaussianProcess(EmpiricalNTK(net(2), rates={n: 0.5 for n, _ in net(2).named_parameters()})).prior(X, 3)
