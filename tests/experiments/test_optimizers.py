"""optimizers: its cases are the committed ones; a law's own samples lie at no distance; small runs."""

import json
from pathlib import Path

import pytest
import torch

from priorscope.beliefs.gaussian import Gaussian
from priorscope.experiments import Config, optimizers
from priorscope.experiments.tasks import tasks
from priorscope.kernels.infinite import infinite_width
from priorscope.training.band import WRONG
from priorscope.training.ensemble import trained_ensemble
from priorscope.training.run import train

CASES = Path(__file__).parents[2] / "cases"


def test_the_cases_are_those_that_were_fixed_before():
    assert json.loads((CASES / "optimizers.json").read_text()) == optimizers.cases()


def test_distances_of_the_laws_own_samples():
    task = tasks()[4]
    m = len(task.x_new)
    generator = torch.Generator().manual_seed(0)
    mean, deviation = torch.randn(2, m, generator=generator, dtype=torch.float64)
    law = Gaussian(mean, deviation.square().diag())
    drawn = mean + deviation.abs() * torch.randn(4000, m, generator=generator, dtype=torch.float64)
    own = optimizers.against(drawn, law, task)
    assert own["distance"] < 0.04
    assert abs(own["outside"] - 0.01) < 0.004
    assert own["median outside"] == 0
    # Each network three times as far, on both sides: their pointwise median stays, most networks do not.
    wide = optimizers.against(mean + 3 * (drawn - mean), law, task)
    assert wide["distance"] < 0.12
    assert wide["median outside"] > WRONG
    moved = optimizers.against(drawn + 3 * deviation.abs(), law, task)
    assert moved["distance"] == pytest.approx(3, abs=0.1)
    assert moved["median outside"] > 0.5


def test_networks_that_take_a_rule_are_nearer_to_it():
    task = tasks()[4]
    outputs = torch.stack([0.3 * task.answers["A"], 2 * task.answers["A"], task.answers["B"], task.answers["B"]])
    found = optimizers.against(outputs, Gaussian(torch.zeros(len(task.x_new)), torch.eye(len(task.x_new))), task)
    assert found["measured A"] == 0.5


def test_the_step_of_the_theory_is_the_first_that_reaches_the_loss():
    task = tasks()[4]
    limit = infinite_width(optimizers.network(8, 64, 0), optimizers.LAW).on(task.x)
    largest = float(limit.ntk.on(task.x).eigen.values[0])
    training = optimizers.training_of(optimizers.PLAIN, largest, len(task.y))
    ensemble = trained_ensemble(limit, task.x, task.y, training)
    step = optimizers.steps_to(training.until_loss, ensemble, task.x, task.y, 4000)

    def expected(at):
        law = ensemble(task.x, at=at)
        return float(((law.mean - task.y).square() + law.variance).sum() / 2)

    assert expected(step) <= training.until_loss < expected(step - 1)


def test_a_row_is_of_networks_trained_as_by_train(monkeypatch):
    monkeypatch.setattr(
        optimizers, "OPTIMIZERS", {name: optimizers.OPTIMIZERS[name] for name in ("plain descent", "Adam")}
    )
    task = tasks()[4]
    rows = optimizers.on_task(task, 16, 3, 5)
    limit = infinite_width(optimizers.network(8, 16, 5), optimizers.LAW).on(task.x)
    training = optimizers.training_of("Adam", float(limit.ntk.on(task.x).eigen.values[0]), len(task.y))
    alone = [train(optimizers.network(8, 16, seed), task.x, task.y, training, at=[0]) for seed in (5, 6, 7)]
    steps = sorted(run.converged_at for run in alone)
    assert rows[1]["optimizer"] == "Adam"
    assert rows[1]["steps"] == steps[1]
    assert rows[1]["reached"] == 1


def test_a_small_run(monkeypatch):
    monkeypatch.setattr(optimizers, "QUICK", {"width": 32, "networks": 2})
    monkeypatch.setattr(optimizers, "STEPS", 60)
    monkeypatch.setattr(optimizers, "tasks", lambda: tasks()[4:6])
    outcome = optimizers.run(Config())
    assert len(outcome.numbers["rows"]) == 2 * len(optimizers.OPTIMIZERS)
    assert "Adagrad" in outcome.notes[0]
    assert len(optimizers.draw(outcome).axes) == 3
    outcome.to_dict()
