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
from priorscope.generalization.trust.draws import drawn
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
    for criterion, tasks in zip(outcome.criteria[:2], (2, 0), strict=True):  # no wide network here
        assert (criterion.value, criterion.threshold, criterion.holds) == (tasks, 6, False)
    assert len(list(tmp_path.iterdir())) == 8
    held = outcome.numbers["held_out"]
    assert len(held) == 4
    assert all(0 <= each["score"][which] <= 1 for each in held for which in trust.SCORES)
    scores, right = [each["score"]["before"] for each in held], [each["right"] for each in held]
    stated = outcome.numbers["reached"]["before"]["all"]["auroc"]
    assert stated == auroc(scores, right) or (math.isnan(stated) and len(set(right)) == 1)
    assert all(c.value != c.value for c in outcome.criteria if "AUROC" in c.name and "and more" in c.name)
    outcome.to_dict()
    assert len(trust.draw(outcome).axes) == 3
    found = trust.fit_of(outcome)
    assert found.record["tasks"] == {"fit": ["a", "b"], "held_out": ["c", "d"]}
    assert len(found.held_out["before"]) == 4
    kinds = {"points": 6, "hidden layers": 1, "layers": ["gelu", "linear", "relu"]}
    assert found.record["fitted on"] == {"steps": 400, **kinds}
    settings, widths = ("gentle", "loud"), (64, 256, 1024)
    others = {f"{task}, {setting}, width {width}" for task in "abcd" for setting in settings for width in widths}
    assert set(found.record["cases not run"]) == others
    again = trust.measure(TO_FIT, HELD, SETTINGS, keep=tmp_path)
    assert again.to_dict() == outcome.to_dict()


def test_tasks_are_counted_where_their_cases_are_and_against_six(monkeypatch):
    def row(case, networks, first_seed, keep):
        """A right case where the network is wide, but for three tasks."""
        right = case.width > 16 and not (case.task.name in ("t0", "t1", "t2") and case.setting == LOUD)
        return {
            "task": case.task.name,
            "setting": case.setting.name,
            "width": case.width,
            "kind": {"points": 6, "hidden layers": 1, "layers": ["linear"]},
            "outside": 0.0 if right else 1.0,
            "mean_outside": 0.0,
            "right": right,
            "features": {"bend": 0.0 if right else 1.0, "turn": 0.0, "course": 0.0},
        }

    monkeypatch.setattr(trust, "row", row)
    held = tuple(tiny(HELD_OUT[5], f"t{i}") for i in range(7))
    settings = {"networks": 3, "widths": (16, 256)}

    def tasks(**options):
        outcome = trust.measure(TO_FIT, held, settings, **options)
        return outcome, [(c.value, c.threshold, c.holds) for c in outcome.criteria[:2]]

    outcome, found = tasks()
    assert found == [(7, 6, True), (7, 6, True)]
    assert "3 of 7 held-out tasks have right and wrong cases of width 256 and more: t0, t1, t2" in outcome.notes
    assert "7 of 7 held-out tasks have right and wrong cases: t0, t1, t2, t3, t4, t5, t6" in outcome.notes
    few, found = tasks(chosen=lambda case: case.width == 16 or case.task.name not in ("t5", "t6"))
    assert found == [(7, 6, True), (5, 6, False)]
    assert "t6, loud, width 256" in few.numbers["not run"]
    assert "t4, loud, width 256" not in few.numbers["not run"]


def test_features_look_at_networks_of_which_none_is_trained(monkeypatch):
    seeds = {}

    def notes(name):
        found = getattr(trust, name)

        def features(prediction, *args, **options):
            seeds[name] = options.get("seed", args[-1] if args else 0)
            return found(prediction, *args, **options)

        monkeypatch.setattr(trust, name, features)

    notes("features"), notes("measured")
    case = Case(TO_FIT[0], GENTLE, 16)
    trust.row(case, 3, 7, None)
    assert seeds == {"features": 7 + trust.LOOKED_FROM, "measured": 7 + trust.LOOKED_FROM}
    assert trust.LOOKED_FROM > trust.FULL["networks"] >= trust.QUICK["networks"]
    trained = [case.task.network(16, seed, torch.float64)(case.data[0]) for seed in range(16)]
    for draw in drawn(case.pair.joint, 5, trust.LOOKED_FROM):
        assert not any(torch.equal(draw.outputs(case.data[0]), outputs) for outputs in trained)


def test_a_second_start_trains_one_network_a_case(tmp_path, monkeypatch):
    case = next(cases_of(TO_FIT, (16,)))
    first = case.outside(3, 0, tmp_path)
    counts = []
    drawn = Case._drawn
    monkeypatch.setattr(Case, "_drawn", lambda self, count, seed: counts.append(count) or drawn(self, count, seed))
    assert torch.equal(Case(case.task, case.setting, 16).outside(3, 0, tmp_path), first)
    assert counts == [1]
