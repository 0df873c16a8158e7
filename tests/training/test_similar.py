"""Contributions add up to the prediction, at any time of training, by point and by group."""

import pytest
import torch
from torch import nn

import priorscope as ps
from priorscope.beliefs import Similar
from priorscope.errors import DataError, NotCoveredError
from priorscope.kernels import RBF, ArcCosine
from tests.beliefs.kernels import Features

ANIMALS = ["husky", "wolf", "husky", "wolf", "husky", "wolf"]
PLACES = ["snow", "grass", "snow", "snow", "grass", "grass"]
TRAININGS = [
    ps.Training(),
    ps.Training(time=0.7),
    ps.Training(learning_rate=0.1, steps=7),
    ps.Training("mse", learning_rate=0.3, steps=9, momentum=0.5),
]


def points(outputs=None):
    return torch.randn(6, 3), torch.randn(4, 3), torch.randn(6) if outputs is None else torch.randn(6, outputs)


@pytest.mark.parametrize("training", TRAININGS, ids=["end", "time", "steps", "momentum"])
@pytest.mark.parametrize("outputs", [None, 2])
def test_contributions_add_up_to_what_training_reaches(training, outputs):
    x, x_new, y = points(outputs)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, outputs or 1))
    for start in (None, model):
        found = ps.similar(ArcCosine(1), x, x_new, y=y, training=training, start=start)
        path = ps.trajectory(ArcCosine(1), x, y, training, start)
        assert torch.allclose(found.prediction, path(x_new))
        assert torch.equal(found.weights, path.influence(x_new))
        assert found.contributions.shape == (4, 6) if outputs is None else (4, 6, 2)


def test_cosines_and_limit_weights_are_those_of_the_kernel():
    x, x_new, _ = points()
    found = ps.similar(RBF().on(x), x_new)
    assert torch.equal(found.cosine, ps.cosine(RBF(), x_new, x))
    assert torch.allclose(found.weights, ps.influence(RBF(), x, x_new))
    assert found.contributions is None
    pair = ps.KernelPair(ArcCosine(1), RBF())
    assert torch.allclose(ps.similar(pair, x, x_new).weights, found.weights)


def test_one_label_moves_its_contribution_alone():
    """Slowly: train with one label changed, and see how far each prediction moves."""
    x, x_new, y = points()
    training = ps.Training(time=0.7)
    found = ps.similar(RBF(), x, x_new, y=y, training=training)
    base = ps.trajectory(RBF(), x, y, training)(x_new)
    for i in range(6):
        without = y.clone()
        without[i] = 0
        moved = base - ps.trajectory(RBF(), x, without, training)(x_new)
        assert torch.allclose(found.contributions[:, i], moved)


def test_by_group_for_several_factors():
    x, x_new, y = points()
    found = ps.similar(RBF(), x, x_new, {"animal": ANIMALS, "place": PLACES}, y)
    for factor, names in (("animal", ANIMALS), ("place", PLACES)):
        shares = found.by(factor)
        assert shares.names == tuple(dict.fromkeys(names))
        for g, name in enumerate(shares.names):
            rows = [i for i, one in enumerate(names) if one == name]
            assert int(shares.sizes[g]) == len(rows)
            assert torch.allclose(shares.weights[:, g], found.weights[:, rows].sum(1))
            assert torch.allclose(shares.absolute[:, g], found.weights[:, rows].abs().sum(1))
            assert torch.allclose(shares.mean_cosine[:, g], found.cosine[:, rows].mean(1))
            assert torch.equal(shares.max_cosine[:, g], found.cosine[:, rows].amax(1))
            assert torch.allclose(shares.contributions[:, g], found.contributions[:, rows].sum(1))
        assert torch.allclose(shares.contributions.sum(1), found.prediction)
    with pytest.raises(DataError, match="the factors are: animal, place"):
        found.by()
    with pytest.raises(DataError, match=r"by\('colour'\)"):
        found.by("colour")


