"""Sampled ensembles: against the closed form where there is one, against descent in weight space, and as a law."""

import pytest
import torch
from torch import nn

import priorscope as ps
from priorscope.errors import DataError, MemoryBudgetError, NotCoveredError
from priorscope.kernels import RBF, FunctionKernel, KernelPair
from tests.beliefs.kernels import Features
from tests.contracts.laws import check_law
from tests.statistics import BootstrappedMean, covariance_quantile, covariance_statistic
from tests.training.test_ensemble import RandomFeatures

PAIR = KernelPair(RBF() * 0.5, RBF(1.3))


def half_sse(outputs, targets):
    return (outputs - targets).square().sum() / 2


@pytest.mark.parametrize(
    ("fields", "samples"), [({"learning_rate": 0.1, "momentum": 0.5, "steps": 15}, 3000), ({"time": 1.5}, 100)]
)
def test_half_sse_as_a_loss_of_ones_own_has_the_closed_form_law(fields, samples):
    x, y, x_new = torch.randn(6, 2), torch.randn(6), torch.randn(4, 2)
    law = ps.trained_ensemble(PAIR, x, y, ps.Training(**fields))(x_new)
    ensemble = ps.trained_ensemble(PAIR, x, y, ps.Training(loss=half_sse, **fields), samples=samples, seed=4)
    found = ensemble(x_new).values
    null = covariance_quantile(law.covariance, samples, 2000, seed=0)
    assert float(covariance_statistic(found, law.covariance)) < null
    mean = BootstrappedMean.of(found, 2000, seed=0)
    assert mean.statistic(law.mean) < mean.quantile
    # A wrong law is seen: that of networks which start from the ntk.
    wrong = ps.trained_ensemble(KernelPair(PAIR.ntk, PAIR.ntk), x, y, ps.Training(**fields))(x_new)
    assert float(covariance_statistic(found, wrong.covariance)) > 2 * null or samples < 1000


def test_each_sample_is_a_trained_network():
    """Random features: θ ~ N(0, I), its nngp φφᵀ, its ntk φ diag(c) φᵀ; every sample is the image of one θ."""
    networks = RandomFeatures(width=3)
    x, y, x_new = torch.randn(6, 2), torch.tensor([0, 1, 0, 1, 1, 0]), torch.randn(8, 2)
    training = ps.Training(loss="cross_entropy", learning_rate=0.4, momentum=0.5, steps=60)
    ensemble = ps.trained_ensemble(networks.pair, x, y, training, samples=5)
    begun, ended = ensemble(x_new, at=0).values, ensemble(x_new).values
    phi, phi_new = networks.features(x), networks.features(x_new)
    for start, end in zip(begun, ended, strict=True):
        theta = nn.Parameter(torch.linalg.lstsq(phi_new, start).solution)
        torch.testing.assert_close(phi_new @ theta.detach(), start, rtol=0, atol=1e-6)  # jointly drawn: one θ
        velocity = torch.zeros_like(theta)
        for _ in range(60):
            loss = nn.functional.cross_entropy(phi @ theta, y)
            (slope,) = torch.autograd.grad(loss, theta)
            with torch.no_grad():
                velocity = 0.5 * velocity + networks.rates[:, None] * slope
                theta -= 0.4 * velocity
        torch.testing.assert_close(phi_new @ theta.detach(), end, rtol=0, atol=1e-6)


def test_samples_are_a_law():
    x, y = torch.randn(6, 2), torch.tensor([0, 1, 2, 0, 1, 2])
    training = ps.Training(loss="cross_entropy", learning_rate=1.0, steps=10)
    ensemble = ps.trained_ensemble(PAIR, x, y, training)
    law = ensemble(torch.randn(4, 2))
    assert isinstance(law, ps.Samples)
    assert law.values.shape == (2000, 4, 3)
    check_law(law, samples=2000)


def test_flow_is_descent_in_small_steps_for_every_network():
    x, y, x_new = torch.randn(5, 2), torch.tensor([0, 1, 2, 0, 1]), torch.randn(3, 2)
    flow = ps.trained_ensemble(PAIR, x, y, ps.Training(loss="cross_entropy", time=2.0), samples=4, seed=7)
    steps = ps.Training(loss="cross_entropy", learning_rate=2e-4, steps=10_000)
    descent = ps.trained_ensemble(PAIR, x, y, steps, samples=4, seed=7)
    torch.testing.assert_close(flow(x_new).values, descent(x_new).values, rtol=0, atol=1e-4)
    assert torch.equal(flow(x_new, at=0).values, descent(x_new, at=0).values)


