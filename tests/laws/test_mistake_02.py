"""Mistake 2: the printed normaliser √(2π det H). Right: √((2π)ⁿ det H), and no density at all where H is singular."""

import math

import pytest
import torch

import priorscope as ps


def test_the_normaliser_is_of_all_n_dimensions():
    kernel, x = ps.kernels.RBF(0.4), torch.linspace(-1, 1, 5)[:, None]
    logdet, origin = float(torch.logdet(kernel(x))), torch.zeros(5)
    right, printed = -(5 * math.log(2 * math.pi) + logdet) / 2, -(math.log(2 * math.pi) + logdet) / 2
    for density in (ps.eigenmodes(kernel, x), ps.GaussianProcess(kernel).prior(x)):
        assert float(density.log_prob(origin)) == pytest.approx(right, rel=1e-10)
        assert abs(float(density.log_prob(origin)) - printed) > 3


def test_the_density_integrates_to_one():
    kernel, x = ps.kernels.RBF(1.0), torch.tensor([[0.0], [1.0]])
    line = torch.linspace(-7, 7, 281)
    density = ps.GaussianProcess(kernel).prior(x).log_prob(torch.cartesian_prod(line, line)).exp()
    assert float(density.sum()) * 0.05**2 == pytest.approx(1, abs=1e-6)
    # With the printed normaliser it would be √(2π), 2.5.
    assert float(density.sum()) * 0.05**2 * (2 * math.pi) ** 0.5 > 2


def test_a_singular_kernel_has_no_density():
    kernel, x = ps.kernels.Linear(), torch.linspace(1, 2, 4)[:, None]
    for density in (ps.eigenmodes(kernel, x), ps.GaussianProcess(kernel).prior(x)):
        with pytest.raises(ps.PriorscopeError, match=r"rank 1 (of|on) 4"):
            density.log_prob(torch.ones(4))
