import math

import mpmath
import pytest
import torch

from priorscope import Training
from priorscope.errors import DataError
from priorscope.training.filters import check_at, half_lives, residual, step_limit, weights_filter

BETA = 0.81
# Zero, tiny, slow, the two degenerate values (1 ∓ √β)², oscillating, fast, alternating, at 1, beyond the limit.
RATES = torch.tensor(
    [0.0, 1e-12, 1e-3, (1 - 0.9) ** 2, (1 + 0.9) ** 2, 0.3, 0.9, 1.0, 1.7, 3.615, 3.7], dtype=torch.float64
)


def descent(momentum=0.0, learning_rate=0.5):
    return Training(learning_rate=learning_rate, momentum=momentum, steps=1)


def by_loop(x, momentum, steps, digits=50):
    """r_k and s_k = Σ of what the recursion learns, (1 − r_k)/x, in exact-like arithmetic."""
    with mpmath.workdps(digits):
        x, momentum = mpmath.mpf(float(x)), mpmath.mpf(momentum)
        r, s, velocity_r, velocity_s = mpmath.mpf(1), mpmath.mpf(0), mpmath.mpf(0), mpmath.mpf(0)
        for _ in range(steps):
            velocity_s = momentum * velocity_s + r
            velocity_r = momentum * velocity_r + x * r
            r, s = r - velocity_r, s + velocity_s
        return float(r), float(s)


@pytest.mark.parametrize("momentum", [0.0, BETA])
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 17, 200])
def test_descent_is_the_loop_of_torchs_sgd(momentum, steps):
    eta, scale = 0.5, 2.0
    values = RATES / (eta * scale)
    training = descent(momentum, eta)
    ours_r, ours_g = (f(values, steps, training, scale) for f in (residual, weights_filter))
    for i, x in enumerate(eta * scale * values):
        r, s = by_loop(x, momentum, steps)
        assert float(ours_r[i]) == pytest.approx(r, rel=1e-9, abs=1e-13)
        assert float(ours_g[i]) == pytest.approx(eta * scale * s, rel=1e-11)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_million_steps(momentum):
    """Against the closed form by the recursion's roots, in 60 digits."""
    k = 10**6
    values = torch.tensor([1e-9, 1e-7, 3e-6, 1e-5, 0.5], dtype=torch.float64)
    training = descent(momentum, 1.0)
    with mpmath.workdps(60):
        for i, value in enumerate(values.tolist()):
            x, b = mpmath.mpf(value), mpmath.mpf(momentum)
            p, q = mpmath.polyroots([1, -(1 + b - x), b]) if momentum else (1 - x, mpmath.mpf(0))
            # r_k = a pᵏ + c qᵏ with r_0 = 1 and r_1 = 1 − x.
            a = (1 - x - q) / (p - q)
            r = mpmath.re(a * p**k + (1 - a) * q**k)
            assert float(residual(values, k, training, 1.0)[i]) == pytest.approx(float(r), rel=1e-7, abs=1e-15)
            assert float(weights_filter(values, k, training, 1.0)[i]) == pytest.approx(float((1 - r) / x), rel=1e-8)


@pytest.mark.parametrize("time", [0.0, 1e-3, 2.5, 1e4, math.inf])
def test_flow(time):
    values, scale = torch.tensor([0.0, 1e-14, 1e-3, 2.0], dtype=torch.float64), 0.25
    r, g = residual(values, time, Training(), scale), weights_filter(values, time, Training(), scale)
    for i, value in enumerate(values.tolist()):
        with mpmath.workdps(50):
            exact = mpmath.exp(-scale * mpmath.mpf(value) * time) if value and time else mpmath.mpf(1)
            learned = (1 - exact) / mpmath.mpf(value) if value else mpmath.mpf(scale * time)
        assert float(r[i]) == pytest.approx(float(exact), rel=1e-14)
        assert float(g[i]) == pytest.approx(float(learned), rel=1e-14)


def test_small_plain_steps_tend_to_the_flow():
    values = torch.rand(5)
    gaps = []
    for eta in (1e-3, 1e-4):
        gap = residual(values, round(1 / eta), descent(learning_rate=eta), 1.0) - torch.exp(-values)
        gaps.append(float(gap.abs().max()))
    assert gaps[1] == pytest.approx(gaps[0] / 10, rel=0.02)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_step_limit_separates_convergence_from_divergence(momentum):
    values, scale = torch.tensor([3.0, 1.0]), 0.1
    limit = step_limit(torch.tensor([3.0, 1.0]), descent(momentum), scale)
    assert limit == pytest.approx(2 * (1 + momentum) / 0.3)
    below, above = (descent(momentum, factor * limit) for factor in (0.999, 1.001))
    assert float(residual(values, 200_000, below, scale).abs().max()) < 1e-6
    assert float(residual(values, 20_000, above, scale).abs().max()) > 1e3
    assert step_limit(torch.zeros(0), descent(), 1.0) == math.inf


@pytest.mark.parametrize("momentum", [0.3, BETA, 0.99])
def test_half_lives_with_momentum_are_the_first_step_at_half(momentum):
    x = torch.cat([RATES, torch.logspace(-4, 0.5, 30)])
    ours = half_lives(x / 0.5, descent(momentum, 0.5), 1.0)
    for value, half_life in zip(x.tolist(), ours.tolist(), strict=True):
        if value <= 1e-12 or value >= 2 * (1 + momentum):
            expected = math.inf if value == 0 or value > 1 else half_life
        else:
            r, velocity, expected = 1.0, 0.0, 0
            while abs(r) > 0.5:
                velocity = momentum * velocity + value * r
                r, expected = r - velocity, expected + 1
        assert half_life == expected


def test_half_lives_in_closed_form():
    values = torch.tensor([0.0, 0.1, 1.0, 1.9, 2.0, 2.5])
    flow = half_lives(values, Training(loss="mse"), 0.5)
    assert torch.allclose(flow[1:], math.log(2) / (0.5 * values[1:]))
    plain = half_lives(values, descent(learning_rate=1.0), 1.0)
    expected = [math.inf, -math.log(2) / math.log(0.9), 0.0, -math.log(2) / math.log(0.9), math.inf, math.inf]
    assert plain.tolist() == pytest.approx(expected)
    slow = half_lives(torch.tensor([1e-10]), descent(0.9, 1.0), 1.0)
    assert float(slow) == pytest.approx(math.log(2) / 1e-9, rel=1e-3)


def test_times_are_checked():
    assert check_at(Training(), math.inf) == math.inf
    assert check_at(descent(), torch.tensor(3)) == 3
    for training, at in [
        (Training(), -1),
        (Training(), math.nan),
        (descent(), 1.5),
        (descent(), math.inf),
        (descent(), "a"),
    ]:
        with pytest.raises(DataError, match="at: is"):
            check_at(training, at)
