"""The benchmarks' harness on a tiny case: measures, compares kernels entry by entry, and refuses bad arguments."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    script = BENCHMARKS / "p4_mlp.py"
    return subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True)


@pytest.fixture
def harness(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("side_by_side")


def test_ours_against_the_tutorial(tmp_path):
    out = tmp_path / "p4.json"
    small = ("--quick", "--peers", "tutorial", "--rounds", "1", "--threads", "1", "--forms", "blocks")
    done = benchmark(*small, "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tutorial (jacobians)" in done.stdout
    report = json.loads(out.read_text())
    assert report["machine"]["threads"] == 1
    (comparison,) = report["comparisons"]
    ours, tutorial = comparison["entries"]
    assert (ours["method"], tutorial["method"]) == ("ours", "tutorial")
    assert tutorial["difference"] < 1e-5
    assert not tutorial["extrapolated"]
    assert tutorial["ratio_to_ours"] == pytest.approx(tutorial["seconds"] / ours["seconds"])
    assert ours["peak_bytes"] > 0
    assert "blocks" in comparison["plan"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--points", "12"), "--points: is 12. Give a power of two"),
        (("--threads", "0"), "--threads: is 0. Give 1 to"),
        (("--rounds", "0"), "--rounds, --limit, --gigabytes: one of them is not positive"),
        (("--peers", "nobody"), "invalid choice: 'nobody'"),
    ],
)
def test_bad_arguments(harness, capsys, arguments, message):
    row = importlib.import_module("p4_mlp").ROW
    with pytest.raises(SystemExit):
        harness.main(row, arguments)
    assert message in capsys.readouterr().err


def test_a_kernel_that_differs_is_seen(harness, tmp_path):
    comparison = harness.Comparison.__new__(harness.Comparison)
    comparison.form, comparison.points, comparison.folder = "blocks", 4, tmp_path
    comparison.ours = harness.OURS
    tutorial = harness.PEERS["tutorial"]
    half = harness.Entrant(tutorial, tutorial.ways[0], 2)
    ours = np.arange(64.0).reshape(4, 2, 4, 2)
    theirs = ours[:2, :, :2].copy()
    np.save(tmp_path / "ours-blocks.npy", ours)
    np.save(tmp_path / "tutorial-blocks.npy", theirs)
    assert comparison.difference(half) == 0
    theirs[1, 1, 1, 1] += 0.1
    np.save(tmp_path / "tutorial-blocks.npy", theirs)
    assert comparison.difference(half) == pytest.approx(0.1 / 27)
    np.save(tmp_path / "tutorial-blocks.npy", theirs.reshape(2, 4, 2))
    assert comparison.difference(half) == float("inf")


def test_targets_leave_out_who_computes_something_else(harness):
    ours = {"method": "ours", "ratio_to_ours": 1.0, "peak_bytes": 1.2e9, "disagrees": False}
    right = {"method": "a", "ratio_to_ours": 2.0, "peak_bytes": 0, "disagrees": False}
    wrong = {"method": "b", "ratio_to_ours": 0.1, "peak_bytes": 0, "disagrees": True}
    entries = [ours, right, wrong]
    assert harness.verdict(harness.Target(ratio=1.5), entries).endswith("2 x, met")
    assert harness.verdict(harness.Target(ratio=3, peer="a"), entries).endswith("2 x, MISSED")
    assert harness.verdict(harness.Target(ratio=3, peer="b"), entries).endswith("not measured")
    assert harness.verdict(harness.Target(gigabytes=1.0), entries).endswith("1.2 GB, MISSED")


def test_a_process_beyond_its_limits_is_ended(harness, tmp_path):
    process = importlib.import_module("process")
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    assert process._watch(child, process.Limits(600, 1), runs=1) == "needs more than 1e-09 GB"
    assert child.returncode is not None


def test_the_last_error_of_a_log(harness):
    process = importlib.import_module("process")
    assert (
        process._last_error("Traceback:\n  x\njax.errors.SomeError: no\n----\nfiltered") == "jax.errors.SomeError: no"
    )
    assert process._last_error("nothing") == ""
