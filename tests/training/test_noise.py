"""Mini-batches: their mean and the covariance of their noise, against every order of tiny epochs and real trainings."""

import itertools

import pytest
import torch

import priorscope as ps
from priorscope import Training
from priorscope.errors import NotCoveredError
from priorscope.kernels import RBF, FunctionKernel, Kernel, KernelPair, Origin
from priorscope.network.derivatives import forward_product
from priorscope.training import noise
from priorscope.training.ensemble import trained_ensemble
from priorscope.training.trajectory import trajectory
from tests.beliefs.kernels import Features
from tests.statistics import BootstrappedMean, covariance_quantile, covariance_statistic
from tests.training.test_trajectory import LinearInParameters

# torch loads its forward derivatives once, with a warning of its own that this way of calling them silences.
forward_product(lambda values: values["t"], {"t": torch.zeros(1)}, {"t": torch.zeros(1)})


class Plain(Features):
    """Features of a module's only parameter, at its own rate."""

    origin = Origin("user")


def orders(sizes):
    """Every way in which an epoch may draw its batches: lists of 0-1 vectors, all equally probable."""
    n, found = sum(sizes), set()
    for order in itertools.permutations(range(n)):
        parts, first = [], 0
        for size in sizes:
            parts.append(tuple(sorted(order[first : first + size])))
            first += size
        found.add(tuple(parts))
    for parts in sorted(found):
        yield [torch.tensor([float(i in part) for i in range(n)]) for part in parts]


def descended(theta, phi, y, training, marks):
    """SGD in weight space on f = φ θ, φ (n, o, p): `marks` say how much each point counts at each step."""
    start, velocity, sizes = theta, torch.zeros_like(theta), training.batch_sizes(len(y))
    for step, mark in enumerate(marks):
        size = sizes[step % len(sizes)]
        scale = 1.0 if training.loss == "half_sse" else 2 / (size * y.shape[1])
        wrong = mark[:, None] * (phi @ theta - y)
        slope = scale * torch.einsum("nop,no->p", phi, wrong)
        slope = slope + training.weight_decay * (theta - (start if training.decay_to == "start" else 0.0))
        velocity = training.momentum * velocity + slope
        move = slope + training.momentum * velocity if training.nesterov else velocity
        theta = theta - training.rate_at(step) * move
    return theta


def shares(training, points, steps):
    sizes = training.batch_sizes(points)
    return [torch.full((points,), sizes[k % len(sizes)] / points) for k in range(steps)]


def expanded(theta, phi, y, training, steps):
    """The derivatives of the trained weights along every order of every epoch, [(orders, p)], around the mean."""
    mean, sizes = torch.stack(shares(training, len(y), steps)), training.batch_sizes(len(y))
    for first in range(0, steps, len(sizes)):
        last = min(first + len(sizes), steps)
        drawn = torch.stack([torch.stack(marks[: last - first]) for marks in orders(sizes)])
        change = torch.zeros(len(drawn), *mean.shape)
        change[:, first:last] = drawn - mean[first:last]

        def along(change):
            return torch.func.jvp(lambda m: descended(theta, phi, y, training, list(m)), (mean,), (change,))[1]

        yield torch.func.vmap(along)(change)


TRAININGS = [
    {},
    {"loss": "mse", "learning_rate": 0.1},
    {"momentum": 0.6},
    {"momentum": 0.6, "nesterov": True, "weight_decay": 0.2},
    {"weight_decay": 0.3, "decay_to": "zero", "loss": "mse"},
    {"learning_rate": [0.03, 0.01, 0.0, 0.02, 0.025, 0.01, 0.005], "momentum": 0.3},
]


