"""Every picture is drawn on the axes given, with labels; the numbers drawn are the result's."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import priorscope as ps
from priorscope.errors import DataError
from tests.cases import mlp


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


@pytest.fixture
def line():
    x = torch.linspace(-2, 2, 12)[:, None]
    return x, torch.sin(2 * x[:, 0])


def test_functions(line):
    x, y = line
    post = ps.GaussianProcess(ps.kernels.RBF(), noise=0.01).condition(x, y)
    grid = torch.linspace(-3, 3, 50)[:, None]
    ax = ps.plot.functions(post(grid), grid, data=(x, y))
    assert np.allclose(ax.lines[0].get_ydata(), post(grid).mean)
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    again = ps.plot.functions(post(grid).sample(5, seed=0), grid, ax=ax)
    assert again is ax
    with pytest.raises(DataError, match="50 values"):
        ps.plot.functions(post(grid), grid[:3])


def test_modes_and_spectrum(line):
    x, y = line
    spectrum = ps.eigenmodes(ps.kernels.RBF(), x)
    ax = ps.plot.modes(spectrum, count=3)
    assert np.allclose(ax.lines[1].get_ydata(), spectrum.vectors[:, 1])
    grid = torch.linspace(-3, 3, 40)[:, None]
    assert np.allclose(ps.plot.modes(spectrum, grid).lines[0].get_ydata(), spectrum.extend(grid)[:, 0])
    ax = ps.plot.spectrum(spectrum, y)
    assert np.allclose(ax.lines[0].get_ydata(), spectrum.values)
    two = ps.eigenmodes(ps.kernels.RBF(), torch.randn(5, 2))
    with pytest.raises(DataError, match="not one-dimensional"):
        ps.plot.modes(two)


@pytest.mark.parametrize("training", [ps.Training(), ps.Training(time=3.0), ps.Training(learning_rate=0.05, steps=100)])
def test_trajectories(line, training):
    x, y = line
    path = ps.trajectory(ps.kernels.RBF(), x, y, training)
    ax = ps.plot.trajectory(path)
    assert np.isfinite(ax.lines[0].get_ydata()).all()
    learned = ps.plot.learned(path, count=3)
    assert len(learned.lines) == 3
    assert (np.diff(learned.lines[0].get_ydata()) >= -1e-12).all()


def test_a_run_beside_its_prediction_and_its_drift(line):
    x, y = line
    model = mlp(1, 16, 1)
    t = ps.Training(learning_rate=0.001, steps=20)
    run = ps.train(model, x, y, t)
    ax = ps.plot.trajectory(run, ps.plot.trajectory(ps.trajectory(ps.EmpiricalNTK(model), x, y, t, start=model)))
    assert np.allclose(ax.lines[1].get_ydata(), run.losses)
    drift = ps.drift(model, run.model, x, ps.EmpiricalNTK(model), ps.EmpiricalNTK(run.model))
    bars = ps.plot.drift({"width 16": drift}).patches
    assert bars[0].get_height() == pytest.approx(drift.functions.relative)
    assert bars[1].get_height() == pytest.approx(drift.kernels.relative)


def test_a_verdict_and_a_similarity(line):
    x, y = line
    pair = ps.KernelPair(ps.kernels.RBF(), ps.kernels.RBF(0.5))
    verdict = ps.compare(pair, x, y, torch.tensor([[0.05], [3.0]]), {"A": torch.ones(2), "B": -torch.ones(2)})
    heights = [bar.get_height() for bar in ps.plot.verdict(verdict).patches]
    assert heights[:2] == pytest.approx(list(verdict.nearest.values()))
    assert heights[2:] == pytest.approx([*verdict.realised.values(), verdict.neither])
    assert np.allclose(
        ps.plot.similarity(ps.cosine(ps.kernels.RBF(), x)).images[0].get_array(), ps.cosine(ps.kernels.RBF(), x)
    )
