"""`compare` and `audit` on tables: what they print and keep, and every way in which two tables do not fit."""

import json

import pytest
import torch

import priorscope as ps
from priorscope.cli import main
from priorscope.data.contested import contested
from priorscope.data.tables import load
from priorscope.errors import DataError

HYPOTHESES = ("size=by_size", "kind=by_kind")


def run(capsys, *arguments):
    status = main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def rows(n, start=0):
    """In training the label follows the size and the kind alike; test rows set them against each other."""
    return [(round(1.7 * ((i * 7 + start) % 13 - 6) + 0.3, 2), (i * 5 + start) % 11) for i in range(n)]


@pytest.fixture
def tables(tmp_path):
    train = [f"{s},{w},{'xy'[s > 0]},{'no' if s < 0 else 'yes'}" for s, w in rows(24)]
    test = [
        f"{'xy'[s < 0]},{s},{w},{'no' if s < 0 else 'yes'},{'yes' if s < 0 else 'no'},{i}"
        for i, (s, w) in enumerate(rows(4, start=3))
    ]
    (tmp_path / "train.csv").write_text("\n".join(["size,weight,kind,label", *train]))
    (tmp_path / "test.csv").write_text("\n".join(["kind,size,weight,by_size,by_kind,row", *test]))
    return tmp_path


def asked(folder, *more, command="compare", model="mlp:1x16:relu", hypotheses=HYPOTHESES):
    return (
        command, "--model", *([model] if isinstance(model, str) else model), "--train", folder / "train.csv",
        "--target", "label", "--test", folder / "test.csv", "--hypotheses", *hypotheses, "--samples", 2000,
        "--out", folder / "out", *more,
    )  # fmt: skip


def test_compare_prints_a_table_and_keeps_numbers_and_a_figure(capsys, tables):
    status, out, err = run(capsys, *asked(tables, "--learning-rate", 0.005, "--steps", 30, "--seed", 3))
    assert (status, err) == (0, "")
    assert "neither" in out
    assert "columns of test.csv that are not used: row" in out
    assert "held-out cases with a score like" in out
    assert "task: classification; rule: classes, a hypothesis is realised by the class of the largest output" in out
    kept = json.loads((tables / "out" / "compare.json").read_text())
    assert (tables / "out" / "compare.png").stat().st_size > 1000
    data = contested(
        str(tables / "train.csv"), "label", str(tables / "test.csv"), {"size": "by_size", "kind": "by_kind"}
    )
    init = ps.Initialization(2.0, 0.01)
    model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
    limit, training = ps.infinite_width(init.apply_(model, 0), init), ps.Training(learning_rate=0.005, steps=30)
    verdict = ps.compare(limit, data.x, data.y, data.x_new, data.candidates, training, samples=2000, seed=3)
    assert kept["nearest"] == pytest.approx(verdict.nearest)
    assert kept["realised"] == pytest.approx(verdict.realised)


def test_audit_has_a_row_an_architecture(capsys, tables):
    models = ["mlp:1x16:relu", "mlp:2x16:tanh"]
    status, out, err = run(capsys, *asked(tables, command="audit", model=models))
    assert (status, err) == (0, "")
    kept = json.loads((tables / "out" / "audit.json").read_text())["verdicts"]
    alone = json.loads(json.dumps(kept["mlp:1x16:relu"]))
    run(capsys, *asked(tables))
    assert alone == json.loads((tables / "out" / "compare.json").read_text())
    assert "rule: classes" in out
    for model in models:
        assert f"\nnote: {model}: trust: " in out
        assert f"\n{model}" in out
        assert f"{kept[model]['neither']:.3g} [" in out


def test_test_rows_are_standardised_by_the_training_rows(tables):
    data = contested(str(tables / "train.csv"), "label", str(tables / "test.csv"), {"A": "by_size"})
    raw = load(str(tables / "train.csv"), "label")
    mean, size = raw.x[:, 0].mean(), raw.x[:, 0].std(unbiased=False)
    test_sizes = torch.tensor([s for s, _ in rows(4, start=3)])
    assert torch.allclose(data.x_new[:, 0], (test_sizes - mean) / size)
    assert torch.allclose(data.x.mean(0)[:2], torch.zeros(2), atol=1e-12)
    assert raw.features == ("size", "weight", "kind_x", "kind_y")
    assert data.x_new[:, 3].tolist() == [float(s < 0) for s, _ in rows(4, start=3)]
    assert data.candidates["A"].tolist() == [int(s > 0) for s, _ in rows(4, start=3)]


