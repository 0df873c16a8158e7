import math

import pytest
import torch
from torch import nn

from priorscope import EmpiricalNTK, Training
from priorscope.beliefs import GaussianProcess, Posterior, Spectrum, coupling, eigenmodes
from priorscope.errors import (
    DataError,
    ModelError,
    NotCoveredError,
    PriorscopeError,
    PriorscopeWarning,
    RatesError,
)
from priorscope.kernels import RBF, KernelPair, Linear, Origin
from priorscope.linalg.symmetric import Eigendecomposition
from priorscope.training.ensemble import TrainedEnsemble, trained_ensemble
from priorscope.training.trajectory import Trajectory, trajectory
from tests.beliefs.kernels import Features
from tests.cases import mlp


class LinearInParameters(nn.Module):
    """f_a(x) = Σ_p φ_ap(x) θ_p: its kernel never moves."""

    def __init__(self, kernel: Features):
        super().__init__()
        self.kernel = kernel
        self.theta = nn.Parameter(torch.randn(kernel.map.shape[2]))

    def forward(self, x):
        return self.kernel.features(x) @ self.theta


def data(n=6, d=2, m=4, outputs=None):
    y = torch.randn(n) if outputs is None else torch.randn(n, outputs)
    return torch.randn(n, d), y, torch.randn(m, d)


def loss_of(training, outputs, y):
    if training.loss == "mse":
        return nn.functional.mse_loss(outputs, y)
    return (outputs - y).square().sum() / 2


@pytest.mark.parametrize("outputs", [None, 2])
def test_flow_is_its_euler_integration(outputs):
    x, y, x_new = data(outputs=outputs)
    path = trajectory(RBF(), x, y, Training())
    everything = torch.cat([x, x_new])
    rows = RBF()(everything, x)
    f, dt = torch.zeros(len(everything), *y.shape[1:]), 1e-4
    for _ in range(10_000):
        # Heun's step: its error is of order dt².
        slope = rows @ (y - f[:6])
        f = f + dt * (slope + rows @ (y - (f + dt * slope)[:6])) / 2
    assert torch.allclose(path(everything, at=1.0), f, atol=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.7])
@pytest.mark.parametrize("loss", ["half_sse", "mse"])
@pytest.mark.parametrize("outputs", [1, 3])
def test_a_really_trained_network_that_is_linear_in_its_parameters(momentum, loss, outputs):
    kernel = Features(2, outputs, 30)
    x, y, x_new = data(outputs=outputs)
    model = LinearInParameters(kernel)
    limit = trajectory(kernel, x, y, Training(loss=loss)).step_limit
    training = Training(loss=loss, learning_rate=0.4 * limit, momentum=momentum, steps=60)
    path = trajectory(kernel, x, y, training, start=model)
    assert path.outputs == ("independent" if outputs == 1 else "coupled")
    before = path(x_new, at=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=training.learning_rate, momentum=momentum)
    assert torch.allclose(before, model(x_new), atol=1e-12)
    losses = []
    for _ in range(60):
        loss_now = loss_of(training, model(x), y)
        losses.append(float(loss_now.detach()))
        optimizer.zero_grad()
        loss_now.backward()
        optimizer.step()
    assert torch.allclose(path(x_new), model(x_new).detach(), atol=1e-8)
    assert torch.allclose(path(x), model(x).detach(), atol=1e-8)
    assert path.losses(range(60)).tolist() == pytest.approx(losses, rel=1e-8)
    assert torch.allclose(path(x_new, at=0), before), "the start is a copy"


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_descent_is_the_loop_in_function_space(momentum):
    x, y, x_new = data()
    training = Training(learning_rate=0.2, momentum=momentum, steps=37)
    path = trajectory(RBF(), x, y, training)
    everything = torch.cat([x, x_new])
    rows, f = RBF()(everything, x), torch.zeros(10)
    velocity, along = torch.zeros(10), [f]
    for _ in range(37):
        velocity = momentum * velocity + rows @ (f[:6] - y)
        f = f - 0.2 * velocity
        along.append(f)
    assert torch.allclose(path(everything), f, atol=1e-12)
    assert torch.allclose(path(everything, at=range(38)), torch.stack(along), atol=1e-12)


def test_the_end_of_training_is_kernel_regression():
    x, y, x_new = data()
    path = trajectory(RBF(), x, y)
    assert torch.allclose(path(x_new), GaussianProcess(RBF()).condition(x, y)(x_new).mean, atol=1e-10)
    assert torch.equal(path(x_new), path(x_new, at=math.inf))
    assert float(path.losses()) == 0.0


