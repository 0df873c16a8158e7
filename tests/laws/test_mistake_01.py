"""Mistake 1: the printed log-prior lacks an inverse, −½ Σ (vᵢ·Y)² λᵢ.

Right: −½ Σ (vᵢ·Y)²/λᵢ − ½ Σ log λᵢ − (n/2) log 2π. The printed form's most probable test label is −K(x, X)Y / K(x, x),
about −ΣYᵢ = 2.9 on the essay's five points; the right one's is the kernel regression, near −0.1.
"""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

import priorscope as ps
from tests.cases import mlp

X = torch.tensor([[-2.0], [-1.0], [0.0], [1.0], [2.0]], dtype=torch.float64)
Y = torch.tensor([-1.0, -0.6, 0.3, -0.6, -1.0], dtype=torch.float64)


@pytest.fixture(params=["nngp", "ntk"])
def kernel(request):
    """Of the essay's three-layer ReLU network; biases, without which a kernel of the line has rank 2."""
    init = ps.Initialization(1.0, 2.0, "ntk")
    return getattr(ps.infinite_width(init.apply_(mlp(1, 64, 64, 1), seed=0), init), request.param)


def printed(kernel, x, labels):
    modes = ps.eigenmodes(kernel, x)
    return -((labels @ modes.vectors) ** 2 * modes.values).sum(-1) / 2


def test_the_log_prior_divides_by_the_eigenvalues(kernel):
    modes, gram = ps.eigenmodes(kernel, X), kernel(X).numpy()
    expected = multivariate_normal(np.zeros(5), gram).logpdf(Y.numpy())
    for ours in (modes.log_prob(Y), modes.log_prior_terms(Y).sum(), ps.GaussianProcess(kernel).prior(X).log_prob(Y)):
        assert float(ours) == pytest.approx(expected, rel=1e-10)
    first, last = modes.vectors[:, 0], modes.vectors[:, -1]
    assert modes.log_prob(first) > modes.log_prob(last) + 1, "the mode of the largest eigenvalue is liked most"
    assert printed(kernel, X, first) < printed(kernel, X, last) - 1, "the printed form likes it least"


@pytest.mark.parametrize("probe", [-0.5, 0.5])
def test_the_most_probable_label_is_the_regression(kernel, probe):
    x_new = torch.tensor([[probe]])
    candidates = torch.linspace(-4, 4, 1601)
    x, labels = torch.cat([X, x_new]), torch.cat([Y.expand(1601, -1), candidates[:, None]], 1)
    ours = candidates[ps.GaussianProcess(kernel).prior(x).log_prob(labels).argmax()]
    regression = ps.GaussianProcess(kernel).condition(X, Y)(x_new).mean
    assert float(ours) == pytest.approx(float(regression), abs=0.0026)
    assert abs(float(ours)) < 0.5
    wrong = candidates[printed(kernel, x, labels).argmax()]
    assert float(wrong) == pytest.approx(float(-(kernel(x_new, X) @ Y) / kernel.diagonal(x_new)), abs=0.0026)
    assert wrong > 2
