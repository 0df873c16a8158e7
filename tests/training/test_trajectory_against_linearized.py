"""`trajectory` of the empirical kernel against `linearize` and `train`: a network that is its own linearisation."""

import math

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


def linearised(outputs=1, parameterization="standard", width=8):
    init = ps.Initialization(1.5, 0.2, parameterization)
    model = init.apply_(mlp(3, width, width, outputs, activation=nn.Tanh), seed=3)
    x, y, x_new = torch.randn(5, 3), torch.randn(5, outputs), torch.randn(4, 3)
    kernel = ps.EmpiricalNTK(model, rates=init)
    limit = ps.trajectory(kernel, x, y, start=model, training=ps.Training(learning_rate=1e-9, steps=1)).step_limit
    return init, model, kernel, x, y, x_new, limit


def agrees(fields, outputs=1, parameterization="standard"):
    """Whether `trajectory` is what `train` makes of the linearised network: outputs everywhere, and the loss."""
    init, model, kernel, x, y, x_new, limit = linearised(outputs, parameterization)
    rate = 0.4 * limit * (len(y) * outputs / 2 if fields.get("loss") == "mse" else 1)
    rates = fields.get("learning_rate", 1.0)
    rates = [rate * r for r in rates] if isinstance(rates, list) else rate * rates
    decay = fields.get("weight_decay", 0.0) / rate
    training = ps.Training(**{"steps": 12, **fields, "learning_rate": rates, "weight_decay": decay})
    everything, at = torch.cat([x, x_new]), (0, 1, 2, 5, 12)
    run = ps.train(ps.linearize(model), x, y, training, rates=init, record=everything, at=at)
    path = ps.trajectory(kernel, x, y, training, start=model)
    torch.testing.assert_close(path(everything, at=at), run.outputs, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(path(everything), run.outputs[-1], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(path.losses(at), run.losses, rtol=1e-8, atol=1e-8)
    return path, run


COSINE = [0.5 + 0.5 * math.cos(math.pi * k / 12) for k in range(12)]
FIELDS = [
    {"momentum": 0.7, "nesterov": True},
    {"weight_decay": 0.1},
    {"weight_decay": 0.1, "momentum": 0.7, "loss": "mse"},
    {"weight_decay": 0.1, "momentum": 0.7, "nesterov": True},
    {"weight_decay": 0.1, "decay_to": "zero"},
    {"weight_decay": 0.1, "decay_to": "zero", "momentum": 0.7, "loss": "mse"},
    {"weight_decay": 0.1, "decay_to": "zero", "momentum": 0.7, "nesterov": True},
    {"learning_rate": COSINE},
    {"learning_rate": COSINE, "momentum": 0.7, "loss": "mse"},
    {"learning_rate": COSINE, "momentum": 0.7, "nesterov": True, "weight_decay": 0.1},
    {"learning_rate": COSINE, "momentum": 0.7, "weight_decay": 0.1, "decay_to": "zero"},
]


@pytest.mark.parametrize(("outputs", "parameterization"), [(1, "standard"), (2, "ntk")])
@pytest.mark.parametrize("fields", FIELDS, ids=lambda fields: ",".join(fields))
def test_every_training_that_is_linear_in_function_space(fields, outputs, parameterization):
    path, run = agrees(fields, outputs, parameterization)
    # The test can fail: each field alone changes the function by far more than it allows.
    for field in ("momentum", "weight_decay", "nesterov", "decay_to"):
        if field in fields:
            default = {**vars(path.training), field: {"decay_to": "start"}.get(field, 0.0)}
            default["nesterov"] = default["nesterov"] if default["momentum"] and field != "nesterov" else False
            if field == "decay_to" or default["decay_to"] == "start":
                other = ps.trajectory(
                    path.kernel, y=path.labels.values, training=ps.Training(**default), start=path.start
                )
                assert float((other(path.kernel.x) - run.outputs[-1, :5]).abs().max()) > 1e-4, field


def test_parameters_with_the_rate_0_do_not_decay():
    _, model, _, x, y, x_new, _ = linearised()
    rates = {
        name: 0.0 if name.startswith("2") else 0.5 + 0.1 * i for i, (name, _) in enumerate(model.named_parameters())
    }
    kernel = ps.EmpiricalNTK(model, rates=rates)
    training = ps.Training(learning_rate=1e-3, steps=15, weight_decay=30.0, decay_to="zero")
    run = ps.train(ps.linearize(model), x, y, training, rates=rates, record=torch.cat([x, x_new]), at=[])
    path = ps.trajectory(kernel, x, y, training, start=model)
    torch.testing.assert_close(path(torch.cat([x, x_new])), run.outputs[-1], rtol=1e-8, atol=1e-8)
    assert path.pulled.names == tuple(name for name, rate in rates.items() if rate > 0)


@pytest.mark.parametrize("decay_to", ["start", "zero"])
@pytest.mark.parametrize("time", [0.05, 0.4])
def test_the_flow_with_weight_decay_is_the_limit_of_small_steps(decay_to, time):
    _, model, kernel, x, y, x_new, limit = linearised()
    flow = ps.Training(time=time * limit, weight_decay=0.3 / limit, decay_to=decay_to)
    path, gaps = ps.trajectory(kernel, x, y, flow, start=model), []
    for steps in (100, 200):
        small = ps.Training(
            learning_rate=time * limit / steps, steps=steps, weight_decay=0.3 / limit, decay_to=decay_to
        )
        descent = ps.trajectory(kernel, x, y, small, start=model)
        gaps.append(torch.cat([path(x_new) - descent(x_new), (path.losses() - descent.losses())[None, None]]))
    assert torch.allclose(gaps[0], 2 * gaps[1], rtol=0.05, atol=1e-9)
    assert float(gaps[1].abs().max()) < 0.05


def test_a_decay_to_zero_that_never_ends_forgets_the_start():
    _, model, kernel, x, y, x_new, limit = linearised()
    path = ps.trajectory(kernel, x, y, ps.Training(weight_decay=0.3 / limit, decay_to="zero"), start=model)
    slope = ps.EmpiricalNTK(model).features(torch.cat([x, x_new])) @ torch.cat(
        [p.detach().flatten() for p in model.parameters()]
    )
    with torch.no_grad():
        bare = model(torch.cat([x, x_new]))[:, 0] - slope  # the linearised network at θ = 0
    ridge = torch.linalg.solve(kernel.on(x).gram + 0.3 / limit * torch.eye(5), y[:, 0] - bare[:5])
    torch.testing.assert_close(path(x_new)[:, 0], bare[5:] + kernel(x_new, x) @ ridge, rtol=1e-9, atol=1e-9)
