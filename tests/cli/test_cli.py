"""The command line: what it prints, where it writes, how it exits."""

import json

import matplotlib.pyplot as plt
import pytest

from priorscope import data
from priorscope.cli import experiment, main
from priorscope.errors import DataError
from priorscope.experiments import EXPERIMENTS, Criterion, Experiment, Outcome


def run(capsys, *arguments):
    status = main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_report_writes_a_page_and_says_where(capsys, tmp_path):
    status, out, _ = run(
        capsys, "report", "--model", "mlp:1x32:tanh", "--data", "iris", "--train", 30, "--test", 10,
        "--learning-rate", 0.001, "--steps", 30, "--widths", "8", "--out", tmp_path / "r", "--quiet",
    )  # fmt: skip
    assert status == 0
    assert f"The page: {tmp_path / 'r' / 'index.html'}" in out
    facts = json.loads((tmp_path / "r" / "report.json").read_text())["facts"]
    assert facts["network"] == "mlp:1x32:tanh"
    assert "learning rate 0.001, 30 steps" in facts["training"]


def test_report_on_the_users_own_files(capsys, tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def make_model(inputs, outputs, width=16):\n"
        "    return nn.Sequential(nn.Linear(inputs[0], width), nn.ReLU(), nn.Linear(width, outputs))\n"
    )
    rows = "\n".join(f"{i % 7},{'xyz'[i % 3]},{i % 2}" for i in range(24))
    (tmp_path / "table.csv").write_text("size,kind,label\n" + rows + "\n")
    status, _, err = run(
        capsys, "report", "--model", f"{tmp_path / 'net.py'}:make_model", "--data", tmp_path / "table.csv", "--target",
        "label", "--widths", "8", "--out", tmp_path / "r", "--quiet",
    )  # fmt: skip
    assert (status, err) == (0, "")


def test_a_class_that_only_the_test_split_has_is_counted(capsys, tmp_path):
    table = tmp_path / "table.csv"
    rows = "\n".join(f"{i % 7},{i % 5},{'pq'[i % 2]}" for i in range(23))
    table.write_text(f"size,length,label\n{rows}\n9,9,z\n")
    split = data.split(data.load(str(table), "label"))
    assert 2 in split.y_test
    assert 2 not in split.y
    status, _, err = run(
        capsys, "report", "--model", "mlp:1x16", "--data", table, "--target", "label", "--widths", "",
        "--learning-rate", 0.001, "--steps", 5, "--out", tmp_path / "r", "--quiet",
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert "3 classes" in json.loads((tmp_path / "r" / "report.json").read_text())["facts"]["data"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("1,p\n2,q", "has 2 points, of which 1 is for training"),
        ("1,p\n" * 23 + "2,q", "single class on the 19"),
    ],
)
def test_labels_that_leave_nothing_to_learn_say_so(capsys, tmp_path, rows, message):
    (tmp_path / "t.csv").write_text(f"size,label\n{rows}\n")
    status, _, err = run(capsys, "report", "--data", tmp_path / "t.csv", "--target", "label", "--out", tmp_path / "r")
    assert status == 2
    assert message in err
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("widths", ["-4,0", "32,0", "a", "3.5"])
@pytest.mark.parametrize("command", ["report", "demo"])
def test_widths_that_are_none_are_refused_before_any_work(capsys, tmp_path, command, widths):
    with pytest.raises(SystemExit) as exit_:
        main([command, f"--widths={widths}", "--out", str(tmp_path / "out")])
    assert exit_.value.code == 2
    assert f"--widths: '{widths}' are no widths. Give whole numbers" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "--data", "nowhere.csv", "--target", "y"], "does not exist"),
        (["report", "--data", "imagenet"], "is not known"),
        (["report", "--model", "mlp:3"], "not of the form"),
        (["report", "--data", "iris", "--train", "1000"], "has 150 points"),
        (["report", "--data", "iris", "--nesterov"], "have no learning rate"),
        (["report", "--data", "iris", "--steps", "10"], "not fully stated"),
        (["report", "--data", "iris", "--steps", "10", "--learning-rate", "-1"], "learning_rate"),
        (["report", "--data", "iris", "--momentum", "0.9"], "have no learning rate"),
        (["experiment", "run", "nothing"], "is not known"),
        (["demo", "--essay", "nowhere.ipynb"], "does not exist"),
    ],
)
def test_bad_input_is_one_line_and_status_two(capsys, tmp_path, arguments, message):
    status, _, err = run(capsys, *arguments, "--out", tmp_path / "out")
    assert status == 2
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_experiments_are_listed(capsys):
    status, out, _ = run(capsys, "experiment", "list")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == list(EXPERIMENTS)


@pytest.fixture
def two_experiments(monkeypatch):
    """Instead of all: one that measures, one that ends in an error."""
    monkeypatch.setattr(experiment, "EXPERIMENTS", {})
    starts = []

    def measures(config):
        starts.append(config)
        return Outcome((Criterion("a number", 1.0, "<=", 2.0),), {}, ("a note",))

    def breaks(config):
        raise DataError("the data", "are not there", "Bring them")

    for name, start in (("measures", measures), ("breaks", breaks)):
        experiment.EXPERIMENTS[name] = Experiment(name, "a claim", "Somebody 2020", start, lambda _: plt.figure())
    return starts


def test_all_experiments_make_one_page_and_failures_are_shown(capsys, tmp_path, monkeypatch, two_experiments):
    monkeypatch.setattr(experiment, "commit", lambda: "abc123")
    for starts in (1, 1):  # what is finished is not run again
        status, out, _ = run(capsys, "experiment", "run", "all", "--full", "--out", tmp_path, "--quiet")
        assert status == 1
        assert "FAILED: breaks" in out
        assert len(two_experiments) == starts
    page = (tmp_path / "index.html").read_text()
    assert "1 passed in full, 0 reported by a short run, 1 failed" in page
    assert "the data: are not there. Bring them" in page
    record = json.loads((tmp_path / "measures.json").read_text())
    assert record["command"] == "priorscope experiment run measures --full"
    assert record["commit"]
    page = (tmp_path / "index.html").read_text()
    (tmp_path / "index.html").unlink()
    status, _, _ = run(capsys, "experiment", "gallery", "--out", tmp_path)
    assert status == 0
    assert (tmp_path / "index.html").read_text() == page
    # Files that differ from the commit may differ again: nothing is taken from an earlier start.
    monkeypatch.setattr(experiment, "commit", lambda: "abc123+")
    for starts in (2, 3):
        run(capsys, "experiment", "run", "all", "--full", "--out", tmp_path, "--quiet")
        assert len(two_experiments) == starts


def test_a_gallery_of_nothing_is_refused(capsys, tmp_path):
    status, _, err = run(capsys, "experiment", "gallery", "--out", tmp_path)
    assert status == 2
    assert "holds no record" in err
