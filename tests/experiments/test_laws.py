"""boolean, ensemble, counting, calibration: cases as committed, and their pieces against slow, obvious ones."""

import importlib
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import ndtri
from torch import nn

import priorscope as ps
from priorscope.beliefs.gaussian import Gaussian
from priorscope.experiments import (
    Config,
    boolean,
    calibration,
    counting,
    ensemble,
    scores,
    small_tasks,
)
from priorscope.experiments.additive import OTHER_SEEDS, with_untrained
from priorscope.experiments.boolean_tasks import FUNCTIONS, bits, boolean_task, codes, counts, labelings, split
from priorscope.experiments.calibration_tasks import circle_task, described, makers, rows_task
from priorscope.experiments.small_tasks import Task, outcomes, probabilities, undecided
from priorscope.experiments.statistics import covariance_quantile, covariance_statistic

ROOT = Path(__file__).parents[2]


def small(name, hidden=1, activation="relu"):
    """Three points on a line, four test points."""
    x, x_new = torch.linspace(-1, 1, 3)[:, None], torch.tensor([[-0.8], [-0.3], [0.4], [1.5]])
    a, b = torch.tensor([-1.0, 1.0, 1.0, -1.0]), torch.tensor([-1.0, -1.0, 1.0, 1.0])
    return Task(name, x, torch.tensor([-1.0, 0.5, 1.0]), x_new, a, b, hidden, activation)


def correlated(seed=0, points=4):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(points, points, generator=generator)
    return Gaussian(0.5 * torch.randn(points, generator=generator), root @ root.T / points)


@pytest.mark.parametrize("name", ["boolean", "ensemble", "counting", "calibration"])
def test_the_cases_are_those_that_were_fixed_before(name):
    module = importlib.import_module(f"priorscope.experiments.{name}")
    committed = json.loads((ROOT / "cases" / f"{name}.json").read_text())
    assert committed == json.loads(json.dumps(module.cases()))


# Boolean tasks.


