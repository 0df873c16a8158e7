import math
from pathlib import Path

import numpy as np
import pytest
import torch

from priorscope import Training
from priorscope.beliefs import GaussianProcess
from priorscope.errors import DataError, NotCoveredError, PriorscopeWarning, SingularKernelError
from priorscope.kernels import RBF, FunctionKernel, KernelPair, Linear
from priorscope.training.ensemble import TrainedEnsemble, trained_ensemble
from priorscope.training.trajectory import trajectory
from tests.beliefs.kernels import Features

GOLDEN = Path(__file__).parents[1] / "golden" / "predict-fc-relu-3.npz"


def relu_limit(x1, x2, depth=3, weight_variance=2.0, bias_variance=0.01):
    """NNGP and NTK ("ntk" parameterization) of a ReLU network with `depth` hidden layers, as in the textbooks."""

    def covariance(a, b):
        return bias_variance + weight_variance * a @ b.T / a.shape[1]

    k, v1, v2 = covariance(x1, x2), np.diag(covariance(x1, x1)), np.diag(covariance(x2, x2))
    theta = k.copy()
    for _ in range(depth):
        size = np.sqrt(v1[:, None] * v2)
        angle = np.arccos(np.clip(k / size, -1, 1))
        slope = (np.pi - angle) / (2 * np.pi)
        k = bias_variance + weight_variance * size * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
        theta = k + weight_variance * theta * slope
        v1, v2 = (bias_variance + weight_variance * v / 2 for v in (v1, v2))
    return k, theta


def relu_pair():
    return KernelPair(
        *(FunctionKernel(lambda a, b, i=i: torch.as_tensor(relu_limit(a.numpy(), b.numpy())[i])) for i in (0, 1))
    )


@pytest.mark.parametrize(("name", "time"), [("t5", "time_t5"), ("t200", "time_t200"), ("inf", None)])
def test_the_golden_ensemble(name, time):
    with np.load(GOLDEN) as file:
        golden = {key: torch.as_tensor(file[key]) for key in file.files}
    ensemble = trained_ensemble(relu_pair(), golden["x_train"], golden["y_train"])
    law = ensemble(golden["x_test"], at=math.inf if time is None else float(golden[time]))
    for ours, theirs in ((law.mean, golden[f"ensemble_mean_{name}"]), (law.matrix, golden[f"ensemble_cov_{name}"])):
        assert float((ours - theirs).abs().max() / theirs.abs().max()) < 1e-7
    # It is not the posterior of the NNGP, which has its own golden values.
    posterior = GaussianProcess(relu_pair().nngp).condition(golden["x_train"], golden["y_train"])(golden["x_test"])
    assert float((posterior.mean - golden["nngp_mean"]).abs().max()) < 1e-7
    assert float((posterior.matrix - golden["nngp_cov"]).abs().max()) < 1e-7
    assert float((posterior.mean - law.mean).abs().max()) > 0.01