def test_networks_are_drawn_at_all_points_together():
    x, y = torch.randn(5, 2), torch.randn(5)
    ensemble = ps.trained_ensemble(PAIR, x, y, ps.Training(loss=half_sse, learning_rate=0.1, steps=3), samples=6)
    both = ensemble(torch.cat([x, x[:2]]), at=0).values
    torch.testing.assert_close(both[:, :2], both[:, 5:], rtol=0, atol=1e-6)
    torch.testing.assert_close(both[:, :5], ensemble(x, at=0).values, rtol=0, atol=1e-6)
    kernel = ps.trained_ensemble(PAIR.on(x), y, ps.Training(loss=half_sse, learning_rate=0.1, steps=3), samples=6)
    assert torch.equal(kernel(x).values, ensemble(x).values)


def test_a_coupled_ntk():
    ntk = Features(2, 2, 40)
    x, y, x_new = torch.randn(5, 2), torch.tensor([0, 1, 0, 1, 1]), torch.randn(3, 2)
    training = ps.Training(loss="cross_entropy", learning_rate=0.05, steps=20)
    ensemble = ps.trained_ensemble(KernelPair(RBF(), ntk), x, y, training, samples=3)
    assert ensemble.outputs == "coupled"
    start, end = ensemble(x, at=0).values, ensemble(x).values
    theta, hot = ntk.blocks(x).reshape(10, 10), nn.functional.one_hot(y, 2)
    for f, expected in zip(start, end, strict=True):
        for _ in range(20):
            f = f - 0.05 * (theta @ ((f.softmax(1) - hot) / 5).reshape(10)).reshape(5, 2)
        torch.testing.assert_close(f, expected, rtol=0, atol=1e-10)
    assert ensemble(x_new).values.shape == (3, 3, 2)


def test_singular_kernels():
    linear = FunctionKernel(lambda a, b: a @ b.T)
    x, y = torch.randn(6, 2), torch.tensor([0, 1, 0, 1, 1, 0])
    training = ps.Training(loss="cross_entropy", learning_rate=0.1, steps=20)
    values = ps.trained_ensemble(KernelPair(linear, linear), x, y, training, samples=50)(torch.randn(5, 2)).values
    assert int(torch.linalg.matrix_rank(values.transpose(1, 2).reshape(100, 5))) == 2


def test_refusals():
    x, y = torch.randn(5, 2), torch.tensor([0, 1, 2, 0, 1])
    training = ps.Training(loss="cross_entropy", learning_rate=0.1, steps=3)
    with pytest.raises(NotCoveredError, match="no finite minimiser"):
        ps.trained_ensemble(PAIR, x, y, ps.Training(loss="cross_entropy"))
    with pytest.raises(DataError, match="holds no classes"):
        ps.trained_ensemble(PAIR, x, torch.randn(5), training)
    with pytest.raises(DataError, match="samples: is 1"):
        ps.trained_ensemble(PAIR, x, y, training, samples=1)
    with pytest.raises(NotCoveredError, match="label_noise"):
        ps.trained_ensemble(PAIR, x, y, training, label_noise=0.1)
    with pytest.raises(MemoryBudgetError, match="samples of 10 points"):
        ps.trained_ensemble(PAIR, x, y, training, samples=10**11)(x)


def test_save_and_load(tmp_path):
    x, y, x_new = torch.randn(5, 2), torch.tensor([0, 1, 2, 0, 1]), torch.randn(3, 2)
    training = ps.Training(loss="cross_entropy", learning_rate=0.1, steps=3)
    ensemble = ps.trained_ensemble(PAIR, x, y, training, samples=20, seed=3)
    path = ensemble.save(tmp_path / "ensemble.npz")
    loaded = ps.SampledEnsemble.load(path, pair=PAIR.on(x))
    torch.testing.assert_close(loaded(x_new).values, ensemble(x_new).values)
    with pytest.raises(DataError, match=r"pair=pair.on\(x\)"):
        ps.SampledEnsemble.load(path)(x_new)


def test_neighbouring_seeds_share_no_numbers():
    """Far points are drawn afresh; they are no other ensemble's functions on the data."""
    x, far, y = torch.arange(5.0)[:, None] * 50, 1e4 + torch.arange(5.0)[:, None] * 50, torch.randn(5)
    training = ps.Training(loss=half_sse, learning_rate=0.1, steps=0)
    ensembles = [ps.trained_ensemble(PAIR, x, y, training, samples=200, seed=seed) for seed in (0, 1)]
    fresh, other = ensembles[0](far).values, ensembles[1](x).values
    correlation = torch.corrcoef(torch.cat([fresh, other], 1).T)[:5, 5:]
    assert float(correlation.abs().max()) < 6 / 200**0.5
    assert torch.equal(ensembles[0](far).values, fresh)
