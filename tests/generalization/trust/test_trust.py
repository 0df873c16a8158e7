import math

import pytest
import torch
from torch import nn

import priorscope as ps
from priorscope.errors import DataError, IndistinguishableError, MemoryBudgetError, ModelError, PriorscopeError
from priorscope.generalization.trust import assess
from priorscope.generalization.trust.score import fitted

INIT = ps.Initialization(2.0, 0.1, "ntk")


def network(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, 1))


def limit_of(width: int = 128) -> ps.KernelPair:
    return ps.infinite_width(INIT.apply_(network(width), 0), INIT)


def data(size: float = 1.0):
    angles = torch.linspace(0, 5.5, 9)
    x = torch.stack([angles.cos(), angles.sin()], 1)
    new = angles[:-1] + 0.3
    return x, size * (2 * angles).sin(), torch.stack([new.cos(), new.sin()], 1)


def descent(pair, share: float = 0.3, **options) -> ps.Training:
    x, y, _ = data()
    values = ps.trained_ensemble(pair, x, y).values
    return ps.Training(learning_rate=float(2 * share / values[0]), steps=200, **options)


def test_it_falls_with_narrower_networks_larger_targets_and_larger_steps():
    by_width = [ps.trust(limit_of(width), *data()).score for width in (8, 64, 2048)]
    assert by_width == sorted(by_width)
    assert by_width[2] > by_width[0] + 0.2
    by_size = [ps.trust(limit_of(), *data(size)).score for size in (1.0, 4.0, 16.0)]
    assert by_size == sorted(by_size, reverse=True)
    assert by_size[2] < by_size[0] - 0.2
    pair = limit_of()
    small, large, beyond = (ps.trust(pair, *data(), descent(pair, share)) for share in (0.1, 0.9, 0.99))
    assert small.score >= large.score >= beyond.score
    assert small.features["step"] < large.features["step"] < beyond.features["step"]


def test_it_says_what_it_means():
    pair = limit_of(8)
    found = ps.trust(pair, *data(10.0))
    right, every = found.like
    assert f"right in {right} of {every} held-out cases" in found.words
    assert found.words.startswith("do not believe it")
    assert found.worst in found.features
    assert found.contributions[found.worst] < 0
    assert found.reason is None
    z = math.log(found.score / (1 - found.score))
    other = ps.trust(limit_of(2048), *data())
    assert sum(found.contributions.values()) - sum(other.contributions.values()) == pytest.approx(
        z - math.log(other.score / (1 - other.score))
    )


def test_real_steps_are_looked_at_where_they_are_allowed():
    pair = limit_of(32)
    plain, looked = (ps.trust(pair, *data(), descent(pair), steps=steps) for steps in (0, 10))
    assert set(looked.features) - set(plain.features) == {"turn", "course"}
    assert 0 <= looked.score <= 1


def test_the_same_seed_gives_the_same_score_and_the_module_stays():
    pair = limit_of(16)
    before = [p.clone() for p in pair.joint.model.parameters()]
    assert ps.trust(pair, *data(), seed=3).score == ps.trust(pair, *data(), seed=3).score
    assert ps.trust(pair, *data(), seed=3).features != ps.trust(pair, *data(), seed=4).features
    assert all(map(torch.equal, before, pair.joint.model.parameters()))


def test_pairs_that_no_network_can_be_drawn_from_have_none_and_say_why():
    x, y, x_new = data()
    own = ps.trust(ps.KernelPair(ps.kernels.RBF(), ps.kernels.RBF()), x, y, x_new)
    assert own.score is None
    assert "does not come from infinite_width" in own.words
    adam = ps.Training(learning_rate=0.1, steps=5, optimizer="adam")
    assert "optimizer='adam'" in ps.trust(limit_of(), x, y, x_new, adam).reason


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_training_points_among_the_test_points_change_nothing(dtype):
    """Where the band has no width: dropped, said how many, and the rest is looked at as before."""
    x, y, x_new = (part.to(dtype) for part in data())
    pair = limit_of(512)
    alone = ps.trust(pair, x, y, x_new, descent(pair))
    mixed = torch.cat([x[2:3], x_new[:4], x[5:7], x_new[4:]])
    found = ps.trust(pair, x, y, mixed, descent(pair))
    assert alone.score > 0.5
    # Not bit for bit: a row of a matrix product is summed as its neighbours ask for.
    assert found.score == pytest.approx(alone.score, abs=1e-4)
    assert found.notes == ("3 test points dropped that the kernel cannot tell from training points", *alone.notes)
    with pytest.raises(IndistinguishableError, match="x_new: holds only training points"):
        ps.trust(pair, x, y, x[:3], descent(pair))


