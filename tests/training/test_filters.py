import math

import mpmath
import pytest
import torch

from priorscope import Training
from priorscope.errors import DataError
from priorscope.training.filters import (
    check_at,
    half_lives,
    impulses,
    pull,
    residual,
    residuals,
    shrinkage,
    step_limit,
    weights_filter,
    weights_filters,
)

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


def by_a_loop_of_weights(value, t, scales, steps, digits=50):
    """r, φ, q and (q(w) − q(μ))/λ of one mode by torch's SGD on its weights, in exact-like arithmetic."""
    with mpmath.workdps(digits):
        value, beta, w = mpmath.mpf(value), mpmath.mpf(t.momentum), mpmath.mpf(t.weight_decay)
        # The filter from 0; a weight of the start that the labels see; one that they do not.
        states = [[mpmath.mpf(first), mpmath.mpf(0)] for first in (0, 1, 1)]
        for k in range(steps):
            eta, s = mpmath.mpf(t.rate_at(k)), mpmath.mpf(scales[k % len(scales)])
            slopes = [(s * value + w) * states[0][0] - s, (s * value + w) * states[1][0], w * states[2][0]]
            for state, slope in zip(states, slopes, strict=True):
                state[1] = beta * state[1] + slope
                state[0] -= eta * (slope + beta * state[1] if t.nesterov else state[1])
        learned, left, free = (state[0] for state in states)
        pulled = (free - left) / value if value else mpmath.mpf(0)
        return float(1 - value * learned), float(learned), float(left), float(pulled)


RECURSIONS = {
    "nesterov": {"momentum": 0.8, "nesterov": True},
    "decay": {"weight_decay": 0.3},
    "decay and momentum": {"weight_decay": 0.3, "momentum": 0.8},
    "decay and nesterov": {"weight_decay": 0.3, "momentum": 0.8, "nesterov": True},
    "schedule": {"learning_rate": [0.5 / (1 + k) for k in range(40)]},
    "schedule and nesterov": {"learning_rate": [0.4, 0.0] * 20, "momentum": 0.5, "nesterov": True, "weight_decay": 0.1},
}


@pytest.mark.parametrize("name", RECURSIONS)
@pytest.mark.parametrize("scale", [0.7, (0.7, 0.7, 0.2)], ids=["even", "uneven"])
def test_every_recursion_is_the_loop_of_torchs_sgd(name, scale):
    t = Training(**{"learning_rate": 0.5, "steps": 40, **RECURSIONS[name]})
    values = torch.tensor([1e-13, 1e-9, 1e-3, 0.3, 1.0, 2.2, 4.0])
    steps = [0, 1, 2, 7, 39, 40]
    ours = [f(values, steps, t, scale) for f in (residuals, weights_filters, shrinkage, pull)]
    for i, k in enumerate(steps):
        for j, value in enumerate(values.tolist()):
            exact = by_a_loop_of_weights(value, t, scale if isinstance(scale, tuple) else (scale,), k)
            for found, expected in zip(ours, exact, strict=True):
                assert float(found[i, j]) == pytest.approx(expected, rel=1e-10, abs=1e-13)


def test_a_constant_schedule_is_the_constant():
    values = torch.rand(5)
    for extra in ({}, {"momentum": 0.7}, {"momentum": 0.7, "nesterov": True, "weight_decay": 0.2}):
        constant, schedule = (Training(learning_rate=rate, steps=30, **extra) for rate in (0.3, [0.3] * 30))
        for f in (residual, weights_filter):
            torch.testing.assert_close(f(values, 30, schedule, 0.5), f(values, 30, constant, 0.5), rtol=1e-12, atol=0)


