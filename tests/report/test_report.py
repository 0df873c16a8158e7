"""The report on real data: whole files, every question answered, and numbers that agree with the API's."""

import json
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import priorscope as ps
from priorscope.errors import DataError, ModelError, NotCoveredError
from priorscope.report.believe import Distance, verdict
from priorscope.report.page import write
from tests.cases import mlp

LAW = ps.Initialization(2.0, 0.01)
QUESTIONS = 5


def iris(train=40, test=20):
    return ps.data.split(ps.data.named("iris"), train, test)


def network(inputs=4, outputs=3, width=64, seed=0):
    return LAW.apply_(mlp(inputs, width, width, outputs), seed)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    torch.set_default_dtype(torch.float32)
    model = network()
    before = {name: p.clone() for name, p in model.named_parameters()}
    result = ps.report(
        model, iris(), init=LAW, out=folder, make=lambda width: network(width=width), widths=(8, 16), title="Iris"
    )
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    return folder, result


def test_the_page_is_whole_and_stands_alone(page):
    folder, result = page
    html = (folder / "index.html").read_text()
    assert len(result.answers) == QUESTIONS
    assert html.count("<svg") == html.count("</svg>") >= QUESTIONS
    assert not re.search(r'(src|href)="(https?:)?//', html)
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    names = sorted(path.stem for path in (folder / "figures").glob("*.svg"))
    assert names == sorted(path.stem for path in (folder / "figures").glob("*.png"))
    assert not list(folder.rglob(".*"))


def test_its_numbers_are_those_of_the_api(page):
    folder, _ = page
    numbers = json.loads((folder / "report.json").read_text())["answers"]
    s = iris()
    limit = ps.infinite_width(network(), LAW)
    assert np.allclose(numbers["spectrum"]["values"], ps.eigenmodes(limit.ntk, s.x).values)
    assert np.allclose(numbers["first"]["power"], ps.eigenmodes(limit.ntk, s.x).power(s.y))
    by_width = numbers["believe"]["by_width"]
    assert [entry["width"] for entry in by_width] == [8, 16, 64]
    assert by_width[-1]["kernel"] < by_width[0]["kernel"]
    steps = numbers["predicted"]["steps"]
    assert steps[0] == 0
    assert len(steps) == len(numbers["predicted"]["real"]["test_loss"])


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium on this machine")
def test_the_page_opens_in_a_browser(page, tmp_path):
    folder, _ = page
    command = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=1000,5000",
    ]
    url = f"file://{folder / 'index.html'}"
    dom = subprocess.run([*command, "--dump-dom", url], capture_output=True, text=True, timeout=60, check=True).stdout
    assert dom.count("<h2>") >= QUESTIONS
    picture = tmp_path / "page.png"
    subprocess.run([*command, f"--screenshot={picture}", url], capture_output=True, timeout=60, check=True)
    import matplotlib.image

    pixels = matplotlib.image.imread(picture)[..., :3]
    assert pixels.shape[1] == 1000
    columns = (pixels < 0.5).any(axis=(0, 2))
    assert not columns[:20].any(), "nothing overflows the page on the left"
    assert not columns[-20:].any(), "nothing overflows the page on the right"


def test_regression_with_a_model_that_has_no_rule_uses_its_own_kernel(tmp_path):
    model = nn.Sequential(nn.Linear(2, 12), nn.Softmax(-1), nn.Linear(12, 1)).float()
    x = torch.randn(25, 2, dtype=torch.float32)
    t = ps.Training(learning_rate=0.01, steps=15)
    result = ps.report(model, x, x[:, 0] * x[:, 1], training=t, out=tmp_path)
    text = " ".join(" ".join(sentences) for sentences in result.answers.values())
    assert "has no infinite-width limit" in text
    numbers = json.loads((tmp_path / "report.json").read_text())
    assert "band" not in numbers["answers"]["predicted"]
    assert any("oftmax" in note for note in numbers["notes"])


@pytest.mark.parametrize(
    "fields",
    [{"optimizer": "adam"}, {"loss": "cross_entropy"}, {"weight_decay": 0.1, "decay_to": "zero"}],
)
def test_trainings_outside_the_theory_are_run_and_marked(fields, tmp_path):
    t = ps.Training(learning_rate=0.001, steps=12, **fields)
    model = network(width=16).float()
    result = ps.report(model, iris(), training=t, init=LAW, out=tmp_path)
    assert "outside the theory" in " ".join(result.answers["What will it predict?"])
    assert "With care" in " ".join(result.answers["Should you believe it?"])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"batch_size": 10}, "mini-batches of 10"),
        ({"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}, "full-batch descent"),
        ({"learning_rate": [0.001] * 6 + [0.0005] * 6}, "scheduled from 0.001 to 0.0005"),
    ],
)
def test_all_of_sgd_is_inside_the_theory(fields, said, tmp_path):
    t = ps.Training(**{"learning_rate": 0.001, "steps": 12, **fields})
    result = ps.report(network(width=16).float(), iris(), training=t, init=LAW, out=tmp_path)
    predicted = " ".join(result.answers["What will it predict?"])
    assert "outside the theory" not in predicted
    assert said in predicted