def test_hypotheses_of_numbers_are_in_the_units_of_the_target(tmp_path):
    (tmp_path / "a.csv").write_text("u,v\n0,1.5\n1,2.5\n2,5.0\n")
    (tmp_path / "b.csv").write_text("u,h\n4,2.5\n5,9\n")
    data = contested(str(tmp_path / "a.csv"), "v", str(tmp_path / "b.csv"), {"H": "h"})
    y = torch.tensor([1.5, 2.5, 5.0])
    assert torch.allclose(data.candidates["H"], (torch.tensor([2.5, 9.0]) - y.mean()) / y.std(unbiased=False))


def two(folder, train, test):
    (folder / "a.csv").write_text(train)
    (folder / "b.csv").write_text(test)
    return str(folder / "a.csv"), "v", str(folder / "b.csv"), {"A": "A", "B": "B"}


@pytest.mark.parametrize("one", ["1", "1.0"])
def test_signs_are_signs_whatever_the_type_of_their_column(tmp_path, one):
    files = two(tmp_path, f"u,v\n0,{one}\n1,-{one}\n2,{one}\n", "u,A,B\n4,1,-1.0\n5,1,-1.0\n")
    data = contested(*files)
    assert data.dataset.classes is None
    assert data.y.tolist() == [1.0, -1.0, 1.0]
    assert (data.candidates["A"].tolist(), data.candidates["B"].tolist()) == ([1.0, 1.0], [-1.0, -1.0])
    assert any("are signs, ±1, and not standardised" in note for note in data.notes)
    pair = ps.KernelPair(ps.kernels.RBF(), ps.kernels.RBF())
    verdict = ps.compare(pair, data.x, data.y, data.x_new, data.candidates, samples=100)
    assert verdict.rule == "signs"
    assert contested(*files, task="classification").dataset.classes == 2


def test_numbers_beside_a_target_of_signs_are_standardised(tmp_path):
    data = contested(*two(tmp_path, "u,v\n0,1.0\n1,-1.0\n2,1.0\n", "u,A,B\n4,1,0.5\n5,1,-1.0\n"))
    assert float(data.y.mean()) == pytest.approx(0)
    assert any("the target standardised" in note for note in data.notes)


def test_columns_whose_features_have_one_name_are_refused(tmp_path):
    train, test = "c,c_red,v\nred,1,0\nblue,2,1\nred,3,1\n", "c,c_red,A,B\nblue,5,0,1\n"
    with pytest.raises(DataError, match="the columns 'c_red' and 'c': both give a feature 'c_red'"):
        contested(*two(tmp_path, train, test))
    with pytest.raises(DataError, match="the columns 'c' and 'c_x': both give a feature 'c_x_y'"):
        contested(*two(tmp_path, "c,c_x,v\nx_y,y,0\nz,z,1\nz,y,0\n", "c,c_x,A,B\nz,z,0,1\n"))


def test_a_column_with_the_name_of_a_feature_stays_its_own_column(tmp_path):
    """The text column c_red was once taken for the indicator of c = red."""
    train, test = "c,c_red,v\nred,p,0\nblue,q,1\nred,q,1\n", "c,c_red,A,B\nblue,p,0,1\n"
    data = contested(*two(tmp_path, train, test))
    assert data.dataset.features == ("c_blue", "c_red", "c_red_p", "c_red_q")
    assert data.x_new.tolist() == [[1, 0, 1, 0]]


def test_constant_columns_are_left_out_and_may_not_vary_later(tmp_path):
    rows_of_a = "".join(f"{i},0.1,w,{i % 2}\n" for i in range(24))
    data = contested(*two(tmp_path, f"u,k,l,v\n{rows_of_a}", "u,k,l,A,B\n30,0.1,w,0,1\n"))
    assert data.dataset.features == ("u",)
    assert any("columns that are constant, left out: k, l" in note for note in data.notes)
    with pytest.raises(DataError, match=r"the column 'k' of .*has other values than 0.1"):
        contested(*two(tmp_path, f"u,k,l,v\n{rows_of_a}", "u,k,l,A,B\n30,0.2,w,0,1\n"))
    with pytest.raises(DataError, match=r"the column 'l' of .*has 'z', which no training row has"):
        contested(*two(tmp_path, f"u,k,l,v\n{rows_of_a}", "u,k,l,A,B\n30,0.1,z,0,1\n"))


