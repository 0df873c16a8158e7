"""`priorscope learnability`: what it prints is what the library says."""

import json

import pytest

from priorscope.cli import main


def run(capsys, *arguments):
    status = main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_it_prints_a_row_for_each_n_and_writes_the_numbers(capsys, tmp_path):
    status, out, err = run(
        capsys, "learnability", "--model", "mlp:1x32", "--data", "iris", "--points", 60, "--samples", "5,20",
        "--ridge", 0.1, "--out", tmp_path / "l",
    )  # fmt: skip
    assert (status, err) == (0, "")
    numbers = json.loads((tmp_path / "l" / "learnability.json").read_text())
    assert numbers["curve"]["n"] == [5, 20]
    for n, error in zip(numbers["curve"]["n"], numbers["curve"]["error"], strict=True):
        assert f"{n:7d} {error:11.4g}" in out
    assert f"{numbers['all points']['leave-one-out']:.4g} by leave-one-out" in out
    assert (tmp_path / "l" / "learnability.svg").exists()


def test_a_kernel_of_low_rank_has_no_estimate_without_a_ridge(capsys, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("a,b,y\n" + "\n".join(f"{i % 3},{i % 2},{i % 5}.5" for i in range(30)))
    status, out, _ = run(
        capsys, "learnability", "--model", "mlp:1x8", "--data", table, "--target", "y", "--samples", 3,
        "--out", tmp_path / "l",
    )  # fmt: skip
    assert status == 0
    assert "1 point, drawn at random, is set aside and not used" in out
    assert "29 of the 30 points" in out
    assert "low rank on all 29 points: give --ridge" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--points", 2), "--points: is 2"), (("--points", 20, "--samples", "20"), "1 to 19, as there are 20 points")],
)
def test_bad_input(capsys, tmp_path, arguments, message):
    status, _, err = run(capsys, "learnability", "--model", "mlp:1x8", "--data", "iris", *arguments, "--out", tmp_path)
    assert status == 2
    assert message in err