@pytest.mark.parametrize("fields", TRAININGS, ids=str)
@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("steps", [6, 7])
def test_the_covariance_is_that_of_the_linear_expansion_over_all_orders(fields, outputs, steps):
    """5 points in batches of 2, 2 and 1: the second epoch is whole after 6 steps, the third has begun after 7."""
    kernel = Plain(2, outputs, 9)
    model = LinearInParameters(kernel)
    x, y, x_new = torch.randn(5, 2), torch.randn(5, outputs), torch.randn(3, 2)
    training = Training(**{"learning_rate": 0.02, "steps": 7, **fields}, batch_size=2)
    path = trajectory(kernel, x, y, training, start=model)
    assert path.outputs == ("independent" if outputs == 1 else "coupled")
    phi, phi_new, theta = kernel.features(x), kernel.features(x_new), model.theta.detach()
    mean = descended(theta, phi, y, training, shares(training, 5, steps))
    torch.testing.assert_close(path(x_new, at=steps), phi_new @ mean, rtol=1e-10, atol=1e-10)
    covariance = torch.zeros(3 * outputs, 3 * outputs)
    for moved in expanded(theta, phi, y, training, steps):
        functions = torch.einsum("mop,sp->smo", phi_new, moved).flatten(1)
        assert torch.allclose(functions.mean(0), torch.zeros(3 * outputs), atol=1e-12)
        covariance += functions.T @ functions / len(functions)
    law = path.noise(x_new, at=steps)
    torch.testing.assert_close(law.covariance.reshape(covariance.shape), covariance, rtol=1e-9, atol=1e-12)
    assert torch.equal(law.mean, torch.zeros(3, outputs))


def test_outputs_share_the_batches_and_null_modes_move_nothing():
    phi = torch.randn(2, 3)
    kernel = FunctionKernel(lambda a, b: a @ phi @ phi.T @ b.T)  # rank 2 of 5 points
    x, y, x_new = torch.randn(5, 2), torch.randn(5, 2), torch.randn(3, 2)
    training = Training(learning_rate=0.1, steps=7, batch_size=2)
    law = trajectory(kernel, x, y, training).noise(x_new)
    features = torch.stack([torch.stack([x @ phi, torch.zeros(5, 3)]), torch.stack([torch.zeros(5, 3), x @ phi])])
    whole = features.permute(2, 0, 1, 3).reshape(5, 2, 6)
    new = torch.stack([torch.stack([x_new @ phi, torch.zeros(3, 3)]), torch.stack([torch.zeros(3, 3), x_new @ phi])])
    covariance = torch.zeros(6, 6)
    for moved in expanded(torch.zeros(6), whole, y, training, 7):
        functions = torch.einsum("mop,sp->smo", new.permute(2, 0, 1, 3).reshape(3, 2, 6), moved).flatten(1)
        covariance += functions.T @ functions / len(functions)
    torch.testing.assert_close(law.covariance.reshape(6, 6), covariance, rtol=1e-9, atol=1e-12)
    assert float(law.covariance[:, 0, :, 1].abs().max()) > 1e-4


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("fields", [{}, {"momentum": 0.5, "weight_decay": 0.1, "loss": "mse"}], ids=str)
@pytest.mark.parametrize("label_noise", [0.0, 0.4])
def test_an_ensemble_adds_the_noise_of_its_own_residuals(outputs, fields, label_noise):
    """f = φ·w with w ~ N(0, I): what an order adds is affine in (w, the noise of the labels), so its law is exact."""
    width, steps = 6, 5
    maps, rates = torch.randn(2, width), torch.rand(width) + 0.1
    pair = KernelPair(
        FunctionKernel(lambda a, b: torch.tanh(a @ maps) @ torch.tanh(b @ maps).T),
        FunctionKernel(lambda a, b: torch.tanh(a @ maps) * rates @ torch.tanh(b @ maps).T),
    )
    x, y, x_new = torch.randn(4, 2), torch.randn(4, outputs), torch.randn(3, 2)
    training = Training(**{"learning_rate": 0.2, "steps": steps, "batch_size": 2, **fields})
    # In the coordinates w/√c descent is plain.
    phi, phi_new = (torch.tanh(p @ maps) * rates.sqrt() for p in (x, x_new))
    law = trained_ensemble(pair, x, y, training, label_noise=label_noise)(x_new)
    full = Training(**{**vars(training), "batch_size": None})
    bare = _on_mean_scale(pair, x, y, training, full, label_noise, x_new)
    added = torch.zeros(3 * outputs, 3 * outputs)
    units = [(w, torch.zeros(4, outputs)) for w in torch.eye(width * outputs)]
    units += [(torch.zeros(width * outputs), e.reshape(4, outputs)) for e in label_noise**0.5 * torch.eye(4 * outputs)]
    whole = torch.einsum("np,oq->noqp", phi, torch.eye(outputs)).reshape(4, outputs, -1)
    new = torch.einsum("np,oq->noqp", phi_new, torch.eye(outputs)).reshape(3, outputs, -1)
    root = rates.sqrt().repeat(outputs)
    for w, e in [(torch.zeros(width * outputs), y), *units]:
        # Each unit is one start of its own, with labels of its own.
        for moved in expanded(w / root, whole, e, training, steps):
            functions = torch.einsum("mop,sp->smo", new, moved).flatten(1)
            added += functions.T @ functions / len(functions)
    torch.testing.assert_close(law.covariance.reshape(added.shape), bare + added, rtol=1e-8, atol=1e-10)
    assert float(added.diagonal().min()) > 0


