"""Really trained networks against the trained ensemble, by the criterion of each case in cases/*.json."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import priorscope as ps
from tests.cases import mlp
from tests.statistics import BootstrappedMean, TwoWidths, covariance_quantile, covariance_statistic

CASES = sorted((Path(__file__).parents[2] / "cases").glob("ensemble-*.json"))
ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}


def on_circle(angles):
    a = torch.tensor(angles)
    return torch.stack([a.cos(), a.sin()], 1)


def networks(case, init, width, x, y, x_new):
    """(s, m): what each network of this width says at the new points after training."""
    activation = ACTIVATIONS[case["architecture"]["activation"]]

    def make(seed):
        return init.apply_(mlp(2, width, 1, activation=activation), seed)

    seeds = range(case["first_seed"], case["first_seed"] + case["networks"])
    training = ps.Training(**case["training"])
    return ps.train_many(make, seeds, x, y, training, rates=init, record=x_new, at=[]).final[..., 0]


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_trained_networks_have_the_ensembles_law_and_no_posterior(path):
    case = json.loads(path.read_text())
    init = ps.Initialization(**case["initialization"])
    data = case["data"]
    x, x_new, y = on_circle(data["angles"]), on_circle(data["new_angles"]), torch.tensor(data["y"])
    activation = ACTIVATIONS[case["architecture"]["activation"]]
    limit = ps.infinite_width(init.apply_(mlp(2, 64, 1, activation=activation), 0), init)
    law = ps.trained_ensemble(limit, x, y, ps.Training(**case["training"]))(x_new)
    posteriors = {
        "NNGP posterior": ps.GaussianProcess(limit.nngp).condition(x, y)(x_new),
        "NTK posterior": ps.GaussianProcess(limit.ntk).condition(x, y)(x_new),
    }
    narrow, wide = case["widths"]
    draws, seed = case["criterion"]["null_draws"], case["criterion"]["null_seed"]
    samples = {width: networks(case, init, width, x, y, x_new) for width in (narrow, wide)}
    means = {width: BootstrappedMean.of(samples[width], draws, seed) for width in samples}
    covariance = TwoWidths(
        "covariance",
        narrow,
        wide,
        *(float(covariance_statistic(samples[width], law.covariance)) for width in (narrow, wide)),
        quantile=covariance_quantile(law.covariance, case["networks"], draws, seed),
    )
    mean = TwoWidths(
        "mean",
        narrow,
        wide,
        *(means[width].statistic(law.mean) for width in (narrow, wide)),
        quantile=means[wide].quantile,
    )
    print(case["name"], mean, covariance, sep="\n  ")
    assert mean.passes, mean
    assert covariance.passes, covariance
    factor = case["criterion"]["factor_for_evidence"]
    assert factor == 2
    for name, posterior in posteriors.items():
        of_mean = means[wide].statistic(posterior.mean)
        of_covariance = float(covariance_statistic(samples[wide], posterior.covariance))
        print(f"  {name}: mean {of_mean:.3g}, covariance {of_covariance:.3g}")
        assert mean.refutes(of_mean), name
        assert covariance.refutes(of_covariance), name
