"""Mistake 7: the two-layer formula κ(u) = (2u/π)(π − arccos u) + √(1 − u²)/π used on the line.

It is right for f = √(2/m) Σ vⱼ relu(wⱼ·x) without biases, on unit vectors. In one input dimension that kernel has rank
2: there is no density beyond two points, and the essay's figure needs biases.
"""

import math

import pytest
import torch

import priorscope as ps
from tests.cases import mlp


def limit(inputs, bias_variance):
    init = ps.Initialization(2.0, bias_variance, "ntk")
    model = init.apply_(mlp(inputs, 16, 1, bias=bias_variance > 0), seed=0)
    return ps.infinite_width(model, init).ntk


def kappa(u):
    u = u.clamp(-1, 1)
    return 2 * u / math.pi * (math.pi - u.arccos()) + (1 - u**2).sqrt() / math.pi


def circle(n):
    angles = torch.arange(n) * (2 * math.pi / n) + 0.1
    return torch.stack([angles.cos(), angles.sin()], 1)


def test_the_formula_on_the_circle():
    # Two inputs and σ_w² = 2 make the first weights N(0, 1), as the formula has them.
    x = circle(7)
    ours, formula = limit(2, 0.0)(x), kappa(x @ x.T)
    assert torch.allclose(ours, formula, atol=1e-7)
    # With biases, and with the read-out alone, it is another kernel.
    assert float((limit(2, 0.5)(x) - formula).abs().max()) > 0.3
    readout = (x @ x.T).clamp(-1, 1)
    readout = ((1 - readout**2).sqrt() + readout * (math.pi - readout.arccos())) / math.pi
    assert float((ours - readout).abs().max()) > 0.3


def test_on_the_line_it_has_rank_two():
    x, y = torch.tensor([[-2.0], [-1.0], [0.5], [1.0], [2.0]]), torch.tensor([-1.0, -0.6, 0.3, -0.6, -1.0])
    without, with_biases = limit(1, 0.0), limit(1, 0.5)
    modes = ps.eigenmodes(without, x)
    assert (len(modes.values), modes.dropped) == (2, 3)
    with pytest.raises(ps.PriorscopeError, match="rank 2"):
        modes.log_prob(y)
    with pytest.raises(ps.PriorscopeError, match="rank 2"):
        ps.GaussianProcess(without).condition(x, y)
    assert ps.eigenmodes(with_biases, x).dropped == 0
    assert math.isfinite(float(ps.eigenmodes(with_biases, x).log_prob(y)))
