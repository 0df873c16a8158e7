"""Features against slow, obvious ways to the same numbers."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import priorscope as ps
from priorscope.generalization.trust.draws import drawn
from priorscope.generalization.trust.features import Prediction, features, led, measured, own_modes
from tests.oracles import ntk_by_loop

INIT = ps.Initialization(2.0, 0.1, "ntk")


def test_legs_end_where_equal_parts_of_the_way_are_done():
    p = problem()
    assert p.legs == sorted(p.legs)
    assert p.legs[-1] == 2.0
    whole = p.lengths(2.0)[0] ** 0.5
    for part, at in enumerate(p.legs[:-1], start=1):
        assert p.lengths(at)[0] ** 0.5 >= whole * part / 4 > p.lengths(0.7 * at)[0] ** 0.5


def test_a_led_wide_network_ends_where_real_training_leads_it():
    p = problem(width=2048)
    values = p.modes.values
    steps = ps.Training(learning_rate=float(0.02 / values[0]), steps=2000)
    p = problem(width=2048, training=steps)
    (draw,) = drawn(p.limit, 1, 0)
    modes = own_modes(p, draw, ps.EmpiricalNTK(draw.model, rates=p.limit.law.rates)(p.x))
    found = led(p, draw, modes).outputs(p.x_new)
    run = ps.train(draw.model, p.x, p.y, steps, rates=p.limit.law.rates, record=p.x_new, at=[0])
    moved = (run.outputs[-1] - run.outputs[0]).norm()
    assert float((found - run.outputs[-1]).norm()) < 0.05 * float(moved)


def network(width: int = 32, outputs: int = 1, activation=nn.Tanh) -> nn.Module:
    return nn.Sequential(nn.Linear(3, width), activation(), nn.Linear(width, outputs)).double()


def problem(width: int = 32, outputs: int = 1, training=None, size: float = 1.0, activation=nn.Tanh):
    g = torch.Generator().manual_seed(0)
    x, x_new = torch.randn(8, 3, generator=g).double(), torch.randn(11, 3, generator=g).double()
    y = size * torch.randn(8, outputs, generator=g).double()
    pair = ps.infinite_width(INIT.apply_(network(width, outputs, activation), 0), INIT).on(x)
    return Prediction.of(pair, y, x_new, training or ps.Training(time=2.0))


def test_networks_are_those_of_the_law_and_the_module_stays():
    p = problem()
    kept = [parameter.clone() for parameter in p.limit.model.parameters()]
    draws = list(drawn(p.limit, 3, seed=5))
    for i, draw in enumerate(draws):
        expected = INIT.apply_(network(), 5 + i)
        assert torch.equal(draw.outputs(p.x), expected(p.x).detach())
        rates = INIT.rates(expected)
        squares = sum(float(w.detach().square().sum()) / rates[n] for n, w in expected.named_parameters())
        assert draw.norm == pytest.approx(math.sqrt(squares))
    assert all(map(torch.equal, kept, p.limit.model.parameters()))


def test_a_measured_law_is_drawn_too():
    model = INIT.apply_(network(64), 3)
    measured_law = ps.Initialization.measured(model, "ntk")
    pair = ps.infinite_width(model, measured_law)
    (draw,) = drawn(pair.joint, 1, 0)
    found = float(draw.model[0].weight.detach().square().mean())
    assert found == pytest.approx(float(model[0].weight.detach().square().mean()), rel=0.3)


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_network_moves_by_its_jacobian_times_the_rates(outputs):
    p = problem(outputs=outputs)
    (draw,) = drawn(p.limit, 1, 0)
    weights = 1e-4 * torch.randn(8, outputs).double()
    moved = draw.moved(p.x, weights)
    rates = p.limit.law.rates
    theta = ntk_by_loop(draw.model, p.x_new, p.x, rates)  # (m, o, n, o)
    change = torch.einsum("iajb,jb->ia", theta, weights)
    torch.testing.assert_close(moved.outputs(p.x_new) - draw.outputs(p.x_new), change, rtol=2e-2, atol=1e-7)


def test_a_linear_network_follows_its_course_up_to_the_spread_of_its_kernel():
    """Trained weights alone in the last layer: f is linear in them, so only K − Θ is left, which falls with width."""
    found = {}
    for width in (32, 2048):
        model = INIT.apply_(network(width), 0)
        rates = INIT.rates(model) | {"0.weight": 0.0, "0.bias": 0.0}
        x = torch.randn(6, 3, generator=torch.Generator().manual_seed(1)).double()
        pair = ps.infinite_width(model, INIT, rates).on(x)
        p = Prediction.of(pair, x[:, 0], x.roll(1, 1), ps.Training(time=1.0))
        found[width] = features(p)
    assert found[2048]["bend"] < found[32]["bend"] - 0.5
    assert found[2048]["spread"] == pytest.approx(found[32]["spread"] - math.log10(8), abs=0.25)


def test_the_predicted_way_is_that_of_linearised_networks():
    """√Σ λφ²(v·r)² is the root mean square ‖c^(−1/2)Δθ‖ over starts, and Θw the change of their functions."""
    p = problem(width=512)
    lengths, changes = [], []
    for draw in drawn(p.limit, 60, 0):
        weights = p.modes.weights(p.labels.values - draw.outputs(p.x), p.training.end)
        theta = p.pair.ntk(p.x).double()
        lengths.append(float((weights * (theta @ weights)).sum()))
        changes.append(float((theta @ weights).square().sum()))
    travel, moved = p.lengths(p.training.end)
    assert travel == pytest.approx(sum(lengths) / 60, rel=0.15)
    assert moved == pytest.approx(sum(changes) / 60, rel=0.15)


def test_weights_are_those_of_the_trajectory():
    p = problem()
    start = INIT.apply_(network(), 3)
    w = p.modes.weights(p.labels.values - start(p.x).detach(), p.training.end)
    path = ps.trajectory(p.pair.ntk, p.x, p.y, p.training, start=start)
    torch.testing.assert_close(start(p.x_new).detach() + p.modes.cross @ w, path(p.x_new), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(start(p.x).detach() + p.modes.learned(w), path(p.x), rtol=1e-8, atol=1e-10)


def test_real_steps_are_those_of_train():
    limit = problem().modes.values[0]
    p = problem(training=ps.Training(learning_rate=float(0.5 / limit), steps=50, momentum=0.5))
    found = measured(p, 10)
    (draw,) = drawn(p.limit, 1, 0)
    run = ps.train(draw.model, p.x, p.y, replace(p.training, steps=10), rates=p.limit.law.rates)
    before, after = (ntk_by_loop(m, p.x, p.x, p.limit.law.rates)[:, 0, :, 0] for m in (draw.model, run.model))
    learned = 1 - float(run.losses[-1] / run.losses[0])
    expected = float((after - before).norm() / before.norm()) / learned
    assert found["turn"] == pytest.approx(math.log10(expected), abs=1e-6)
    assert math.isfinite(found["course"])


@pytest.mark.slow
def test_each_feature_knows_what_it_is_named_after():
    def at(**options):
        return features(problem(**options))

    assert at(width=16)["spread"] > at(width=1024)["spread"] + 0.5
    assert at(width=16)["points per unit"] == pytest.approx(math.log10(0.5))
    assert at(size=10.0)["travel"] > at()["travel"] + 0.5
    assert at(size=10.0)["bend"] > at()["bend"]
    values = problem().modes.values
    slow, fast = (ps.Training(learning_rate=float(s / values[0]), steps=5) for s in (0.1, 1.8))
    assert at(training=fast)["step"] > at(training=slow)["step"] + 0.5
    assert at()["step"] == 0.0
    heavy = ps.Training(learning_rate=float(0.1 / values[0]), steps=5, momentum=0.9)
    assert at(training=heavy)["momentum"] == pytest.approx(1.0)