@pytest.mark.parametrize("correction", [0.0, 0.2])
@pytest.mark.parametrize("time", [0.0, 0.7, 40.0, math.inf])
def test_the_flow_with_weight_decay(time, correction):
    values, w, s = torch.tensor([0.0, 1e-12, 0.2, 3.0]), 0.15, 0.4
    t = Training(weight_decay=w)
    r, g, q, p = (f(values, [time], t, s, correction)[0] for f in (residuals, weights_filters, shrinkage, pull))
    with mpmath.workdps(50):
        for i, value in enumerate(values.tolist()):
            mu, free = mpmath.mpf(s) * mpmath.mpf(value) + mpmath.mpf(w), mpmath.mpf(w)
            left, unseen = (mpmath.exp(-m * (1 + mpmath.mpf(correction) * m / 2) * time) for m in (mu, free))
            learned = s * (1 - left) / mu
            slower = mpmath.mpf(0) if math.isinf(time) else s * time * (1 + mpmath.mpf(correction) * free) * unseen
            exact = (1 - value * learned, learned, left, (unseen - left) / mpmath.mpf(value) if value else slower)
            for found, expected in zip((r, g, q, p), exact, strict=True):
                assert float(found[i]) == pytest.approx(float(expected), rel=1e-12, abs=1e-15)


def test_decay_to_the_start_ends_in_ridge_regression():
    values = torch.tensor([0.1, 1.0, 5.0])
    for t in (Training(weight_decay=0.6), Training(learning_rate=0.1, steps=1, weight_decay=0.6, momentum=0.5)):
        at = math.inf if t.is_flow else 5000
        torch.testing.assert_close(weights_filter(values, at, t, 0.3), 1 / (values + 0.6 / 0.3), rtol=1e-12, atol=0)


@pytest.mark.parametrize("weight_decay", [0.0, 1.5])
@pytest.mark.parametrize("momentum", [0.3, 0.9])
def test_the_step_limit_of_nesterov_and_of_weight_decay(momentum, weight_decay):
    values, scale = torch.tensor([3.0, 1.0]), 0.1
    for nesterov, factor in ((True, 2 * (1 + momentum) / (1 + 2 * momentum)), (False, 2 * (1 + momentum))):
        extra = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay, "steps": 1}
        limit = step_limit(values, Training(learning_rate=1.0, **extra), scale)
        assert limit == pytest.approx(factor / (0.3 + weight_decay))
        below, above = (Training(learning_rate=f * limit, **extra) for f in (0.999, 1.001))
        assert float(shrinkage(values, [100_000], below, scale).abs().max()) < 1e-6
        assert float(shrinkage(values, [20_000], above, scale).abs().max()) > 1e3


@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
@pytest.mark.parametrize("extra", [{}, {"momentum": 0.6}, {"momentum": 0.6, "nesterov": True}], ids=str)
def test_half_lives_are_the_first_step_at_half(extra, weight_decay):
    values = torch.cat([torch.tensor([0.0, 0.02, 0.06]), torch.logspace(-1.2, 0.85, 25)])
    t = Training(learning_rate=0.4, steps=1, weight_decay=weight_decay, **extra)
    ours = half_lives(values, t, 1.0)
    limit = step_limit(torch.ones(1), Training(learning_rate=0.4, steps=1, **extra), 1.0)
    along = residuals(values, range(300), t, 1.0).abs()
    for i, value in enumerate(values.tolist()):
        reaches = value > weight_decay and 0.4 * (value + weight_decay) < limit
        if not reaches:
            assert float(ours[i]) == math.inf
        elif extra:
            assert float(ours[i]) == int((along[:, i] <= 0.5).nonzero()[0])
        elif 0.4 * (value + weight_decay) < 1:
            k = float(ours[i])
            assert float(along[math.ceil(k), i]) <= 0.5 < float(along[max(0, math.ceil(k) - 1), i])
    schedule = Training(learning_rate=[0.4] * 25, weight_decay=weight_decay, **extra)
    found = half_lives(values, schedule, 1.0)
    for i in range(len(values)):
        first = (along[1:26, i] <= 0.5).nonzero()
        assert float(found[i]) == (int(first[0]) + 1 if len(first) else math.inf)


