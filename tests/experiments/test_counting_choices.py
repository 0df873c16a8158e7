"""counting_choices: its case is the committed one, its networks are the other experiments', its score is a loop's."""

import json
from pathlib import Path

import pytest
import torch

from priorscope.experiments import Config, coin, counting, counting_choices, scores, shortcut

ROOT = Path(__file__).parents[2]


def test_the_case_is_the_committed_one():
    assert json.loads((ROOT / "cases" / "counting-choices.json").read_text()) == counting_choices.cases()


def test_families_are_the_cells_that_the_case_names():
    cells = counting_choices.asked(full=True)
    numbers = {family: sum(cell.family == family for cell in cells) for family in counting_choices.FULL}
    assert numbers == {"coin, coordinates": 8, "coin, convolutions": 4, "shortcut, fast": 16, "shortcut, gentle": 4}
    assert len({cell.name for cell in cells}) == 32


def test_networks_are_those_of_the_shortcut_and_kept_where_it_keeps_them(tmp_path):
    asked = next(cell for cell in counting_choices.asked(full=False) if cell.family == counting_choices.FAST)
    found = counting_choices.measure(asked, Config(keep=tmp_path / "counting-kept"))
    (file,) = (tmp_path / "shortcut-kept").iterdir()
    of = shortcut.grid(shortcut.PREDICTIVITIES, shortcut.AVAILABILITIES)[5]
    assert (of.predictivity, of.availability) == (0.75, 1.0)
    question = of.question(of.points(), shortcut.FAST)
    config = Config(keep=tmp_path / "shortcut-kept")
    outputs = of.trained(question, shortcut.FAST, shortcut.QUICK, 1, config)
    assert list((tmp_path / "shortcut-kept").iterdir()) == [file]
    said = scores.unsure(question.probability)
    slow = []
    for one in question.taken(outputs):
        slow.append(sum(float(said[g, kind].log()) for g, kind in one.nonzero().tolist()) / len(said))
    assert found["score"] == pytest.approx(sum(slow) / len(slow))
    assert found["networks"] == len(outputs) == shortcut.QUICK["networks"]
    assert found["sizes"] == (1, 2, 3, 5, 7, 10)
    assert found["judged"] == 10
    assert found["predicted"].shape == (len(question.groups), 3)
    reported = counting.reported([{**found, "family": counting.BOOLEAN}, found], {"width": 64})
    assert [criterion.name for criterion in reported.criteria[4:]] == [
        "shortcut, fast: mean log score less that of counting 10 networks",
        "shortcut, fast: cost of a prediction over that of 10 networks",
    ]
    assert any("one of them held out" in note for note in reported.notes)
    assert len(counting.draw(reported).axes) == 5


def test_the_coins_settings_are_its_own():
    for cell in counting_choices.asked(full=True):
        if cell.keeper == "coin":
            assert cell.settings == coin.FULL
            assert cell.brief["networks"] == counting_choices.TIMED


def test_equal_is_the_least_number_that_scores_as_well():
    generator = torch.Generator().manual_seed(0)
    done = torch.nn.functional.one_hot(torch.randint(3, (60, 4), generator=generator), 3).double()
    counts = {rule: scores.score_of_others(done, scores.COUNTED[:9], a) for rule, a in scores.SMOOTHING.items()}
    bad = torch.tensor([[0.6, 0.3, 0.1]] * 4).double()
    found = scores.row("a", "b", bad, done, counts, scores.COUNTED[:9], 20, (1.0, 0.5))
    told = scores.summary([found])
    best = torch.stack(list(told["counts"].values())).amax(0).tolist()
    place = scores.COUNTED.index(told["equal"])
    assert best[place] >= told["score"]
    assert all(value < told["score"] for value in best[:place])
    assert told["ratio"] == pytest.approx(1 / (0.5 * 20))
    assert told["ratio_at_equal"] == pytest.approx(1 / (0.5 * told["equal"]))
    assert told["ahead"] == pytest.approx(told["score"] - best[scores.COUNTED.index(20)])
