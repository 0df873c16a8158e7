import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from priorscope.beliefs import GaussianProcess, Spectrum, eigenmodes, sinusoid_r2
from priorscope.errors import DataError, SingularKernelError
from priorscope.kernels import RBF, KernelPair, Linear, Periodic


@pytest.fixture
def x():
    return torch.linspace(-1, 1, 8)[:, None]


def test_modes_diagonalise_the_gram_matrix(x):
    modes = eigenmodes(RBF(0.3), x)
    assert torch.allclose(modes.vectors * modes.values @ modes.vectors.T, RBF(0.3)(x), atol=1e-13)
    assert torch.allclose(modes.vectors.T @ modes.vectors, torch.eye(8), atol=1e-13)
    assert (modes.values.diff() <= 0).all()
    assert modes.dropped == 0


def test_operator_eigenvalues_do_not_grow_with_the_data():
    values = [eigenmodes(RBF(0.5), torch.linspace(-1, 1, n)[:, None]).values[:3] / n for n in (100, 200)]
    assert torch.allclose(values[0], values[1], rtol=0.05)


@pytest.mark.parametrize("outputs", [None, 3])
def test_the_log_prior_is_a_sum_over_modes(x, outputs):
    y = torch.randn(8) if outputs is None else torch.randn(8, outputs)
    modes = eigenmodes(RBF(0.3), x)
    columns = y.reshape(8, -1).T.numpy()
    expected = np.sum(multivariate_normal(np.zeros(8), RBF(0.3)(x).numpy()).logpdf(columns))
    assert float(modes.log_prob(y)) == pytest.approx(expected, rel=1e-9)
    assert float(modes.log_prior_terms(y).sum()) == pytest.approx(expected, rel=1e-9)
    prior = GaussianProcess(RBF(0.3)).prior(x, outputs)
    assert float(prior.log_prob(y)) == pytest.approx(expected, rel=1e-9)


def test_the_log_prior_has_its_inverse(x):
    modes = eigenmodes(RBF(0.3), x)
    # Each term by hand; the form without the inverse, −½ (v·y)² λ, is something else.
    y = torch.randn(8)
    squares = (modes.vectors.T @ y) ** 2
    constant = -modes.values.log() / 2 - math.log(2 * math.pi) / 2
    assert torch.allclose(modes.log_prior_terms(y), -squares / modes.values / 2 + constant)
    assert not torch.allclose(modes.log_prior_terms(y), -squares * modes.values / 2 + constant)


def test_power_sums_to_one_and_names_the_mode(x):
    modes = eigenmodes(RBF(0.3), x)
    assert float(modes.power(torch.randn(8, 2)).sum()) == pytest.approx(1)
    assert torch.allclose(modes.power(3 * modes.vectors[:, 2]), torch.eye(8)[2], atol=1e-12)


def test_power_is_not_centred_and_takes_classes(x):
    modes = eigenmodes(RBF(0.3), x)
    y = torch.randn(8) + 5
    assert torch.allclose(modes.power(y), (modes.vectors.T @ y) ** 2 / (y @ y))
    classes = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    onehot = torch.nn.functional.one_hot(classes).double() - 1 / 3
    assert torch.allclose(modes.power(classes), modes.power(onehot))
    with pytest.raises(DataError, match="zero everywhere"):
        modes.power(torch.zeros(8))


def test_what_lies_off_the_modes_is_missing_from_the_power():
    x = torch.randn(6, 2)
    modes = eigenmodes(Linear(), x)
    assert modes.dropped == 4
    assert len(modes.values) == 2
    y = torch.randn(6)
    fitted = x @ torch.linalg.lstsq(x, y).solution
    assert float(modes.power(y).sum()) == pytest.approx(float((fitted @ fitted) / (y @ y)))


def test_missing_modes_leave_no_density(x):
    with pytest.raises(SingularKernelError, match=r"rank 2 on 6 points.*[Pp]robabilit"):
        eigenmodes(Linear(), torch.randn(6, 2)).log_prob(torch.randn(6))
    cut = eigenmodes(RBF(0.3), x, rank=3)
    assert (len(cut.values), cut.cut, cut.dropped) == (3, 5, 0)
    with pytest.raises(SingularKernelError, match="rank=3 cut 5 of 8"):
        cut.log_prob(torch.randn(8))


