"""trust: its cases are the committed ones, a tiny run goes from tasks to a fit, and goes on where it was stopped."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from priorscope.experiments import trust
from priorscope.experiments.trust_cases import Case, cases_of
from priorscope.experiments.trust_tasks import EDGE, FIT, GENTLE, HELD_OUT, LOUD, cases
from priorscope.generalization.trust.score import auroc
from priorscope.training.ensemble import trained_ensemble
from priorscope.training.run import train

ROOT = Path(__file__).parents[2]
SETTINGS = {"networks": 3, "widths": (16,)}


def tiny(task, name):
    return replace(task, name=name, points=6, test_points=8, settings=(GENTLE, LOUD))


TO_FIT = (tiny(FIT[0], "a"), tiny(FIT[4], "b"))
HELD = (tiny(HELD_OUT[5], "c"), tiny(HELD_OUT[6], "d"))


def test_the_cases_are_those_that_were_fixed_before():
    assert json.loads((ROOT / "cases" / "trust.json").read_text()) == json.loads(json.dumps(cases()))


def test_no_task_is_both_fitted_and_held_out():
    assert not {task.name for task in FIT} & {task.name for task in HELD_OUT}
    assert len(HELD_OUT) >= 6


@pytest.mark.parametrize("task", [*FIT, *HELD_OUT], ids=lambda task: task.name)
def test_every_task_has_data_and_a_network_for_them(task):
    x, y, x_new = task.data()
    assert (len(x), len(x_new)) == (task.points, task.test_points)
    assert task.network(8, 0)(x.float()).shape == (task.points, task.outputs)
    assert bool(torch.isfinite(y).all())
    assert 0.2 < float(y.square().mean()) < 2
    assert all(torch.equal(a, b) for a, b in zip(task.data(), (x, y, x_new), strict=True))


def test_a_case_counts_what_really_trained_networks_leave_of_the_band():
    case = Case(TO_FIT[0], LOUD, 16)
    x, y, x_new = case.data
    found = case.outside(3, first_seed=0)
    law = trained_ensemble(case.pair, x, y, case.training)(x_new)
    half = 2.5758293 * law.variance.sqrt()
    for seed in range(3):
        model = case.task.network(16, seed, torch.float64)
        end = train(model, x, y, case.training, case.pair, x_new, at=[0]).outputs[-1, :, 0]
        assert float(found[seed]) == pytest.approx(float(((end - law.mean).abs() > half).double().mean()), abs=1e-9)
    edge = Case(TO_FIT[0], EDGE, 16)
    limit = trained_ensemble(edge.pair, x, TO_FIT[0].data()[1], edge.training).step_limit
    assert edge.training.learning_rate == pytest.approx(0.99 * limit)


@pytest.mark.slow
def test_a_tiny_run(tmp_path):
    outcome = trust.measure(TO_FIT, HELD, SETTINGS, keep=tmp_path)
    assert outcome.criteria[0].holds
    assert len(list(tmp_path.iterdir())) == 8
    held = outcome.numbers["held_out"]
    assert len(held) == 4
    assert all(0 <= each["score"][which] <= 1 for each in held for which in trust.SCORES)
    scores, right = [each["score"]["before"] for each in held], [each["right"] for each in held]
    stated = outcome.numbers["reached"]["before"]["all"]["auroc"]
    assert stated == auroc(scores, right) or (math.isnan(stated) and len(set(right)) == 1)
    assert all(c.value != c.value for c in outcome.criteria if "and more" in c.name)  # no wide network here
    outcome.to_dict()
    assert len(trust.draw(outcome).axes) == 3
    found = trust.fit_of(outcome)
    assert found.record["tasks"] == {"fit": ["a", "b"], "held_out": ["c", "d"]}
    assert len(found.held_out["before"]) == 4
    again = trust.measure(TO_FIT, HELD, SETTINGS, keep=tmp_path)
    assert again.to_dict() == outcome.to_dict()


def test_a_second_start_trains_one_network_a_case(tmp_path, monkeypatch):
    case = next(cases_of(TO_FIT, (16,)))
    first = case.outside(3, 0, tmp_path)
    counts = []
    drawn = Case._drawn
    monkeypatch.setattr(Case, "_drawn", lambda self, count, seed: counts.append(count) or drawn(self, count, seed))
    assert torch.equal(Case(case.task, case.setting, 16).outside(3, 0, tmp_path), first)
    assert counts == [1]
