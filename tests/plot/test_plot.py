"""Every picture is drawn on the axes given, with labels; the numbers drawn are the result's."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import priorscope as ps
from priorscope.errors import DataError, NotCoveredError
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


def half_sse(outputs, targets):
    return (outputs - targets).square().sum() / 2


def test_losses_that_are_not_squared_and_relinearised_trajectories(line):
    x, y = line
    kernel, grid = ps.kernels.RBF(), torch.linspace(-3, 3, 50)
    for fields in ({}, {"time": 3.0}, {"learning_rate": 0.05, "steps": 100}):
        path = ps.trajectory(kernel, x, y, ps.Training(loss=half_sse, **fields))
        drawn = ps.plot.trajectory(path).lines[0]
        assert np.allclose(drawn.get_ydata(), path.losses(ps.plot.training.moments(path)))
        assert np.allclose(ps.plot.functions(path, grid).lines[0].get_ydata(), path(grid[:, None]))
    with pytest.raises(NotCoveredError, match="residuals"):
        ps.plot.learned(path)
    pair = ps.KernelPair(kernel, kernel)
    ensemble = ps.trained_ensemble(pair, x, y, ps.Training(loss=half_sse, learning_rate=0.05, steps=9), samples=150)
    curves = ps.plot.functions(ensemble, grid).lines
    assert len(curves) == 100
    assert np.allclose(curves[3].get_ydata(), ensemble(grid[:, None]).values[3])
    model, t = mlp(1, 16, 1), ps.Training(learning_rate=0.001, steps=60)
    again = ps.trajectory(ps.EmpiricalNTK(model), x, y, t, start=model, relinearise=2, share=0.2)
    drawn = ps.plot.trajectory(again).lines[0]
    assert drawn.get_ydata()[0] == pytest.approx(float(ps.train(model, x, y, t).losses[0]))
    assert np.allclose(ps.plot.functions(again, grid).lines[0].get_ydata(), again(grid[:, None]))


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
    without_kernels = ps.plot.drift(ps.drift(model, run.model, x)).patches
    assert np.isnan(without_kernels[1].get_height())
    alone = ps.plot.drift(drift).patches
    assert [bar.get_height() for bar in alone] == [bar.get_height() for bar in bars]


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


def test_functions_of_what_is_asked_at_positions(line):
    x, y = line
    kernel, grid = ps.kernels.RBF(), torch.linspace(-3, 3, 50)
    path = ps.trajectory(kernel, x, y, ps.Training(time=2.0))
    post = ps.GaussianProcess(kernel, noise=0.01).condition(x, y)
    ensemble = ps.trained_ensemble(ps.KernelPair(kernel, kernel), x, y)
    for result, means in [
        (path, path(grid[:, None])),
        (ps.trajectory(kernel, x, y[:, None], ps.Training(time=2.0)), path(grid[:, None])),
        (post, post(grid[:, None]).mean),
        (ensemble, ensemble(grid[:, None]).mean),
        (ps.trained_ensemble(ps.KernelPair(kernel, kernel), x, y[:, None]), ensemble(grid[:, None]).mean),
    ]:
        for positions in (grid, grid[:, None]):
            drawn = ps.plot.functions(result, positions).lines[0]
            assert np.allclose(drawn.get_xdata(), grid)
            assert np.allclose(drawn.get_ydata(), means)
        with pytest.raises(DataError, match=r"has no positions\. Give x"):
            ps.plot.functions(result)


def test_functions_and_losses_of_trained_networks(line):
    x, y = line
    training = ps.Training(learning_rate=0.001, steps=20)
    run = ps.train(mlp(1, 16, 1), x, y, training)
    assert np.allclose(ps.plot.functions(run, x).lines[0].get_ydata(), run.outputs[-1, :, 0])
    runs = ps.train_many(lambda seed: ps.Initialization().apply_(mlp(1, 16, 1), seed), 3, x, y, training)
    drawn = ps.plot.functions(runs, x).lines
    assert np.allclose([one.get_ydata() for one in drawn], runs.final[..., 0])
    curves = ps.plot.trajectory(runs).lines
    assert np.allclose([one.get_ydata() for one in curves[:3]], runs.losses)
    assert np.allclose(curves[3].get_ydata(), runs.losses.sort(0).values[1])
    assert curves[3].get_linewidth() > curves[0].get_linewidth()


def test_what_cannot_be_drawn_says_what_to_give(line):
    x, y = line
    run = ps.train(mlp(1, 8, 2), x, torch.stack([y, y], 1), ps.Training(learning_rate=0.001, steps=2))
    with pytest.raises(DataError, match=r"have 2 outputs\. Choose one"):
        ps.plot.functions(run, x)
    with pytest.raises(DataError, match=r"have shape \(2, 3, 4\)"):
        ps.plot.functions(torch.ones(2, 3, 4))
    with pytest.raises(DataError, match=r"plot.functions\(Spectrum\): says nothing of functions\. Give a Gaussian"):
        ps.plot.functions(ps.eigenmodes(ps.kernels.RBF(), x))
    with pytest.raises(DataError, match="holds no Drift"):
        ps.plot.drift({})
    with pytest.raises(DataError, match="Draw a matrix"):
        ps.plot.similarity(torch.ones(3))


def test_neighbours_carry_their_numbers(line):
    x, _ = line
    near = ps.most_similar(ps.kernels.RBF(), x, torch.tensor([[0.1], [1.9]]), k=3)
    ax = ps.plot.similarity(near)
    assert np.allclose(ax.images[0].get_array(), near.cosine)
    assert [text.get_text() for text in ax.texts] == [str(i) for i in near.index.flatten().tolist()]
    assert not ps.plot.similarity(ps.most_similar(ps.kernels.RBF(), x, torch.randn(100, 1), k=5)).texts


def test_an_audit_is_a_table_of_numbers():
    x, x_new, y = torch.randn(6, 3), torch.randn(3, 3), torch.tensor([1, -1, 1, 1, -1, -1])
    pairs = {f"length {s}": ps.KernelPair(ps.kernels.RBF(s), ps.kernels.RBF(s)) for s in (0.5, 2.0)}
    ways = {"A": torch.tensor([1, 1, -1]), "B": torch.tensor([-1, -1, 1])}
    result = ps.audit(pairs, x, y, x_new, ways, samples=2000)
    ax = ps.plot.audit(result)
    assert np.allclose(ax.images[0].get_array(), result.realised)
    assert [label.get_text() for label in ax.get_yticklabels()] == list(pairs)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["A", "B", "neither"]
    shown = [text.get_text().strip() for text in ax.texts]
    assert f"{float(result.realised[1, 2]):.3f}" in shown
    assert ps.plot.audit(result, ax) is ax


@pytest.mark.parametrize("kind", ["realised", "nearest"])
def test_a_crossover_is_a_curve_for_each_hypothesis(kind):
    b = torch.tensor([[0.1, 0.4, 0.9], [0.2, 0.6, 0.8]])
    both = torch.stack([0.9 - b, b], -1)
    result = ps.Crossover(("A", "B"), torch.tensor([0, 5, 10]), both, both, torch.full((2, 3), 0.1))
    ax = ps.plot.crossover(result, kind=kind)
    assert np.allclose(ax.lines[1].get_ydata(), b.mean(0))
    crossing = result.crossing(kind=kind)
    assert ax.lines[-1].get_xdata()[0] == crossing.number
    assert f"{crossing.number:.1f} examples" in ax.get_title()
    assert len(ax.get_legend().get_texts()) == (3 if kind == "realised" else 2)