def test_extension_off_the_data(x):
    kernel = RBF(0.3)
    modes = eigenmodes(kernel, x)
    assert torch.allclose(modes.extend(x), modes.vectors, atol=1e-10)
    x_new = torch.randn(5, 1)
    assert torch.allclose(modes.extend(x_new), kernel(x_new, x) @ modes.vectors / modes.values)


def test_loaded_modes_answer_but_do_not_extend(x, tmp_path):
    modes = eigenmodes(RBF(0.3), x)
    path = modes.save(tmp_path / "modes.npz")
    y = torch.randn(8)
    loaded = Spectrum.load(path)
    assert float(loaded.log_prob(y)) == float(modes.log_prob(y))
    with pytest.raises(DataError, match=r"Spectrum.load\(path, kernel="):
        loaded.extend(x)
    assert torch.equal(Spectrum.load(path, kernel=RBF(0.3).on(x)).extend(x), modes.extend(x))


def test_a_kernel_on_its_data_is_accepted(x):
    assert torch.equal(eigenmodes(RBF(0.3).on(x)).values, eigenmodes(RBF(0.3), x).values)
    assert len(eigenmodes(RBF(0.3).on(x), rank=2).values) == 2


def test_modes_come_in_the_kernels_dtype(x):
    modes = eigenmodes(RBF(0.3), x.float())
    assert modes.values.dtype == modes.vectors.dtype == modes.extend(x.float()).dtype == torch.float32


def test_what_is_no_kernel_raises(x):
    with pytest.raises(DataError, match=r"pair\.nngp or pair\.ntk"):
        eigenmodes(KernelPair(RBF(), RBF()), x)
    with pytest.raises(DataError, match="PrecomputedKernel"):
        eigenmodes(torch.eye(8), x)
    with pytest.raises(DataError, match="rank: is 9"):
        eigenmodes(RBF(), x, rank=9)


def test_on_the_circle_all_modes_are_sinusoids():
    n = 24
    x = torch.arange(n) * 2 * math.pi / n
    modes = eigenmodes(Periodic(lengthscale=0.7), x[:, None])
    r2, frequency = sinusoid_r2(x, modes.vectors[:, :9])
    assert torch.allclose(r2, torch.ones(9), atol=1e-9)
    assert torch.allclose(frequency, torch.tensor([0.0, 1, 1, 2, 2, 3, 3, 4, 4]), atol=1e-4)


def test_on_an_interval_they_nearly_are():
    x = torch.linspace(-3, 3, 40)
    vectors = eigenmodes(RBF(1.0), x[:, None]).vectors[:, :5]
    r2, _ = sinusoid_r2(x, vectors)
    assert (r2[:2] > 0.99).all()
    for i in range(5):
        best = max(explained_by_hand(x, vectors[:, i], w) for w in np.linspace(math.pi / 12, 20, 3_000))
        assert float(r2[i]) == pytest.approx(best, abs=1e-4)
        assert float(r2[i]) >= best - 1e-12


def explained_by_hand(x, mode, frequency):
    design = torch.stack([torch.sin(frequency * x), torch.cos(frequency * x), torch.ones_like(x)], 1).numpy()
    rest = mode.numpy() - design @ np.linalg.lstsq(design, mode.numpy(), rcond=None)[0]
    return 1 - (rest @ rest) / float((mode - mode.mean()).square().sum())


def test_noise_is_no_sinusoid():
    r2, _ = sinusoid_r2(torch.linspace(0, 1, 200), torch.randn(200))
    assert float(r2) < 0.3


def test_the_highest_frequency_is_found():
    x = torch.arange(20.0)
    r2, frequency = sinusoid_r2(x, (-1.0) ** torch.arange(20))
    assert float(r2) == pytest.approx(1)
    assert float(frequency) == pytest.approx(math.pi, rel=1e-4)


def test_positions_that_are_not_one_dimensional_raise():
    with pytest.raises(DataError, match="positions"):
        sinusoid_r2(torch.randn(8, 2), torch.randn(8))
    with pytest.raises(DataError, match="not all equal"):
        sinusoid_r2(torch.ones(8), torch.randn(8))
