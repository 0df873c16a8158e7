"""relinearise: its cases are the committed ones; what the ratios come to; a small run."""

import json
from pathlib import Path

import pytest
import torch

from priorscope.experiments import Config, relinearise
from priorscope.experiments.tasks import tasks
from priorscope.kernels.empirical import EmpiricalNTK
from priorscope.training.run import train
from priorscope.training.training import Training
from priorscope.training.trajectory import trajectory

CASES = Path(__file__).parents[2] / "cases"


def test_the_cases_are_those_that_were_fixed_before():
    assert json.loads((CASES / "relinearise.json").read_text()) == relinearise.cases()
    assert json.loads((CASES / "relinearise-restarted.json").read_text()) == relinearise.restarted_cases()


def test_ratios_that_do_not_help_are_not_called_a_gain():
    generator = torch.Generator().manual_seed(0)
    useless = [torch.exp(torch.randn(5, generator=generator, dtype=torch.float64)) for _ in range(12)]
    assert relinearise.summarised(useless)["low"] < 1
    helpful = relinearise.summarised([each * 4 for each in useless])
    assert helpful["low"] > 1
    assert helpful["median"] == pytest.approx(4, rel=0.4)
    # One task with very many gains, eleven with losses: tasks are resampled, not networks.
    assert relinearise.summarised([torch.full((5,), 9.0)] + [torch.full((5,), 0.5)] * 11)["low"] == 0.5


def test_a_networks_distances_are_those_of_the_steps_by_hand(monkeypatch):
    monkeypatch.setattr(relinearise, "STEPS", 80)
    task, law = tasks(1)[4], relinearise.LAW
    found = relinearise._gaps(task, 16, 3)
    model = relinearise.network(8, 16, 3)
    kernel = EmpiricalNTK(model, rates=law)
    rate = 0.5 / float(torch.linalg.eigvalsh(kernel(task.x))[-1])
    run = train(model, task.x, task.y, Training(learning_rate=rate, steps=80), rates=law, record=task.x_new, at=[4])
    lazy = trajectory(kernel, task.x, task.y, Training(learning_rate=rate, steps=80), start=model)(task.x_new)
    begun = train(model, task.x, task.y, Training(learning_rate=rate, steps=4), rates=law).model
    later = trajectory(
        EmpiricalNTK(begun, rates=law), task.x, task.y, Training(learning_rate=rate, steps=76), start=begun
    )(task.x_new)
    end = run.outputs[-1, :, 0]
    # The kernel of the start, from the outputs that the network has after the share: 76 steps, one by one.
    with torch.no_grad():
        f, restarted = begun(task.x)[:, 0], begun(task.x_new)[:, 0]
        cross, gram = kernel(task.x_new, task.x), kernel(task.x)
        for _ in range(76):
            restarted = restarted - rate * cross @ (f - task.y)
            f = f - rate * gram @ (f - task.y)
    for place, other in ((0, lazy), (-3, later), (-2, run.outputs[1, :, 0]), (-1, restarted)):
        torch.testing.assert_close(found[place], (other - end).square().mean().sqrt(), rtol=1e-6, atol=1e-10)


def test_a_small_run(monkeypatch, tmp_path):
    monkeypatch.setattr(relinearise, "STEPS", 40)
    monkeypatch.setattr(relinearise, "FULL", {"networks": 1})
    monkeypatch.setattr(relinearise, "tasks", lambda seed: tasks(seed)[4:5])
    outcomes = [relinearise.run(Config(full=True, keep=tmp_path)) for _ in range(2)]
    assert outcomes[0].to_dict() == outcomes[1].to_dict()
    assert len(list(tmp_path.iterdir())) == 2
    assert len(relinearise.draw(outcomes[0]).axes) == 3
