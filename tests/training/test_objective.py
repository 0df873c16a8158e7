"""Losses as functions of the outputs, against torch's own and autograd; and the user's own, in every prediction."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.func import jacrev

import priorscope as ps
from priorscope.data.inputs import encode
from priorscope.errors import DataError, PriorscopeError
from priorscope.training.objective import Objective, name_of
from tests.cases import mlp

LOSSES = ["half_sse", "mse", "cross_entropy", nn.SmoothL1Loss()]


def _hessian(function):
    return jacrev(jacrev(function))


def problem(loss, n=5, o=3):
    y = torch.randint(0, o, (n,)) if loss == "cross_entropy" else torch.randn(n, o)
    outputs = 2 * torch.randn(n, o)
    return Objective.of(loss, encode(y, n, o if loss == "cross_entropy" else None), outputs), outputs


@pytest.mark.parametrize("loss", LOSSES, ids=name_of)
def test_slope_and_curvature_are_autograds(loss):
    objective, outputs = problem(loss)
    leaf = outputs.clone().requires_grad_()
    slope = torch.autograd.grad(objective(leaf), leaf)[0]
    torch.testing.assert_close(objective.gradient(outputs), slope, rtol=1e-12, atol=1e-14)
    full = _hessian(objective)(outputs).reshape(15, 15)
    along = torch.randn(5, 3, 4)
    expected = along.reshape(15, 4).T @ full @ along.reshape(15, 4)
    torch.testing.assert_close(objective.curvature(outputs, along), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES, ids=name_of)
def test_many_networks_at_once_are_each_alone(loss):
    objective, _ = problem(loss)
    stacked = torch.randn(4, 5, 3)
    torch.testing.assert_close(objective(stacked), torch.stack([objective(one) for one in stacked]))
    torch.testing.assert_close(objective.gradient(stacked), torch.stack([objective.gradient(one) for one in stacked]))


def test_a_loss_that_vmap_cannot_follow_is_computed_one_by_one():
    def branching(outputs, targets):
        error = (outputs - targets).square().sum()
        return error if float(error) > 1 else 2 * error

    objective = Objective(branching, torch.zeros(2, 1))
    stacked = torch.tensor([[[0.1], [0.2]], [[1.0], [2.0]]])
    assert objective(stacked).tolist() == pytest.approx([0.1, 5.0])


def test_the_slope_of_cross_entropy_keeps_its_digits_where_all_is_learned():
    objective = Objective("cross_entropy", torch.tensor([0]))
    slope = objective.gradient(torch.tensor([[50.0, 0.0]]))
    assert slope[0].tolist() == pytest.approx([-(2.718281828459045**-50), 2.718281828459045**-50], rel=1e-12)


@pytest.mark.parametrize("loss", ["half_sse", "mse", "cross_entropy"])
def test_no_curvature_is_above_the_largest(loss):
    objective, _ = problem(loss)
    most = objective.largest_curvature(5, 3)
    found = max(
        float(torch.linalg.eigvalsh(_hessian(objective)(torch.randn(5, 3)).reshape(15, 15))[-1]) for _ in range(50)
    )
    assert found <= most * (1 + 1e-12)
    two = Objective("cross_entropy", torch.tensor([0, 1]))
    assert float(torch.linalg.eigvalsh(_hessian(two)(torch.zeros(2, 2)).reshape(4, 4))[-1]) == pytest.approx(0.25)


def test_classes_may_come_as_one_hot_less_one_over_c():
    y = torch.tensor([0, 2, 1])
    labels = encode(encode(y, 3).values, 3)
    assert Objective.of("cross_entropy", labels, torch.zeros(3, 3)).targets.tolist() == [0, 2, 1]
    for no_classes in (torch.randn(3, 3), torch.tensor([1, -1, 1]), torch.randn(3)):
        with pytest.raises(DataError, match="holds no classes"):
            Objective.of("cross_entropy", encode(no_classes, 3), torch.zeros(3, 1))


@pytest.mark.parametrize(
    ("loss", "cause"),
    [
        (lambda f, y: (f - y).square().sum(1), r"gives a tensor \(5,\), not a scalar"),
        (lambda f, y: (f - y).square().sum().item(), "gives a float, not a scalar"),
        (lambda f, y: (y**2).sum(), "does not depend on the outputs"),
        (lambda f, y: (f.detach() - y).square().sum(), "does not depend on the outputs"),
        (lambda f, y, w: (f - y).sum(), "does not run on outputs"),
        (lambda f, y: (f * torch.inf).sum(), "is NaN or infinite"),
    ],
)
def test_a_loss_that_is_none_is_named(loss, cause):
    x, y, model = torch.randn(5, 2), torch.randn(5), mlp(2, 4, 1)
    training = ps.Training(loss=loss, learning_rate=0.1, steps=2)
    pair = ps.KernelPair(ps.kernels.RBF(), ps.kernels.RBF())
    for use in (
        lambda: ps.train(model, x, y, training),
        lambda: ps.train_many(lambda seed: model, 2, x, y, training),
        lambda: ps.trajectory(pair.ntk, x, y, training),
        lambda: ps.trained_ensemble(pair, x, y, training),
    ):
        with pytest.raises(PriorscopeError, match=rf"Training\(loss=<lambda>\): {cause}"):
            use()


def test_what_is_no_loss_at_all_raises():
    with pytest.raises(PriorscopeError, match=r"Training\(loss=\): is 'hinge'"):
        ps.Training(loss="hinge")


def test_real_training_on_a_loss_of_ones_own():
    model, x, y = mlp(2, 8, 1), torch.randn(6, 2), torch.randn(6)
    mine = lambda f, y: 0.5 * (f - y).square().sum()  # noqa: E731
    t = {"learning_rate": 0.02, "steps": 9, "momentum": 0.5}
    own, named = (ps.train(model, x, y, ps.Training(loss=loss, **t)) for loss in (mine, "half_sse"))
    assert torch.equal(own.losses, named.losses)
    many = ps.train_many(lambda seed: model, 3, x, y, ps.Training(loss=mine, **t))
    torch.testing.assert_close(many.outputs[1], own.outputs)
    batched = ps.Training(loss=mine, batch_size=4, **t)
    named = ps.Training(batch_size=4, **t)
    torch.testing.assert_close(ps.train(model, x, y, batched).outputs, ps.train(model, x, y, named).outputs)


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(),
        nn.functional.cross_entropy,
        partial(nn.functional.cross_entropy, label_smoothing=0.1),
        nn.NLLLoss(),
        nn.BCEWithLogitsLoss(),
        nn.functional.binary_cross_entropy_with_logits,
    ],
    ids=name_of,
)
def test_torchs_losses_of_classes_are_not_given_one_hot_less_one_over_c(loss):
    labels = encode(torch.tensor([0, 2, 1]), 3)
    with pytest.raises(PriorscopeError, match=r'needs classes or probabilities.*Give loss="cross_entropy"'):
        Objective.of(loss, labels, torch.zeros(3, 3))


def test_torchs_losses_of_probabilities_take_probabilities():
    labels = encode(torch.eye(3), 3)
    assert float(Objective.of(nn.CrossEntropyLoss(), labels, torch.zeros(3, 3))(torch.zeros(3, 3))) == pytest.approx(
        math.log(3)
    )


def test_classes_may_come_rounded():
    single = encode(encode(torch.tensor([0, 2, 1]), 3).values.to(torch.float32), 3)
    assert Objective.of("cross_entropy", single, torch.zeros(3, 3)).targets.tolist() == [0, 2, 1]
