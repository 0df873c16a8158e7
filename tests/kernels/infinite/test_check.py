"""Weights that are not what the initialisation says."""

import warnings

import pytest
import torch
from torch import nn

from priorscope import Initialization
from priorscope.errors import PriorscopeWarning
from priorscope.kernels.infinite import infinite_width, mismatches
from tests.cases import mlp


def test_torch_default_is_recognised():
    assert mismatches(mlp(30, 40, 1), Initialization.torch_default()) == []


def test_no_false_alarms_on_single_biases():
    init = Initialization(2.0, 0.1)
    model = mlp(5, 4, 1)
    assert [seed for seed in range(500) if mismatches(init.apply_(model, seed), init)] == []


def test_a_mismatch_is_named():
    model = mlp(30, 40, 1)
    found = mismatches(model, Initialization(2.0, 0.1))
    assert found[0].name == "0.weight"
    assert found[0].expected == pytest.approx(2 / 30)
    assert found[0].found == pytest.approx(1 / 90, rel=0.2)
    with pytest.warns(PriorscopeWarning, match=r"`0\.\w+`: its variance is .* init\.apply_"):
        infinite_width(model, Initialization(2.0, 0.1))


def test_biases_that_should_be_zero():
    init = Initialization(2.0, 0.0)
    model = init.apply_(mlp(30, 40, 1), seed=0)
    assert mismatches(model, init) == []
    nn.init.constant_(model[0].bias, 1e-3)
    assert [m.name for m in mismatches(model, init)] == ["0.bias"]


def test_uniform_draws_of_small_layers_that_read_the_input():
    model = mlp(3, 100, 1)
    limit = infinite_width(model)
    x = torch.randn(4, 3)
    with pytest.warns(PriorscopeWarning, match=r"`0\.weight` reads the input itself and was drawn uniformly"):
        limit(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        limit(x)
        infinite_width(mlp(100, 100, 1))(torch.randn(4, 100))
        init = Initialization.torch_default()
        infinite_width(init.apply_(mlp(3, 100, 1), seed=0))(x)
