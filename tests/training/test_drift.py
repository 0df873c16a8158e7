import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from priorscope import EmpiricalNTK, FunctionKernel, PrecomputedKernel, Training
from priorscope.errors import DataError, ModelError, RatesError
from priorscope.kernels import RBF
from priorscope.kernels.kernel import Origin
from priorscope.training.drift import Drift, drift, function_drift, kernel_drift
from priorscope.training.run import train
from tests.cases import mlp
from tests.oracles import ntk_by_loop


def empirical(model: nn.Module) -> FunctionKernel:
    def trace(a, b):
        return torch.einsum("iaja->ij", ntk_by_loop(model, a, b)) / model(a[:1]).shape[1]

    return FunctionKernel(trace)


def test_a_trained_network_moves_as_far_as_its_matrices_say():
    model, x, y = mlp(3, 8, 2, activation=nn.Tanh), torch.randn(5, 3), torch.randn(5, 2)
    after = train(model, x, y, Training(learning_rate=0.05, steps=50)).model
    result = drift(model, after, x, empirical(model), empirical(after), y)
    f0, f1 = model(x).detach(), after(x).detach()
    assert math.isclose(result.functions.relative, float((f1 - f0).norm() / f0.norm()))
    assert math.isclose(result.functions.rms, float(((f1 - f0) ** 2).mean() ** 0.5))
    k0, k1 = empirical(model)(x), empirical(after)(x)
    cosine = float(torch.trace(k0 @ k1) / (k0.norm() * k1.norm()))
    assert math.isclose(result.kernels.relative, float((k1 - k0).norm() / k0.norm()))
    assert math.isclose(result.kernels.scale, float(k1.norm() / k0.norm()))
    assert math.isclose(result.kernels.alignment, cosine)
    assert math.isclose(result.kernels.distance, 1 - cosine, rel_tol=1e-6)
    for matrix, got in ((k0, result.kernels.target_before), (k1, result.kernels.target_after)):
        assert math.isclose(got, float((y * (matrix @ y)).sum() / (matrix.norm() * (y**2).sum())))


def test_what_does_not_move_has_no_drift():
    model, x = mlp(3, 4, 1), torch.randn(5, 3)
    kernel = RBF()
    result = drift(model, model, x, kernel.on(x), 3 * kernel)
    assert result.functions.relative == result.functions.rms == 0.0
    assert math.isclose(result.kernels.relative, 2.0)
    assert math.isclose(result.kernels.scale, 3.0)
    assert result.kernels.distance < 1e-15, "scale is not turned"
    assert drift(model, model, x).kernels is None
    assert result.kernels.target_before is None


def test_small_turns_keep_their_digits():
    first = torch.eye(2)
    turned = torch.tensor([[1.0, 1e-9], [1e-9, 1.0]])
    rows = torch.arange(2)
    distance = kernel_drift(PrecomputedKernel(first), PrecomputedKernel(turned), rows).distance
    assert math.isclose(distance, 5e-19, rel_tol=1e-6)


def test_a_kernel_made_of_the_target_is_aligned_with_it():
    y = torch.randn(4)
    kernel = PrecomputedKernel(torch.outer(y, y))
    result = kernel_drift(kernel, PrecomputedKernel(torch.eye(4)), torch.arange(4), y)
    assert math.isclose(result.target_before, 1.0)
    assert math.isclose(result.target_after, 0.5)


def test_functions_that_start_at_zero():
    assert function_drift(torch.zeros(3), torch.ones(3)).relative == math.inf
    assert function_drift(torch.zeros(3), torch.zeros(3)).relative == 0.0


def test_kernels_of_other_rates_than_the_run_raise():
    model, x, y = mlp(3, 8, 1), torch.randn(5, 3), torch.randn(5)
    rates = {name: 0.5 for name, _ in model.named_parameters()}
    run = train(model, x, y, Training(learning_rate=0.01, steps=3), rates=rates)
    plain = EmpiricalNTK(model), EmpiricalNTK(run.model)
    right = EmpiricalNTK(model, rates), EmpiricalNTK(run.model, rates)
    assert drift(model, run, x, *right) == drift(model, run.model, x, *right)
    assert drift(model, run, x).functions == drift(model, run.model, x).functions
    for kernels in (plain, (plain[0], right[1]), (right[0], plain[1])):
        with pytest.raises(RatesError, match=r"the run and a kernel: belong to different rates \(`0.bias`: 0.5 and 1"):
            drift(model, run, x, *kernels)
    with pytest.raises(DataError, match="loaded without its model"):
        drift(model, replace(run, model=None), x)


def test_saved_and_loaded(tmp_path):
    x = torch.randn(4, 3)
    result = drift(nn.Linear(3, 1), nn.Linear(3, 1), x, RBF(), RBF(2.0))
    assert Drift.load(result.save(tmp_path / "drift.npz")) == result


def test_refused():
    model, x, y = nn.Linear(3, 1), torch.randn(4, 3), torch.randn(4)
    with pytest.raises(DataError, match="one kernel only"):
        drift(model, model, x, RBF())
    with pytest.raises(DataError, match="no kernels"):
        drift(model, model, x, y=y)
    with pytest.raises(DataError, match="shape"):
        drift(model, nn.Linear(3, 2), x)
    with pytest.raises(ModelError, match="eval"):
        drift(model, nn.Sequential(nn.Linear(3, 1), nn.Dropout(0.5)), x)
    with pytest.raises(DataError, match="y: has shape"):
        kernel_drift(RBF(), RBF(), x, y[:2])
    with pytest.raises(DataError, match="is 0 everywhere"):
        kernel_drift(RBF(), RBF(), x, 0 * y)
    with pytest.raises(DataError, match="norm 0"):
        kernel_drift(RBF(), 0.0 * RBF(), x)
    with pytest.raises(DataError, match="empty"):
        function_drift(torch.zeros(0), torch.zeros(0))
    first, second = RBF(), RBF()
    first.__dict__["origin"] = Origin("empirical ntk", {"weight": 1.0})
    second.__dict__["origin"] = Origin("empirical ntk", {"weight": 0.5})
    with pytest.raises(RatesError, match="different rates"):
        drift(model, model, x, first, second)
