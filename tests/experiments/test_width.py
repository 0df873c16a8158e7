"""width: its cases are the committed ones; its gap is that to the linearised network, really trained."""

import json
from pathlib import Path

import pytest
import torch

from priorscope.errors import PriorscopeWarning
from priorscope.experiments import Config, width
from priorscope.kernels.empirical import EmpiricalNTK
from priorscope.network.linearize import linearize
from priorscope.training.run import train

CASES = Path(__file__).parents[2] / "cases"
SMALL = {"two": (24, 48), "three": (24, 48), "networks": 3}


def test_the_cases_are_those_that_were_fixed_before():
    assert json.loads((CASES / "width.json").read_text()) == width.cases()


def test_one_networks_numbers_are_those_of_real_training_and_of_its_linearisation(monkeypatch):
    monkeypatch.setattr(width, "STEPS", 60)
    found = width._trained("three layers, tanh", 6, range(5, 7))
    x, y, new = width.data()
    model, training = width.network("three layers, tanh", 6, 6), width._training("three layers, tanh")
    run = train(model, x, y, training, rates=width.LAW, record=new)
    linear = train(linearize(model), x, y, training, rates=width.LAW.rates(model), record=new)
    gap = (run.outputs[-1] - linear.outputs[-1]).square().mean().sqrt()
    torch.testing.assert_close(found["gap of the function"][1], gap, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(found["relative ‖Δθ‖"][1], run.relative_distance[-1])
    torch.testing.assert_close(found["‖Δθ‖"][1], run.distance[-1])
    before, after = (EmpiricalNTK(each, rates=width.LAW)(x) for each in (model, run.model))
    torch.testing.assert_close(found["drift of the kernel"][1], (after - before).norm() / before.norm())


def test_the_limits_distance_is_that_of_very_wide_linearised_networks():
    law = width.moved_in_the_limit("two layers, tanh")
    x, y, _ = width.data()
    moved = []
    for seed in range(20):
        model = width.network("two layers, tanh", 1000, seed)
        kernel = EmpiricalNTK(model, rates=width.LAW)(x)
        rest = y - model(x)[:, 0].detach()
        moved.append(float(rest @ torch.linalg.solve(kernel, rest)))
    moved = torch.tensor(moved)
    assert abs(float(moved.mean()) - law) < 4 * float(moved.std()) / 20**0.5


def test_a_small_run(monkeypatch, tmp_path):
    monkeypatch.setattr(width, "STEPS", 20)
    monkeypatch.setattr(width, "QUICK", SMALL)
    outcome = width.run(Config())
    assert len(width.draw(outcome).axes) == 4
    assert len(outcome.criteria) == 2 * 8
    outcome.to_dict()
    monkeypatch.setattr(width, "FULL", SMALL)
    full = [width.run(Config(full=True, keep=tmp_path)).to_dict() for _ in range(2)]
    assert full[0] == full[1]
    assert len(list(tmp_path.iterdir())) == 8


def test_linearisations_that_diverge_are_counted(monkeypatch):
    monkeypatch.setattr(width, "STEPS", 400)
    with pytest.warns(PriorscopeWarning, match="descent diverges"):
        found = width.measured("three layers, relu", 8, 12, 0)
    assert 0 < int(found["diverging"].sum()) < 12
    assert torch.equal(found["diverging"], found["gap of the function"] > 1e3)
