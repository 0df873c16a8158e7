"""Mistake 4: 'θ − θ₀ goes to zero with width' in the NTK parameterization.

Right: ‖c^(−1/2)(θ − θ₀)‖ tends to √((Y − f₀)ᵀ Θ⁻¹ (Y − f₀)); what goes to zero there is the relative change. In torch's
own scaling ("standard") the distance itself falls, as 1/√width.
"""

import torch

import priorscope as ps
from tests.cases import mlp

ANGLES = torch.tensor([-2.0, -0.7, 0.6, 2.1], dtype=torch.float64)
X = torch.stack([ANGLES.cos(), ANGLES.sin()], 1)
Y = torch.tensor([1.0, -1.0, 0.5, -0.5], dtype=torch.float64)
NARROW, WIDE = 64, 1024


def trained(width, parameterization):
    """How far a network has moved, how far relatively, and what the kernel at the start predicts."""
    init = ps.Initialization(2.0, 0.1, parameterization)
    model = init.apply_(mlp(2, width, 1), seed=4)
    kernel = ps.EmpiricalNTK(model, rates=init).on(X)
    training = ps.Training(learning_rate=1 / float(ps.eigenmodes(kernel).values[0]), steps=200)
    run = ps.train(model, X, Y, training, rates=init, at=[])
    assert float(run.losses[-1]) < 1e-8
    residual = Y - model(X).detach()[:, 0]
    return (
        float(run.distance[-1]),
        float(run.relative_distance[-1]),
        float(residual @ torch.linalg.solve(kernel(X), residual)) ** 0.5,
    )


def test_in_ntk_the_distance_has_a_limit_and_only_the_relative_one_vanishes():
    (near, near_relative, _), (far, far_relative, predicted) = (trained(width, "ntk") for width in (NARROW, WIDE))
    assert abs(far / predicted - 1) < 0.02
    # Falling as 1/√width, it would be a quarter.
    assert far > 0.6 * near
    assert 0.15 < far_relative / near_relative < 0.4


def test_in_standard_it_falls_as_the_root_of_the_width():
    (near, _, _), (far, _, predicted) = (trained(width, "standard") for width in (NARROW, WIDE))
    assert abs(far / predicted - 1) < 0.02
    assert 0.15 < far / near < 0.4
