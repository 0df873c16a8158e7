import pytest
import torch
from sklearn import gaussian_process as sklearn_gp

from priorscope.beliefs import GaussianProcess, Posterior, coupling
from priorscope.errors import DataError, PriorscopeWarning, SingularKernelError
from priorscope.kernels import RBF, FunctionKernel, KernelPair, Linear, Origin
from tests.beliefs.kernels import Features


def data(n=7, d=2, m=4, outputs=None):
    y = torch.randn(n) if outputs is None else torch.randn(n, outputs)
    return torch.randn(n, d), y, torch.randn(m, d)


@pytest.mark.parametrize("outputs", [None, 1, 3])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_it_is_scikit_learns(outputs, noise):
    x, y, x_new = data(outputs=outputs)
    rbf = sklearn_gp.kernels.RBF(0.8)
    theirs = sklearn_gp.GaussianProcessRegressor(rbf, alpha=noise or 1e-14, optimizer=None).fit(x.numpy(), y.numpy())
    mean, covariance = theirs.predict(x_new.numpy(), return_cov=True)
    post = GaussianProcess(RBF(0.8), noise).condition(x, y)
    ours = post(x_new)
    assert ours.mean.shape == (4,) if outputs is None else (4, outputs)
    assert torch.allclose(ours.mean, torch.as_tensor(mean).reshape(ours.mean.shape), atol=1e-9)
    one = torch.as_tensor(covariance) if covariance.ndim == 2 else torch.as_tensor(covariance[:, :, 0])
    assert torch.allclose(ours.matrix, one, atol=1e-9)
    assert post.log_marginal_likelihood == pytest.approx(theirs.log_marginal_likelihood(), rel=1e-7)


def test_three_readings_of_kernel_regression():
    """Weighted labels, Gaussian belief, and the smallest weights in feature space that fit."""
    kernel = Features(3, 1, 40)
    x, y, x_new = data(n=6, d=3)
    post = GaussianProcess(kernel).condition(x, y)
    phi, phi_new = kernel.features(x)[:, 0], kernel.features(x_new)[:, 0]
    weighted = post.influence(x_new) @ y
    representer = kernel(x_new, x) @ post.weights
    least_norm = phi_new @ torch.linalg.lstsq(phi, y, driver="gelsd").solution
    for reading in (weighted, representer, least_norm):
        assert torch.allclose(post(x_new).mean, reading, atol=1e-10)


def test_the_mean_maximises_the_joint_density_over_test_labels():
    x, y, x_new = data(n=5, m=2)
    joint = GaussianProcess(RBF()).prior(torch.cat([x, x_new]))
    mean = GaussianProcess(RBF()).condition(x, y)(x_new).mean
    best = joint.log_prob(torch.cat([y, mean]))
    for step in (torch.tensor([1e-3, 0.0]), torch.tensor([0.0, 1e-3])):
        assert joint.log_prob(torch.cat([y, mean + step])) < best
        assert joint.log_prob(torch.cat([y, mean - step])) < best


def test_joint_density_is_the_product_of_its_conditionals():
    x, y, x_new = data(n=5, m=3)
    y_new = torch.randn(3)
    gp = GaussianProcess(RBF(0.7))
    joint = gp.prior(torch.cat([x, x_new])).log_prob(torch.cat([y, y_new]))
    post = gp.condition(x, y)
    assert float(joint) == pytest.approx(float(post(x_new).log_prob(y_new)) + post.log_marginal_likelihood, rel=1e-8)


def test_the_prior_is_the_law_of_observed_labels():
    x, y, _ = data()
    prior = GaussianProcess(RBF(), noise=0.3).prior(x)
    assert torch.allclose(prior.covariance, RBF()(x) + 0.3 * torch.eye(7))
    post = GaussianProcess(RBF(), noise=0.3).condition(x, y)
    assert float(prior.log_prob(y)) == pytest.approx(post.log_marginal_likelihood)
    many = GaussianProcess(RBF(), noise=0.3).prior(x, outputs=2)
    assert many.mean.shape == (7, 2)
    assert many.covariance.shape == (7, 2, 7, 2)
    assert torch.equal(many.eigen.vectors, prior.eigen.vectors)


def test_influence_is_the_derivative_by_the_labels():
    x, y, x_new = data()
    gp = GaussianProcess(RBF(), noise=0.05)
    base = gp.condition(x, y)
    for i in range(7):
        moved = gp.condition(x, y + torch.eye(7)[i])(x_new).mean
        assert torch.allclose(base.influence(x_new)[:, i], moved - base(x_new).mean, atol=1e-12)


def test_at_the_data_the_posterior_is_certain_and_singular():
    x, y, _ = data()
    g = GaussianProcess(RBF(0.7)).condition(x, y)(x)
    assert torch.allclose(g.mean, y, atol=1e-9)
    assert g.rank == 0
    with pytest.raises(SingularKernelError, match="rank 0 of 7"):
        g.log_prob(y)