def test_labelings_are_counted_as_they_are_enumerated():
    by_hand = [tuple(2.0 * ((code // 2**i) % 2) - 1 for i in range(3)) for code in range(8)]
    assert [tuple(row) for row in labelings(3).tolist()] == by_hand
    assert codes(labelings(8)).tolist() == list(range(256))
    functions = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    slow = [sum(tuple(f.sign().tolist()) == labels for f in functions) for labels in by_hand]
    assert counts(functions).tolist() == slow


def test_functions_are_what_their_names_say():
    x = bits(5)
    assert len({tuple(row) for row in x.tolist()}) == 32
    for name, function in FUNCTIONS.items():
        assert set(function(x).tolist()) == {-1.0, 1.0}, name
    for row, said in zip(x.tolist(), FUNCTIONS["majority"](x).tolist(), strict=True):
        assert said == (1 if sum(row) > 0 else -1)
    for row, said in zip(x.tolist(), FUNCTIONS["first and second, or third"](x).tolist(), strict=True):
        assert (said > 0) == ((row[0] > 0 and row[1] > 0) or row[2] > 0)
    trained, tested = split(32, 24, 0)
    assert sorted([*trained.tolist(), *tested.tolist()]) == list(range(32))


def test_total_variation_and_its_null():
    law = torch.tensor([0.5, 0.3, 0.2, 0.0])
    assert boolean.total_variation(torch.tensor([0.2, 0.3, 0.2, 0.3]), law) == pytest.approx(0.3)
    null = boolean.variation_of_its_own(law, 40, 4000, seed=0)
    drawn = np.random.default_rng(1).multinomial(40, law.numpy(), size=4000) / 40
    slow = np.abs(drawn - law.numpy()).sum(1) / 2
    assert float(null.mean()) == pytest.approx(slow.mean(), rel=0.03)
    assert float(null.quantile(0.99)) == pytest.approx(np.quantile(slow, 0.99), abs=0.026)


def test_log_likelihood_by_hand():
    counted, sampled = torch.tensor([3, 1, 0]), torch.tensor([80.0, 0.0, 20.0])
    by_hand = (3 * math.log(80.5 / 101.5) + math.log(0.5 / 101.5)) / 4
    assert boolean.log_likelihood(counted, sampled) == pytest.approx(by_hand)


def test_a_boolean_task_is_measured_and_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(boolean, "SAMPLES", 20_000)
    monkeypatch.setattr(boolean, "NULL_DRAWS", 500)
    task = boolean_task("coins 1", 3, 5, 0)
    settings = {"widths": (16, 32), "networks": 40}
    numbers, criteria = boolean.measure(task, settings, Config(keep=tmp_path))
    assert int(numbers["counts"].sum()) == 40
    assert len(numbers["counts"]) == 8
    assert set(numbers["shares"]) == set(boolean.LAWS)
    assert all(float(share.sum()) == pytest.approx(1) for share in numbers["shares"].values())
    assert len(criteria) == 2
    assert len(list(tmp_path.iterdir())) == 2
    again, _ = boolean.measure(task, settings, Config(keep=tmp_path))
    assert torch.equal(again["counts"], numbers["counts"])
    assert len(boolean.draw(boolean.Outcome(tuple(criteria), {"tasks": {"a task": numbers}})).axes) == 2


# The untrainable function.


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
@pytest.mark.slow
@pytest.mark.parametrize("hidden", [1, 2])
def test_with_the_untrainable_function_a_network_starts_with_the_ntk_as_covariance(hidden, activation):
    init = ps.Initialization(2.0, 0.1, "ntk")
    x = nn.functional.normalize(torch.randn(4, 3, generator=torch.Generator().manual_seed(0)))

    def make(width):
        sizes = [3, *[width] * hidden]
        layers = [each for i, o in itertools.pairwise(sizes) for each in (nn.Linear(i, o), activation())]
        return nn.Sequential(*layers, nn.Linear(width, 1))

    limit = ps.infinite_width(init.apply_(make(64), 0), init)
    networks, width = 400, 256
    with torch.no_grad():
        pairs = [with_untrained(init.apply_(make(width), seed), init, seed) for seed in range(networks)]
        whole = torch.stack([model(x)[:, 0] for model in pairs])
        added = torch.stack([model.untrained(x)[:, 0] for model in pairs])
    for found, law in ((whole, limit.ntk(x)), (added, limit.ntk(x) - limit.nngp(x))):
        quantile = covariance_quantile(law, networks, 1000, 0)
        # A fifth for finite width; the nngp in the law's place does not pass.
        assert float(covariance_statistic(found, law)) < 1.2 * quantile
        of_nngp = covariance_quantile(limit.nngp(x), networks, 1000, 0)
        assert float(covariance_statistic(found, limit.nngp(x))) > 1.2 * of_nngp


def test_the_untrainable_function_is_the_jacobian_times_another_start():
    init = ps.Initialization(2.0, 0.1, "ntk")
    network = init.apply_(nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)), 3)
    other = init.apply_(nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)), 3 + OTHER_SEEDS)
    model, x = with_untrained(network, init, 3), torch.randn(3, 2)
    slow = []
    for point in x:
        gradients = torch.autograd.grad(network(point[None]).sum(), list(network.parameters()))
        pairs = list(zip(gradients, other.parameters(), strict=True))[:-2]  # all but the last layer
        slow.append(sum(float((g * p.detach()).sum()) for g, p in pairs))
    torch.testing.assert_close(model.untrained(x)[:, 0].detach(), torch.tensor(slow))
    before = model.untrained(x).detach()
    runs = ps.train(model, x, torch.ones(3), ps.Training(learning_rate=0.05, steps=20), rates=init)
    torch.testing.assert_close(runs.model.untrained(x).detach(), before)
    assert float((runs.model.network(x) - network(x)).detach().abs().max()) > 0.01
    with pytest.raises(ValueError, match="ntk"):
        with_untrained(network, ps.Initialization(2.0, 0.1), 3)


@pytest.mark.slow
def test_ensemble_is_measured_and_drawn(monkeypatch):
    monkeypatch.setattr(ensemble, "NULL_DRAWS", 500)
    task = boolean_task("majority", 3, 5, 0)
    numbers, criteria = ensemble.measure(task, {"widths": (32, 64), "networks": 60}, Config())
    assert len(criteria) == 4
    assert set(numbers) == set(ensemble.KINDS)
    for entry in numbers.values():
        assert entry["distances"][entry["law"]] <= entry["threshold"]
    assert numbers["plain"]["distances"]["NTK posterior"] > numbers["plain"]["threshold"]
    outcome = boolean.Outcome(tuple(criteria), {"tasks": {"a task": numbers}})
    assert len(ensemble.draw(outcome).axes) == 2


# Statements.


def test_probabilities_of_statements_are_those_of_samples():
    task, law = small("line"), correlated()
    sampled = outcomes(task, law.sample(200_000, 0)).to(torch.float64).mean(0)
    assert float((probabilities(task, law) - sampled).abs().max()) < 0.005
    values = torch.tensor([[0.1, -0.2, 0.3, 0.9]])
    nearer = (values[0] - task.a).norm() < (values[0] - task.b).norm()
    assert outcomes(task, values).tolist() == [[True, False, True, True, bool(nearer)]]
    same = Task("same", task.x, task.y, task.x_new, task.a, task.a)
    assert outcomes(same, values).shape == (1, 4)
    assert len(probabilities(same, law)) == 4


