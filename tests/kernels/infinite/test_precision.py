"""Digits at nearly equal, opposite, coinciding and zero points, against 50-digit arithmetic."""

import math

import pytest
import torch

from priorscope import Initialization
from priorscope.kernels.infinite import infinite_width
from tests.cases import mlp
from tests.kernels.infinite.oracles import relu_in_50_digits

ANGLES = [0.0, 1e-9, 1e-7, 1e-6, 3e-5, 1e-4, 1e-3, 2e-2, 0.1, 0.7, 1.5, 2.5, 3.1, math.pi - 1e-4, math.pi]
LIMITS = {torch.float64: (1e-5, 1e-10, 1e-7), torch.float32: (1e-2, 1e-5, 5e-4)}


def relu_limit(depth, bias=0.05, weight=2.0):
    init = Initialization(weight, bias, "ntk")
    model = mlp(6, *[32] * depth, 1, bias=bias > 0)
    return infinite_width(init.apply_(model, seed=0), init)


def points(angles, dtype):
    """A first point, and points at these angles from it, of slightly different lengths."""
    one, two = torch.linalg.qr(torch.randn(6, 2)).Q.T
    others = [(math.cos(t) * one + math.sin(t) * two) * (1 + (0.3 if i % 3 == 2 else 0)) for i, t in enumerate(angles)]
    return (1.5 * one)[None].to(dtype), (1.5 * torch.stack(others)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("bias", [0.0, 0.05])
@pytest.mark.parametrize("depth", [1, 3, 10])
def test_relu_against_50_digits(depth, bias, dtype):
    x1, x2 = points(ANGLES, dtype)
    answer = relu_limit(depth, bias)(x1, x2)
    assert answer.ntk.dtype == dtype
    exact = [relu_in_50_digits(x1[0], row, depth, 2.0, bias) for row in x2]
    border, far, near = LIMITS[dtype]
    for matrix, column in zip(answer, zip(*exact, strict=True), strict=True):
        expected = torch.tensor(column)
        errors = (matrix[0].double() - expected).abs() / expected.abs().max()
        for angle, error in zip(ANGLES, errors.tolist(), strict=True):
            assert error <= (far if angle > border else near), (angle, error)


def test_gram_diagonals_are_the_variances_exactly():
    limit = relu_limit(3)
    x = torch.randn(40, 6)
    for kernel in (limit.nngp, limit.ntk):
        gram = kernel(x)
        assert torch.equal(gram, gram.T)
        assert float((gram.diagonal() - kernel.diagonal(x)).abs().max()) <= 1e-15 * float(gram.max())


@pytest.mark.parametrize("activation", [torch.nn.ReLU, lambda: torch.nn.LeakyReLU(0.3), torch.nn.Tanh, torch.nn.GELU])
def test_zero_inputs_without_biases(activation):
    init = Initialization(2.0, 0.0)
    model = init.apply_(mlp(3, 8, 8, 1, activation=activation, bias=False), seed=0)
    x = torch.cat([torch.zeros(2, 3), torch.randn(3, 3)]).requires_grad_()
    answer = infinite_width(model, init)(x)
    for matrix in answer:
        assert torch.isfinite(matrix).all()
        assert float(matrix[:2].detach().abs().max()) <= 1e-10
        assert torch.isfinite(torch.autograd.grad(matrix.sum(), x, retain_graph=True)[0]).all()


def test_blocks_of_rows_give_the_same(monkeypatch):
    limit = relu_limit(2)
    x = torch.randn(23, 6)
    whole, cross = limit(x), limit(x, x[:5] + 1)
    monkeypatch.setattr("priorscope.kernels.infinite.tiles.FAST_NUMBERS", 150)
    for a, b in zip((*whole, *cross), (*limit(x), *limit(x, x[:5] + 1)), strict=True):
        assert float((a - b).abs().max()) <= 1e-14 * float(a.max())
    assert torch.equal(limit(x).ntk, limit(x).ntk.T)