def test_the_trained_limit_starts_from_the_network():
    x, y, x_new = data()
    model = mlp(2, 8, 1)
    path = trajectory(RBF(), x, y, start=model)
    with torch.no_grad():
        f0, f0_new = model(x)[:, 0], model(x_new)[:, 0]
    expected = f0_new + RBF()(x_new, x) @ torch.linalg.solve(RBF()(x), y - f0)
    assert torch.allclose(path(x_new), expected, atol=1e-9)


def test_null_modes_are_never_learned():
    x, y, x_new = data()
    path = trajectory(Linear(), x, y)
    least_squares = torch.linalg.lstsq(x, y).solution
    assert torch.allclose(path(x_new), x_new @ least_squares, atol=1e-10)
    assert len(path.values) == 2
    rest = y - x @ least_squares
    assert float(path.losses()) == pytest.approx(float(rest @ rest) / 2, rel=1e-10)


def test_shapes_are_those_of_y():
    for outputs in (None, 1, 3):
        x, y, x_new = data(outputs=outputs)
        path = trajectory(RBF(), x, y)
        one = (4,) if outputs is None else (4, outputs)
        assert path(x_new).shape == path(x_new, at=1).shape == path(x_new, at=torch.tensor(1.0)).shape == one
        assert path(x_new, at=[1.0, 2.0]).shape == path(x_new, at=torch.tensor([1.0, 2.0])).shape == (2, *one)
        assert path.losses([0.0, math.inf]).shape == (2,)


def test_half_lives_and_the_flow_agree():
    x, y, _ = data()
    path = trajectory(RBF(), x, y, Training(loss="mse"))
    modes = RBF().on(x).eigen.vectors
    for i in range(6):
        left = modes[:, i] @ (y - path(x, at=float(path.half_lives[i])))
        assert float(left / (modes[:, i] @ y)) == pytest.approx(0.5, rel=1e-8)


def test_a_step_beyond_the_limit_warns_and_is_exact():
    x, y, _x_new = data()
    limit = trajectory(RBF(), x, y).step_limit
    with pytest.warns(PriorscopeWarning, match=f"beyond the limit {limit:.4g}"):
        path = trajectory(RBF(), x, y, Training(learning_rate=1.1 * limit, steps=50))
    f = torch.zeros(6)
    for _ in range(50):
        f = f - 1.1 * limit * RBF()(x) @ (f - y)
    assert torch.allclose(path(x), f, rtol=1e-9)
    assert float(path.losses()) > 10 * float(path.losses(0))


def test_trainings_outside_the_theory_raise():
    x, y, _ = data()
    with pytest.raises(NotCoveredError, match="optimizer='adam'"):
        trajectory(RBF(), x, y, Training(learning_rate=0.1, steps=5, optimizer="adam"))
    decays = Training(learning_rate=0.1, steps=5, weight_decay=0.1, decay_to="zero")
    with pytest.raises(NotCoveredError, match=r"decay_to='zero'\).*Give trajectory\(..., start=model\)"):
        trajectory(RBF(), x, y, decays)
    with pytest.raises(NotCoveredError, match=r"decay_to='zero'\).*or decay_to='start'"):
        trained_ensemble(KernelPair(RBF(), RBF()), x, y, decays)
    model = mlp(2, 4, 1)
    with pytest.raises(RatesError, match="the kernel's rates are of w"):
        trajectory(Features(2, 1, 9), x, y, decays, start=model)


def test_weight_decay_to_the_start_ends_in_ridge_regression():
    """The ridge is the decay over the loss's scale."""
    x, y, x_new = data(outputs=2)
    for loss, scale in (("half_sse", 1.0), ("mse", 2 / 12)):
        path = trajectory(RBF(), x, y, Training(loss=loss, weight_decay=0.3))
        ridge = GaussianProcess(RBF(), noise=0.3 / scale).condition(x, y)
        assert torch.allclose(path(x_new), ridge(x_new).mean, atol=1e-12)
    low = trajectory(Linear(), x, y, Training(weight_decay=0.3))
    expected = x_new @ torch.linalg.solve(x.T @ x + 0.3 * torch.eye(2), x.T @ y)
    assert torch.allclose(low(x_new), expected, atol=1e-12), "null modes are 0 off the data"


