"""Learnability against kernel regression that is really done, many times."""

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from priorscope.beliefs import OperatorSpectrum, cube_spectrum, eigenmodes, hermite_modes, sphere_spectrum
from priorscope.errors import DataError, PriorscopeWarning
from priorscope.generalization.learnability import Learnability, learnability, learning_curve
from priorscope.kernels import RBF, Linear
from tests.beliefs.test_hermite import gaussian
from tests.beliefs.test_spheres import cube, relu_ntk

DRAWS = 120


def regress(gram, chosen, y, ridge):
    """The predictions of kernel ridge regression at all points."""
    inner = gram[chosen][:, chosen] + ridge * torch.eye(len(chosen))
    return gram[:, chosen] @ torch.linalg.solve(inner, y[chosen])


def on_subsets(gram, y, n, ridge, noise=0.0, draws=DRAWS):
    """Error at the other points, its standard error, and mean predictions at points outside, over random subsets."""
    errors, total, seen = [], torch.zeros(len(gram)), torch.zeros(len(gram))
    for _ in range(draws):
        chosen = torch.randperm(len(gram))[:n]
        outside = torch.ones(len(gram), dtype=torch.bool)
        outside[chosen] = False
        labels = y + noise**0.5 * torch.randn(len(gram))
        f = regress(gram, chosen, labels, ridge)
        errors.append((f - labels)[outside].square().mean())
        total[outside] += f[outside]
        seen[outside] += 1
    errors = torch.stack(errors)
    bias = (total / seen - y).square().mean()
    return float(errors.mean()), float(errors.std()) / draws**0.5, float(bias)


@pytest.mark.parametrize("n", [32, 100, 200])
@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_the_cube(n, ridge):
    d, degree = 8, 2
    kernel, x = relu_ntk(d, 2, 0.1), cube(d)
    y = x[:, :degree].prod(1)
    found, error, bias = on_subsets(kernel(x), y, n, ridge)
    told = learnability(cube_spectrum(kernel, d), torch.eye(d + 1)[degree], n, ridge)
    assert found == pytest.approx(float(told.error), abs=4 * error, rel=0.04)
    assert bias == pytest.approx(float(told.bias), rel=0.1)
    assert float(told.conserved) == pytest.approx(n, rel=1e-10)
    # Taken for a density, the cube of 256 points gives another number, which is wrong.
    cube_ = cube_spectrum(kernel, d)
    density = OperatorSpectrum(cube_.values, cube_.multiplicity, cube_.trace)
    if n > 50:
        assert float(learnability(density, torch.eye(d + 1)[degree], n, ridge).error) < found - 10 * error


def test_noise_on_the_cube():
    d, n, ridge, noise = 8, 100, 0.1, 0.5
    kernel, x = relu_ntk(d, 2, 0.1), cube(d)
    found, error, _ = on_subsets(kernel(x), x[:, 0], n, ridge, noise)
    told = learnability(cube_spectrum(kernel, d), torch.eye(d + 1)[1], n, ridge, noise)
    assert found == pytest.approx(float(told.error), abs=4 * error, rel=0.04)
    assert float(told.bias + told.variance) + noise == pytest.approx(float(told.error))


@pytest.mark.parametrize(("noise", "ridge"), [(0.0, 0.0), (0.3, 0.1)])
def test_the_sphere(noise, ridge):
    d, n, m = 10, 100, 200
    kernel = relu_ntk(d, 2, 0.1)
    told = learnability(sphere_spectrum(kernel, d, 12), torch.eye(12)[2], n, ridge, noise)
    errors = []
    for _ in range(DRAWS):
        x = torch.nn.functional.normalize(torch.randn(n + m, d), dim=1)
        y = x[:, 0] * x[:, 1] * (d * (d + 2)) ** 0.5 + noise**0.5 * torch.randn(n + m)
        gram = kernel(x, x[:n])
        f = gram[n:] @ torch.linalg.solve(gram[:n] + ridge * torch.eye(n), y[:n])
        errors.append((f - y[n:]).square().mean())
    errors = torch.stack(errors)
    assert float(errors.mean()) == pytest.approx(float(told.error), abs=4 * float(errors.std()) / DRAWS**0.5, rel=0.04)


