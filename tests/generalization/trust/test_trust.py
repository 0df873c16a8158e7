import math

import pytest
import torch
from torch import nn

import priorscope as ps
from priorscope.errors import DataError, PriorscopeError

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
    with pytest.raises(DataError, match="gradient flow"):
        ps.trust(pair, x, y, x_new, steps=3)
    with pytest.raises(DataError, match="the training has 200"):
        ps.trust(pair, x, y, x_new, descent(pair), steps=201)


def test_compare_carries_it():
    x, y, x_new = data()
    pair = limit_of()
    candidates = {"a": torch.ones(len(x_new)), "b": -torch.ones(len(x_new))}
    verdict = ps.compare(pair, x, y, x_new, candidates)
    expected = ps.trust(pair, x, y, x_new)
    assert (verdict.trust, verdict.trust_reason) == (expected.score, expected.words)
    assert f"{expected.score:.2f}" in verdict._repr_html_()
    assert ps.compare(pair.on(x), y, x_new, candidates).trust == pytest.approx(expected.score, abs=1e-3)
    assert "trust=False" in ps.compare(pair, x, y, x_new, candidates, trust=False).trust_reason
    own = ps.compare(ps.KernelPair(pair.nngp, pair.ntk), x, y, x_new, candidates)
    assert own.trust is None
    assert "infinite_width" in own.trust_reason
    model = INIT.apply_(network(16), 0)
    given = ps.compare(ps.EmpiricalNTK(model), x, y, x_new, candidates, start=model)
    assert given.trust is None
    assert "one given network" in given.trust_reason
