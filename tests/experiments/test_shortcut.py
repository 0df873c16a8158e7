"""shortcut: its cases are the committed ones, its features are what they say, and it says what it measured."""

import json
from pathlib import Path

import pytest
import torch

from priorscope.experiments import Config, choice, shortcut
from priorscope.experiments.features import features

ROOT = Path(__file__).parents[2]


def test_the_cases_are_those_that_were_fixed_before():
    assert json.loads((ROOT / "cases" / "shortcut.json").read_text()) == shortcut.cases()
    assert json.loads((ROOT / "cases" / "shortcut-gentle.json").read_text()) == shortcut.cases("gentle")


@pytest.mark.parametrize(("core", "other"), [(0.9, 0.6), (0.9, 1.0), (0.8, 0.75)])
def test_predictivity_is_the_share_of_points_that_a_feature_has_right(core, other):
    of = features((core, other), (1.0, 2.0), 40, 12, 0)
    assert len(of.y) == len(of.train) == 40
    assert of.y.sum() == 0
    for sign, predictivity in ((of.core, core), (of.shortcut, other)):
        assert (sign[of.train] == of.y).double().mean() == pytest.approx(predictivity)
    assert torch.equal(of.core[of.new], -of.shortcut[of.new])


def test_availability_is_how_strongly_a_feature_shows():
    weak, strong = (features((0.9, 0.9), (1.0, a), 400, 100, 0) for a in (0.5, 3.0))
    torch.testing.assert_close(strong.x[:, 1], 6 * weak.x[:, 1])
    torch.testing.assert_close(strong.x[:, [0, *range(2, 10)]], weak.x[:, [0, *range(2, 10)]])
    assert torch.equal(weak.x[:, 1].sign(), weak.shortcut)
    assert float((weak.x[:, 1] * weak.shortcut).mean()) == pytest.approx(0.5, rel=0.05)


@pytest.mark.slow
def test_it_is_measured_kept_and_drawn(tmp_path):
    settings = {arm: {"widths": [8, 16], "networks": 6} for arm in shortcut.ARMS}
    outcome = shortcut.measure(settings, (0.6, 1.0), (1.0, 4.0), Config(keep=tmp_path))
    assert len(list(tmp_path.iterdir())) == 16
    for arm in outcome.numbers["arms"].values():
        predicted = [cell["agreement_predicted"][1] for cell in arm["cells"]]
        assert max(predicted[:2]) < 0.3 < 0.9 < min(predicted[2:])
    assert len(outcome.criteria) == 8
    assert shortcut.measure(settings, (0.6, 1.0), (1.0, 4.0), Config(keep=tmp_path)).to_dict() == outcome.to_dict()
    assert len(shortcut.draw(outcome).axes) == 8


def test_no_network_is_of_two_arms_or_of_two_runs():
    def seeds(run):
        config = Config(seed=run)
        firsts = [
            config.first(choice.BETWEEN_CELLS * (arm.first + 2 * cell.number + i + 1))
            for arm in shortcut.ARMS.values()
            for cell in shortcut.grid(shortcut.PREDICTIVITIES, shortcut.AVAILABILITIES)
            for i in range(2)
        ]
        return {first + k for first in firsts for k in range(64)}

    runs = [seeds(run) for run in range(30)]
    assert all(len(run) == 2 * 16 * 2 * 64 for run in runs)
    assert len(set().union(*runs)) == sum(map(len, runs))
