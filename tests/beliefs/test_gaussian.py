import math

import pytest
import torch
from scipy.stats import binomtest, multivariate_normal

from priorscope.beliefs import Gaussian, Probability
from priorscope.errors import DataError, SingularKernelError


def random_covariance(m, rank=None):
    root = torch.randn(m, rank or m)
    return root @ root.T


def test_log_prob_is_scipys():
    mean, covariance = torch.randn(6), random_covariance(6)
    y = torch.randn(4, 6)
    expected = torch.as_tensor(multivariate_normal(mean.numpy(), covariance.numpy()).logpdf(y.numpy()))
    ours = Gaussian(mean, covariance).log_prob(y)
    assert torch.allclose(ours, expected, rtol=1e-10, atol=0)
    assert Gaussian(mean, covariance).log_prob(y[0]).ndim == 0


@pytest.mark.parametrize("coupled", [False, True])
def test_several_outputs_are_one_long_vector(coupled):
    m, o = 4, 3
    matrix = random_covariance(m * o if coupled else m)
    g = Gaussian(torch.randn(m, o), matrix)
    assert g.covariance.shape == (m, o, m, o)
    if not coupled:
        for a in range(o):
            for b in range(o):
                expected = matrix if a == b else torch.zeros(m, m)
                assert torch.equal(g.covariance[:, a, :, b], expected)
    flat = g.covariance.reshape(m * o, m * o)
    assert torch.equal(g.variance, flat.diagonal().reshape(m, o))
    y = torch.randn(2, m, o)
    expected = multivariate_normal(g.mean.reshape(-1).numpy(), flat.numpy()).logpdf(y.reshape(2, -1).numpy())
    assert torch.allclose(g.log_prob(y), torch.as_tensor(expected), rtol=1e-10, atol=0)
    samples = g.sample(40_000, seed=0).reshape(40_000, -1)
    assert samples.shape == (40_000, m * o)
    error = (samples.T.cov() - flat).norm() / flat.norm()
    assert error < 0.05
    assert (samples.mean(0) - g.mean.reshape(-1)).abs().max() < 5 * math.sqrt(float(flat.diagonal().max()) / 40_000)


def test_singular_covariances_have_no_density_but_samples():
    covariance = random_covariance(5, rank=2)
    g = Gaussian(torch.ones(5), covariance)
    assert g.rank == 2
    with pytest.raises(SingularKernelError, match="rank 2 of 5"):
        g.log_prob(torch.ones(5))
    off = torch.linalg.eigh(covariance).eigenvectors[:, :3]
    assert ((g.sample(100, seed=1) - 1) @ off).abs().max() < 1e-6


def test_rank_counts_all_outputs():
    assert Gaussian(torch.ones(5, 3), random_covariance(5, rank=2)).rank == 6


def test_no_covariance_at_all():
    g = Gaussian(torch.arange(3.0), torch.zeros(3, 3))
    assert g.rank == 0
    assert torch.equal(g.sample(7, seed=0), torch.arange(3.0).expand(7, 3))
    probability = g.probability(lambda f: f[:, 2] > 1, samples=1000)
    assert probability.p == 1.0
    assert probability.standard_error == 0.0
    assert 0.99 < probability.interval[0] < probability.interval[1] == 1.0


def test_a_tolerance_decides_the_rank():
    assert Gaussian(torch.zeros(2), torch.eye(2) * 1e-9).rank == 2
    assert Gaussian(torch.zeros(2), torch.eye(2) * 1e-9, tolerance=1e-8).rank == 0


def test_samples_come_from_their_seed():
    g = Gaussian(torch.zeros(3), random_covariance(3))
    assert torch.equal(g.sample(5, seed=4), g.sample(5, seed=4))
    assert not torch.equal(g.sample(5, seed=4), g.sample(5, seed=5))


def test_probability_of_an_orthant():
    correlation = 0.6
    g = Gaussian(torch.zeros(2), torch.tensor([[1.0, correlation], [correlation, 1.0]]))
    probability = g.probability(lambda f: (f > 0).all(1))
    p, error = probability
    exact = 0.25 + math.asin(correlation) / (2 * math.pi)
    assert abs(p - exact) < 4 * error
    assert probability.interval[0] < exact < probability.interval[1]
    assert error == pytest.approx(math.sqrt(p * (1 - p) / 100_000))


@pytest.mark.parametrize(("hits", "samples"), [(0, 50), (50, 50), (1, 1), (17, 400)])
def test_the_interval_is_clopper_pearsons(hits, samples):
    expected = binomtest(hits, samples).proportion_ci(0.99, method="exact")
    counted = Probability.counted(hits, samples)
    assert counted.interval == pytest.approx((expected.low, expected.high), rel=1e-10)
    assert counted.interval[1] > counted.interval[0]


def test_a_predicate_that_does_not_answer_raises():
    g = Gaussian(torch.zeros(2), torch.eye(2))
    with pytest.raises(DataError, match=r"returned \(10, 2\) torch.bool"):
        g.probability(lambda f: f > 0, samples=10)
    with pytest.raises(DataError, match="returned bool"):
        g.probability(lambda f: True, samples=10)


def test_shapes_that_do_not_fit_raise():
    with pytest.raises(DataError, match="got a mean"):
        Gaussian(torch.zeros(3), torch.eye(4))
    with pytest.raises(DataError, match="like the mean"):
        Gaussian(torch.zeros(3), torch.eye(3)).log_prob(torch.zeros(4))
    with pytest.raises(DataError, match="at least one sample"):
        Gaussian(torch.zeros(3), torch.eye(3)).sample(0, seed=0)


def test_answers_come_in_the_dtype_of_the_mean():
    g = Gaussian(torch.zeros(3, dtype=torch.float32), random_covariance(3))
    answers = [g.covariance, g.variance, g.sample(2, seed=0), g.log_prob(torch.zeros(3))]
    assert all(answer.dtype == torch.float32 for answer in answers)


def test_save_and_load(tmp_path):
    g = Gaussian(torch.randn(4, 2), random_covariance(4), tolerance=1e-9)
    again = Gaussian.load(g.save(tmp_path / "g.npz"))
    assert torch.equal(again.sample(3, seed=0), g.sample(3, seed=0))
    assert again.tolerance == 1e-9
    p = g.probability(lambda f: f[:, 0, 0] > 0, samples=100)
    assert Probability.load(p.save(tmp_path / "p.npz")) == p
    assert "mean" in g._repr_html_()