def test_undecided_points_are_spread_over_the_probabilities():
    p = torch.linspace(0.001, 0.999, 200)
    mean = torch.from_numpy(ndtri(p.numpy()))
    chosen = p[undecided(Gaussian(mean, torch.eye(200)))]
    assert len(chosen) == small_tasks.POINTS
    assert float(chosen.min()) > small_tasks.UNDECIDED
    assert float(chosen.max()) < 1 - small_tasks.UNDECIDED
    assert float(chosen.diff().std()) < 0.01
    assert len(undecided(Gaussian(torch.full((3,), 9.0), torch.eye(3)))) == 0


# Calibration.


def test_the_tasks_are_as_many_as_asked_for_and_none_of_the_boolean_experiments():
    assert len(makers()) == len(described()) >= 20
    assert len(makers()) * calibration.FULL["networks"] >= 2000
    built_on = {boolean_task(f, boolean.BITS, boolean.TRAIN, seed).name for f, seed in boolean.TASKS}
    built_on |= {boolean_task(*arguments).name for arguments in ensemble.TASKS}
    tasks = [make() for make in makers()]
    assert len({task.name for task in tasks}) == len(tasks)
    assert not built_on & {task.name for task in tasks}
    for task in tasks:
        assert float(torch.cdist(task.x_new, task.x).min()) > 0, task.name
        assert len(task.x_new) == len(task.a) == len(task.b)
        assert len(task.x) == len(task.y)


def test_the_curve_and_the_bias_by_brute_force():
    generator = torch.Generator().manual_seed(0)
    tasks = [
        (torch.rand(q, generator=generator), (torch.rand(s, q, generator=generator) < 0.4) * 1.0)
        for s, q in ((7, 3), (5, 4))
    ]
    curve = calibration.reliability(tasks)
    flat = [(float(p), float(d)) for ps_, done in tasks for row in done for p, d in zip(ps_, row, strict=True)]
    for b in range(calibration.BINS):
        inside = [pair for pair in flat if b / 10 <= pair[0] < (b + 1) / 10]
        assert int(curve["count"][b]) == len(inside)
        if inside:
            assert float(curve["predicted"][b]) == pytest.approx(np.mean([p for p, _ in inside]))
            assert float(curve["outcome"][b]) == pytest.approx(np.mean([d for _, d in inside]))
    bias, error = calibration.pooled_bias(tasks)
    assert bias == pytest.approx(np.mean([d - p for p, d in flat]))
    sums = [(done - p).sum(1).numpy() for p, done in tasks]
    assert error == pytest.approx(math.sqrt(sum(len(e) * e.var(ddof=1) for e in sums)) / len(flat))


def test_the_band_holds_its_share_and_takes_networks_whole():
    """By brute force: all statements of a network are the same, so that the band of s networks is binomial in s."""
    task = Task("one", torch.zeros(1, 1), torch.ones(1), torch.zeros(4, 1), torch.ones(4), torch.ones(4))
    law = Gaussian(torch.full((4,), 0.3), torch.ones(4, 4))
    p, networks = probabilities(task, law), 50
    done = outcomes(task, law.sample(4000 * networks, 0)).reshape(4000, networks, 4)
    band = calibration.band_of([p], [done])
    place = int(float(p[0]) * calibration.BINS)
    slow = math.sqrt(float(p[0]) * (1 - float(p[0])) / networks)
    assert float(band["deviation"][place]) == pytest.approx(slow, rel=0.05)
    assert 2.3 < band["quantile"] < 2.9  # of one normal bin it is 2.58; taken point by point it would be half
    inside = (done.to(torch.float64).mean((1, 2)) - p[0]).abs() <= band["quantile"] * band["deviation"][place]
    assert float(inside.to(torch.float64).mean()) == pytest.approx(0.99, abs=0.01)


def test_calibration_passes_its_own_law_and_refutes_a_wrong_one():
    def measured(shift, seed):
        task = small(f"line {seed}")
        law = correlated(seed)
        truth = Gaussian(law.mean + shift, law.matrix)
        done = outcomes(task, truth.sample(200, 100 + seed))
        return calibration.Measured(task, law, probabilities(task, law), done, 16, {})

    right = calibration.reported([measured(0.0, seed) for seed in range(10)], {})
    wrong = calibration.reported([measured(0.4, seed) for seed in range(10)], {})
    assert right.passed(full=True), [str(c) for c in right.criteria]
    failed = [c.name for c in wrong.criteria if not c.holds]
    assert any("bias, as stated" in name for name in failed)
    assert any("reliability" in name for name in failed)
    assert len(right.numbers["tasks"]) == 10
    assert right.notes[1].count("line") == 10
    assert len(calibration.draw(right).axes) == 2
    right.to_dict()


