import copy
import math

import pytest
import torch
from torch import nn

from priorscope.errors import DataError, ModelError
from priorscope.network.linearize import linearize, remainder
from tests.cases import EMPIRICAL, HeldTwice, mlp
from tests.oracles import jacobian_by_loop


def shift(model: nn.Module, seed: int = 5) -> torch.Tensor:
    """Moves every trainable parameter; returns the change as one vector."""
    generator = torch.Generator().manual_seed(seed)
    changes = []
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                change = torch.randn(parameter.shape, generator=generator)
                parameter.add_(change)
                changes.append(change.flatten())
    return torch.cat(changes)


@pytest.mark.parametrize("case", EMPIRICAL, ids=repr)
def test_it_is_the_taylor_expansion(case):
    model, x = case.model(), case.points(3)
    lin = linearize(model)
    start = model(x).detach()
    torch.testing.assert_close(lin(x), start, rtol=1e-10, atol=1e-12)
    change = shift(lin)
    expected = start.reshape(3, -1) + jacobian_by_loop(model, x) @ change
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            moved = lin(x)
        assert moved.shape == start.shape
        torch.testing.assert_close(moved.reshape(3, -1), expected, rtol=1e-10, atol=1e-10)
    assert torch.equal(model(x), start), "the model is untouched"


@pytest.mark.parametrize("case", EMPIRICAL, ids=repr)
def test_names_shapes_and_gradients_are_the_networks(case):
    model, x = case.model(), case.points(3)
    lin = linearize(model)
    shapes = [(name, p.shape) for name, p in model.named_parameters()]
    assert [(name, p.shape) for name, p in lin.named_parameters()] == shapes
    shift(lin)
    weights = torch.randn_like(model(x))
    gradients = torch.autograd.grad((lin(x) * weights).sum(), list(lin.parameters()))
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    expected = torch.einsum("iap,ia->p", jacobian_by_loop(model, x), weights.reshape(3, -1))
    torch.testing.assert_close(flat, expected, rtol=1e-10, atol=1e-10)


def test_frozen_parameters_stay_frozen():
    model = mlp(3, 5, 1)
    model[0].weight.requires_grad_(False)
    lin = linearize(model)
    assert {n: p.requires_grad for n, p in lin.named_parameters()} == {
        n: p.requires_grad for n, p in model.named_parameters()
    }


def test_heavy_ball_follows_the_kernel_recursion():
    model, x, y = mlp(2, 6, 6, 1, activation=nn.Tanh), torch.randn(4, 2), torch.randn(4, 1)
    lin, rate, beta = linearize(model), 0.05, 0.9
    jacobian = jacobian_by_loop(model, x)[:, 0]
    kernel = jacobian @ jacobian.T
    f, velocity = model(x).detach(), torch.zeros(4, 1)
    optimizer = torch.optim.SGD(lin.parameters(), lr=rate, momentum=beta)
    for _ in range(60):
        optimizer.zero_grad()
        ((lin(x) - y) ** 2).sum().div(2).backward()
        optimizer.step()
        velocity = beta * velocity + kernel @ (f - y)
        f = f - rate * velocity
    torch.testing.assert_close(lin(x).detach(), f, rtol=1e-10, atol=1e-10)


