"""Mistake 6: mixed conventions, and dual weights read as a weighted average.

One convention: J is (n·o)×p, Θ = J diag(c) Jᵀ, φ maps inputs to features. The weights K(x, X)K⁻¹ can be negative and
need not sum to 1.
"""

import torch
from torch import nn

import priorscope as ps
from tests.cases import mlp
from tests.oracles import jacobian_by_loop


def test_theta_is_j_times_its_transpose():
    init = ps.Initialization(2.0, 0.1, "ntk")
    model, x = init.apply_(mlp(3, 8, 2, activation=nn.Tanh), seed=0), torch.randn(5, 3)
    parameters = sum(p.numel() for p in model.parameters())
    rates = torch.cat([torch.full((p.numel(),), init.rates(model)[name]) for name, p in model.named_parameters()])
    ntk = ps.EmpiricalNTK(model, rates=init)
    J = ntk.features(x)
    assert J.shape == (10, parameters)
    assert torch.allclose(J, jacobian_by_loop(model, x).flatten(0, 1))
    theta = ntk.blocks(x).reshape(10, 10)
    assert torch.allclose(theta, J * rates @ J.T)
    # The other order of outputs and points, and the other order of J and Jᵀ.
    other = ntk.blocks(x).permute(1, 0, 3, 2).reshape(10, 10)
    assert float((other - J * rates @ J.T).norm() / theta.norm()) > 0.1
    assert (J.T @ J).shape != theta.shape
    assert torch.allclose(ntk(x), (theta.reshape(5, 2, 5, 2).diagonal(dim1=1, dim2=3)).mean(-1))


def test_dual_weights_are_no_average():
    kernel, x = ps.kernels.RBF(1.0), torch.tensor([[0.0], [1.0], [2.0]])
    y, x_new = torch.tensor([1.0, 2.0, -1.0]), torch.tensor([[3.0]])
    weights = ps.influence(kernel, x, x_new)
    assert torch.allclose(weights, torch.linalg.solve(kernel(x), kernel(x, x_new)).T)
    assert float(weights.min()) < -0.3
    assert abs(float(weights.sum()) - 1) > 0.2
    prediction = ps.GaussianProcess(kernel).condition(x, y)(x_new).mean
    assert torch.allclose(weights @ y, prediction)
    average = kernel(x_new, x) / kernel(x_new, x).sum()
    assert float((average @ y - prediction).abs()) > 0.5