def test_learnabilities_are_shares_of_the_modes():
    d, n = 6, 20
    kernel, x = relu_ntk(d, 2, 0.1), cube(d)
    gram, told = kernel(x), learnability(cube_spectrum(kernel, d), torch.ones(d + 1), n)
    parities = torch.stack([x[:, [i for i in range(d) if s >> i & 1]].prod(1) for s in range(2**d)], 1)
    degree = torch.tensor([s.bit_count() for s in range(2**d)])
    learned = torch.zeros(2**d)
    for _ in range(100):
        f = regress(gram, torch.randperm(2**d)[:n], parities, 0.0)
        each = (f * parities).mean(0)
        assert float(each.sum()) == pytest.approx(n)  # conserved in every single draw
        learned += each / 100
    by_degree = torch.stack([learned[degree == k].mean() for k in range(d + 1)])
    assert torch.allclose(by_degree, told.learnability, atol=0.03)


def test_gaussian_data_without_a_kernel_matrix():
    x = gaussian(3000, [1 / (1 + i) ** 0.5 for i in range(60)])
    x = x / x.norm(dim=1, keepdim=True)
    x = x - x.mean(0)
    kernel = relu_ntk(60)
    modes = hermite_modes(kernel, x, count=1000)
    features = modes.features(x)
    y = features[:, 1] + features[:, 5] + 0.3 * features[:, 30] * features[:, 2]
    power, off = modes.power(x, y)
    gram = kernel(x)
    for n in (50, 200, 600):
        found, _, _ = on_subsets(gram, y, n, 0.0, draws=10)
        assert found == pytest.approx(float(learnability(modes.spectrum, power, n, off=off).error), rel=0.1)


def test_several_n_and_conservation_to_rounding():
    spectrum = sphere_spectrum(relu_ntk(10), 10, 30)
    counts = [1, 100, 1000, 100_000]
    many = learnability(spectrum, torch.eye(30)[2], counts, ridge=1e-4)
    assert many.learnability.shape == (4, 30)
    assert torch.allclose(many.conserved, torch.tensor(counts).double(), rtol=1e-12)
    assert (many.error.diff() < 0).all()
    for i, n in enumerate(counts):
        one = learnability(spectrum, torch.eye(30)[2], n, ridge=1e-4)
        assert torch.equal(one.error, many.error[i])
        assert one.learnability.shape == (30,)
        assert torch.equal(one.target, one.learnability[2])


def test_multiplicities_are_many_equal_modes():
    once = OperatorSpectrum(torch.tensor([1.0, 0.2, 0.2, 0.2]), torch.ones(4), 1.6)
    thrice = OperatorSpectrum(torch.tensor([1.0, 0.2]), torch.tensor([1.0, 3.0]), 1.6)
    a = learnability(once, torch.tensor([0.0, 1, 2, 3]), 3, ridge=0.1)
    b = learnability(thrice, torch.tensor([0.0, 6]), 3, ridge=0.1)
    assert float(a.error) == pytest.approx(float(b.error))
    assert float(a.kappa) == pytest.approx(float(b.kappa), rel=1e-12)


def test_modes_far_below_act_as_a_ridge():
    values = torch.cat([torch.tensor([1.0, 0.5, 0.1]), torch.full((2000,), 1e-4)])
    full = learnability(OperatorSpectrum(values, torch.ones(2003), float(values.sum())), torch.eye(2003)[1], 10)
    short = OperatorSpectrum(values[:3], torch.ones(3), float(values.sum()))
    assert short.rest == pytest.approx(0.2)
    assert float(learnability(short, torch.eye(3)[1], 10).error) == pytest.approx(float(full.error), rel=2e-2)


def test_more_samples_than_modes_is_least_squares():
    d, n, noise = 4, 20, 0.5
    spectrum = OperatorSpectrum(torch.ones(d), torch.ones(d), float(d))
    told = learnability(spectrum, torch.ones(d) / d, n, noise=noise)
    assert float(told.kappa) == 0
    assert float(told.conserved) == d  # no more can be learned
    # Known for Gaussian inputs to be σ² (1 + d/(n − d − 1)); the formula is its large-n form.
    assert float(told.error) == pytest.approx(noise * n / (n - d))
    with pytest.warns(PriorscopeWarning, match=r"n = \[4\] is within 10 of the 4 modes"):
        assert learnability(spectrum, torch.ones(d), d, noise=noise).error == torch.inf