def test_many_test_points_are_thinned_after_training_points_are_dropped():
    x, y, _ = (part.double() for part in data())
    angles = torch.linspace(0.1, 6, 130).double()
    x_new = torch.stack([angles.cos(), angles.sin()], 1)
    pair = limit_of()
    alone, mixed = (ps.trust(pair, x, y, points) for points in (x_new, torch.cat([x, x_new])))
    assert mixed.score == pytest.approx(alone.score, abs=1e-6)


def test_what_a_fitted_case_was_like_has_no_notes():
    pair = limit_of(256)
    assert ps.trust(pair, *data(), descent(pair)).notes == ()


def test_what_no_fitted_case_had_is_said():
    pair = limit_of()
    assert ps.trust(pair, *data()).notes == ("gradient flow: fitted on descents of 400 steps alone",)
    rate = descent(pair).learning_rate
    for options, note in (
        ({"steps": 401}, "401 steps: fitted on 400"),
        ({"steps": 50, "weight_decay": 0.1}, "weight decay: fitted without any"),
        ({"steps": 50, "batch_size": 3}, "mini-batches: fitted on full batches alone"),
        ({"steps": 50, "momentum": 0.5, "nesterov": True}, "Nesterov's momentum: fitted on plain momentum alone"),
    ):
        assert ps.trust(pair, *data(), ps.Training(learning_rate=rate, **options)).notes == (note,)
    falling = ps.Training(learning_rate=[rate, rate / 2, rate / 4])
    assert ps.trust(pair, *data(), falling).notes == ("a schedule of learning rates: fitted on constant ones alone",)


def test_more_points_than_any_fitted_case_are_said():
    x, x_new = torch.randn(300, 2), torch.randn(9, 2)
    notes = ps.trust(limit_of(512), x, x[:, 0], x_new).notes
    assert "300 training points: fitted on at most 40" in notes


def test_layers_that_no_fitted_task_had_are_said():
    """Whether they are modules or functions."""
    linear = "fitted on fully connected networks of gelu, linear, relu, tanh"

    class Skips(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.last = nn.Linear(2, 32), nn.Linear(32, 32), nn.Linear(32, 1)

        def forward(self, x):
            h = torch.relu(self.first(x))
            return self.last(h + self.second(h))

    x, y, x_new = data()
    skips = ps.infinite_width(INIT.apply_(Skips(), 0), INIT)
    assert f"no fitted task had sum of branches: {linear}" in ps.trust(skips, x, y, x_new).notes
    pooled = nn.Sequential(nn.Conv1d(2, 32, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 1))
    images, new = torch.randn(6, 2, 5), torch.randn(4, 2, 5)
    convolutions = ps.infinite_width(INIT.apply_(pooled, 0), INIT)
    notes = ps.trust(convolutions, images, images[:, 0, 0], new).notes
    assert f"no fitted task had convolution, flatten, pooling: {linear}" in notes
    five = [layer for _ in range(4) for layer in (nn.Linear(16, 16), nn.ReLU())]
    deep = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), *five, nn.Linear(16, 1))
    limit = ps.infinite_width(INIT.apply_(deep, 0), INIT)
    assert "5 hidden layers: fitted on at most 3" in ps.trust(limit, x, y, x_new).notes