class Root(nn.Module):
    """Own parameters and buffers, a tie, and a module held twice."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.randn(2))
        self.tied = self.gain
        self.register_buffer("shift", torch.randn(2))
        self.inner, self.again = HeldTwice(), None

    def forward(self, x):
        return self.gain * self.inner(x) + self.shift * self.tied


def test_state_buffers_and_copies():
    model, x = Root(), torch.randn(3, 4)
    lin = linearize(model)
    change = shift(lin)
    expected = model(x).reshape(3, -1) + jacobian_by_loop(model, x) @ change
    torch.testing.assert_close(lin(x).reshape(3, -1), expected)
    assert torch.equal(copy.deepcopy(lin)(x), lin(x))
    other = linearize(Root())
    other.load_state_dict(lin.state_dict())
    assert torch.equal(other(x), lin(x)), "θ, θ₀ and buffers are in the state"
    moved = copy.deepcopy(lin)
    moved.load_state_dict(model.state_dict())
    torch.testing.assert_close(moved(x), model(x), msg="the network's own state sets θ = θ₀")
    with torch.no_grad():
        copied = copy.deepcopy(lin)
        copied.gain.add_(1.0)
    assert not torch.equal(copied(x), lin(x)), "a copy has its own parameters, the expansion reads them"
    half = copy.deepcopy(lin).to(torch.float32)
    torch.testing.assert_close(half(x.float()).double(), lin(x), rtol=1e-3, atol=1e-3)


def test_train_mode_does_not_reach_the_layers():
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1)).eval()
    lin, x = linearize(model), torch.randn(4, 3)
    torch.testing.assert_close(lin.train()(x), model(x))
    assert lin.training
    assert not any(layer.training for name, layer in lin.named_modules() if name in ("1", "2"))


def test_in_place_layers():
    model = mlp(3, 8, 1, activation=lambda: nn.ReLU(inplace=True))
    lin, x = linearize(model), torch.randn(4, 3)
    change = shift(lin)
    expected = model(x) + jacobian_by_loop(model, x) @ change
    torch.testing.assert_close(lin(x), expected)


def test_recurrent_layers():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.last = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 1)

        def forward(self, x):
            return self.last(self.cell(x)[0][:, -1])

    model, x = Recurrent(), torch.randn(2, 5, 3)
    lin = linearize(model)
    change = shift(lin)
    torch.testing.assert_close(lin(x), model(x) + jacobian_by_loop(model, x) @ change)


def test_several_arguments():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 3)

        def forward(self, a, b):
            return torch.tanh(self.linear(a)) * b

    class OfOne(nn.Module):
        def __init__(self, two):
            super().__init__()
            self.two = two

        def forward(self, x):
            return self.two(x[:, :2], x[:, 2:])

    model, a, b = Two(), torch.randn(4, 2), torch.randn(4, 3)
    lin = linearize(model)
    change = shift(lin)
    expected = model(a, b) + jacobian_by_loop(OfOne(model), torch.cat([a, b], 1)) @ change
    for value in (lin(a, b), lin(a, b=b), lin(a=a, b=b)):
        torch.testing.assert_close(value, expected)
    order = remainder(model, {"linear.weight": torch.ones(3, 2)}, (a, b), [1e-2, 1e-3]).order
    assert abs(order - 2) < 0.1


def test_refused():
    with pytest.raises(ModelError, match=r"`1` \(nn.Dropout\).*eval"):
        linearize(nn.Sequential(nn.Linear(3, 1), nn.Dropout(0.5)))
    with pytest.raises(ModelError, match="forward derivative could not be taken"):
        linearize(mlp(3, 4, 1))(torch.randn(2, 7))


@pytest.mark.parametrize("case", EMPIRICAL, ids=repr)
def test_the_remainder_is_of_order_two(case):
    model, x = case.model(), case.points(4)
    direction = {name: torch.randn_like(p) / p.numel() ** 0.5 for name, p in model.named_parameters()}
    result = remainder(model, direction, x, [1e-3, 3e-4, 1e-4, 3e-5])
    assert abs(result.order - 2) < 0.05
    lin, moved = linearize(model), copy.deepcopy(model)
    with torch.no_grad():
        for network in (lin, moved):
            for name, parameter in network.named_parameters():
                parameter.add_(1e-3 * direction[name])
        gap = float((moved(x) - lin(x)).norm())
    assert math.isclose(float(result.norms[0]), gap, rel_tol=1e-6)


def test_the_remainder_of_a_linear_model_is_nothing():
    result = remainder(nn.Linear(3, 1), {"weight": torch.randn(1, 3)}, torch.randn(4, 3))
    assert float(result.norms.max()) < 1e-12
    assert math.isnan(result.order)


def test_the_remainder_is_measured_in_float64():
    model, x = mlp(3, 8, 1, activation=nn.Tanh).float(), torch.randn(4, 3, dtype=torch.float32)
    direction = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    assert abs(remainder(model, direction, x, [1e-3, 1e-4, 1e-5]).order - 2) < 0.05
    assert model[0].weight.dtype == torch.float32


def test_directions_and_steps_that_do_not_fit():
    model, x = nn.Linear(3, 1), torch.randn(4, 3)
    with pytest.raises(DataError, match="no such parameter"):
        remainder(model, {"gain": torch.ones(1)}, x)
    with pytest.raises(DataError, match=r"\(3,\)"):
        remainder(model, {"weight": torch.ones(3)}, x)
    for steps in ([], [0.1, 0.0], [float("nan")]):
        with pytest.raises(DataError, match="steps"):
            remainder(model, {"weight": torch.ones(1, 3)}, x, steps)
