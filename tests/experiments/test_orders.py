"""Orders: integrated flows are the closed ones where these exist, and a correction that is wrong has a lower order."""

import pytest
import torch
from torch import nn

from priorscope.experiments import orders
from priorscope.experiments.slopes import log_slope
from priorscope.network.initialization import Initialization

TRAININGS = [(0.08, 5), (0.04, 10), (0.02, 20)]


@pytest.fixture
def problem():
    generator = torch.Generator().manual_seed(0)
    x, new = (torch.randn(n, 2, generator=generator, dtype=torch.float64) for n in (5, 4))
    return x, torch.randn(5, generator=generator, dtype=torch.float64), new


def test_of_a_linear_network_both_ways_agree(problem):
    x, y, new = problem
    model = Initialization(1.0, 0.1).apply_(nn.Linear(2, 1).double(), 1)
    rates = {"weight": 0.7, "bias": 1.3}
    closed = orders.of_linear(model, rates, x, y, new, TRAININGS)
    integrated = orders.of_network(model, rates, x, y, new, TRAININGS, parts=60)
    for name in ("flow", "corrected"):
        assert integrated[name] == pytest.approx(closed[name], rel=1e-3)


@pytest.mark.parametrize(("factor", "order"), [(1.0, 2.0), (0.5, 1.0), (2.0, 1.0)])
def test_only_the_right_correction_has_the_second_order(problem, monkeypatch, factor, order):
    x, y, new = problem
    model = Initialization(1.0, 0.1).apply_(nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)).double(), 1)
    rates = {name: 1.0 for name, _ in model.named_parameters()}
    field = orders._field
    monkeypatch.setattr(orders, "_field", lambda loss, c, correction: field(loss, c, factor * correction))
    trainings = [(0.02, 5), (0.01, 10), (0.005, 20)]
    found = orders.of_network(model, rates, x, y, new, trainings, parts=40)
    slope = float(log_slope([eta for eta, _ in trainings], torch.tensor(found["corrected"])))
    assert slope == pytest.approx(order, abs=0.15)
