"""An audit is one comparison an architecture, and says which one failed."""

import pytest
import torch

import priorscope as ps
from priorscope.errors import DataError
from tests.unchecked import messages

PAIRS = {
    "relu": ps.KernelPair(ps.kernels.ArcCosine() * 0.5 + ps.kernels.Linear(0.3, 0.1), ps.kernels.ArcCosine()),
    "smooth": ps.KernelPair(ps.kernels.RBF(), ps.kernels.RBF() * 2.0),
}


def problem():
    x, x_new = torch.randn(6, 3), torch.randn(3, 3)
    y = torch.tensor([1, -1, 1, 1, -1, -1])
    return x, y, x_new, {"A": torch.tensor([1, 1, -1]), "B": torch.tensor([-1, 1, 1]), "C": torch.tensor([-1, -1, 1])}


def test_each_row_is_a_comparison(tmp_path):
    x, y, x_new, candidates = problem()
    trainings = {"relu": ps.Training(time=2.0), "smooth": ps.Training(learning_rate=0.1, steps=20)}
    table = ps.audit(PAIRS, x, y, x_new, candidates, trainings, samples=3000, seed=2)
    for i, (name, pair) in enumerate(PAIRS.items()):
        alone = ps.compare(pair, x, y, x_new, candidates, trainings[name], samples=3000, seed=2)
        assert table.verdicts[name].to_dict() == alone.to_dict()
        assert table.realised[i].tolist() == [*alone.realised.values(), alone.neither]
        assert table.nearest[i].tolist() == list(alone.nearest.values())
        assert table.interval(name, "B") == alone.intervals["realised"]["B"]
        low, high = table.interval(name, "neither")
        assert low < alone.neither < high
    assert table.architectures == ("relu", "smooth")
    html = table._repr_html_()
    assert html.count("<tr>") == 3
    assert "smooth" in html
    table.save(tmp_path / "audit.npz")
    assert torch.equal(ps.Audit.load(tmp_path / "audit.npz").realised, table.realised)


def test_a_training_may_be_a_function_of_the_pair():
    x, y, x_new, candidates = problem()
    limits = {name: ps.trained_ensemble(pair, x, y).step_limit for name, pair in PAIRS.items()}

    def half(pair):
        return ps.Training(learning_rate=ps.trained_ensemble(pair, x, y).step_limit / 2, steps=10)

    table = ps.audit(PAIRS, x, y, x_new, candidates, half, samples=500)
    for name, pair in PAIRS.items():
        training = ps.Training(learning_rate=limits[name] / 2, steps=10)
        alone = ps.compare(pair, x, y, x_new, candidates, training, samples=500)
        assert table.verdicts[name].nearest == alone.nearest


def test_what_is_wrong_names_the_architecture():
    x, y, x_new, candidates = problem()
    with pytest.raises(DataError, match="are empty"):
        ps.audit({}, x, y, x_new, candidates)
    with pytest.raises(DataError, match="has none for 'smooth'"):
        ps.audit(PAIRS, x, y, x_new, candidates, {"relu": ps.Training()}, samples=10)
    with pytest.raises(DataError, match=r"^relu: x_new\[1\]"):
        ps.audit(PAIRS, x, y, torch.cat([x_new[:1], x[:1], x_new[2:]]), candidates, samples=10)


UNCHECKED = """
import torch
import priorscope as ps

x, y, x_new, a = torch.randn(4, 2), torch.randn(4), torch.randn(2, 2), torch.randn(2)
pair = ps.KernelPair(ps.kernels.RBF(), ps.kernels.RBF())
for architectures, training in ((pair, ps.Training()), ({"net": pair.ntk}, ps.Training()), ({"net": pair}, "sgd")):
    try:
        ps.audit(architectures, x, y, x_new, {"A": a, "B": -a}, training)
        print("nothing was raised")
    except ps.PriorscopeError as error:
        print(error)
"""


def test_arguments_of_another_kind_say_what_to_give():
    starts = ["architectures: are a KernelPair", "net: compare: has one kernel", "net: training: is a str"]
    for message, start in zip(messages(UNCHECKED), starts, strict=True):
        assert message.startswith(start)
