"""Really trained networks against the probabilities of `compare`, by the criterion of each case in cases/*.json."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import priorscope as ps
from priorscope.experiments.statistics import QUANTILE
from tests.cases import mlp
from tests.statistics import TwoWidths

CASES = sorted((Path(__file__).parents[2] / "cases").glob("realised-*.json"))


def on_circle(angles):
    a = torch.tensor(angles)
    return torch.stack([a.cos(), a.sin()], 1)


def shares(outputs, candidates):
    """Of networks with each candidate's signs, and with none of them."""
    counts = torch.stack([(outputs.sign() == signs).all(1).double().mean() for signs in candidates])
    return torch.cat([counts, 1 - counts.sum()[None]])


@pytest.mark.slow
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_hypotheses_are_realised_as_often_as_predicted(path):
    case = json.loads(path.read_text())
    init, data = ps.Initialization(**case["initialization"]), case["data"]
    x, x_new, y = on_circle(data["angles"]), on_circle(data["new_angles"]), torch.tensor(data["y"])
    candidates = {name: torch.tensor(signs) for name, signs in case["candidates"].items()}
    training, hidden = ps.Training(**case["training"]), case["architecture"]["hidden_layers"]

    def make(seed, width=64):
        return init.apply_(mlp(2, *[width] * hidden, 1), seed)

    verdict = ps.compare(ps.infinite_width(make(0), init), x, y, x_new, candidates, training)
    predicted = torch.tensor([*verdict.realised.values(), verdict.neither])
    found = {}
    for width in case["widths"]:
        seeds = range(case["first_seed"], case["first_seed"] + case["networks"])
        runs = ps.train_many(
            lambda seed, width=width: make(seed, width), seeds, x, y, training, rates=init, record=x_new, at=[]
        )
        found[width] = shares(runs.final[..., 0], torch.stack(list(candidates.values())))
    rule = case["criterion"]
    generator = np.random.default_rng(rule["null_seed"])
    counts = torch.tensor(generator.multinomial(case["networks"], predicted.numpy(), rule["null_draws"]))
    null = (counts / case["networks"] - predicted).abs().sum(1) / 2
    assert rule["quantile"] == QUANTILE
    narrow, wide = case["widths"]
    variation = [float((found[width] - predicted).abs().sum()) / 2 for width in (narrow, wide)]
    criterion = TwoWidths("total variation", narrow, wide, *variation, quantile=float(null.quantile(QUANTILE)))
    print(case["name"], predicted, found, criterion, sep="\n  ")
    assert criterion.passes, criterion
    # It can fail: what the posterior of the ntk says is far beyond.
    posterior = ps.GaussianProcess(ps.infinite_width(make(0), init).ntk).condition(x, y.double())(x_new)
    wrong = shares(posterior.sample(100_000, seed=0), torch.stack(list(candidates.values())))
    assert criterion.refutes(float((found[wide] - wrong).abs().sum()) / 2)
