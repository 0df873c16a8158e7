"""Mistake 11: the eigenfunction integral printed without the input density, and matrix taken for operator eigenvalues.

Right: ∫ k(x, x') φ(x') p(x') dx' = λ φ(x); Gram eigenvalues are about n λ. On the uniform circle sines and cosines come
in degenerate pairs; on an interval the modes are only near-sinusoidal.
"""

import math

import torch
from scipy.stats import norm

import priorscope as ps
from tests.cases import mlp

INIT = ps.Initialization(2.0, 0.1, "ntk")


def circle(angles):
    return torch.stack([angles.cos(), angles.sin()], 1)


def ntk(inputs):
    return ps.infinite_width(INIT.apply_(mlp(inputs, 32, 1), seed=0), INIT).ntk


def test_the_density_is_in_the_integral():
    """RBF under a Gaussian density, in closed form: Rasmussen and Williams 2006, eq. 4.40."""
    lengthscale, sigma = 0.5, 1.0
    a, b = 1 / (4 * sigma**2), 1 / (2 * lengthscale**2)
    A = a + b + math.sqrt(a**2 + 2 * a * b)
    exact = math.sqrt(2 * a / A) * (b / A) ** torch.arange(5.0)
    for n in (200, 400):
        quantiles = torch.as_tensor(sigma * norm.ppf((torch.arange(n).numpy() + 0.5) / n))
        values = ps.eigenmodes(ps.kernels.RBF(lengthscale), quantiles[:, None]).values[:5]
        assert torch.allclose(values / n, exact, rtol=0.05)
        # The matrix's own eigenvalues grow with n; without the density, over the same span, they are others.
        assert float(values[0]) > 50 * float(exact[0])
        even = torch.linspace(float(quantiles[0]), float(quantiles[-1]), n)[:, None]
        flat = ps.eigenmodes(ps.kernels.RBF(lengthscale), even).values[:5] / n
        assert float((flat / exact - 1).abs().max()) > 0.3


def test_on_the_uniform_circle_modes_are_degenerate_pairs_of_sinusoids():
    angles = torch.arange(24) * (2 * math.pi / 24)
    modes = ps.eigenmodes(ntk(2), circle(angles))
    values = torch.sort(modes.values, descending=True).values
    fourier = torch.fft.fft(ntk(2)(circle(angles))[0]).real
    expected = torch.sort(fourier, descending=True).values
    assert torch.allclose(values, expected, rtol=1e-8)
    for k in (1, 2):
        for wave in ((k * angles).cos(), (k * angles).sin()):
            power = modes.power(wave)
            assert int((power > 1e-9).sum()) <= 2, "a pair of modes and no other"
            assert float(power.sum()) > 1 - 1e-9
            pair = modes.values[power > 1e-9]
            assert torch.allclose(pair, fourier[k].expand(len(pair)), rtol=1e-8)
    # Another density of the same circle splits the pairs.
    crowded = 2 * math.pi * torch.linspace(0, 1, 25)[:-1] ** 2
    wave = ps.eigenmodes(ntk(2), circle(crowded)).power(crowded.cos())
    assert int((wave > 1e-3).sum()) > 2


def test_on_an_interval_they_are_only_nearly_sinusoidal():
    x = torch.linspace(-math.pi, math.pi, 61)[:-1, None]
    r2 = ps.sinusoid_r2(x, ps.eigenmodes(ntk(1), x).vectors[:, :4]).r2
    assert float(r2.min()) > 0.8
    assert float(r2.min()) < 1 - 1e-4
    angles = x[:, 0]
    exact = ps.sinusoid_r2(x, ps.eigenmodes(ntk(2), circle(angles)).vectors[:, :5]).r2
    assert float(exact.min()) > 1 - 1e-6
