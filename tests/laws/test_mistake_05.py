"""Mistake 5: 'f₀ vanishes with width', and the discussion's f₀ + K K⁻¹ Y − J θ₀ as the trained limit.

Right: f₀ keeps the variance of the NNGP; J θ₀ = L f₀ for a bias-free ReLU network of L layers; the trained limit is
f∞(x) = f₀(x) + K(x, X) K⁻¹ (Y − f₀(X)).
"""

import torch
from torch.nn.utils import parameters_to_vector

import priorscope as ps
from tests.cases import mlp

X = torch.tensor([[1.0, 0.2, 0.0], [0.0, -1.0, 0.3], [0.1, 0.0, 1.0], [-0.9, 0.3, -0.2]], dtype=torch.float64)
X_NEW = torch.tensor([[0.7, -0.7, 0.0], [0.0, 0.6, 0.8], [-0.5, 0.0, 0.9]], dtype=torch.float64)
Y = torch.tensor([1.0, -1.0, 0.5, -0.5], dtype=torch.float64)
INIT = ps.Initialization(2.0, 0.0, "ntk")


def network(width, seed):
    return INIT.apply_(mlp(3, width, width, 1, bias=False), seed)


def test_the_start_does_not_vanish_with_width():
    limit = float(ps.infinite_width(network(16, 0), INIT).nngp.diagonal(X_NEW)[0])
    for width in (32, 256):
        starts = torch.stack([network(width, seed)(X_NEW[:1])[0, 0] for seed in range(200)]).detach()
        # Five standard errors of a variance; falling as 1/width, one of the two would be an eighth of the other.
        assert abs(float(starts.square().mean()) / limit - 1) < 0.6


def test_the_jacobian_times_the_parameters_is_the_number_of_layers_times_the_start():
    for width in (32, 128):
        model = network(width, 0)
        product = ps.EmpiricalNTK(model).features(X) @ parameters_to_vector(model.parameters())
        assert torch.allclose(product, 3 * model(X)[:, 0], atol=1e-10)
        assert float(product.detach().abs().max()) > 0.3


def test_the_trained_limit_starts_from_the_network():
    model = network(32, 1)
    kernel = ps.EmpiricalNTK(model, rates=INIT)
    rate = 1 / float(ps.eigenmodes(kernel, X).values[0])
    run = ps.train(ps.linearize(model), X, Y, ps.Training(learning_rate=rate, steps=100), INIT, record=X_NEW, at=[])
    with torch.no_grad():
        f0, f0_new = model(X)[:, 0], model(X_NEW)[:, 0]
    A = kernel(X_NEW, X) @ torch.linalg.inv(kernel(X))
    right = f0_new + A @ (Y - f0)
    assert torch.allclose(run.outputs[-1, :, 0], right, atol=1e-7)
    assert torch.allclose(ps.trajectory(kernel, X, Y, start=model)(X_NEW), right, atol=1e-9)
    discussion = f0_new + A @ Y - 3 * f0_new
    for wrong in (discussion, A @ Y):
        assert float((wrong - right).abs().max()) > 0.1
