"""Retraining on subsets is training on each, from the same weights."""

import pytest
import torch
from torch import nn

import priorscope as ps
from priorscope.errors import DataError

TRAINING = ps.Training(learning_rate=0.05, steps=20)


@pytest.mark.parametrize("labels", ["flat", "columns", "classes"])
def test_it_is_training_on_each(labels):
    x, x_new, sets = torch.randn(6, 3), torch.randn(4, 3), torch.eye(6, dtype=torch.bool)[:3] ^ True
    y = {"flat": torch.randn(6), "columns": torch.randn(6, 3), "classes": torch.arange(6) % 3}[labels]
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1 if labels == "flat" else 3))
    before = [p.clone() for p in model.parameters()]
    outputs = ps.retrain(model, x, y, sets, x_new, TRAINING)
    assert all(map(torch.equal, before, model.parameters()))
    for s, one in zip(sets, outputs, strict=True):
        expected = ps.train(model, x[s], y[s], TRAINING, record=x_new).outputs[-1]
        assert torch.equal(one, expected[:, 0] if labels == "flat" else expected)


def test_classes_that_a_subset_lacks_keep_their_output():
    x, y = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    model = nn.Linear(3, 3)
    lacks = (y != 2)[None]
    squared = ps.retrain(model, x, y, lacks, x, TRAINING)
    assert squared.shape == (1, 6, 3)
    training, rows = ps.Training("cross_entropy", learning_rate=0.1, steps=20), y != 2
    entropy = ps.retrain(model, x, y, lacks, x, training)
    assert torch.equal(
        entropy[0],
        ps.train(model, x[rows], y[rows], training, record=x).outputs[-1],
    )


def test_what_does_not_fit_raises():
    x, y, model = torch.randn(4, 2), torch.randn(4), nn.Linear(2, 1)
    for sets, message in [
        (torch.rand(3, 4), "subsets: is torch.float64"),
        (torch.ones(3, 5, dtype=torch.bool), r"\(3, 5\) for 4 points"),
        (torch.zeros(2, 4, dtype=torch.bool), "number 0 is empty"),
    ]:
        with pytest.raises(DataError, match=message):
            ps.retrain(model, x, y, sets, x, TRAINING)


def test_a_class_that_no_label_shows_is_the_models():
    x, y, every = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2]), torch.ones(1, 6, dtype=torch.bool)
    model = nn.Linear(3, 5)
    outputs = ps.retrain(model, x, y, every, x, TRAINING)
    assert torch.equal(outputs[0], ps.train(model, x, y, TRAINING).outputs[-1])


def test_a_training_that_diverges_is_nan():
    x, y = torch.randn(4, 2), torch.randn(4)
    with pytest.warns(ps.PriorscopeWarning):
        outputs = ps.retrain(
            nn.Linear(2, 1), x, y, torch.ones(1, 4, dtype=torch.bool), x, ps.Training(learning_rate=1e8, steps=200)
        )
    assert bool(outputs.isnan().all())
