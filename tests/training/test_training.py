"""A Training is one value; pairings that mean nothing raise when it is made."""

import math

import pytest
import torch

from priorscope import Training
from priorscope.errors import NotCoveredError, PriorscopeError


def test_the_default_is_gradient_flow_to_the_end():
    t = Training()
    assert t.is_flow
    assert t.end == math.inf
    assert Training(time=3.0).end == 3.0
    assert Training(learning_rate=0.1, steps=7).end == 7


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"steps": 3}, "steps"),
        ({"learning_rate": 0.1}, "learning_rate"),
        ({"learning_rate": 0.1, "steps": 3, "time": 1.0}, "time"),
        ({"until_loss": 0.1}, "until_loss"),
        ({"until_loss": 0.1, "learning_rate": 0.1}, "learning_rate"),
        ({"momentum": 0.9}, "momentum"),
        ({"momentum": 1.0, "learning_rate": 0.1, "steps": 3}, "momentum"),
        ({"nesterov": True, "learning_rate": 0.1, "steps": 3}, "nesterov"),
        ({"learning_rate": -0.1, "steps": 3}, "learning_rate"),
        ({"learning_rate": 0.1, "steps": -2}, "steps"),
        ({"time": -1.0}, "time"),
        ({"batch_size": 0, "learning_rate": 0.1, "steps": 3}, "batch_size"),
        ({"optimizer": "adam"}, "optimizer"),
        ({"weight_decay": -1.0}, "weight_decay"),
    ],
)
def test_pairings_that_mean_nothing_raise(fields, name):
    with pytest.raises(PriorscopeError, match=rf"Training\({name}=\)"):
        Training(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"loss": "cross_entropy"},
        {"momentum": 0.9, "nesterov": True},
        {"weight_decay": 0.1},
        {"batch_size": 4},
        {"optimizer": "adam"},
        {"optimizer": torch.optim.Adam},
    ],
)
def test_what_predictions_do_not_cover_is_named(fields):
    t = Training(learning_rate=0.1, steps=3, **fields)
    with pytest.raises(NotCoveredError, match=list(fields)[-1]):
        t.require_covered(points=10)


def test_a_batch_as_large_as_the_data_is_full_batch():
    Training(learning_rate=0.1, steps=3, batch_size=10).require_covered(points=10)


def test_mse_is_two_over_n_o_of_half_sse():
    f, y = torch.randn(4, 3), torch.randn(4, 3)
    half_sse = 0.5 * (f - y).square().sum()
    assert torch.allclose(torch.nn.functional.mse_loss(f, y), half_sse * Training(loss="mse").loss_scale(4, 3))
