"""Re-linearisation: exact where a network is its own linearisation, nearer than the lazy prediction where it is not."""

import pytest
import torch
from torch import nn

import priorscope as ps
from priorscope.errors import DataError, NotCoveredError
from tests.cases import mlp

INIT = ps.Initialization(2.0, 0.1, "ntk")


def problem(width=16, outputs=1, seed=0, n=10):
    model = INIT.apply_(mlp(3, width, width, outputs), seed)
    x, x_new = torch.randn(n, 3), torch.randn(20, 3)
    return model, ps.EmpiricalNTK(model, rates=INIT), x, torch.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2], x_new


def rms(a, b):
    return float((a - b).square().mean().sqrt())


@pytest.mark.parametrize("loss", ["half_sse", "cross_entropy"])
def test_a_linearised_network_does_not_feel_it(loss):
    model = INIT.apply_(mlp(3, 16, 16, 2, activation=nn.Tanh), 0)
    network = ps.linearize(model)
    x, x_new, y = torch.randn(6, 3), torch.randn(5, 3), torch.tensor([0, 1, 0, 1, 1, 0])
    kernel = ps.EmpiricalNTK(network, rates=INIT)
    limit = ps.trajectory(kernel, x, y, ps.Training(loss=loss, learning_rate=1e-9, steps=1)).step_limit
    training = ps.Training(loss=loss, learning_rate=limit / 3, steps=60)
    lazy = ps.trajectory(kernel, x, y, training, start=network)
    for k in (1, 3):
        path = ps.trajectory(kernel, x, y, training, start=network, relinearise=k, share=0.2)
        assert path.spent == 0.2
        assert path.ends.tolist() == [12 * j // k for j in range(k + 1)]
        at = [0, 3, 11, 12, 40, 60]
        torch.testing.assert_close(path(x_new, at=at), lazy(x_new, at=at), rtol=0, atol=1e-9)
        torch.testing.assert_close(path.losses(at), lazy.losses(at), rtol=0, atol=1e-9)
        drift = path.predictions(x_new)
        assert drift.shape == (k + 1, 5, 2)
        torch.testing.assert_close(drift, lazy(x_new).expand_as(drift), rtol=0, atol=1e-9)


@pytest.mark.parametrize("width", [32, 128])
def test_it_is_nearer_to_trained_networks_than_the_lazy_prediction(width):
    ratios = []
    for seed in range(3):
        model, kernel, x, y, x_new = problem(width, seed=seed, n=12)
        limit = ps.trajectory(kernel, x, y).step_limit
        training = ps.Training(learning_rate=0.3 * limit, steps=2000)
        path = ps.trajectory(kernel, x, y, training, start=model, relinearise=1)
        end = ps.train(model, x, y, training, rates=INIT, record=x_new, at=[]).outputs[-1, :, 0]
        lazy, now = path.predictions(x_new)
        ratios.append(rms(lazy, end) / rms(now, end))
    print(f"width {width}: RMS to the trained network, lazy over re-linearised: {[round(r, 2) for r in ratios]}")
    assert min(ratios) > 1.2
    assert sorted(ratios)[1] > 1.5


def test_the_curve_is_the_real_trainings_until_there():
    model, kernel, x, y, x_new = problem()
    training = ps.Training(learning_rate=[0.002 + 1e-5 * k for k in range(100)])
    path = ps.trajectory(kernel, x, y, training, start=model, relinearise=3, share=0.1)
    run = ps.train(model, x, y, training, rates=INIT, record=x_new, at=range(11))
    torch.testing.assert_close(path(x_new, at=range(11)), run.outputs[:11, :, 0], rtol=0, atol=1e-12)
    torch.testing.assert_close(path.losses(range(11)), run.losses[:11], rtol=0, atol=1e-12)
    assert path.ends.tolist() == [0, 3, 7, 10]
    assert torch.equal(path(x_new), path.predictions(x_new)[-1])
    assert torch.equal(path.predictions(x_new)[0], ps.trajectory(kernel, x, y, training, start=model)(x_new))
    assert "10 of 100 steps (0.1 of the training) were really trained" in path.notes
    assert path.step_limit == path.last.step_limit
    whole = ps.trajectory(kernel, x, y, training, start=model, relinearise=1, share=1.0)
    torch.testing.assert_close(whole(x_new), run.outputs[-1, :, 0], rtol=0, atol=1e-12)
    with pytest.raises(DataError, match="before the last of `ends`"):
        path.predictions(x_new, at=9)


def test_what_it_cannot_do_is_named():
    model, kernel, x, y, _ = problem()
    plain = {"learning_rate": 0.001, "steps": 20}

    def ask(kernel=kernel, start=model, relinearise=2, share=0.2, **fields):
        return ps.trajectory(
            kernel, x, y, ps.Training(**(fields or plain)), start=start, relinearise=relinearise, share=share
        )

    with pytest.raises(NotCoveredError, match=r"a RBF\. Give EmpiricalNTK"):
        ask(kernel=ps.kernels.RBF())
    with pytest.raises(NotCoveredError, match="was given a flow"):
        ask(time=1.0)
    for fields in ({"momentum": 0.5}, {"weight_decay": 0.1}, {"batch_size": 3}):
        with pytest.raises(NotCoveredError, match=rf"Training\({next(iter(fields))}="):
            ask(**plain, **fields)
    with pytest.raises(NotCoveredError, match="adam"):
        ask(**plain, optimizer="adam")
    with pytest.raises(DataError, match="Give start=model"):
        ask(start=None)
    with pytest.raises(DataError, match="not the network that the kernel is of"):
        ask(start=INIT.apply_(mlp(3, 16, 16, 1), 5))
    for parts in (0, 21):
        with pytest.raises(DataError, match="relinearise: is"):
            ask(relinearise=parts)
    for share in (0.0, 1.1):
        with pytest.raises(DataError, match="share: is"):
            ask(share=share)
    with pytest.raises(NotCoveredError, match="readout"):
        ask(kernel=ps.EmpiricalNTK(model, rates=INIT, readout=lambda f: f))


@pytest.mark.filterwarnings("ignore::priorscope.PriorscopeWarning")
def test_a_training_that_diverges_is_named():
    model, kernel, x, y, _ = problem()
    training = ps.Training(learning_rate=1e6, steps=100)
    with pytest.raises(NotCoveredError, match="the real training diverges at step"):
        ps.trajectory(kernel, x, y, training, start=model, relinearise=1, share=0.5)


def test_single_precision_networks_keep_their_double_kernel():
    model, _, x, y, x_new = problem()
    single, kernel = mlp(3, 16, 16, 1), ps.EmpiricalNTK(model, rates=INIT)
    single.load_state_dict(model.state_dict())
    path = ps.trajectory(
        kernel, x, y, ps.Training(learning_rate=0.002, steps=40), start=single.float(), relinearise=1, share=0.1
    )
    double = ps.trajectory(
        kernel, x, y, ps.Training(learning_rate=0.002, steps=40), start=model, relinearise=1, share=0.1
    )
    torch.testing.assert_close(path(x_new), double(x_new), rtol=0, atol=1e-4)


def test_save_and_load(tmp_path):
    model, kernel, x, y, x_new = problem()
    path = ps.trajectory(
        kernel, x, y, ps.Training(learning_rate=0.002, steps=40), start=model, relinearise=2, share=0.1
    )
    loaded = ps.RelinearisedTrajectory.load(path.save(tmp_path / "path.npz"))
    assert torch.equal(loaded.losses([0, 2, 30]), path.losses([0, 2, 30]))
    assert (loaded.spent, loaded.notes, loaded.training) == (path.spent, path.notes, path.training)
    with pytest.raises(DataError, match="loaded without its networks"):
        loaded(x_new)


def test_a_schedule_is_followed_at_the_steps_that_were_kept():
    model, kernel, x, y, x_new = problem()
    training = ps.Training(learning_rate=[0.002 + 1e-5 * k for k in range(40)])
    path = ps.trajectory(kernel, x, y, training, start=model, relinearise=2, share=0.1)
    run = ps.train(model, x, y, training, rates=INIT, record=x_new, at=range(5))
    for step in (0, *path.ends.tolist()):
        torch.testing.assert_close(path(x_new, at=step), run.outputs[step, :, 0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("loss", ["half_sse", "cross_entropy"])
def test_classes_stay_classes(loss):
    model, x, y = mlp(2, 8, 3), torch.randn(6, 2), torch.tensor([0, 1, 2, 0, 1, 1])
    training = ps.Training(loss, learning_rate=0.05, steps=20)
    path = ps.trajectory(ps.EmpiricalNTK(model), x, y, training, start=model, relinearise=2, share=0.2)
    run = ps.train(model, x, y, training, at=[1])
    torch.testing.assert_close(path(x, at=1), run.outputs[1].to(path(x, at=1)), rtol=0, atol=1e-6)
    assert path.predictions(x).shape == (3, 6, 3)