def _on_mean_scale(pair, x, y, training, full, label_noise, x_new):
    """The covariance without the noise of batches: that of full-batch descent at the mean step."""
    factor = training.mean_scale(*y.shape) / full.mean_scale(*y.shape)
    law = trained_ensemble(pair, x, y, full.scaled(factor), label_noise=label_noise)(x_new)
    return law.covariance.reshape(3 * y.shape[1], 3 * y.shape[1])


def exact_moments(phi, y, rate, size, steps):
    """Mean and covariance of the weights after real mini-batch descent: every order of every epoch, exactly."""
    n, p = phi.shape
    sizes = Training(learning_rate=1.0, steps=1, batch_size=size).batch_sizes(n)
    second = torch.zeros(p + 1, p + 1)
    second[-1, -1] = 1.0  # E[(θ, 1)(θ, 1)ᵀ]
    for first in range(0, steps, len(sizes)):
        maps = []
        for marks in orders(sizes):
            whole = torch.eye(p + 1)
            for mark in marks[: steps - first]:
                step = torch.eye(p + 1)
                step[:p, :p] -= rate * phi.T @ (mark[:, None] * phi)
                step[:p, p] = rate * phi.T @ (mark * y)
                whole = step @ whole
            maps.append(whole)
        second = torch.stack([m @ second @ m.T for m in maps]).mean(0)
    mean = second[:p, p]
    return mean, second[:p, :p] - torch.outer(mean, mean)


def errors(steps, rates, n=5, size=2):
    """How far the prediction is from the exact moments of mini-batch descent: mean, and relative covariance."""
    phi, y = torch.randn(n, 6), torch.randn(n)
    kernel = FunctionKernel(lambda a, b: a @ b.T)
    found = []
    for rate in rates:
        mean, covariance = exact_moments(phi, y, rate, size, steps)
        path = trajectory(kernel, phi, y, Training(learning_rate=rate, steps=steps, batch_size=size))
        law, exact = path.noise(torch.eye(6)).covariance, covariance
        found.append((float((path(torch.eye(6)) - mean).norm()), float((law - exact).norm() / exact.norm())))
    return found


def test_the_error_of_the_mean_is_of_second_order_and_that_of_the_covariance_of_first():
    (mean_1, covariance_1), (mean_2, covariance_2) = errors(8, (2e-3, 1e-3))
    assert mean_1 / mean_2 == pytest.approx(4, rel=0.1)
    assert covariance_1 / covariance_2 == pytest.approx(2, rel=0.1)
    assert covariance_2 < 0.02


def test_at_the_end_of_an_epoch_terms_of_the_same_order_are_left_out_as_the_docstring_says():
    (_, first), (_, second) = errors(6, (2e-3, 1e-3))
    assert first == pytest.approx(second, rel=0.1), "it does not fall with the learning rate"
    assert second < 0.5


