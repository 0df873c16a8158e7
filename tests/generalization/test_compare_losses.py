"""Verdicts of networks trained on losses that are not squared: counted in their samples."""

import pytest
import torch
from torch import nn

import priorscope as ps
from priorscope.errors import DataError
from tests.cases import mlp

PAIR = ps.KernelPair(
    ps.kernels.ArcCosine() * 0.5 + ps.kernels.Linear(0.3, 0.1), ps.kernels.ArcCosine() + ps.kernels.RBF()
)


def half_sse(outputs, targets):
    return (outputs - targets).square().sum() / 2


def test_cross_entropy_is_counted_in_the_samples():
    x, x_new, y = torch.randn(6, 3), torch.randn(4, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    training = ps.Training(loss="cross_entropy", learning_rate=0.5, steps=50)
    a, b, c = torch.tensor([0, 1, 2, 0]), torch.tensor([0, 1, 1, 2]), torch.tensor([2, 2, 0, 1])
    verdict = ps.compare(PAIR, x, y, x_new, {"A": a, "B": b, "C": c}, training)
    taken = ps.trained_ensemble(PAIR, x, y, training)(x_new).values.argmax(-1)
    for name, labels in (("A", a), ("B", b), ("C", c)):
        assert verdict.realised[name] == float((taken == labels).all(1).double().mean())
        assert verdict.agreement[name] == pytest.approx(float((taken == labels).double().mean()))
        low, high = verdict.intervals["realised"][name]
        assert low < high
        assert low <= verdict.realised[name] <= high
    assert sum(verdict.nearest.values()) == pytest.approx(1)
    assert verdict.log_density is None
    assert any("no log-density" in note for note in verdict.notes)
    assert any(note.startswith("2000 networks") for note in verdict.notes)
    two = ps.compare(PAIR, x, y, x_new, {"A": a, "B": b}, training, samples=500)
    assert set(two.intervals) == {"nearest", "realised", "neither"}


def test_half_sse_as_a_loss_of_ones_own_agrees_with_the_closed_form():
    x, x_new, y = torch.randn(6, 3), torch.randn(4, 3), torch.randn(6)
    candidates = {"A": torch.randn(4), "B": torch.randn(4)}
    t = {"learning_rate": 0.05, "steps": 30}
    own = ps.compare(PAIR, x, y, x_new, candidates, ps.Training(loss=half_sse, **t))
    closed = ps.compare(PAIR, x, y, x_new, candidates, ps.Training(**t))
    low, high = own.intervals["nearest"]["A"]
    assert low <= closed.nearest["A"] <= high
    low, high = own.intervals["realised"]["B"]
    assert low <= closed.realised["B"] <= high


def test_one_given_network_on_cross_entropy():
    model, x, x_new = mlp(2, 16, 3, activation=nn.Tanh), torch.randn(6, 2), torch.randn(3, 2)
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    training = ps.Training(loss="cross_entropy", learning_rate=0.2, steps=20)
    taken = ps.trajectory(ps.EmpiricalNTK(model), x, y, training, start=model)(x_new).argmax(1)
    candidates = {"taken": taken, "other": (taken + 1) % 3}
    verdict = ps.compare(ps.EmpiricalNTK(model), x, y, x_new, candidates, training, start=model)
    assert (verdict.deterministic, verdict.realised) == (True, {"taken": 1.0, "other": 0.0})


def test_labels_that_are_no_classes_are_named():
    x, x_new = torch.randn(6, 3), torch.randn(4, 3)
    training = ps.Training(loss="cross_entropy", learning_rate=0.5, steps=5)
    with pytest.raises(DataError, match="holds no classes"):
        ps.compare(PAIR, x, torch.randn(6), x_new, {"A": torch.randn(4), "B": torch.randn(4)}, training)