def test_calibration_measures_a_task(tmp_path):
    task = circle_task(5, 1, 1.0, 3, 1, "tanh")
    one = calibration.measure(task, {"networks": 6, "widths": {1: 16}}, Config(keep=tmp_path))
    assert one.done.shape == (6, len(one.predicted))
    assert len(list(tmp_path.iterdir())) == 1
    assert len(one.task.a) <= small_tasks.POINTS


def test_rows_are_of_two_classes_once_each():
    task = rows_task("iris", 1, 2, 16, 31, 1)
    both = torch.cat([task.x, task.x_new])
    assert len(both.unique(dim=0)) == len(both)
    torch.testing.assert_close(task.x.mean(0), torch.zeros(4), atol=1e-9, rtol=0)
    assert set(task.y.tolist()) == {-1.0, 1.0}


# Counting.


def test_log_score_by_hand():
    p, done = torch.tensor([0.8, 0.3]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    by_hand = torch.tensor([[math.log(0.8), math.log(0.7)], [math.log(0.2), math.log(0.3)]])
    torch.testing.assert_close(scores.log_score(scores.either(p), scores.either(done)), by_hand)


@pytest.mark.parametrize("kinds", [2, 3])
def test_the_score_of_counts_is_the_mean_over_all_subsets(kinds):
    generator = torch.Generator().manual_seed(0)
    done = torch.nn.functional.one_hot(torch.randint(kinds, (11, 2), generator=generator), kinds).double()
    pool, held = done[:6], done[6:]
    sizes = (1, 3, 6)
    found = scores.score_of_counts(pool.sum(0), 6, held, sizes, 0.5)
    assert found.shape == (3, 5, 2)
    for m, each in zip(sizes, found, strict=True):
        slow = [
            scores.log_score((pool[list(chosen)].sum(0) + 0.5) / (m + 0.5 * kinds), held)
            for chosen in itertools.combinations(range(6), m)
        ]
        torch.testing.assert_close(each, torch.stack(slow).mean(0))


def test_each_network_is_held_out_from_the_others_alone():
    generator = torch.Generator().manual_seed(0)
    done = torch.nn.functional.one_hot(torch.randint(3, (6, 2), generator=generator), 3).double()
    found = scores.score_of_others(done, (1, 4), 1.0)
    for i in range(6):
        others = torch.cat([done[:i], done[i + 1 :]])
        slow = scores.score_of_counts(others.sum(0), 5, done[i : i + 1], (1, 4), 1.0)
        torch.testing.assert_close(found[:, i], slow[:, 0])


def test_no_prediction_is_surer_than_it_is_let():
    found = scores.unsure(torch.tensor([[1.0, 0.0, 0.0], [0.2, 0.3, 0.5]]).double())
    torch.testing.assert_close(found.sum(-1), torch.ones(2).double())
    assert float(found[0].min()) == pytest.approx(1e-4, rel=1e-3)
    torch.testing.assert_close(found[1], torch.tensor([0.2, 0.3, 0.5]).double())


def test_the_two_features_contradict_each_other_in_the_test_points():
    task = counting.two_features(1.0, 0.5, 0)
    assert torch.equal(task.x[:, 0], task.y)
    assert torch.equal(task.x[:, 1], 0.5 * task.y)
    assert torch.equal(task.x_new[:, 0], task.a)
    assert torch.equal(task.x_new[:, 1], -0.5 * task.a)
    assert torch.equal(task.a, -task.b)
    assert len({make().name for make in counting.makers()}) == counting.FULL["tasks"]


def test_counting_is_measured_and_drawn(monkeypatch):
    monkeypatch.setattr(counting, "COUNTED", (1, 5, 10))
    monkeypatch.setattr(counting, "JUDGED", 5)
    settings = {"width": 16, "pool": 12, "held out": 8}
    found = counting.measure(counting.two_features(0.85, 1.0, 0), settings, Config())
    said = scores.unsure(found["predicted"])
    assert found["score"] == pytest.approx(float(scores.log_score(said, found["held_out"][None]).mean()))
    assert found["seconds_to_predict"] > 0
    assert found["seconds_a_network"] > 0
    outcome = counting.reported([found, found], settings)
    assert outcome.numbers["first"]["score"] == pytest.approx(found["score"])
    best = max(float(each[1]) for each in found["counts"].values())
    assert outcome.numbers["first"]["ahead"] == pytest.approx(found["score"] - best)
    assert len(outcome.criteria) == 4
    assert len(counting.draw(outcome).axes) == 5
    outcome.to_dict()