def test_a_training_that_ends_early_is_compared_at_its_end(tmp_path):
    model, data = network(width=256).float(), iris()
    rate = 1 / float(ps.eigenmodes(ps.infinite_width(model, LAW).ntk, data.x).values[0])
    t = ps.Training(learning_rate=rate, steps=2000, until_loss=12.0)
    result = ps.report(model, data, training=t, init=LAW, out=tmp_path)
    run = ps.train(model, data.x, data.y, t)
    assert run.converged_at < 2000
    assert f"The training: {run.converged_at} steps" in result.answers["What will it predict?"][0]
    numbers = json.loads((tmp_path / "report.json").read_text())["answers"]["believe"]["own"]
    law = ps.trained_ensemble(ps.infinite_width(model, LAW), data.x, data.y, t)(data.x_test, at=run.converged_at)
    outputs = ps.train(model, data.x, data.y, t, record=data.x_test).outputs[-1].double()
    outside = ((outputs - law.mean).abs() > 2.5758 * law.variance.sqrt()).double().mean()
    assert numbers["outside"] == pytest.approx(float(outside), abs=1e-9)


def test_the_band_of_a_mean_loss_is_that_of_the_same_descent_on_half_sse(tmp_path):
    data, model = iris(), network(width=32).float()
    half = ps.Training(learning_rate=0.001, steps=15)
    mean = ps.Training(loss="mse", learning_rate=0.001 * len(data.x) * 3 / 2, steps=15)
    bands = []
    for name, t in (("half", half), ("mean", mean)):
        ps.report(model, data, training=t, init=LAW, out=tmp_path / name)
        bands.append(json.loads((tmp_path / name / "report.json").read_text())["answers"]["predicted"]["band"])
    assert np.allclose(bands[0]["test_loss"], bands[1]["test_loss"], rtol=1e-6)


def test_a_diverging_training_is_not_believed(tmp_path):
    t = ps.Training(learning_rate=5.0, steps=20)
    with pytest.warns(ps.PriorscopeWarning, match="beyond the limit"):
        result = ps.report(network(width=16).float(), iris(), training=t, init=LAW, out=tmp_path)
    assert result.answers["Should you believe it?"][0].startswith("No: ")
    notes = json.loads((tmp_path / "report.json").read_text())["notes"]
    assert any("beyond the limit" in note for note in notes)


@pytest.mark.parametrize(
    ("outside", "functions", "says"),
    [
        (0.02, 0.1, "Yes: 98 %"),
        (0.02, 0.6, "In its statistics"),
        (0.5, 0.05, "In its course"),
        (0.5, 0.7, "No: only 50 %"),
    ],
)
def test_the_verdict_follows_its_numbers(outside, functions, says):
    assert verdict(Distance(64, functions, 0.1, 0.99, outside), []).startswith(says)


def test_one_dimensional_inputs_and_the_users_own_table(tmp_path):
    table = pd.DataFrame({"t": np.linspace(0, 3, 30), "kind": ["a", "b", "c"] * 10})
    table["height"] = np.sin(table["t"])
    table.to_csv(tmp_path / "heights.csv", index=False)
    s = ps.data.split(ps.data.load(str(tmp_path / "heights.csv"), "height"), 20, 5)
    ps.report(network(4, 1, 16).float(), s, init=LAW, out=tmp_path / "table")
    x = torch.linspace(-2, 2, 30, dtype=torch.float32)[:, None]
    ps.report(network(1, 1, 16).float(), x, x[:, 0].sin(), init=LAW, out=tmp_path / "line")
    assert (tmp_path / "line" / "index.html").exists()
    assert "one-hot" in (tmp_path / "table" / "index.html").read_text()


def test_what_cannot_be_right_raises_before_any_work(tmp_path):
    model, x, y = network(width=8), torch.randn(10, 4), torch.randn(10, 3)
    out = tmp_path / "never"
    for arguments, error, message in [
        ((model, x, y[:5]), DataError, "5 labels for 10"),
        ((model, x * float("nan"), y), DataError, "NaN"),
        ((model, x, torch.randn(10)), DataError, "has 3 outputs, y asks for 1"),
        ((nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), x, y), ModelError, "training mode"),
        ((model, x[:3], y[:3]), DataError, "too few"),
    ]:
        with pytest.raises(error, match=message):
            ps.report(*arguments, init=LAW, out=out)
    with pytest.raises(NotCoveredError, match="gradient flow"):
        ps.report(model, x, y, ps.Training(), LAW, out)
    with pytest.raises(DataError, match="do not have the variances"):
        ps.report(model, x, y, init=ps.Initialization(0.5, 0.01), out=out)
    assert not out.exists()


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = write(tmp_path / "page.html", "old")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