def test_features_beyond_the_fitted_ones_are_said():
    found = ps.trust(limit_of(2), *data())
    score = fitted().before
    beyond = {name for name, high in score.high.items() if found.features[name] > high}
    assert "points per unit" in beyond
    for name in score.high:
        told = [note for note in found.notes if f"the feature {name!r} is {found.features[name]:.3g}" in note]
        assert len(told) == (name in beyond)
        assert all(f"fitted on {score.low[name]:.3g} to {score.high[name]:.3g}" in note for note in told)


def test_saved_and_loaded(tmp_path):
    found = ps.trust(limit_of(), *data())
    again = ps.Trust.load(found.save(tmp_path / "trust.npz"))
    assert again.to_dict() == found.to_dict()
    assert "score" in found._repr_html_()


def test_refused():
    x, y, x_new = data()
    pair = limit_of()
    with pytest.raises(DataError, match="was given a RBF"):
        ps.trust(ps.kernels.RBF(), x, y, x_new)
    with pytest.raises(PriorscopeError, match="was given a int"):
        ps.trust(pair, x, y, x_new, 3)
    with pytest.raises(DataError, match="x_new"):
        ps.trust(pair, x, y, x_new * math.nan)
    with pytest.raises(DataError, match="y"):
        ps.trust(pair, x, y[:3], x_new)
    for steps in (-1, 2.5, True):
        with pytest.raises(DataError, match="whole number of steps"):
            ps.trust(pair, x, y, x_new, descent(pair), steps=steps)
    with pytest.raises(DataError, match=r"x_new: has points of shape \(3,\), x has points of shape \(2,\)"):
        ps.trust(pair, x, y, torch.randn(4, 3))
    with pytest.raises(ModelError, match="does not run"):
        ps.trust(pair, torch.randn(9, 3), y, torch.randn(4, 3))
    for seed in (-1, "a", 0.5, True, 2**63):
        with pytest.raises(DataError, match=r"seed: is .* Give a whole number of at least 0"):
            ps.trust(pair, x, y, x_new, seed=seed)
    with pytest.raises(DataError, match="gradient flow"):
        ps.trust(pair, x, y, x_new, steps=3)
    with pytest.raises(DataError, match="the training has 200"):
        ps.trust(pair, x, y, x_new, descent(pair), steps=201)


def test_networks_that_cannot_be_looked_at_have_none_and_what_is_no_such_error_is_raised(monkeypatch):
    def fails(error):
        def features(prediction, seed):
            raise error("here", "is too much", "Give less")

        monkeypatch.setattr(assess, "features", features)

    fails(MemoryBudgetError)
    assert ps.trust(limit_of(), *data()).reason == "the networks could not be looked at (here is too much)"
    fails(DataError)
    with pytest.raises(DataError, match="is too much"):
        ps.trust(limit_of(), *data())


def test_compare_carries_it():
    x, y, x_new = data()
    pair = limit_of()
    candidates = {"a": torch.ones(len(x_new)), "b": -torch.ones(len(x_new))}
    verdict = ps.compare(pair, x, y, x_new, candidates)
    expected = ps.trust(pair, x, y, x_new)
    assert (verdict.trust, verdict.trust_reason) == (expected.score, expected.words)
    assert f"{expected.score:.2f}" in verdict._repr_html_()
    (note,) = expected.notes
    assert f"trust: {note}" in verdict.notes
    assert f"<li>trust: {note}</li>" in verdict._repr_html_()
    assert ps.compare(pair.on(x), y, x_new, candidates).trust == pytest.approx(expected.score, abs=1e-3)
    assert "trust=False" in ps.compare(pair, x, y, x_new, candidates, trust=False).trust_reason
    own = ps.compare(ps.KernelPair(pair.nngp, pair.ntk), x, y, x_new, candidates)
    assert own.trust is None
    assert "infinite_width" in own.trust_reason
    model = INIT.apply_(network(16), 0)
    given = ps.compare(ps.EmpiricalNTK(model), x, y, x_new, candidates, start=model)
    assert given.trust is None
    assert "one given network" in given.trust_reason
