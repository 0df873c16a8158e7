"""The golden ensemble and posterior of a four-layer ReLU network, from the module itself."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import priorscope as ps
from tests.cases import mlp

GOLDEN = Path(__file__).parents[1] / "golden" / "predict-fc-relu-3.npz"
INIT = ps.Initialization(2.0, 0.01, "ntk")
TOLERANCE = 1e-7


@pytest.fixture
def golden():
    with np.load(GOLDEN) as file:
        return {key: torch.as_tensor(file[key]) for key in file.files}


@pytest.fixture
def limit():
    return ps.infinite_width(INIT.apply_(mlp(7, 64, 64, 64, 1), seed=0), INIT)


def distance(ours, theirs):
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize(("name", "time"), [("t5", "time_t5"), ("t200", "time_t200"), ("inf", None)])
def test_the_ensemble(golden, limit, name, time):
    training = ps.Training(time=math.inf if time is None else float(golden[time]))
    law = ps.trained_ensemble(limit, golden["x_train"], golden["y_train"], training)(golden["x_test"])
    assert law.mean.shape == golden[f"ensemble_mean_{name}"].shape
    assert distance(law.mean, golden[f"ensemble_mean_{name}"]) < TOLERANCE
    assert distance(law.matrix, golden[f"ensemble_cov_{name}"]) < TOLERANCE


def test_the_posterior_of_the_nngp(golden, limit):
    law = ps.GaussianProcess(limit.nngp).condition(golden["x_train"], golden["y_train"])(golden["x_test"])
    assert distance(law.mean, golden["nngp_mean"]) < TOLERANCE
    assert distance(law.matrix, golden["nngp_cov"]) < TOLERANCE
    assert distance(law.mean, golden["ensemble_mean_inf"]) > 1e-3