class RandomFeatures:
    """f(x) = φ(x)·w with w ~ N(0, I) and a learning rate c for each weight: nngp = φφᵀ, ntk = φ diag(c) φᵀ."""

    def __init__(self, inputs=2, width=25):
        self.map = torch.randn(inputs, width)
        self.rates = torch.rand(width) + 0.1

    def features(self, x):
        return torch.tanh(x @ self.map) / self.map.shape[1] ** 0.5

    @property
    def pair(self):
        return KernelPair(
            FunctionKernel(lambda a, b: self.features(a) @ self.features(b).T),
            FunctionKernel(lambda a, b: self.features(a) * self.rates @ self.features(b).T),
        )

    def trained(self, w, x, y, training):
        """Descent on every row of w, (s, width), in weight space."""
        phi, velocity = self.features(x), torch.zeros_like(w)
        scale, start = training.loss_scale(len(x), 1), w
        for step in range(training.steps):
            slope = scale * (w @ phi.T - y) @ phi * self.rates + training.weight_decay * (w - start)
            velocity = training.momentum * velocity + slope
            w = w - training.rate_at(step) * (slope + training.momentum * velocity if training.nesterov else velocity)
        return w

    def law(self, x, y, training, x_new):
        """Descent is an affine map of w: its image of N(0, I) is exact, without sampling."""
        width = self.map.shape[1]
        offset = self.trained(torch.zeros(1, width), x, y, training)
        matrix = self.trained(torch.eye(width), x, y, training) - offset
        phi_new = self.features(x_new)
        return (phi_new @ offset.T)[:, 0], phi_new @ matrix.T @ matrix @ phi_new.T


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"momentum": 0.8},
        {"momentum": 0.8, "nesterov": True},
        {"weight_decay": 0.1},
        {"weight_decay": 0.1, "momentum": 0.8, "nesterov": True, "schedule": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("loss", ["half_sse", "mse"])
def test_it_is_the_exact_law_of_trained_random_features(fields, loss):
    networks, extra = RandomFeatures(), {**fields}
    x, y, x_new = torch.randn(6, 2), torch.randn(6), torch.randn(4, 2)
    limit = trained_ensemble(networks.pair, x, y, Training(loss=loss)).step_limit
    rate = [limit / (2 + step) for step in range(80)] if extra.pop("schedule", False) else limit / 2
    training = Training(loss=loss, learning_rate=rate, steps=80, **extra)
    law = trained_ensemble(networks.pair, x, y, training)(x_new)
    mean, covariance = networks.law(x, y, training, x_new)
    assert torch.allclose(law.mean, mean, atol=1e-10)
    assert torch.allclose(law.covariance, covariance, atol=1e-10)


def test_sampled_networks_have_this_law_and_not_the_posteriors():
    networks, n = RandomFeatures(), 20_000
    x, y, x_new = torch.randn(6, 2), torch.randn(6), torch.randn(4, 2)
    training = Training(learning_rate=0.5, steps=400)
    trained = networks.trained(torch.randn(n, 25), x, y, training) @ networks.features(x_new).T
    law = trained_ensemble(networks.pair, x, y, training)(x_new)

    def distance(samples, of):
        return float((samples.T.cov() - of.covariance).norm() / of.covariance.norm())

    # The threshold is the 99.9 % quantile of the statistic under the law itself.
    null = sorted(distance(law.sample(n, seed=s), law) for s in range(1000))
    assert distance(trained, law) < null[998]
    for kernel in (networks.pair.nngp, networks.pair.ntk):
        assert distance(trained, GaussianProcess(kernel).condition(x, y)(x_new)) > 2 * null[998]


def test_label_noise_is_that_of_networks_with_labels_of_their_own():
    networks, n, variance = RandomFeatures(), 20_000, 0.5
    x, y, x_new = torch.randn(6, 2), torch.randn(6), torch.randn(4, 2)
    training = Training(learning_rate=0.5, steps=60)
    own = y + variance**0.5 * torch.randn(n, 6)
    trained = networks.trained(torch.randn(n, 25), x, own, training) @ networks.features(x_new).T
    law = trained_ensemble(networks.pair, x, y, training, label_noise=variance)(x_new)

    def distance(samples, of):
        return float((samples.T.cov() - of.covariance).norm() / of.covariance.norm())

    null = sorted(distance(law.sample(n, seed=s), law) for s in range(1000))
    assert distance(trained, law) < null[998]
    without = trained_ensemble(networks.pair, x, y, training)(x_new)
    assert distance(trained, without) > 2 * null[998]
    assert torch.equal(law.mean, without.mean)
    path = trajectory(networks.pair, x, y, training)
    A = path.influence(x_new)
    assert torch.allclose(law.covariance - without.covariance, variance * A @ A.T, atol=1e-12)
    for bad in (-0.1, math.inf, math.nan):
        with pytest.raises(DataError, match="label_noise: is"):
            trained_ensemble(networks.pair, x, y, training, label_noise=bad)


def test_before_training_it_is_the_prior():
    networks, x, x_new = RandomFeatures(), torch.randn(6, 2), torch.randn(4, 2)
    law = trained_ensemble(networks.pair, x, torch.randn(6))(x_new, at=0.0)
    assert torch.equal(law.mean, torch.zeros(4))
    assert torch.allclose(law.covariance, networks.pair.nngp(x_new))


def test_at_the_data_all_trained_networks_agree():
    networks, x, y = RandomFeatures(), torch.randn(6, 2), torch.randn(6)
    law = trained_ensemble(networks.pair, x, y)(x)
    assert torch.allclose(law.mean, y, atol=1e-8)
    assert law.rank == 0
    with pytest.raises(SingularKernelError):
        law.log_prob(y)


def test_outputs_are_independent():
    networks, x, y, x_new = RandomFeatures(), torch.randn(6, 2), torch.randn(6, 3), torch.randn(4, 2)
    training = Training(loss="half_sse", learning_rate=0.3, steps=20)
    law = trained_ensemble(networks.pair, x, y, training)(x_new)
    assert law.mean.shape == (4, 3)
    assert law.covariance.shape == (4, 3, 4, 3)
    for a in range(3):
        alone = trained_ensemble(networks.pair, x, y[:, a], training)(x_new)
        assert torch.allclose(law.mean[:, a], alone.mean)
        assert torch.allclose(law.covariance[:, a, :, a], alone.covariance)


def test_a_coupled_ntk():
    ntk = Features(2, 2, 40)
    x, y, x_new = torch.randn(5, 2), torch.randn(5, 2), torch.randn(3, 2)
    ensemble = trained_ensemble(KernelPair(RBF(), ntk), x, y)
    assert ensemble.outputs == "coupled"
    law = ensemble(x_new)
    theta, cross = ntk.blocks(x).reshape(10, 10), ntk.blocks(x_new, x).reshape(6, 10)
    A = cross @ torch.linalg.inv(theta)
    K, k, kk = (torch.kron(m, torch.eye(2)) for m in (RBF()(x), RBF()(x, x_new), RBF()(x_new)))
    assert torch.allclose(law.mean.reshape(-1), A @ y.reshape(-1), atol=1e-8)
    assert torch.allclose(law.covariance.reshape(6, 6), kk + A @ K @ A.T - A @ k - (A @ k).T, atol=1e-8)


def test_a_lone_kernel_raises():
    x, y = torch.randn(3, 1), torch.randn(3)
    for lone in (RBF(), RBF().on(x)):
        with pytest.raises(DataError, match=r"lone .*KernelPair\(nngp, ntk\)"):
            trained_ensemble(lone, x, y)


def test_warnings_and_refusals_are_those_of_trajectories():
    x, y = torch.randn(5, 1), torch.randn(5)
    pair = KernelPair(RBF(), RBF())
    with pytest.warns(PriorscopeWarning, match="beyond the limit"):
        trained_ensemble(pair, x, y, Training(learning_rate=100.0, steps=3))
    with pytest.raises(NotCoveredError, match="cross_entropy"):
        trained_ensemble(pair, x, y, Training(loss="cross_entropy"))


def test_a_pair_on_its_data_and_saved_results(tmp_path):
    x, y, x_new = torch.randn(5, 1), torch.randn(5), torch.randn(3, 1)
    pair = KernelPair(RBF(), Linear(1.0, 1.0))
    ensemble = trained_ensemble(pair.on(x), y, Training(time=2.0))
    law = ensemble(x_new)
    assert torch.equal(law.mean, trained_ensemble(pair, x, y, Training(time=2.0))(x_new).mean)
    path = ensemble.save(tmp_path / "ensemble.npz")
    with pytest.raises(DataError, match=r"pair=pair.on\(x\)"):
        TrainedEnsemble.load(path)(x_new)
    with pytest.raises(DataError, match="not on data"):
        TrainedEnsemble.load(path, pair=pair)(x_new)
    assert torch.equal(TrainedEnsemble.load(path, pair=pair.on(x))(x_new).mean, law.mean)


def test_label_noise_that_is_no_number_is_named():
    x, y = torch.randn(3, 2), torch.randn(3)
    with pytest.raises(DataError, match="label_noise: is 'a'"):
        trained_ensemble(KernelPair(RBF(), RBF()), x, y, label_noise="a")
