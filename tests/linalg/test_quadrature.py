"""Hermite series against closed forms and a plain double sum."""

import numpy as np
import pytest
import torch

from priorscope.linalg.quadrature import hermite_pairs, hermite_series


def test_coefficients_of_polynomials():
    """(√v z)² = v (√2 h_2 + 1)."""
    series = hermite_series(torch.square, torch.tensor([0.0, 2.0]), 8)
    expected = torch.zeros(2, 8)
    expected[1, 0], expected[1, 2] = 2.0, 2.0 * 2**0.5
    assert float((series.value - expected).abs().max()) <= 1e-11
    assert float((series.slope_square - torch.tensor([0.0, 8.0])).abs().max()) <= 1e-11


def test_pairs_against_a_double_sum():
    z, w = np.polynomial.hermite_e.hermegauss(120)
    w = torch.from_numpy(w / w.sum())
    z = torch.from_numpy(z)
    v1, v2, k = 1.3, 0.6, -0.4
    u = v1**0.5 * z[:, None] + 0 * z
    t = k / v1**0.5 * z[:, None] + (v2 - k * k / v1) ** 0.5 * z
    expected = float(w @ (torch.tanh(u) * torch.tanh(t)) @ w)
    one = torch.ones(1)
    answer = hermite_pairs(torch.tanh, v1 * one, v2 * one, ((v1 + v2) / 2 - k) * one, 1e-10)
    assert float(answer.value) == pytest.approx(expected, abs=1e-10)
    assert answer.error <= 1e-12


def test_the_stated_error_holds_and_grows_with_the_variance():
    one = torch.ones(1)
    small, large = (hermite_pairs(torch.tanh, v * one, v * one.clone(), 0 * one, 1e-9) for v in (1.0, 1e4))
    assert small.error < 1e-11
    assert large.error > 1e-9
    exact = hermite_pairs(torch.tanh, 1e4 * one, 1e4 * one, 0 * one, 1e-9, same=True)
    assert abs(float(large.value - exact.value)) <= large.error * float(exact.value) + 1e-12


def test_a_kink_is_not_smooth():
    one = torch.ones(1)
    assert hermite_pairs(torch.relu, one, one.clone(), 0.5 * one, 1e-9).error > 1e-6


def test_positions_broadcast_like_points():
    """(n1, 1, P) against (1, n2, P): every pair as if it were alone."""
    v1, v2 = torch.rand(2, 1, 3) + 0.2, torch.rand(1, 4, 3) + 0.2
    gap = (v1 + v2) / 2 - 0.6 * (v1 * v2).sqrt()
    found = hermite_pairs(torch.tanh, v1, v2, gap, 1e-9)
    one, two = torch.broadcast_tensors(v1, v2)
    alone = hermite_pairs(torch.tanh, one.reshape(-1), two.reshape(-1), gap.reshape(-1), 1e-9)
    for name in ("value", "slope", "gap"):
        torch.testing.assert_close(getattr(found, name).reshape(-1), getattr(alone, name), rtol=1e-10, atol=1e-12)
