"""Expectations of functions with kinks, at all angles, against closed forms of the angle."""

import math

import pytest
import torch

from priorscope.linalg.kinked import kinked_pairs

ANGLES = [1e-7, 1e-5, 1e-3, 0.05, 0.3, 0.6, 1.5, 2.9, math.pi - 1e-4]


def relu(theta, size):
    return size * (torch.sin(theta) + (math.pi - theta) * torch.cos(theta)) / (2 * math.pi)


CASES = {
    "relu": (torch.relu, relu, lambda t: (math.pi - t) / (2 * math.pi)),
    "sign": (torch.sign, lambda t, size: 1 - 2 * t / math.pi, lambda t: 0 * t),
    "abs": (torch.abs, lambda t, size: relu(t, size) * 2 + relu(math.pi - t, size) * 2, lambda t: 1 - 2 * t / math.pi),
}


@pytest.mark.parametrize("name", CASES)
def test_all_angles(name):
    function, value, slope = CASES[name]
    theta = torch.tensor(ANGLES)
    v1, v2 = torch.full_like(theta, 1.3), torch.full_like(theta, 1.3)
    answer = kinked_pairs(function, [0.0], v1, v2, 1.3 * 2 * torch.sin(theta / 2).square(), 1e-9)
    assert answer.error <= 1e-9
    assert float((answer.value - value(theta, 1.3)).abs().max()) <= 1e-11
    assert float((answer.slope - slope(theta)).abs().max()) <= 1e-11
    if name == "sign":
        assert float((answer.gap / (2 * theta / math.pi) - 1).abs().max()) <= 1e-8


def test_a_kink_that_is_not_named_shows_in_the_error():
    v = torch.tensor([1.0, 0.4])
    answer = kinked_pairs(lambda x: torch.relu(x - 0.37), [0.0], v, v.clone(), torch.tensor([0.5, 0.01]), 1e-9)
    assert answer.error > 1e-9