def test_a_schedule_beyond_the_limit_says_so_and_is_exact():
    x, y, _ = data()
    limit = trajectory(RBF(), x, y).step_limit
    rates = [1.2 * limit, 1.1 * limit, *[0.5 * limit] * 30]
    with pytest.warns(PriorscopeWarning, match=rf"rates of 2 of 32 steps, up to {1.2 * limit:.4g}, are beyond"):
        path = trajectory(RBF(), x, y, Training(learning_rate=rates))
    f = torch.zeros(6)
    for rate in rates:
        f = f - rate * RBF()(x) @ (f - y)
    assert torch.allclose(path(x), f, rtol=1e-9)
    assert trajectory(RBF(), x, y, Training(learning_rate=[0.9 * limit])).step_limit == pytest.approx(limit)


def test_the_flow_that_a_descent_follows_by_order():
    """One step leaves the flow by O(η²), the corrected one by O(η³); a training to a given time by O(η) and O(η²)."""
    x, y, x_new = data()
    for extra in ({}, {"weight_decay": 0.3}):

        def gap(rate, steps, order, extra=extra):
            path = trajectory(RBF(), x, y, Training(learning_rate=rate, steps=steps, **extra))
            return float((path.as_flow(order)(x_new) - path(x_new)).norm())

        for order, local, whole in ((0, 2, 1), (1, 3, 2)):
            assert math.log2(gap(2e-3, 1, order) / gap(1e-3, 1, order)) == pytest.approx(local, abs=0.02)
            assert math.log2(gap(2e-3, 500, order) / gap(1e-3, 1000, order)) == pytest.approx(whole, abs=0.02)


def test_the_corrected_flow_is_that_of_the_regularised_loss():
    """dθ/dt = −∇(L + (η/4)‖∇L‖²) by small Heun steps, with the rates of a kernel and weight decay to zero."""
    kernel = Features(2, 1, 9)
    kernel.origin = Origin("user")
    model = LinearInParameters(kernel)
    x, y, x_new = data()
    t = Training(loss="mse", learning_rate=0.02, steps=10, weight_decay=0.3, decay_to="zero")
    flow = trajectory(kernel, x, y, t, start=model).as_flow(1)
    theta, phi = model.theta.detach(), kernel.features(x)[:, 0]

    def slope(theta):
        def loss(theta):
            return (phi @ theta - y).square().mean() + 0.15 * theta @ theta

        return -torch.func.grad(lambda v: loss(v) + 0.02 / 4 * torch.func.grad(loss)(v).square().sum())(theta)

    for _ in range(400):
        first = slope(theta)
        theta = theta + 5e-4 * (first + slope(theta + 5e-4 * first)) / 2
    assert torch.allclose(flow(x_new), (kernel.features(x_new)[:, 0] @ theta), atol=1e-6)
    assert float((flow(x_new) - trajectory(kernel, x, y, t, start=model).as_flow(0)(x_new)).abs().max()) > 1e-5
    assert flow.training.time == pytest.approx(0.2)


def test_what_follows_no_flow():
    x, y, _ = data()
    for fields in ({"momentum": 0.5}, {"batch_size": 2}, {"learning_rate": [0.1, 0.1]}):
        with pytest.raises(NotCoveredError, match="as_flow"):
            trajectory(RBF(), x, y, Training(**{"learning_rate": 0.1, "steps": 2, **fields})).as_flow()
    with pytest.raises(NotCoveredError, match="as_flow"):
        trajectory(RBF(), x, y).as_flow()
    with pytest.raises(DataError, match="order: is 2"):
        trajectory(RBF(), x, y, Training(learning_rate=0.1, steps=2)).as_flow(2)


def test_what_is_no_training_raises():
    x, y, _ = data()
    for place, use in (
        ("trajectory", lambda: trajectory(RBF(), x, y, "adam")),
        ("trained_ensemble", lambda: trained_ensemble(KernelPair(RBF(), RBF()), x, y, "adam")),
    ):
        with pytest.raises(PriorscopeError, match=f"{place}: was given a str as its training"):
            use()


def test_until_loss_is_said_to_be_a_cap():
    x, y, _ = data()
    path = trajectory(RBF(), x, y, Training(learning_rate=0.1, steps=50, until_loss=0.01))
    assert "50 steps" in path.notes[0]
    assert trajectory(RBF(), x, y).notes == ()


def test_the_trace_kernel_says_so(monkeypatch):
    monkeypatch.setattr(coupling, "COUPLED_LIMIT", 10)
    x, y, x_new = data(outputs=3)
    path = trajectory(Features(2, 3, 60), x, y)
    assert path.outputs.startswith("trace kernel")
    kernel = Features(2, 3, 60)
    assert torch.allclose(path(x_new), kernel(x_new, x) @ torch.linalg.solve(kernel(x), y), atol=1e-9)


