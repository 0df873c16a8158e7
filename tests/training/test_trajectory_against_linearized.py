"""`trajectory` of the empirical kernel against `linearize` and `train`: a network that is its own linearisation."""

import pytest
import torch
from torch import nn

import priorscope as ps
from tests.cases import mlp

STEPS = (0, 1, 2, 7, 20)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(("outputs", "parameterization"), [(1, "standard"), (2, "ntk")])
def test_a_really_trained_linearised_network(outputs, momentum, parameterization):
    init = ps.Initialization(1.5, 0.2, parameterization)
    model = init.apply_(mlp(3, 24, 24, outputs, activation=nn.Tanh), seed=3)
    x, y, x_new = torch.randn(5, 3), torch.randn(5, outputs), torch.randn(4, 3)
    kernel = ps.EmpiricalNTK(model, rates=init)
    limit = ps.trajectory(kernel, x, y, start=model, training=ps.Training(learning_rate=1e-3, steps=1)).step_limit
    training = ps.Training(learning_rate=0.6 * limit, momentum=momentum, steps=max(STEPS))
    everything = torch.cat([x, x_new])
    run = ps.train(ps.linearize(model), x, y, training, rates=init, record=everything, at=STEPS)
    path = ps.trajectory(kernel, x, y, training, start=model)
    assert run.steps.tolist() == list(STEPS)
    torch.testing.assert_close(path(everything, at=STEPS), run.outputs, rtol=1e-8, atol=1e-8)
    # Another recursion would be seen: the flow of the same time, and the network without its start.
    flow = ps.trajectory(kernel, x, y, ps.Training(), start=model)(everything, at=max(STEPS) * training.learning_rate)
    assert float((flow - run.outputs[-1]).abs().max()) > 1e-4
    without = ps.trajectory(kernel, x, y, training)(everything)
    assert float((without - run.outputs[-1]).abs().max()) > 1e-2
