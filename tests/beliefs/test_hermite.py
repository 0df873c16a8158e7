"""The Hermite eigenstructure against Gaussian data, the even sphere, and the order of all products."""

from itertools import combinations_with_replacement, islice, pairwise
from math import prod

import pytest
import torch

from priorscope.beliefs import hermite_modes, sphere_spectrum
from priorscope.beliefs.hermite import _largest, _level
from priorscope.errors import DataError, PriorscopeWarning
from priorscope.kernels import RBF, FunctionKernel, Linear
from tests.beliefs.test_spheres import relu_ntk


def gaussian(n, variances, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, len(variances), generator=generator) * torch.tensor(variances).sqrt()
    return x - x.mean(0)


def test_products_come_in_their_order():
    shares = [0.5, 0.3, 0.15, 0.05]
    for degree in range(4):
        found = list(_level(2.0, shares, degree))
        expected = sorted(
            (2 * prod(shares[i] for i in product) for product in combinations_with_replacement(range(4), degree)),
            reverse=True,
        )
        assert [value for value, _ in found] == pytest.approx(expected)
        assert len({product for _, product in found}) == len(expected)
    merged = list(islice(_largest([0.2, 1.0, 0.0, 5.0], shares), 20))
    assert all(a >= b for (a, _), (b, _) in pairwise(merged))
    assert not any(len(product) == 2 for _, product in merged)


def test_features_are_orthonormal_under_gaussian_data():
    x = gaussian(200_000, [3.0, 1.0, 0.5])
    modes = hermite_modes(RBF(3.0), x, count=12, levels=3)
    features = modes.features(x)
    overlap = features.T @ features / len(x)
    assert torch.allclose(overlap, torch.eye(12), atol=0.05)
    i = next(i for i, row in enumerate(modes.factors.tolist()) if row == [0, 0, -1])
    z = x @ modes.axes[:, 0] / modes.variances[0].sqrt()
    assert torch.allclose(features[:, i], (z**2 - 1) / 2**0.5)


def test_they_are_exact_on_the_even_sphere():
    x = torch.cat([torch.eye(6), -torch.eye(6)])  # covariance I/6, centred
    kernel = relu_ntk(6, hidden=2, bias_variance=0.1)
    modes = hermite_modes(kernel, x, count=30, levels=4)
    assert modes.effective_dimension == pytest.approx(6)
    degree = (modes.factors >= 0).sum(1)
    assert torch.allclose(modes.values, sphere_spectrum(kernel, 6, 5).values[degree], rtol=1e-10)


def test_levels_tend_to_derivatives():
    # exp(t/4): every derivative at 0 is (1/4)^l.
    kernel = FunctionKernel(lambda a, b: torch.exp(a @ b.T / (4 * 200)))
    x = torch.cat([torch.eye(200), -torch.eye(200)]) * 200**0.5
    levels = hermite_modes(kernel, x, count=3, levels=3).levels
    assert torch.allclose(levels, 0.25 ** torch.arange(4.0), rtol=0.03)


def test_eigenvalues_of_gaussian_data():
    variances = [1 / (1 + 0.1 * i) for i in range(40)]
    x, n = gaussian(2000, variances), 2000
    kernel = FunctionKernel(lambda a, b: torch.exp(a @ b.T / sum(variances)))
    values = torch.linalg.eigvalsh(kernel(x)).flip(0)[:41] / n
    predicted = hermite_modes(kernel, x, count=41).values
    assert torch.allclose(values, predicted, rtol=0.15)


def test_power_is_found_and_unbiased():
    x = gaussian(3000, [1.0] * 5)
    modes = hermite_modes(relu_ntk(5, 2, 0.1), x, count=50, levels=3)
    y = 2 * modes.features(x)[:, 4] + 0.7 * torch.randn(3000)
    power, off = modes.power(x, y)
    assert float(power[4]) == pytest.approx(4, rel=0.1)
    assert float(power.sum()) == pytest.approx(float(power[4]), abs=0.05)
    assert off == pytest.approx(0.49, rel=0.1)
    assert float(power.sum()) + off == pytest.approx(float(y.square().mean()))
    noise = [modes.power(x, torch.randn(3000)).power.sum() for _ in range(30)]
    assert abs(float(torch.stack(noise).mean())) < 4 * float(torch.stack(noise).std()) / 30**0.5


def test_adapted_modes_are_those_of_the_expanded_kernel():
    x = gaussian(300, [1.0, 0.6, 0.3]) ** 3  # far from Gaussian
    x = x - x.mean(0)
    with pytest.warns(PriorscopeWarning, match="adapted"):
        modes = hermite_modes(relu_ntk(3, 2, 0.1), x, count=15, levels=3)
    adapted = modes.adapted(x)
    products = modes.features(x)
    gram = products * modes.values @ products.T
    assert torch.allclose(torch.linalg.eigvalsh(gram).flip(0)[:15] / 300, adapted.values)
    features = adapted.features(x)
    assert torch.allclose(features.T @ features / 300, torch.eye(15), atol=1e-9)
    assert torch.allclose(gram @ features / 300, features * adapted.values)
    y = features[:, 2] - 3 * features[:, 7]
    power, _ = adapted.power(x, y)
    assert torch.allclose(power, torch.eye(15)[2] + 9 * torch.eye(15)[7], atol=1e-9)
    with pytest.raises(DataError, match="adapted to data already"):
        adapted.adapted(x)


def test_gaussian_data_are_adapted_to_already():
    x = gaussian(20_000, [1.0, 0.6, 0.3])
    modes = hermite_modes(relu_ntk(3, 2, 0.1), x, count=10, levels=2)
    assert torch.allclose(modes.adapted(x).values, modes.values, rtol=0.05)


def test_products_that_the_data_cannot_tell_apart_have_power_once():
    x = torch.cat([gaussian(200, [1.0, 1.0])])
    x = x / x.norm(dim=1, keepdim=True)
    x = torch.cat([x, -x])
    modes = hermite_modes(relu_ntk(2, 2, 0.1), x, count=6, levels=2)
    y = x[:, 0] ** 2 - x[:, 1] ** 2
    power, off = modes.power(x, y)
    assert off == pytest.approx(0, abs=1e-12)
    assert float(power.sum()) == pytest.approx(float(y.square().mean()))


def test_a_kernel_with_few_modes_gives_few():
    modes = hermite_modes(Linear(), gaussian(50, [2.0, 1.0]), count=10)
    assert len(modes.values) == 2  # a linear kernel has no others
    assert modes.spectrum.rest == pytest.approx(0, abs=1e-12)


def test_bad_input():
    x = gaussian(50, [2.0, 1.0])
    with pytest.raises(DataError, match=r"x - x\.mean\(0\)"):
        hermite_modes(RBF(), x + 1, count=3)
    with pytest.raises(DataError, match="vectors"):
        hermite_modes(RBF(), x[:, :1], count=3)
    with pytest.raises(DataError, match="no function of the inner product"):
        hermite_modes(FunctionKernel(lambda a, b: a[:, :1] @ b[:, :1].T), x, count=3)
    x = gaussian(50, [2.0, 1.0, 0.5])
    with pytest.raises(DataError, match="50 points for 60 modes"):
        hermite_modes(RBF(), x, count=60).power(x, x[:, 0])


def test_one_direction_is_warned_of():
    x = torch.randn(300, 6) * torch.tensor([5.0, 1, 1, 1, 1, 1])
    with pytest.warns(PriorscopeWarning, match="effective dimension"):
        hermite_modes(RBF(3.0), x - x.mean(0), count=4)