def test_near_the_number_of_modes_it_warns_as_the_error_is_far_off():
    d, n = 5, 8
    x, y = torch.randn(4000, n, d), torch.randn(4000, n, 1)
    found = 1 + torch.linalg.lstsq(x, y).solution.square().sum((1, 2)).mean()  # pure noise: least squares learns it
    with pytest.warns(PriorscopeWarning, match="Give ridge > 0"):
        told = learnability(torch.ones(d), torch.zeros(d), [n, 40], noise=1.0)
    assert float(found) > 1.15 * float(told.error[0])  # 1 + d/(n − d − 1) and n/(n − d)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learnability(torch.ones(d), torch.zeros(d), [n], ridge=0.1, noise=1.0)
        learnability(torch.ones(d), torch.zeros(d), [40], noise=1.0)


def test_the_data_as_population():
    x = torch.nn.functional.normalize(torch.randn(300, 8), dim=1)
    kernel, y = relu_ntk(8, 2, 0.1), 3 * x[:, 0] * x[:, 1] + x[:, 2] + 0.1 * torch.randn(300)
    counts = [30, 100, 200]
    for ridge in (0.0, 0.1):
        curve = learning_curve(kernel.on(x), y, counts, ridge)
        for i, n in enumerate(counts):
            found, _, _ = on_subsets(kernel(x), y, n, ridge, draws=100)
            assert found == pytest.approx(float(curve.error[i]), rel=0.06)
    two = learning_curve(kernel, x, torch.stack([y, -y], 1), counts, ridge)
    assert torch.allclose(two.error, curve.error)


def test_what_lies_off_the_modes_is_never_learned():
    x = torch.randn(50, 2)
    y = torch.randn(50)
    curve = learning_curve(Linear(), x, y, 10, ridge=0.1)
    assert curve.off == pytest.approx(float(y.square().mean() - curve.power.sum()))
    assert float(curve.target) < float(curve.learnability.max())


def test_saved_and_loaded(tmp_path):
    told = learnability(torch.tensor([1.0, 0.1]), torch.tensor([0.5, 0.5]), [1, 3], ridge=0.1)
    loaded = Learnability.load(told.save(tmp_path / "learnability.npz"))
    assert torch.equal(loaded.conserved, told.conserved)
    told.to_dict()


def test_bad_input():
    values = torch.tensor([1.0, 0.1])
    with pytest.raises(DataError, match=r"power: has shape \(3,\) for 2"):
        learnability(values, torch.ones(3), 4)
    with pytest.raises(DataError, match="ridge: is -1"):
        learnability(values, torch.ones(2), 4, ridge=-1.0)
    with pytest.raises(DataError, match=r"n: is \[0\]"):
        learnability(values, torch.ones(2), [0, 3])
    with pytest.raises(DataError, match="1 to 7, as there are 8 points"):
        learning_curve(RBF(), torch.randn(8, 2), torch.randn(8), 8)
    with pytest.raises(DataError, match="negative"):
        learnability(-values, torch.ones(2), 4)


def test_modes_on_data_are_taken_as_the_population():
    x, y = torch.randn(40, 3), torch.randn(40)
    modes = eigenmodes(RBF(0.7), x)
    told = learnability(modes, (modes.vectors.T @ y).square() / 40, [5, 20], ridge=0.1)
    assert torch.allclose(told.error, learning_curve(RBF(0.7), x, y, [5, 20], ridge=0.1).error)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.floats(0, 8), st.floats(-9, 2), st.integers(0, 10**6), st.booleans())
def test_what_is_learned_is_conserved_in_any_spectrum(r, decay, ridge, seed, finite):
    generator = torch.Generator().manual_seed(seed)
    values = torch.exp(-decay * torch.rand(r, generator=generator).cumsum(0))
    multiplicity = torch.randint(1, 50, (r,), generator=generator).double()
    total = int(multiplicity.sum()) + 2
    n = int(torch.randint(1, total - 1, (1,), generator=generator)) if total > 3 else 1
    spectrum = OperatorSpectrum(values, multiplicity, float(values @ multiplicity), total if finite else None)
    told = learnability(spectrum, torch.rand(r, generator=generator), n, ridge=10.0**ridge, noise=0.1)
    assert float(told.conserved) == pytest.approx(n, rel=1e-9)
    assert float(told.error) > 0
    assert float(told.variance) > -1e-9 * float(told.error)
    assert ((told.learnability >= 0) & (told.learnability <= 1)).all()