def test_a_kernel_on_its_data_and_a_pair_are_accepted():
    x, y, x_new = data()
    expected = trajectory(RBF(), x, y)(x_new, at=1.0)
    assert torch.equal(trajectory(RBF().on(x), y)(x_new, at=1.0), expected)
    frozen, t = RBF().on(x), Training(time=1.0)
    for path in (
        trajectory(frozen, x, y, t),
        trajectory(frozen, x.clone(), y, t),
        trajectory(frozen, x=x.clone(), y=y),
    ):
        assert path.kernel is frozen
        assert torch.equal(path(x_new, at=1.0), expected)
    assert torch.equal(trajectory(KernelPair(Linear(), RBF()), x, y)(x_new, at=1.0), expected)


def test_classes_and_dtypes():
    x, _, x_new = data()
    path = trajectory(RBF(), x, torch.tensor([0, 1, 2, 0, 1, 2]))
    assert path(x_new).shape == (4, 3)
    single = trajectory(RBF(), x.float(), torch.randn(6, dtype=torch.float32), start=mlp(2, 4, 1).float())
    assert single(x_new.float(), at=1.0).dtype == single.half_lives.dtype == torch.float32


def test_what_cannot_be_a_start_raises():
    x, y, _ = data()
    with pytest.raises(DataError, match="start: has 2 outputs, y asks for 1"):
        trajectory(RBF(), x, y, start=mlp(2, 4, 2))
    with pytest.raises(ModelError, match="start: is a float"):
        trajectory(RBF(), x, y, start=1.0)
    with pytest.raises(ModelError, match=r"`1` \(nn.Dropout\) is in training mode|eval\(\)"):
        trajectory(RBF(), x, y, start=nn.Sequential(nn.Linear(2, 4), nn.Dropout(), nn.Linear(4, 1)))
    model = mlp(2, 4, 1)
    trajectory(RBF(), x, y, start=model)
    assert model.training


def test_times_that_cannot_be_raise():
    x, y, x_new = data()
    with pytest.raises(DataError, match="at: is empty"):
        trajectory(RBF(), x, y)(x_new, at=[])
    with pytest.raises(DataError, match="whole steps"):
        trajectory(RBF(), x, y, Training(learning_rate=0.1, steps=5))(x_new, at=1.5)


def test_save_and_load(tmp_path):
    x, y, x_new = data()
    model = mlp(2, 4, 1)
    path = trajectory(RBF(), x, y, Training(learning_rate=0.1, steps=5), start=model)
    file = path.save(tmp_path / "path.npz")
    loaded = Trajectory.load(file)
    assert torch.equal(loaded.half_lives, path.half_lives)
    assert torch.equal(loaded.losses([0, 5]), path.losses([0, 5]))
    assert loaded.training == path.training
    with pytest.raises(DataError, match=r"Trajectory.load\(path, kernel="):
        loaded(x_new)
    with pytest.raises(DataError, match="start=model"):
        Trajectory.load(file, kernel=RBF().on(x))(x_new)
    assert torch.equal(Trajectory.load(file, kernel=RBF().on(x), start=model)(x_new), path(x_new))


def test_what_weight_decay_to_zero_needs_is_saved(tmp_path):
    x, y, x_new = data()
    model, t = mlp(2, 4, 1), Training(learning_rate=[0.1, 0.05], weight_decay=0.2, decay_to="zero", batch_size=3)
    path = trajectory(RBF(), x, y, t, start=model)
    file = path.save(tmp_path / "path.npz")
    assert torch.equal(Trajectory.load(file).losses(), path.losses())
    loaded = Trajectory.load(file, kernel=RBF().on(x), start=model)
    assert loaded.training == t
    assert torch.equal(loaded(x_new), path(x_new))
    assert torch.equal(loaded.noise(x_new).covariance, path.noise(x_new).covariance)


