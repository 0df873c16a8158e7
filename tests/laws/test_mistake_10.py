"""Mistake 10: the Gaussian process with the NTK as covariance taken for the distribution of trained networks.

Right: mean A Y and covariance K** + A K Aᵀ − A K(X, x) − (A K(X, x))ᵀ, K the NNGP, A = Θ(x, X)Θ⁻¹ times the training's
filter: I − e^(−Θt) for the flow, I − (I − ηΘ)ᵏ for k plain steps, its own recursion for momentum. t = kη is only the
limit of small plain steps; with momentum it is about kη/(1 − β).
"""

import pytest
import torch
from scipy.stats import norm

import priorscope as ps
from tests.cases import mlp

ANGLES = torch.tensor([-2.6, -1.5, -0.6, 0.4, 1.3], dtype=torch.float64)
NEW = torch.tensor([-2.0, -1.0, 0.0, 0.9], dtype=torch.float64)
Y = torch.tensor([1.0, -0.5, 1.0, -1.0, 0.5], dtype=torch.float64)
INIT = ps.Initialization(2.0, 0.1, "ntk")


def on_circle(a):
    return torch.stack([a.cos(), a.sin()], 1)


X, X_NEW = on_circle(ANGLES), on_circle(NEW)


@pytest.fixture
def pair():
    return ps.infinite_width(INIT.apply_(mlp(2, 32, 1), seed=0), INIT)


def by_hand(pair, learned):
    """The law whose training has learned this (n, n) share, I − residual, of each mode."""
    A = pair.ntk(X_NEW, X) @ torch.linalg.inv(pair.ntk(X)) @ learned
    K, cross = pair.nngp(X), pair.nngp(X, X_NEW)
    return A @ Y, pair.nngp(X_NEW) + A @ K @ A.T - A @ cross - (A @ cross).T


def residual_by_steps(theta, rate, momentum, steps):
    now = before = torch.eye(len(theta))
    for _ in range(steps):
        now, before = now - rate * theta @ now + momentum * (now - before), now
    return now


RATE, STEPS = 0.25, 6


@pytest.mark.parametrize("name", ["flow", "plain", "heavy ball"])
def test_the_law_of_trained_networks_and_no_posterior(pair, name):
    theta, one = pair.ntk(X), torch.eye(5)
    training, learned = {
        "flow": (ps.Training(time=RATE * STEPS), one - torch.linalg.matrix_exp(-theta * RATE * STEPS)),
        "plain": (
            ps.Training(learning_rate=RATE, steps=STEPS),
            one - torch.linalg.matrix_power(one - RATE * theta, STEPS),
        ),
        "heavy ball": (
            ps.Training(learning_rate=RATE, steps=STEPS, momentum=0.5),
            one - residual_by_steps(theta, RATE, 0.5, STEPS),
        ),
    }[name]
    law = ps.trained_ensemble(pair, X, Y, training)(X_NEW)
    mean, covariance = by_hand(pair, learned)
    assert torch.allclose(law.mean, mean, atol=1e-9)
    assert torch.allclose(law.covariance, covariance, atol=1e-9)
    for kernel in (pair.nngp, pair.ntk):
        posterior = ps.GaussianProcess(kernel).condition(X, Y)(X_NEW)
        assert float((posterior.covariance - law.covariance).norm() / posterior.covariance.norm()) > 0.2
        assert float((posterior.mean - law.mean).abs().max()) > 0.02


def test_at_the_end_the_means_agree_and_the_covariances_still_do_not(pair):
    law = ps.trained_ensemble(pair, X, Y)(X_NEW)
    ntk, nngp = (ps.GaussianProcess(kernel).condition(X, Y)(X_NEW) for kernel in (pair.ntk, pair.nngp))
    assert torch.allclose(law.mean, ntk.mean, atol=1e-9)
    assert float((law.mean - nngp.mean).abs().max()) > 0.02
    assert float(ntk.variance.sum()) > 3 * float(law.variance.sum())
    assert float(law.variance.sum()) > 1.02 * float(nngp.variance.sum())


def test_time_is_steps_times_the_rate_only_for_small_plain_steps(pair):
    def mean(training):
        return ps.trained_ensemble(pair, X, Y, training)(X_NEW).mean

    def distance(a, b):
        return float((a - b).abs().max())

    flow = mean(ps.Training(time=1.5))
    assert distance(mean(ps.Training(learning_rate=1.5e-4, steps=10_000)), flow) < 1e-3
    assert distance(mean(ps.Training(learning_rate=0.25, steps=6)), flow) > 5e-3
    heavy = mean(ps.Training(learning_rate=1.5e-4, steps=5_000, momentum=0.5))
    assert distance(heavy, flow) < 1e-3, "t is about kη/(1 − β)"
    assert distance(heavy, mean(ps.Training(time=0.75))) > 5e-3


def test_verdicts_come_from_the_ensemble(pair):
    training = ps.Training(learning_rate=RATE, steps=STEPS)
    a, b = torch.tensor([0.6, 0.2, 0.0, -0.6]), torch.tensor([0.2, 0.4, -0.3, -0.1])
    verdict = ps.compare(pair, X, Y, X_NEW, {"a": a, "b": b}, training)

    def probability(law):
        d = a - b
        return norm.cdf(float(d @ law.mean - (a @ a - b @ b) / 2) / float(d @ law.covariance @ d) ** 0.5)

    ours = probability(ps.trained_ensemble(pair, X, Y, training)(X_NEW))
    assert verdict.nearest["a"] == pytest.approx(ours, abs=1e-6)
    for kernel in (pair.nngp, pair.ntk):
        assert abs(probability(ps.GaussianProcess(kernel).condition(X, Y)(X_NEW)) - ours) > 0.05
