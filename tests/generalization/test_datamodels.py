"""The datamodelling score is a rank correlation; closed forms score near 1 against really retrained networks."""

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

import priorscope as ps
from priorscope.errors import DataError
from priorscope.generalization.datamodels import DatamodellingScore, datamodelling_score


def test_it_is_the_mean_of_spearmans_correlations():
    predicted, measured = torch.randn(30, 4).round(decimals=1), torch.randn(30, 4)
    expected = [spearmanr(predicted[:, i].numpy(), measured[:, i].numpy()).statistic for i in range(4)]
    score = datamodelling_score(predicted, measured)
    assert score.by_point.tolist() == pytest.approx(expected)
    assert score.value == pytest.approx(sum(expected) / 4)
    assert score.subsets == 30


def test_attributions_are_added_over_each_subset():
    tau, subsets = torch.randn(3, 8), torch.rand(25, 8) < 0.5
    measured = torch.stack([torch.stack([tau[j, s].sum() for j in range(3)]) for s in subsets])
    assert datamodelling_score(tau, measured, subsets).value == pytest.approx(1.0)
    assert datamodelling_score(-tau, measured, subsets).value == pytest.approx(-1.0)


def test_its_standard_error_is_the_spread_over_draws_of_subsets():
    values, errors = [], []
    for _ in range(200):
        common = torch.randn(40, 3)
        score = datamodelling_score(common + torch.randn(40, 3), common + torch.randn(40, 3))
        values.append(score.value)
        errors.append(score.standard_error)
    assert float(torch.tensor(values).std()) == pytest.approx(float(torch.tensor(errors).mean()), rel=0.2)


def test_what_does_not_fit_raises(tmp_path):
    good = torch.randn(5, 2)
    for predicted, measured, message in [
        (good[:2], good[:2], "at least 3"),
        (good, good[:4], r"predicted has shape \(5, 2\), measured \(4, 2\)"),
        (good[:, 0], good, r"predicted: has shape \(5,\)"),
        (good, good * torch.nan, "NaN"),
        (torch.ones(5, 2), good, "predicted: is the same for all subsets at point 0"),
    ]:
        with pytest.raises(DataError, match=message):
            datamodelling_score(predicted, measured)
    with pytest.raises(DataError, match="subsets: is"):
        datamodelling_score(good.T, good, torch.rand(5, 5))
    score = datamodelling_score(good, good)
    assert DatamodellingScore.load(score.save(tmp_path / "s.npz")).to_dict() == score.to_dict()


def lazy(width, points, new, subsets):
    """A wide network in "ntk", digits 3 against 8, random halves of the training points, and decay to the start."""
    digits = ps.data.named("digits")
    chosen = (digits.y == 3) | (digits.y == 8)
    x, y = digits.x[chosen].flatten(1) / 16, (digits.y[chosen] == 3) * 2.0 - 1
    init = ps.Initialization(weight_variance=2.0, bias_variance=0.1, parameterization="ntk")
    model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 1))
    init.apply_(model, seed=0)
    sets = torch.stack([torch.randperm(points) < points // 2 for _ in range(subsets)])
    return model, init, x[:points], y[:points], x[points : points + new], sets


def against_real_training(width, points, new, subsets):
    """The scores of leaving out in closed form, and of attributions by single points; the ridge is λ₁/100."""
    model, init, x, y, x_new, sets = lazy(width, points, new, subsets)
    kernel = ps.EmpiricalNTK(model, rates=init).on(x)
    largest = float(kernel.eigen.values[0])
    ridge = 0.01 * largest
    training = ps.Training(learning_rate=1 / largest, steps=400, weight_decay=ridge)
    measured = ps.retrain(model, x, y, sets, x_new, training, rates=init)
    closed = ps.leave_out(kernel, y, groups=~sets, x_new=x_new, ridge=ridge, start=model).change.T
    single = ps.leave_out(kernel, y, x_new=x_new, ridge=ridge, start=model).change
    return datamodelling_score(closed, measured), datamodelling_score(-single, measured, sets), measured


def test_leaving_out_orders_really_retrained_networks():
    group, single, measured = against_real_training(width=512, points=24, new=8, subsets=12)
    assert group.value >= 0.95
    assert single.value > 0.3
    assert group.value > single.value
    assert float(measured.std(0).mean()) > 0.02


@pytest.mark.slow
def test_leaving_out_orders_really_retrained_networks_on_many_subsets():
    group, single, _ = against_real_training(width=2048, points=60, new=20, subsets=100)
    assert group.value - 2 * group.standard_error >= 0.95
    assert single.value > 0.3


@pytest.mark.slow
def test_training_stopped_early_is_ordered_by_fitting_again():
    """Without decay there is no closed form: one trajectory a subset."""
    model, init, x, y, x_new, sets = lazy(width=2048, points=40, new=20, subsets=50)
    kernel = ps.EmpiricalNTK(model, rates=init)
    training = ps.Training(learning_rate=1 / float(kernel.on(x).eigen.values[0]), steps=200)
    measured = ps.retrain(model, x, y, sets, x_new, training, rates=init)
    predicted = torch.stack([ps.trajectory(kernel, x[s], y[s], training, start=model)(x_new) for s in sets])
    assert datamodelling_score(predicted, measured).value >= 0.95
