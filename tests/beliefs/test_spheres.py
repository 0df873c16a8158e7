"""Closed-form spectra against dense integrals, explicit eigenvectors and sampled points."""

from math import comb, pi

import mpmath
import pytest
import torch
from torch import nn

from priorscope.beliefs import cube_spectrum, eigenmodes, operator_spectrum, sphere_spectrum
from priorscope.beliefs.spheres import harmonics, krawtchouk
from priorscope.errors import DataError
from priorscope.kernels import RBF, FunctionKernel, Linear
from priorscope.kernels.infinite import infinite_width
from priorscope.network.initialization import Initialization


def relu_ntk(inputs, hidden=1, bias_variance=0.0):
    law = Initialization(2.0, bias_variance, "ntk")
    bias, layers, width = bias_variance > 0, [], inputs
    for _ in range(hidden):
        layers += [nn.Linear(width, 32, bias=bias), nn.ReLU()]
        width = 32
    model = nn.Sequential(*layers, nn.Linear(width, 1, bias=bias))
    return infinite_width(law.apply_(model, seed=0), law).ntk


def cube(d):
    return torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * d)


def test_the_circle_of_a_two_layer_network():
    values = sphere_spectrum(relu_ntk(2), dimension=2, degrees=12).values
    expected = [6 / pi**2, 0.5] + [2 * (k * k + 3) / (pi * (k * k - 1)) ** 2 if k % 2 == 0 else 0 for k in range(2, 12)]
    assert torch.allclose(values, torch.tensor(expected), rtol=1e-10, atol=1e-12)
    assert values[3::2].count_nonzero() == 0


@pytest.mark.parametrize("d", [3, 5])
def test_spheres_against_a_dense_integral(d):
    spectrum = sphere_spectrum(RBF(0.8), d, degrees=5)

    def integral(function):
        return mpmath.quad(lambda t: function(t) * (1 - t * t) ** ((d - 3) / 2), [-1, 0, 1])

    for k in range(5):
        alpha = mpmath.mpf(d - 2) / 2

        def polynomial(t, k=k, alpha=alpha):
            return mpmath.gegenbauer(k, alpha, t) / mpmath.gegenbauer(k, alpha, 1)

        value = integral(lambda t: mpmath.exp(-(1 - t) / 0.64) * polynomial(t)) / integral(lambda t: 1)
        assert float(spectrum.values[k]) == pytest.approx(float(value), rel=1e-10)
    many = sphere_spectrum(RBF(0.8), d, degrees=40)
    assert many.rest < 1e-9
    assert float(many.values @ many.multiplicity) == pytest.approx(many.trace, rel=1e-9)


def test_harmonics_are_counted():
    assert [harmonics(2, k) for k in range(4)] == [1, 2, 2, 2]
    assert [harmonics(3, k) for k in range(4)] == [1, 3, 5, 7]
    assert [harmonics(4, k) for k in range(4)] == [1, 4, 9, 16]


@pytest.mark.parametrize("hidden", [1, 2])
def test_the_cube_against_its_eigenvectors(hidden):
    d = 6
    kernel, x = relu_ntk(d, hidden, 0.1 * (hidden - 1)), cube(d)
    spectrum = cube_spectrum(kernel, d)
    gram = kernel(x)
    for subset in range(2**d):
        members = [i for i in range(d) if subset >> i & 1]
        parity = x[:, members].prod(1)
        value = spectrum.values[len(members)]
        assert torch.allclose(gram @ parity / 2**d, value * parity, atol=1e-13)
    values = spectrum.values.repeat_interleave(spectrum.multiplicity.long()).sort(descending=True).values
    assert torch.allclose(torch.linalg.eigvalsh(gram).flip(0) / 2**d, values, atol=1e-13)
    assert spectrum.population == 2**d
    assert float(values.sum()) == pytest.approx(spectrum.trace, rel=1e-13)


def test_odd_parities_are_not_learned_without_biases():
    without, deep = cube_spectrum(relu_ntk(9), 9), cube_spectrum(relu_ntk(9, 2, 0.1), 9)
    assert without.values[3::2].count_nonzero() == 0
    assert (without.values[::2] > 1e-6).all()
    assert (deep.values > 1e-6).all()


def test_krawtchouk_sums_parities():
    d = 5
    x = cube(d)
    for j in range(d + 1):
        shell = x[(x < 0).sum(1) == j]
        assert len(shell) == comb(d, j)
        for k in range(d + 1):
            assert krawtchouk(d, k)[j] == int(shell[:, :k].prod(1).sum())


def test_random_points_have_about_that_spectrum():
    x = torch.randn(1500, 3)
    kernel = RBF(1.0)
    found = eigenmodes(kernel, x / x.norm(dim=1, keepdim=True)).values[:9] / 1500
    closed = sphere_spectrum(kernel, 3, 3)
    expected = closed.values.repeat_interleave(closed.multiplicity.long()).sort(descending=True).values
    assert torch.allclose(found, expected, rtol=0.15)


def test_a_radius_scales_the_points():
    assert torch.allclose(sphere_spectrum(Linear(), 3, 3, radius=2.0).values, torch.tensor([0, 4 / 3, 0]))


def test_kernels_of_something_else_than_the_inner_product_raise():
    kernel = FunctionKernel(lambda a, b: torch.exp(-((a[:, None, 0] - b[None, :, 0]) ** 2)))
    with pytest.raises(DataError, match="no function of the inner product"):
        sphere_spectrum(kernel, 3, 3)
    with pytest.raises(DataError, match="no function of the inner product"):
        cube_spectrum(FunctionKernel(lambda a, b: a[:, :1] @ b[:, :1].T), 4)
    with pytest.raises(DataError, match="positive semi-definite"):
        sphere_spectrum(FunctionKernel(lambda a, b: -(a @ b.T)), 3, 3)
    with pytest.raises(DataError, match="dimension 1"):
        sphere_spectrum(Linear(), 1, 3)
    with pytest.raises(DataError, match="1 to 512"):
        sphere_spectrum(Linear(), 3, 600)


def test_the_data_as_their_own_population():
    x = torch.linspace(-1, 1, 8)[:, None]
    modes = eigenmodes(RBF(0.3), x)
    spectrum = operator_spectrum(modes)
    assert torch.allclose(spectrum.values, modes.values / 8)
    assert spectrum.population == 8
    assert spectrum.rest == 0
    cut = operator_spectrum(eigenmodes(RBF(0.3), x, rank=3))
    assert cut.rest == pytest.approx(float(modes.values[3:].sum() / 8))


def test_many_degrees_and_dimensions():
    """A kernel that is a power of the inner product has no mode beyond its degree, at any dimension."""
    for d, degrees in ((2, 512), (784, 180), (3072, 120)):
        cubic = sphere_spectrum(FunctionKernel(lambda a, b: (a @ b.T) ** 3), d, degrees)
        assert cubic.values[4:].count_nonzero() == 0
        assert cubic.values[0::2].count_nonzero() == 0
        assert float(cubic.values @ cubic.multiplicity) == pytest.approx(1.0, rel=1e-9)
    with pytest.raises(DataError, match="fewer degrees"):
        sphere_spectrum(RBF(), 1000, 400)
    large = cube_spectrum(FunctionKernel(lambda a, b: (a @ b.T / 200) ** 3), 200)
    assert large.values[4:].count_nonzero() == 0
    assert float(large.values @ large.multiplicity) == pytest.approx(1.0, rel=1e-9)
    with pytest.raises(DataError, match="1 to 1000"):
        cube_spectrum(RBF(), 1100)