def test_a_loaded_result_works_with_its_own_kernel_only(tmp_path):
    """Degenerate pairs: another basis of the same space on every decomposition of another matrix in memory."""
    angle = torch.arange(8) * math.pi / 4
    x, y = torch.stack([angle.cos(), angle.sin()], 1), torch.randn(8)
    x_new = torch.nn.functional.normalize(torch.randn(3, 2))
    path, training = tmp_path / "result.npz", Training(time=0.3)
    results = {
        Trajectory: (trajectory(RBF(), x, y, training), "kernel", lambda r: r(x_new)),
        Spectrum: (eigenmodes(RBF(), x), "kernel", lambda r: r.extend(x_new)),
        Posterior: (GaussianProcess(RBF()).condition(x, y), "kernel", lambda r: r(x_new).mean),
        TrainedEnsemble: (trained_ensemble(KernelPair(RBF(), RBF()), x, y), "pair", lambda r: r(x_new).mean),
    }
    # A rotation of one pair's plane, as another linear algebra library may give it.
    turned, vectors = RBF().on(x), RBF().on(x).eigen.vectors.clone()
    vectors[:, 1:3] = vectors[:, 1:3] @ torch.tensor([[0.6, -0.8], [0.8, 0.6]])
    turned.__dict__["eigen"] = Eigendecomposition(turned.eigen.values, vectors, turned.eigen.tolerance)
    for kind, (result, name, use) in results.items():
        result.save(path)

        def load(kernel, kind=kind, name=name, use=use):
            return use(kind.load(path, **{name: kernel if name == "kernel" else KernelPair(kernel, kernel)}))

        assert torch.allclose(load(turned), use(result), atol=1e-9)
        with pytest.raises(DataError, match=rf"{kind.__name__}: was given a RBF that is not on data. Give"):
            load(RBF())
        for wrong in (RBF(1.1).on(x), RBF().on(x.flip(0)), RBF().on(x[:5])):
            with pytest.raises(DataError, match="another kernel, or other data"):
                load(wrong)


def test_influence_is_what_each_label_moves():
    x, x_new, y = torch.randn(5, 2), torch.randn(3, 2), torch.randn(5)
    decays = Training(learning_rate=[0.1] * 9, momentum=0.5, nesterov=True, weight_decay=0.2, batch_size=2)
    for t in (Training(time=0.7), Training(), Training(learning_rate=0.1, momentum=0.5, steps=9), decays):
        path = trajectory(RBF(), x, y, t)
        assert torch.allclose(path.influence(x_new) @ y, path(x_new))


def test_several_sets_of_labels_have_no_common_mean_loss():
    import priorscope as ps

    init = ps.Initialization(2.0, 0.1, "ntk")
    limit = ps.infinite_width(init.apply_(mlp(2, 8, 3), 0), init)
    x, y = torch.randn(5, 2), torch.randn(5, 6)
    half = trajectory(limit.ntk, x, y, Training(time=2.0))(x)
    one = trajectory(limit.ntk, x, y[:, :3], Training(loss="mse", time=2.0 * 15 / 2))(x)
    assert torch.allclose(half[:, :3], one)
    for ask in (lambda t: trajectory(limit.ntk, x, y, t), lambda t: ps.trained_ensemble(limit, x, y, t)):
        with pytest.raises(DataError, match="no common mean loss"):
            ask(Training(loss="mse", time=1.0))


def test_another_start_network_is_seen(tmp_path):
    x, y, model, other = torch.randn(5, 2), torch.randn(5), mlp(2, 4, 1), mlp(2, 4, 1)
    file = trajectory(RBF(), x, y, start=model).save(tmp_path / "path.npz")
    with pytest.raises(DataError, match="start: is not the network that this prediction starts from"):
        Trajectory.load(file, kernel=RBF().on(x), start=other)(x)
    entropy = Training("cross_entropy", time=1.0)
    classes, wide, wider = torch.tensor([0, 1, 0, 1, 1]), mlp(2, 4, 2), mlp(2, 4, 2)
    path = trajectory(RBF(), x, classes, entropy, start=wide)
    file = path.save(tmp_path / "functions.npz")
    assert torch.equal(type(path).load(file, kernel=RBF().on(x), start=wide)(x), path(x))
    with pytest.raises(DataError, match="start: is not the network"):
        type(path).load(file, kernel=RBF().on(x), start=wider)(x)


def test_decay_to_zero_is_of_the_kernels_own_network():
    x, y, model, other = torch.randn(5, 2), torch.randn(5), mlp(2, 4, 1), mlp(2, 4, 1)
    decaying = Training(learning_rate=0.01, steps=3, weight_decay=0.1, decay_to="zero")
    with pytest.raises(DataError, match="start: is not the network that the kernel is of"):
        trajectory(EmpiricalNTK(model), x, y, decaying, start=other)
    trajectory(EmpiricalNTK(model), x, y, decaying, start=model)


def test_beyond_the_limit_of_unlike_mini_batches_descent_may_diverge():
    x, y = torch.linspace(0, 1, 4)[:, None], torch.randn(4)
    limit = trajectory(RBF(0.3), x, y, Training(learning_rate=0.1, batch_size=3, steps=4)).step_limit
    beyond = Training(learning_rate=1.3 * limit, batch_size=3, steps=400)
    with pytest.warns(PriorscopeWarning, match="descent may diverge"):
        path = trajectory(RBF(0.3), x, y, beyond)
    assert float(path.residuals()[0].abs()) < 1e-3  # the rest's step is short enough