@pytest.mark.parametrize("target", ["0,1,0,1", "True,False,True,False", "a,b,a,b"])
def test_classes_are_known_again_in_the_other_table(tmp_path, target):
    labels = target.split(",")
    (tmp_path / "a.csv").write_text("u,v\n" + "\n".join(f"{i},{label}" for i, label in enumerate(labels)))
    again = ["0.0", "1.0"] if labels[0] == "0" else labels[:2]
    (tmp_path / "b.csv").write_text(f"u,h\n7,{again[1]}\n8,{again[0]}\n")
    data = contested(str(tmp_path / "a.csv"), "v", str(tmp_path / "b.csv"), {"H": "h"})
    assert data.candidates["H"].tolist() == [int(data.y[1]), int(data.y[0])]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("weight,by_size", "height,by_size", "has no column 'weight', an input of"),
        ("by_size", "by_form", "has no column 'by_size', which the hypothesis 'size' names"),
        ("x,", "z,", "has 'z', which no training row has"),
        (",no,yes", ",maybe,yes", "names the class maybe, the target has no, yes"),
        (",no,yes", ",,yes", "has missing values in by_size (2)"),
    ],
)
def test_tables_that_do_not_fit_say_where(capsys, tables, old, new, message):
    text = (tables / "test.csv").read_text()
    assert old in text
    (tables / "test.csv").write_text(text.replace(old, new))
    status, _, err = run(capsys, *asked(tables))
    assert status == 2
    assert message in err
    assert not (tables / "out").exists()


def test_numbers_that_are_words_are_refused(capsys, tables):
    text = (tables / "test.csv").read_text().splitlines()
    (tables / "test.csv").write_text("\n".join([text[0], "x,tall,3,no,yes,0", *text[1:]]))
    status, _, err = run(capsys, *asked(tables))
    assert status == 2
    assert "the column 'size' of" in err
    assert "is not a number" in err


@pytest.mark.parametrize(
    ("hypotheses", "message"),
    [
        (("A=by_size", "B=by_size"), "'A' and 'B': are equal at every test point"),
        (("A=by_size", "A=by_kind"), "names 'A' twice"),
        (("by_size",), "not of the form NAME=COLUMN"),
        (("A=weight",), "is an input and a hypothesis"),
        (("neither=by_size", "B=by_kind"), "'neither': has the name of the networks that realise none"),
    ],
)
def test_hypotheses_that_mean_nothing_are_refused(capsys, tables, hypotheses, message):
    status, _, err = run(capsys, *asked(tables, hypotheses=hypotheses))
    assert status == 2
    assert message in err


def test_test_rows_that_are_training_rows_raise_or_are_dropped(capsys, tables):
    size, weight, kind, _ = (tables / "train.csv").read_text().splitlines()[1].split(",")
    with (tables / "test.csv").open("a") as file:
        file.write(f"\n{kind},{size},{weight},no,yes,9")
    status, _, err = run(capsys, *asked(tables))
    assert status == 2
    assert "x_new[4]" in err
    status, out, _ = run(capsys, *asked(tables, "--duplicates", "drop"))
    assert status == 0
    assert "1 test points dropped" in out


def test_what_the_theory_does_not_cover_and_missing_files_exit_with_2(capsys, tables):
    for more, message in [
        (("--optimizer", "adam", "--learning-rate", 0.1, "--steps", 3), "optimizer='adam'"),
        (("--learning-rate", 0.1), "not fully stated"),
        (("--momentum", 0.9), "have no learning rate"),
        (("--train", tables / "none.csv"), "does not exist"),
        (("--target", "colour"), "has no column 'colour'"),
        (("--samples", 0), "samples: is 0"),
    ]:
        status, _, err = run(capsys, *asked(tables, *more))
        assert status == 2
        assert message in err
    status, _, err = run(capsys, *asked(tables, command="audit", model=["mlp:1x8", "mlp:1x8"]))
    assert status == 2
    assert "named twice" in err