def test_the_carrier_pulls_furthest_where_the_prediction_goes():
    x = torch.tensor([[0.0], [0.2], [3.0], [3.2]])
    y = torch.tensor([1.0, 1.0, -1.0, -1.0])
    groups = ["left", "left", "right", "right"]
    near = torch.tensor([[0.1], [3.1]])
    assert ps.similar(RBF(), x, near, groups, y).by().carriers == ("left", "right")
    classes = torch.tensor([0, 0, 1, 1])
    shares = ps.similar(RBF(), x, near, classes, classes).by("group")
    assert shares.names == ("0", "1")
    assert shares.contributions.shape == (2, 2, 2)
    assert shares.carriers == ("0", "1")
    # Against the prediction, however far, is not carried by it.
    pulled = ps.similar(RBF(0.3), x, torch.tensor([[0.4]]), groups, torch.tensor([1.0, 1.0, -9.0, -9.0])).by()
    assert pulled.carriers == ("left",)
    with pytest.raises(DataError, match="no labels"):
        _ = ps.similar(RBF(), x, near, groups).by().carriers


def test_coupled_outputs_reach_the_same_prediction():
    kernel = Features(3, 2, 60)
    x, x_new, y = points(2)
    found = ps.similar(kernel, x, x_new, ANIMALS, y)
    path = ps.trajectory(kernel, x, y)
    assert torch.allclose(found.prediction, path(x_new))
    own = path.influence(x_new)
    assert torch.allclose(found.weights, (own[:, 0, :, 0] + own[:, 1, :, 1]) / 2)
    assert torch.allclose(found.contributions, torch.einsum("iajb,jb->ija", own, y))
    # Whatever the labels: weights need none.
    assert torch.allclose(ps.similar(kernel, x, x_new).weights, found.weights)


def test_a_trained_network_answers_by_its_own_kernel():
    x, x_new, y = points()
    model = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1))
    run = ps.train(model, x, y, ps.Training(learning_rate=0.05, steps=300))
    before = ps.similar(ps.EmpiricalNTK(model), x, x_new)
    after = ps.similar(ps.EmpiricalNTK(run.model), x, x_new)
    assert torch.allclose(after.cosine, ps.cosine(ps.EmpiricalNTK(run.model), x_new, x))
    assert float((after.weights - before.weights).abs().max()) > 1e-2


def test_what_does_not_fit_raises():
    x, x_new, y = points()
    for options, error, message in [
        ({"groups": ANIMALS[:4]}, DataError, "4 names for 6"),
        ({"groups": {}}, DataError, "is empty"),
        ({"groups": {"animal": PLACES[:2]}}, DataError, r"groups\['animal'\]: has 2 names"),
        ({"groups": "husky!"}, DataError, "'husky!' for 6"),
        ({"start": nn.Linear(3, 1)}, DataError, "without y"),
        ({"y": y[:3]}, DataError, "y"),
        ({"training": ps.Training("cross_entropy", time=1.0), "y": y}, NotCoveredError, "no sum over labels"),
    ]:
        with pytest.raises(error, match=message):
            ps.similar(RBF(), x, x_new, **options)
    decayed = ps.Training(learning_rate=0.1, steps=3, weight_decay=0.1, decay_to="zero")
    with pytest.raises(NotCoveredError, match="no sum over labels"):
        ps.similar(RBF(), x, x_new, training=decayed)
    with pytest.raises(DataError, match="predicts nothing"):
        _ = ps.similar(RBF(), x, x_new).prediction


def test_it_is_saved(tmp_path):
    x, x_new, y = points()
    found = ps.similar(RBF(), x, x_new, {"animal": ANIMALS}, y)
    again = Similar.load(found.save(tmp_path / "similar.npz"))
    assert again.groups == found.groups
    assert torch.equal(again.by().contributions, found.by().contributions)
    assert found.by().to_dict()["names"] == ["husky", "wolf"]


def test_weights_alone_need_the_number_of_outputs_where_the_loss_is_a_mean():
    x, x_new, _ = points()
    training = ps.Training("mse", learning_rate=0.1, steps=3)
    with pytest.raises(DataError, match="y: is left out: mse is a mean over outputs"):
        ps.similar(RBF(), x, x_new, training=training)
    assert ps.similar(RBF(), x, x_new, training=ps.Training("mse")).weights.shape == (4, 6)
