"""dynamics: its cases are the committed ones; where a line falls to a level; small runs."""

import json
import math
from pathlib import Path

import pytest
import torch

from priorscope.experiments import Config, dynamics
from priorscope.experiments.together import watch_together
from priorscope.training.run import train
from priorscope.training.training import Training

CASES = Path(__file__).parents[2] / "cases"


def test_the_cases_are_those_that_were_fixed_before():
    assert json.loads((CASES / "dynamics.json").read_text()) == dynamics.cases()
    assert json.loads((CASES / "dynamics-small.json").read_text()) == dynamics.small_cases()


def test_a_geometric_line_falls_to_the_level_where_its_logarithm_says():
    line = 0.9 ** torch.arange(60, dtype=torch.float64)
    assert float(dynamics.first_below(line, 0.05)) == pytest.approx(math.log(0.05) / math.log(0.9))
    assert float(dynamics.first_below(line[:10], 0.05)) == math.inf
    assert float(dynamics.first_below(line, 1.0)) == 0


def test_planes_are_orthonormal_eigenspaces_of_the_circle():
    waves = dynamics.planes()
    columns = waves.transpose(0, 1).reshape(dynamics.POINTS, -1)
    gram = columns.T @ columns
    expected = torch.eye(8, dtype=torch.float64)
    expected[1, 1] = 0
    torch.testing.assert_close(gram, expected, atol=1e-12, rtol=0)


def test_watched_networks_are_trained_as_alone():
    networks = [dynamics.network(8, seed) for seed in (1, 2)]
    x = dynamics.on_circle(dynamics.angles(4))
    y = torch.randn(2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    training = Training(learning_rate=0.02, steps=5)
    watched = watch_together(networks, x, y, training, dynamics.LAW.rates(networks[0]))
    for i in range(2):
        alone = train(networks[i], x, y[i], training, rates=dynamics.LAW, at=range(6))
        torch.testing.assert_close(watched[i], alone.outputs[..., 0])


def test_exponents_of_known_growth():
    lags = [1, 2, 4, 8]
    grown = torch.tensor([1.0, 4.0, 8.0, 8.0], dtype=torch.float64)
    torch.testing.assert_close(dynamics.local_exponents(lags, grown), torch.tensor([2.0, 1.0, 0.0]).double())


@pytest.mark.slow
def test_a_small_run(monkeypatch):
    monkeypatch.setattr(dynamics, "QUICK", {"width": 64, "networks": 2, "chains": 200})
    monkeypatch.setitem(dynamics.ORDERS, "runge-kutta", 25)
    monkeypatch.setitem(dynamics.SGD, "lags", [1, 4, 16])
    outcome = dynamics.run(Config())
    assert outcome.passed(full=False), [str(each) for each in outcome.criteria if not each.holds]
    assert sum(criterion.exact for criterion in outcome.criteria) == 9
    assert len(dynamics.draw(outcome).axes) == 6
    outcome.to_dict()
