"""choice: its probabilities are `compare`'s, its counts are a loop's, and its null law sees a wrong one."""

import pytest
import torch
from torch import nn

import priorscope as ps
from priorscope.experiments import choice, counted
from priorscope.experiments.statistics import TwoWidths
from priorscope.network.initialization import Initialization

INIT = Initialization(2.0, 0.1, "ntk")


def make(width, seed):
    layers = (nn.Linear(2, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
    return INIT.apply_(nn.Sequential(*layers), seed)


@pytest.fixture(scope="module")
def asked():
    x = torch.randn(17, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[16] = x[2]  # a new point that stands in the training set
    points = choice.Points.of(make, INIT, x)
    y = torch.tensor([1.0, -1.0] * 4).double()
    a = torch.tensor([1.0, 1.0, -1.0, 1.0, -1.0, -1.0, 1.0, 1.0, -1.0]).double()
    return choice.question(points, torch.arange(8), y, torch.arange(8, 17), {"a": a, "b": -a}, 1.0, 0.9, 30, 3)


def test_points_of_the_training_set_are_dropped(asked):
    assert asked.dropped == 1
    assert [len(group) for group in asked.groups] == [3, 3, 2]
    assert asked.contradicted == 0


def test_probabilities_are_those_of_compare(asked):
    x = asked.points.x
    agreement = torch.zeros(2, dtype=torch.float64)
    limit = ps.infinite_width(make(8, 0).double(), INIT)
    for group, probability in zip(asked.groups, asked.probability, strict=True):
        rules = {name: signs[group] for name, signs in zip(asked.rules, asked.signs, strict=True)}
        verdict = ps.compare(limit, x[:8], asked.y, x[asked.new[group]], rules, asked.training)
        found = torch.tensor([*verdict.realised.values(), verdict.neither], dtype=torch.float64)
        assert float((found - probability).abs().max()) < 0.01
        agreement += len(group) / 8 * torch.tensor(list(verdict.agreement.values()), dtype=torch.float64)
    assert float((agreement - asked.agreement).abs().max()) < 0.01


def test_counts_are_a_loops(asked):
    outputs = torch.randn(5, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found, agreeing = asked.taken(outputs), asked.agreeing(outputs)
    for s in range(5):
        for g, group in enumerate(asked.groups):
            does = [all(outputs[s, i] * asked.signs[rule, i] > 0 for i in group) for rule in (0, 1)]
            assert found[s, g].tolist() == [*does, not any(does)]
        share = sum(float(outputs[s, i] * asked.signs[0, i] > 0) for i in range(8)) / 8
        assert agreeing[s].tolist() == pytest.approx([share, 1 - share])


def test_what_the_kernel_takes_for_one_point_with_two_labels_is_counted():
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[3] = x[0]
    points = choice.Points.of(make, INIT, x)
    y = torch.tensor([1.0, 1.0, -1.0, -1.0]).double()
    rules = {"a": torch.ones(2).double(), "b": -torch.ones(2).double()}
    asked = choice.question(points, torch.arange(4), y, torch.arange(4, 6), rules, 1.0, 0.9, 3000, 2)
    assert asked.contradicted == 2
    law = ps.trained_ensemble(points.pair, torch.arange(4), y, asked.training)(torch.arange(4))
    assert float(law.mean[[0, 3]].abs().max()) < 1e-6  # their mean is learned
    assert float((law.mean[[1, 2]] - y[[1, 2]]).abs().max()) < 1e-3


def test_networks_of_the_law_itself_are_within_its_null_and_wrong_laws_are_not(asked):
    drawn = torch.zeros(400, 9, dtype=torch.float64)
    drawn[:, asked.kept] = asked.law.sample(400, seed=3).double()
    cells = [counted.Counted.of(asked, drawn)]
    quantile = counted.gap_quantile(cells)
    assert counted.gap(cells) <= quantile
    wrong = asked.posteriors()["NTK posterior"]
    assert counted.gap_of(cells, [wrong]) > 2 * quantile
    for outcome in range(3):
        by_hand = float((wrong - cells[0].taken.mean(0))[:, outcome].mean())
        assert counted.bias(cells, outcome, [wrong]).value == pytest.approx(by_hand)
    for outcome in range(3):
        found = counted.bias(cells, outcome)
        assert abs(found.value) < 4 * found.error
        assert found.networks == 400


def test_words_say_where_the_ensemble_is_refuted_too():
    for at_wide, words in ((0.01, "; both are refuted"), (0.5, "; both are refuted, and so is the ensemble")):
        criterion = TwoWidths("gap", 8, 16, at_wide, at_wide, 0.1)
        found = counted.Judgement(criterion, {"NNGP posterior": 0.9, "NTK posterior": 0.8}).words()[1]
        assert found.endswith(words)
    assert "no evidence" in counted.Judgement(criterion, {"NNGP posterior": 0.9, "NTK posterior": 0.1}).words()[1]


def test_standard_errors_are_those_of_networks_drawn_again(asked):
    """The spread of the bias over many experiments, against the error that one of them states."""
    values, errors = [], []
    for seed in range(200):
        drawn = torch.zeros(30, 9, dtype=torch.float64)
        drawn[:, asked.kept] = asked.law.sample(30, seed=1000 * seed).double()
        found = counted.bias([counted.Counted.of(asked, drawn)], 2)
        values.append(found.value)
        errors.append(found.error**2)
    assert float(torch.tensor(values).std()) == pytest.approx((sum(errors) / len(errors)) ** 0.5, rel=0.2)


def test_networks_that_came_to_nothing_are_counted(asked):
    outputs = torch.randn(6, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    outputs[1, 4], outputs[2], outputs[3], outputs[4] = torch.nan, torch.inf, 0.0, 0.3
    found = counted.Counted.of(asked, outputs)
    assert (found.diverged, found.dead) == (2, 2)
    assert found.taken[2, :, 2].tolist() == [1.0, 1.0, 1.0]
    (words,) = counted.lost_in_words("narrow", [found, counted.Counted.of(asked, outputs[[0, 5]])])
    assert words.startswith("narrow: 2 of 8 networks diverged (no numbers; they take neither), 2 died")
    assert counted.lost_in_words("narrow", [counted.Counted.of(asked, outputs[[0, 5]])]) == ()