def test_half_lives_of_the_flow_with_weight_decay():
    values, t = torch.tensor([0.0, 0.1, 0.2, 0.5, 3.0]), Training(weight_decay=0.15)
    when = half_lives(values, t, 1.0)
    assert when[:2].tolist() == [math.inf, math.inf]
    for i in range(2, 5):
        assert float(residual(values[i : i + 1], float(when[i]), t, 1.0)) == pytest.approx(0.5, rel=1e-12)


def test_impulses_are_what_a_step_more_of_gradient_leaves():
    values, scale = torch.tensor([0.2, 1.0]), (0.5, 0.3)
    for fields in ({}, {"momentum": 0.6}, {"momentum": 0.6, "nesterov": True, "weight_decay": 0.2}):
        t = Training(learning_rate=[0.3, 0.2, 0.1, 0.4], **fields)
        ours = impulses(values, 4, t, scale)
        for kicked in range(4):
            position, velocity = torch.zeros(2), torch.zeros(2)
            for k in range(4):
                slope = (scale[k % 2] * values + t.weight_decay) * position - float(k == kicked)
                velocity = t.momentum * velocity + slope
                position = position - t.rate_at(k) * (slope + t.momentum * velocity if t.nesterov else velocity)
            torch.testing.assert_close(ours[kicked], position, rtol=1e-12, atol=1e-15)
    assert impulses(values, 0, Training(learning_rate=0.1, steps=4), 1.0).shape == (0, 2)


def test_a_schedule_has_no_steps_beyond_its_end():
    with pytest.raises(DataError, match="the schedule of this training has 2 steps"):
        check_at(Training(learning_rate=[0.1, 0.2]), 3)


@pytest.mark.parametrize(
    ("momentum", "nesterov", "weight_decay"), [(0.9, True, 0.0), (0.9, True, 0.05), (0.9, False, 0.05)]
)
@pytest.mark.parametrize("below", [0.03, *(pytest.param(b, marks=pytest.mark.slow) for b in (1e-3, 3e-5))])
def test_half_lives_near_the_limit_are_the_first_step_at_half(momentum, nesterov, weight_decay, below):
    values, fields = (
        torch.tensor([1.0, 0.7]),
        {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay},
    )
    limit = step_limit(values, Training(learning_rate=1.0, steps=1, **fields), 1.0)
    t = Training(learning_rate=limit * (1 - below), steps=1, **fields)
    steps = range(1, 20_000)
    first = (residuals(values, steps, t, 1.0).abs() <= 0.5).to(torch.float64).argmax(0) + 1
    assert half_lives(values, t, 1.0).tolist() == first.tolist()


def test_half_lives_at_the_limit_take_bounded_work():
    values = torch.tensor([1.0])
    limit = step_limit(values, Training(learning_rate=1.0, momentum=0.9, nesterov=True, steps=1), 1.0)
    near = Training(learning_rate=limit * (1 - 1e-9), momentum=0.9, nesterov=True, steps=1)
    found = half_lives(values, near, 1.0)
    assert float(residual(values, float(found), near, 1.0).abs()) <= 0.5
    assert float(residual(values, float(found) - 2, near, 1.0).abs()) > 0.5
    assert float(found) > 1e8


def test_half_lives_of_slow_turns():
    values = torch.tensor([1e-8])
    t = Training(learning_rate=1.0, momentum=1 - 1e-9, steps=1)
    found = float(half_lives(values, t, 1.0))
    assert found > 4096
    assert float(residual(values, found, t, 1.0)) <= 0.5 < float(residual(values, found - 1, t, 1.0))


@pytest.mark.parametrize("weight_decay", [0.05, 0.1, 0.3, 0.6])
def test_half_lives_of_steps_that_swing_around_what_weight_decay_leaves(weight_decay):
    values = torch.tensor([1.0])
    t = Training(learning_rate=1.9 / (1 + weight_decay), weight_decay=weight_decay, steps=1)
    first = (residuals(values, range(1, 200), t, 1.0).abs() <= 0.5).to(torch.float64).argmax(0) + 1
    assert half_lives(values, t, 1.0).tolist() == first.tolist()