def test_really_trained_networks():
    kernel = Features(2, 1, 30)
    model, runs = LinearInParameters(kernel), 500
    x, y, x_new = torch.randn(8, 2), torch.randn(8), torch.randn(3, 2)
    limit = trajectory(kernel, x, y, Training(learning_rate=1e-9, steps=1)).step_limit
    training = Training(learning_rate=2e-3 * limit, steps=10, batch_size=3, momentum=0.5)  # an epoch has 3 steps
    path = trajectory(kernel, x, y, training, start=model)
    ended = [ps.train(model, x, y, training, record=x_new, at=[], seed=seed).outputs[-1, :, 0] for seed in range(runs)]
    samples, law = torch.stack(ended), path.noise(x_new).covariance
    statistic = float(covariance_statistic(samples, law))
    quantile = covariance_quantile(law, runs, 2000, seed=1)
    assert statistic < quantile, (statistic, quantile)
    bootstrapped = BootstrappedMean.of(samples, 2000, seed=1)
    assert bootstrapped.statistic(path(x_new)) < bootstrapped.quantile
    # The test can fail: half the batch size is another law.
    other = trajectory(kernel, x, y, Training(**{**vars(training), "batch_size": 2}), start=model)
    assert float(covariance_statistic(samples, other.noise(x_new).covariance)) > 2 * quantile


def test_full_batch_and_flow_have_no_noise():
    kernel = Features(2, 1, 9)
    x, y = torch.randn(5, 2), torch.randn(5)
    for training in (Training(learning_rate=0.1, steps=4, batch_size=5), Training(time=1.0)):
        path = trajectory(kernel, x, y, training)
        assert float(path.noise(x).covariance.abs().max()) == 0.0
        assert path.notes == ()
    assert "first order" in trajectory(kernel, x, y, Training(learning_rate=0.1, steps=4, batch_size=3)).notes[0]


def test_several_sets_of_labels_at_once_on_half_sse():
    x, y, x_new = torch.randn(5, 2), torch.randn(5, 1), torch.randn(3, 2)
    kernel = Features(2, 1, 9)
    for size in (5, 2, 3):
        t = Training(loss="mse", learning_rate=0.04, steps=6, batch_size=size)
        same = trajectory(kernel, x, y, t.on_half_sse(5, 1))
        mean = trajectory(kernel, x, y, t)
        torch.testing.assert_close(same(x_new), mean(x_new), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(same.noise(x_new).covariance, mean.noise(x_new).covariance, rtol=1e-9, atol=1e-12)
    with pytest.raises(NotCoveredError, match="divides the number of points"):
        Training(loss="mse", learning_rate=0.4, steps=6, batch_size=2, momentum=0.5).on_half_sse(5, 1)


class Blocks(Kernel):
    """k ⊗ identity of two outputs, said as a kernel that couples them."""

    coupled = True

    def __init__(self, kernel):
        self.kernel = kernel

    def matrix(self, x1, x2):
        return self.kernel(x1, x2)

    def variances(self, x):
        return self.kernel.diagonal(x)

    def tensor4(self, x1, x2):
        return torch.einsum("mn,op->monp", self.kernel(x1, x2), torch.eye(2))


def test_coupled_outputs_that_do_not_couple_are_independent_ones():
    x, y, x_new = torch.randn(5, 2), torch.randn(5, 2), torch.randn(3, 2)
    training = Training(learning_rate=0.1, steps=8, batch_size=2)
    pairs = [KernelPair(RBF(0.5), ntk) for ntk in (RBF(), Blocks(RBF()))]
    one, two = (trained_ensemble(pair, x, y, training, label_noise=0.1) for pair in pairs)
    assert (one.outputs, two.outputs) == ("independent", "coupled")
    torch.testing.assert_close(two(x_new).covariance, one(x_new).covariance, rtol=1e-9, atol=1e-12)
    one, two = (trajectory(pair.ntk, x, y, training).noise(x_new).covariance for pair in pairs)
    torch.testing.assert_close(two, one, rtol=1e-9, atol=1e-12)


def test_many_starts_in_parts(monkeypatch):
    x, y, x_new = torch.randn(5, 2), torch.randn(5), torch.randn(3, 2)
    ensemble = trained_ensemble(KernelPair(RBF(0.5), RBF()), x, y, Training(learning_rate=0.1, steps=8, batch_size=2))
    whole = ensemble(x_new).covariance
    monkeypatch.setattr(noise, "AT_ONCE", 2 * 3 * 5)
    torch.testing.assert_close(ensemble(x_new).covariance, whole, rtol=1e-12, atol=1e-14)
