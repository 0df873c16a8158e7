"""Losses that are not squared: against really trained linearised networks, tiny Euler steps, and closed forms."""

import math

import pytest
import torch
from torch import nn

import priorscope as ps
from priorscope.beliefs import coupling
from priorscope.errors import DataError, NotCoveredError, PriorscopeWarning
from priorscope.kernels import RBF, Linear
from tests.beliefs.kernels import Features
from tests.cases import mlp

STEPS = (0, 1, 2, 7, 40)
DESCENTS = [
    {},
    {"momentum": 0.9},
    {"momentum": 0.8, "nesterov": True},
    {"momentum": 0.5, "weight_decay": 0.05},
]


def classes(n=7, o=3, d=2, m=4):
    return torch.randn(n, d), torch.arange(n) % o, torch.randn(m, d)


def own_cross_entropy(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets.argmax(1))


def half_sse(outputs, targets):
    return (outputs - targets).square().sum() / 2


@pytest.mark.parametrize("fields", DESCENTS, ids=str)
@pytest.mark.parametrize("loss", ["cross_entropy", own_cross_entropy, nn.SmoothL1Loss(beta=0.5)])
@pytest.mark.parametrize(("outputs", "parameterization"), [(2, "standard"), (3, "ntk")])
def test_a_really_trained_linearised_network(outputs, parameterization, loss, fields):
    init = ps.Initialization(1.5, 0.2, parameterization)
    model = init.apply_(mlp(3, 16, 16, outputs, activation=nn.Tanh), seed=3)
    x, y, x_new = classes(7, outputs, 3)
    kernel = ps.EmpiricalNTK(model, rates=init).on(x)
    one = ps.Training(loss=loss, learning_rate=1e-9, steps=1)
    limit = ps.trajectory(kernel, y, one, start=model).step_limit
    training = ps.Training(loss=loss, learning_rate=0.4 * limit, steps=max(STEPS), **fields)
    everything = torch.cat([x, x_new])
    run = ps.train(ps.linearize(model), x, y, training, rates=init, record=everything, at=STEPS)
    path = ps.trajectory(kernel, y, training, start=model)
    assert path.outputs == "coupled"
    torch.testing.assert_close(path(everything, at=STEPS), run.outputs, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(path.losses(STEPS), run.losses, rtol=1e-10, atol=1e-12)
    if not training.weight_decay:
        assert float(path.losses()) < 0.98 * float(path.losses(0))


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("loss", ["cross_entropy", own_cross_entropy])
def test_the_flow_is_its_integration_in_tiny_steps(loss, decay):
    x, y, x_new = classes()
    path = ps.trajectory(RBF(), x, y, ps.Training(loss=loss, time=4.0, weight_decay=decay))
    everything = torch.cat([x, x_new])
    rows, hot = RBF()(everything, x), nn.functional.one_hot(y, 3).double()
    alpha, dt, seen = torch.zeros(7, 3), 1e-3, []

    def slope(alpha):
        return -((rows[:7] @ alpha).softmax(1) - hot) / 7 - decay * alpha

    for _ in range(4000):
        middle = alpha + dt / 2 * slope(alpha)  # the midpoint rule: its error is of order dt²
        alpha = alpha + dt * slope(middle)
        seen.append(rows @ alpha)
    torch.testing.assert_close(path(everything, at=[1.0, 4.0]), torch.stack([seen[999], seen[3999]]), rtol=0, atol=1e-6)
    torch.testing.assert_close(path.dual_weights(), alpha, rtol=0, atol=1e-6)


@pytest.mark.parametrize("outputs", [None, 2])
def test_half_sse_as_a_loss_of_ones_own_is_the_closed_form(outputs):
    x, x_new = torch.randn(6, 2), torch.randn(4, 2)
    y = torch.randn(6) if outputs is None else torch.randn(6, outputs)
    model = mlp(2, 4, outputs or 1)
    for fields in ({}, {"time": 3.0}, {"weight_decay": 0.2}, {"learning_rate": 0.2, "steps": 30, "momentum": 0.6}):
        own = ps.trajectory(RBF(), x, y, ps.Training(loss=half_sse, **fields), start=model)
        named = ps.trajectory(RBF(), x, y, ps.Training(**fields), start=model)
        torch.testing.assert_close(own(x_new), named(x_new), rtol=0, atol=1e-7)
        torch.testing.assert_close(own.losses(), named.losses(), rtol=1e-6, atol=1e-12)
        assert own.step_limit == pytest.approx(named.step_limit, rel=1e-9)


def test_a_schedule():
    x, y, x_new = classes()
    rates = [0.5 / (1 + k) for k in range(20)]
    path = ps.trajectory(RBF(), x, y, ps.Training(loss="cross_entropy", learning_rate=rates))
    alpha, K = torch.zeros(7, 3), RBF()(x)
    for rate in rates:
        alpha = alpha - rate * ((K @ alpha).softmax(1) - nn.functional.one_hot(y, 3)) / 7
    torch.testing.assert_close(path(x_new), RBF()(x_new, x) @ alpha, rtol=0, atol=1e-13)


def test_a_long_flow_separates_the_classes_as_the_logarithm_of_time():
    x, y, _ = classes(6, 2)
    path = ps.trajectory(RBF(0.5), x, y, ps.Training(loss="cross_entropy", time=1e9))
    at = [1e5, 1e7, 1e9]
    margins = (path(x, at=at)[..., 0] - path(x, at=at)[..., 1]).abs().amin(1)
    assert (margins[1:] - margins[:-1]).tolist() == pytest.approx([math.log(100)] * 2, rel=0.01)
    assert path.losses(at).tolist() == sorted(path.losses(at).tolist(), reverse=True)


def test_weight_decay_gives_cross_entropy_an_end():
    x, y, _ = classes()
    path = ps.trajectory(RBF(), x, y, ps.Training(loss="cross_entropy", weight_decay=0.01))
    slope = (path(x).softmax(1) - nn.functional.one_hot(y, 3)) / 7
    torch.testing.assert_close(path.dual_weights(), -slope / 0.01, rtol=1e-8, atol=1e-8)


def test_flows_without_an_end_raise():
    x, y, x_new = classes(5, 2)
    with pytest.raises(NotCoveredError, match=r"cross_entropy.*no finite minimiser.*Give a time"):
        ps.trajectory(RBF(), x, y, ps.Training(loss="cross_entropy"))
    with pytest.raises(NotCoveredError, match="no finite minimiser"):
        ps.trajectory(RBF(), x, y, ps.Training(loss="cross_entropy", time=1.0))(x_new, at=math.inf)


def test_a_flow_of_ones_own_loss_without_an_end_raises(monkeypatch):
    from priorscope.training import function_space

    monkeypatch.setattr(function_space, "CALLS", 500)
    x, y, x_new = classes(3, 2)
    path = ps.trajectory(RBF(0.5), x, y, ps.Training(loss=own_cross_entropy))
    with pytest.raises(NotCoveredError, match="own_cross_entropy: has not come to an end"):
        path(x_new)


def test_a_loss_that_no_solver_can_follow_raises(monkeypatch):
    from priorscope.training import function_space

    monkeypatch.setattr(function_space, "CALLS", 500)
    x, y = torch.randn(5, 2), torch.randn(5)
    path = ps.trajectory(RBF(), x, y, ps.Training(loss=nn.L1Loss(), time=30.0))
    with pytest.raises(NotCoveredError, match="L1Loss: needs more than 500 evaluations"):
        path(x)


def test_null_modes_are_never_learned():
    x, y, x_new = classes(8, 2)
    path = ps.trajectory(Linear(), x, y, ps.Training(loss="cross_entropy", learning_rate=0.5, steps=500))
    weights = nn.Parameter(torch.zeros(2, 2))
    optimizer = torch.optim.SGD([weights], lr=0.5)
    for _ in range(500):
        optimizer.zero_grad()
        nn.functional.cross_entropy(x @ weights, y).backward()
        optimizer.step()
    torch.testing.assert_close(path(x_new), x_new @ weights.detach(), rtol=0, atol=1e-10)
    assert len(path.values) == 2


def test_the_trace_kernel_says_so(monkeypatch):
    monkeypatch.setattr(coupling, "COUPLED_LIMIT", 10)
    x, y, x_new = classes()
    kernel, training = Features(2, 3, 60), ps.Training(loss="cross_entropy", learning_rate=0.1, steps=9)
    path = ps.trajectory(kernel, x, y, training)
    assert path.outputs.startswith("trace kernel")
    traced = ps.kernels.FunctionKernel(lambda a, b: kernel(a, b))
    torch.testing.assert_close(path(x_new), ps.trajectory(traced, x, y, training)(x_new))


def test_a_step_beyond_the_limit_warns():
    x, y, _ = classes()
    training = ps.Training(loss="cross_entropy", learning_rate=0.01, steps=1)
    limit = ps.trajectory(RBF(), x, y, training).step_limit
    assert limit == pytest.approx(4 * 7 / float(torch.linalg.eigvalsh(RBF()(x))[-1]))
    with pytest.warns(PriorscopeWarning, match=f"beyond the limit {limit:.4g} of this kernel and cross_entropy"):
        ps.trajectory(RBF(), x, y, ps.Training(loss="cross_entropy", learning_rate=1.1 * limit, steps=3))


def test_what_has_no_meaning_raises_with_a_remedy():
    x, y, x_new = classes()
    path = ps.trajectory(RBF(), x, y, ps.Training(loss="cross_entropy", time=1.0))
    for ask in (
        lambda: path.half_lives,
        path.residuals,
        lambda: path.influence(x_new),
        path.as_flow,
        lambda: path.noise(x_new),
    ):
        with pytest.raises(NotCoveredError, match=r"FunctionTrajectory\.\w+: .*(no mode learns alone|squared losses)"):
            ask()


def test_trainings_outside_function_space_are_named():
    x, y, _ = classes()
    descent = {"loss": "cross_entropy", "learning_rate": 0.1, "steps": 3}
    for fields, name in (
        ({"batch_size": 3}, "batch_size=3"),
        ({"weight_decay": 0.1, "decay_to": "zero"}, "decay_to='zero'"),
        ({"optimizer": "adam"}, "optimizer='adam'"),
    ):
        with pytest.raises(NotCoveredError, match=name):
            ps.trajectory(RBF(), x, y, ps.Training(**descent, **fields), start=mlp(2, 4, 3))
    assert ps.trajectory(RBF(), x, y, ps.Training(**descent, batch_size=7)).notes == ()


def test_labels_that_are_no_classes_of_the_kernel_are_named():
    x, y, _ = classes()
    training, kernel = ps.Training(loss="cross_entropy", time=1.0), Features(2, 3, 60)
    with pytest.raises(DataError, match="holds no classes"):
        ps.trajectory(RBF(), x, torch.randn(7), training)
    with pytest.raises(DataError, match="y: has 4 classes, the kernel has 3 outputs"):
        ps.trajectory(kernel, x, y + 1, training)
    with pytest.raises(DataError, match="has the class -1"):
        ps.trajectory(kernel, x, y - 1, training)
    init = ps.Initialization(2.0, 0.1, "ntk")
    limit = ps.infinite_width(init.apply_(mlp(2, 8, 2), 0), init)
    with pytest.raises(DataError, match="no common loss"):
        ps.trajectory(limit.ntk, x, torch.randn(7, 4), ps.Training(loss=half_sse, time=1.0))


def test_save_and_load(tmp_path):
    x, y, x_new = classes()
    model = mlp(2, 4, 3)
    path = ps.trajectory(RBF(), x, y, ps.Training(loss="cross_entropy", learning_rate=0.3, steps=5), start=model)
    file = path.save(tmp_path / "path.npz")
    loaded = ps.FunctionTrajectory.load(file, kernel=RBF().on(x), start=model)
    assert torch.equal(loaded(x_new, at=[0, 5]), path(x_new, at=[0, 5]))
    assert loaded.training == path.training
    with pytest.raises(DataError, match=r"FunctionTrajectory.load\(path, kernel="):
        ps.FunctionTrajectory.load(file).losses()
    with pytest.raises(DataError, match="start=model"):
        ps.FunctionTrajectory.load(file, kernel=RBF().on(x))(x_new)
    own = ps.trajectory(RBF(), x, y, ps.Training(loss=own_cross_entropy, time=1.0))
    assert own.to_dict()["training"]["loss"] == "own_cross_entropy"
    with pytest.raises(DataError, match="your own function `own_cross_entropy`"):
        own.save(tmp_path / "own.npz")


def test_dtypes_and_a_kernel_on_its_data():
    x, y, x_new = classes()
    training = ps.Training(loss="cross_entropy", learning_rate=0.3, steps=5)
    expected = ps.trajectory(RBF(), x, y, training)(x_new)
    assert torch.equal(ps.trajectory(RBF().on(x), y, training)(x_new), expected)
    single = ps.trajectory(RBF(), x.float(), torch.randn(7, dtype=torch.float32), ps.Training(loss=half_sse, time=1.0))
    assert single(x_new.float()).dtype == single.losses().dtype == torch.float32


@pytest.mark.parametrize("loss", [nn.HuberLoss(reduction="sum", delta=0.5), nn.SmoothL1Loss()])
def test_a_flow_that_starts_without_curvature_ends_in_the_minimum(loss):
    x, y = torch.linspace(0, 1, 2)[:, None], torch.tensor([3.0, -2.0])
    torch.testing.assert_close(ps.trajectory(RBF(0.3), x, y, ps.Training(loss=loss))(x), y, rtol=0, atol=1e-7)


def hinge(outputs, targets):
    return torch.relu(1 - outputs * targets).sum()


@pytest.mark.parametrize("loss", [nn.L1Loss(), hinge])
def test_a_flow_without_curvature_does_not_end_at_its_start(loss, monkeypatch):
    from priorscope.training import function_space

    monkeypatch.setattr(function_space, "CALLS", 500)
    x, y = torch.linspace(0, 1, 3)[:, None], torch.tensor([1.0, -1.0, 1.0])
    path = ps.trajectory(RBF(0.3), x, y, ps.Training(loss=loss))
    try:
        end = float(path.losses())
    except NotCoveredError:
        return
    assert end < 1e-6
