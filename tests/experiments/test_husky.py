"""husky: its cases are the committed ones, its pictures are what they say, and it says what it measured."""

import json
from pathlib import Path

import pytest
import torch

from priorscope.data.named import named
from priorscope.data.pictures import photograph
from priorscope.errors import DataError
from priorscope.experiments import Config, husky
from priorscope.experiments.planted import DIGITS, EDGE, MIDDLE, SIDE, planted

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data():
    return planted(("grass", "brick"), 20, 8, 12, 0)


def test_the_cases_are_those_that_were_fixed_before():
    assert json.loads((ROOT / "cases" / "husky.json").read_text()) == husky.cases()


def test_every_picture_is_its_digit_on_its_background(data):
    digits = named("digits")
    photos = [photograph(name).double().mean(0) / 255 for name in ("grass", "brick")]
    for i, image in enumerate(data.x):
        row, column = data.places[i].tolist()
        photo = photos[0 if data.background[i] > 0 else 1][row : row + SIDE, column : column + SIDE]
        of_class = digits.x[digits.y == DIGITS[0 if data.object[i] > 0 else 1]]
        strokes = torch.nn.functional.pad(of_class[data.numbers[i], 0] / 16, (EDGE,) * 4)
        torch.testing.assert_close(image[0] + MIDDLE, torch.maximum(photo * (1 - strokes), strokes))


def test_nothing_of_a_new_picture_stands_in_a_training_picture(data):
    training = torch.cat([data.agreeing, data.disagreeing])
    assert not set(data.numbers[training].tolist()) & set(data.numbers[data.new].tolist())
    half = photograph("grass").shape[2] // 2
    assert int(data.places[training, 1].max()) + SIDE <= half <= int(data.places[data.new, 1].min())


@pytest.mark.parametrize(("predictivity", "right"), [(1.0, 20), (0.9, 18), (0.7, 14)])
def test_the_background_tells_the_label_in_its_share_of_the_pictures(data, predictivity, right):
    train = data.train(predictivity)
    assert len(train) == len(set(train.tolist())) == 20
    assert data.object[train].sum() == 0
    assert int((data.background[train] == data.object[train]).sum()) == right
    assert torch.equal(data.background[data.new], -data.object[data.new])


def test_an_unknown_photograph_is_named():
    with pytest.raises(DataError, match=r"'snow': is not known.*gravel"):
        photograph("snow")


def test_what_carries_a_picture_shares_its_object_its_background_both_or_neither(data):
    rows = data.new.tolist()
    own = [(int(data.object[row]), int(data.background[row])) for row in rows]
    by_kind = {
        "object": [(str(a), str(-b)) for a, b in own[:5]],
        "background": [(str(-a), str(b)) for a, b in own[5:9]],
        "both": [(str(a), str(b)) for a, b in own[9:11]],
        "neither": [(str(-a), str(-b)) for a, b in own[11:]],
    }
    found = husky.shared(data, rows, [carrier for carriers in by_kind.values() for carrier in carriers])
    assert found == {name: len(carriers) / 12 for name, carriers in by_kind.items()}


@pytest.mark.slow
def test_it_is_measured_kept_and_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(husky, "TRAIN", 10)
    monkeypatch.setattr(husky, "NEW", 6)
    settings = {
        "textures": [["grass", "brick"]],
        "widths": {"fully connected": [8, 16], "convolutional": [4, 8]},
        "networks": {"fully connected": 4, "convolutional": 3},
    }
    outcome = husky.measure(settings, (0.8, 1.0), Config(keep=tmp_path))
    assert len(list(tmp_path.iterdir())) == 8
    assert len(outcome.criteria) == 4
    for row in outcome.numbers["rows"]:
        assert sum(row["carried"].values()) == pytest.approx(1)
        assert list(row["carried"]) == ["object", "background", "both", "neither"]
        assert sum(row["agreement_predicted"]) == pytest.approx(1)
    assert husky.measure(settings, (0.8, 1.0), Config(keep=tmp_path)).to_dict() == outcome.to_dict()
    assert len(husky.draw(outcome).axes) == 6
