import math

import pytest
import torch
from torch import nn

import priorscope as ps
from priorscope.errors import DataError, NotCoveredError, RatesError
from priorscope.network.linearize import linearize
from tests.oracles import ntk_by_loop

INIT = ps.Initialization(2.0, 0.1, "ntk")
STEPS = [0, 3, 20]


def network(width: int = 12, outputs: int = 1) -> nn.Module:
    return nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, outputs)).double()


def data(outputs: int = 1):
    g = torch.Generator().manual_seed(0)
    x, x_new = torch.randn(6, 2, generator=g).double(), torch.randn(7, 2, generator=g).double()
    return x, torch.randn(6, outputs, generator=g).double(), x_new


@pytest.mark.parametrize("outputs", [1, 2])
def test_everything_is_what_a_loop_of_real_training_shows(outputs):
    x, y, x_new = data(outputs)
    model = INIT.apply_(network(outputs=outputs), 1)
    t = ps.Training(learning_rate=0.05, steps=20, momentum=0.5)
    course = ps.follow(model, x, y, t, x_new, at=STEPS)
    assert course.steps.tolist() == STEPS
    path = ps.trajectory(ps.EmpiricalNTK(model), x, y, t, start=model)
    first = None
    for i, steps in enumerate(STEPS):
        run = ps.train(model, x, y, ps.Training(learning_rate=0.05, steps=steps, momentum=0.5))
        kernel = ntk_by_loop(run.model, x, x, dict.fromkeys(run.rates, 1.0))
        kernel = sum(kernel[:, a, :, a] for a in range(outputs)) / outputs
        first = kernel if first is None else first
        assert float(course.drift[i]) == pytest.approx(float((kernel - first).norm() / first.norm()), abs=1e-9)
        cosine = float((kernel * first).sum() / (kernel.norm() * first.norm()))
        assert float(course.turn[i]) == pytest.approx(1 - cosine, abs=1e-9)
        aligned = float((y * (kernel @ y)).sum() / (kernel.norm() * y.square().sum()))
        assert float(course.alignment[i]) == pytest.approx(aligned, abs=1e-9)
        f, f0 = run.model(x_new).detach(), model(x_new).detach()
        assert float(course.moved[i]) == pytest.approx(float((f - f0).square().mean().sqrt()), abs=1e-9)
        off = float((f - path(x_new, at=steps)).square().mean().sqrt())
        assert float(course.unpredicted[i]) == pytest.approx(off, abs=1e-9)
        assert float(course.losses[i]) == pytest.approx(float((run.model(x).detach() - y).square().sum()) / 2, abs=1e-9)
    assert course.share[0] == 0
    assert course.outside is None


def test_the_after_kernel_predicts_by_regression_from_the_same_start():
    x, y, x_new = data()
    model = INIT.apply_(network(), 1)
    t = ps.Training(learning_rate=0.05, steps=600)
    course = ps.follow(model, x, y, t, x_new, at=[0])
    run = ps.train(model, x, y, t)
    f0, end = model(x).detach(), run.model(x_new).detach()
    for kernel_of, found in ((model, course.before_kernel), (run.model, course.after_kernel)):
        k, cross = (ntk_by_loop(kernel_of, a, x)[:, 0, :, 0] for a in (x, x_new))
        predicted = model(x_new).detach() + cross @ torch.linalg.solve(k, y - f0)
        assert found == pytest.approx(float((predicted - end).square().mean().sqrt()), rel=1e-5)


def test_a_linearised_network_never_leaves_its_course():
    x, y, x_new = data()
    lin = linearize(INIT.apply_(network(), 1))
    course = ps.follow(lin, x, y, ps.Training(learning_rate=0.05, steps=40), x_new)
    assert float(course.unpredicted.max()) < 1e-8
    assert float(course.drift.max()) < 1e-8
    assert course.fails_at() is None
    assert course.before_kernel == pytest.approx(course.after_kernel, rel=1e-5)


def test_a_small_network_with_large_targets_leaves_it_and_a_wide_one_with_small_ones_does_not():
    x, y, x_new = data()

    def course(width, size):
        model = INIT.apply_(network(width), 1)
        pair = ps.infinite_width(model, INIT)
        limit = ps.trained_ensemble(pair, x, size * y).values[0]
        t = ps.Training(learning_rate=float(0.5 / limit), steps=200)
        return ps.follow(model, x, size * y, t, x_new, pair=pair)

    lazy, rich = course(1024, 1.0), course(8, 10.0)
    assert float(lazy.share[-1]) < 0.1 < 0.3 < float(rich.share[-1])
    assert lazy.fails_at(0.3) is None
    assert rich.fails_at(0.3) in rich.steps.tolist()
    assert float(rich.drift[-1]) > 5 * float(lazy.drift[-1])
    assert float(rich.outside[-1]) > 0.3
    assert rich.after_kernel < rich.before_kernel


def test_the_band_is_the_ensembles():
    x, y, x_new = data()
    model = INIT.apply_(network(64), 1)
    pair = ps.infinite_width(model, INIT)
    t = ps.Training(learning_rate=0.02, steps=20)
    course = ps.follow(model, x, y, t, x_new, pair=pair, at=STEPS)
    ensemble = ps.trained_ensemble(pair, x, y, t)
    run = ps.train(model, x, y, t, rates=pair, record=x_new, at=STEPS)
    for i, step in enumerate(STEPS):
        law = ensemble(x_new, at=step)
        low, high = (law.mean + s * 2.5758293 * law.variance.sqrt()[:, None] for s in (-1, 1))
        out = ((run.outputs[i] < low) | (run.outputs[i] > high)).double().mean()
        assert float(course.outside[i]) == pytest.approx(float(out))


def test_saved_loaded_and_drawn(tmp_path):
    x, y, x_new = data()
    course = ps.follow(network(), x, y, ps.Training(learning_rate=0.01, steps=5), x_new)
    assert ps.Course.load(course.save(tmp_path / "course.npz")).to_dict() == course.to_dict()
    ax = ps.plot.course(course)
    assert len(ax.lines) == 3
    assert ax.get_xlabel() == "training step"


def test_labels_of_0_have_no_alignment():
    x, y, x_new = data()
    course = ps.follow(network(), x, 0 * y, ps.Training(learning_rate=0.01, steps=5), x_new)
    assert math.isnan(float(course.alignment[0]))


def test_refused():
    x, y, x_new = data()
    model, t = INIT.apply_(network(), 0), ps.Training(learning_rate=0.01, steps=5)
    with pytest.raises(NotCoveredError, match="gradient flow"):
        ps.follow(model, x, y, ps.Training(time=1.0), x_new)
    with pytest.raises(NotCoveredError, match="adam"):
        ps.follow(model, x, y, ps.Training(learning_rate=0.01, steps=5, optimizer="adam"), x_new)
    with pytest.raises(DataError, match="training points themselves"):
        ps.follow(model, x, y, t, x)
    with pytest.raises(DataError, match="pair: is a RBF"):
        ps.follow(model, x, y, t, x_new, pair=ps.kernels.RBF())
    ones = dict.fromkeys(INIT.rates(model), 1.0)
    with pytest.raises(RatesError, match="rates and the pair"):
        ps.follow(model, x, y, t, x_new, pair=ps.infinite_width(model, INIT), rates=ones)