def test_a_singular_kernel_takes_labels_of_its_range_only():
    x, _, x_new = data()
    w = torch.randn(2)
    post = GaussianProcess(Linear()).condition(x, x @ w)
    assert post.rank == 2
    assert "pseudo-inverse" in post.notes[0]
    assert torch.allclose(post(x_new).mean, x_new @ w, atol=1e-9)
    assert post(x_new).rank == 0
    with pytest.raises(SingularKernelError, match="rank 2 of 7"):
        _ = post.log_marginal_likelihood
    with pytest.raises(SingularKernelError, match="noise > 0"):
        GaussianProcess(Linear()).condition(x, x @ w + 0.01 * torch.randn(7))
    noisy = GaussianProcess(Linear(), noise=0.1).condition(x, torch.randn(7))
    assert noisy.notes == ()
    assert torch.isfinite(torch.tensor(noisy.log_marginal_likelihood))


def test_a_singular_prior_has_no_density():
    x, y, _ = data()
    prior = GaussianProcess(Linear()).prior(x)
    assert prior.rank == 2
    with pytest.raises(SingularKernelError, match="rank 2 of 7"):
        prior.log_prob(y)
    assert GaussianProcess(Linear(), noise=1e-3).prior(x).rank == 7


def test_coupled_outputs_are_one_regression_in_feature_space():
    kernel = Features(2, 3, 60)
    x, y, x_new = data(outputs=3)
    post = GaussianProcess(kernel, noise=0.2).condition(x, y)
    assert post.outputs == "coupled"
    phi, phi_new = kernel.features(x).reshape(21, 60), kernel.features(x_new).reshape(12, 60)
    inner = torch.linalg.inv(phi.T @ phi / 0.2 + torch.eye(60))
    g = post(x_new)
    assert torch.allclose(g.mean.reshape(-1), phi_new @ inner @ phi.T @ y.reshape(-1) / 0.2, atol=1e-10)
    assert torch.allclose(g.covariance.reshape(12, 12), phi_new @ inner @ phi_new.T, atol=1e-10)
    moved = torch.einsum("manb,nb->ma", post.influence(x_new), y)
    assert torch.allclose(moved, g.mean, atol=1e-10)
    prior = GaussianProcess(kernel).prior(x)
    assert torch.allclose(prior.covariance, kernel.blocks(x))


def test_many_coupled_outputs_become_the_trace_kernel_and_say_so(monkeypatch):
    monkeypatch.setattr(coupling, "COUPLED_LIMIT", 20)
    kernel = Features(2, 3, 60)
    x, y, x_new = data(outputs=3)
    post = GaussianProcess(kernel, noise=0.2).condition(x, y)
    assert post.outputs.startswith("trace kernel")
    trace = kernel(x)
    expected = kernel(x_new, x) @ torch.linalg.solve(trace + 0.2 * torch.eye(7), y)
    assert torch.allclose(post(x_new).mean, expected, atol=1e-10)


def test_labels_of_another_number_of_outputs_raise():
    x, y, _ = data()
    with pytest.raises(DataError, match="has 1 outputs, the kernel has 3"):
        GaussianProcess(Features(2, 3, 60)).condition(x, y)


def test_classes_are_one_hot_and_centred():
    x, _, x_new = data()
    classes = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    onehot = torch.nn.functional.one_hot(classes).double() - 1 / 3
    gp = GaussianProcess(RBF(), 0.1)
    assert torch.equal(gp.condition(x, classes)(x_new).mean, gp.condition(x, onehot)(x_new).mean)


def test_one_factorisation_serves_all(monkeypatch):
    x, y, x_new = data()
    calls = []
    decompose = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda matrix: calls.append(1) or decompose(matrix))
    gp = GaussianProcess(RBF().on(x), noise=0.1)
    gp.condition(x, y)(x_new)
    gp.condition(x, 2 * y).influence(x_new)
    gp.prior(x).log_prob(y)
    assert len(calls) == 1


def test_results_come_in_the_dtype_of_y():
    x, y, x_new = data()
    post = GaussianProcess(RBF(), 0.1).condition(x, y.float())
    assert post(x_new).mean.dtype == post.weights.dtype == post.influence(x_new).dtype == torch.float32


def test_save_and_load(tmp_path):
    x, y, x_new = data()
    post = GaussianProcess(RBF(), 0.1).condition(x, y.float())
    path = post.save(tmp_path / "post.npz")
    loaded = Posterior.load(path)
    assert torch.equal(loaded.weights, post.weights)
    with pytest.raises(DataError, match=r"Posterior.load\(path, kernel="):
        loaded(x_new)
    again = Posterior.load(path, kernel=RBF().on(x))
    assert torch.equal(again(x_new).mean, post(x_new).mean)
    assert again.to_dict()["labels"]["dtype"] == "torch.float32"


def test_an_ntk_in_standard_warns():
    kernel = FunctionKernel(lambda a, b: RBF()(a, b))
    kernel.origin = Origin("ntk", {"w": 1.0, "b": 1.0})
    with pytest.warns(PriorscopeWarning, match="NNGP"):
        GaussianProcess(kernel)
    kernel.origin = Origin("ntk", {"w": 0.1, "b": 0.01})
    GaussianProcess(kernel)
    kernel.origin = Origin("nngp")
    GaussianProcess(kernel)


def test_what_cannot_be_raises():
    with pytest.raises(DataError, match="noise"):
        GaussianProcess(RBF(), noise=-0.1)
    with pytest.raises(DataError, match="KernelPair"):
        GaussianProcess(KernelPair(RBF(), RBF()))
    with pytest.raises(DataError, match="outputs"):
        GaussianProcess(RBF()).prior(torch.randn(3, 1), outputs=0)
