"""Networks really trained on cross-entropy against the sampled ensemble, by the criterion of cases/sampled-*.json."""

import json
from pathlib import Path

import pytest
import torch

import priorscope as ps
from tests.cases import mlp
from tests.statistics import QUANTILE, BootstrappedMean, TwoWidths, covariance_statistic
from tests.training.test_ensemble_against_networks import on_circle

CASES = sorted((Path(__file__).parents[2] / "cases").glob("sampled-*.json"))
SAMPLES = 20_000


def covariance_null(others, covariance, networks, draws, seed):
    """The 99.9 % quantile of the covariance's statistic among so many of other samples of the law."""
    generator = torch.Generator().manual_seed(seed)
    null = [
        covariance_statistic(others[torch.randperm(len(others), generator=generator)[:networks]], covariance)
        for _ in range(draws)
    ]
    return float(torch.stack(null).quantile(QUANTILE))


@pytest.mark.slow
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_trained_networks_have_the_sampled_ensembles_law_and_no_other(path):
    case = json.loads(path.read_text())
    init, training = ps.Initialization(**case["initialization"]), ps.Training(**case["training"])
    data, outputs = case["data"], case["architecture"]["outputs"]
    x, x_new, y = on_circle(data["angles"]), on_circle(data["new_angles"]), torch.tensor(data["y"])
    seeds = range(case["first_seed"], case["first_seed"] + case["networks"])

    def networks(width):
        def make(seed):
            return init.apply_(mlp(2, width, outputs), seed)

        return ps.train_many(make, seeds, x, y, training, rates=init, record=x_new, at=[]).final.flatten(1)

    def law(pair, seed):
        return ps.trained_ensemble(pair, x, y, training, samples=SAMPLES, seed=seed)(x_new).values.flatten(1)

    limit = ps.infinite_width(init.apply_(mlp(2, 64, outputs), 0), init)
    predicted = law(limit, 1)
    narrow, wide = case["widths"]
    draws, seed = case["criterion"]["null_draws"], case["criterion"]["null_seed"]
    found = {width: networks(width) for width in (narrow, wide)}
    means = {width: BootstrappedMean.of(found[width], draws, seed) for width in found}
    C = predicted.T.cov()
    covariance = TwoWidths(
        "covariance",
        narrow,
        wide,
        *(float(covariance_statistic(found[width], C)) for width in (narrow, wide)),
        quantile=covariance_null(law(limit, 2), C, case["networks"], draws, seed),
    )
    mean = TwoWidths(
        "mean",
        narrow,
        wide,
        *(means[width].statistic(predicted.mean(0)) for width in (narrow, wide)),
        quantile=means[wide].quantile,
    )
    print(case["name"], mean, covariance, sep="\n  ")
    assert mean.passes, mean
    assert covariance.passes, covariance
    # Other laws are seen: networks that start from the ntk, and those of the same descent on a squared loss.
    ntk = law(ps.KernelPair(limit.ntk, limit.ntk), 1)
    squared = ps.trained_ensemble(limit, x, y, ps.Training(**{**case["training"], "loss": "mse"}))(x_new)
    others = {
        "starts from the ntk": (ntk.mean(0), ntk.T.cov()),
        "mse": (squared.mean.flatten(), squared.covariance.reshape(C.shape)),
    }
    for name, (of_mean, of_covariance) in others.items():
        at_mean = means[wide].statistic(of_mean)
        at_covariance = float(covariance_statistic(found[wide], of_covariance))
        print(f"  {name}: mean {at_mean:.3g}, covariance {at_covariance:.3g}")
        # Only where the predicted laws alone said that so many networks can tell.
        assert covariance.refutes(at_covariance) or name not in case["criterion"].get("refuted", ()), name
    assert mean.refutes(means[wide].statistic(others["mse"][0]))
