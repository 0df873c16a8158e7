"""Verdicts: closed form against samples, samples against a loop, and every way to ask for what cannot be."""

import pytest
import torch

import priorscope as ps
from priorscope.beliefs.samples import Samples
from priorscope.data.inputs import encode
from priorscope.errors import DataError, IndistinguishableError, NotCoveredError
from priorscope.generalization.candidates import Hypotheses
from priorscope.generalization.compare import judged
from tests.cases import mlp
from tests.unchecked import messages

PAIR = ps.KernelPair(
    ps.kernels.ArcCosine() * 0.5 + ps.kernels.Linear(0.3, 0.1), ps.kernels.ArcCosine() + ps.kernels.RBF()
)
T = ps.Training(time=1.5)


def problem(n=6, m=4):
    x, x_new = torch.randn(n, 3), torch.randn(m, 3)
    return x, torch.randn(n), x_new, torch.randn(m), torch.randn(m)


def law_of(x, y, x_new):
    g = ps.trained_ensemble(PAIR, x, y, T)(x_new)
    return g.mean.reshape(-1), g.covariance.reshape(g.mean.numel(), -1)


def test_two_candidates_in_closed_form_equal_a_count():
    x, y, x_new, a, b = problem()
    verdict = ps.compare(PAIR, x, y, x_new, {"A": a, "B": b}, T)
    mean, covariance = law_of(x, y, x_new)
    samples = torch.distributions.MultivariateNormal(mean, covariance + 1e-12 * torch.eye(4)).sample((400_000,))
    nearer = ((samples - a).square().sum(1) < (samples - b).square().sum(1)).double().mean()
    assert abs(verdict.nearest["A"] - float(nearer)) < 5 * 0.5 / 400_000**0.5
    assert verdict.nearest["A"] + verdict.nearest["B"] == pytest.approx(1, abs=1e-12)
    assert verdict.probability is verdict.nearest
    reference = torch.distributions.MultivariateNormal(mean, covariance).log_prob(a)
    assert verdict.log_density["A"] == pytest.approx(float(reference), rel=1e-8)


def test_realised_neither_and_agreement_equal_a_loop_over_samples():
    x, y, x_new, a, b = problem()
    c = torch.randn(4)
    verdict = ps.compare(PAIR, x, y, x_new, {"A": a, "B": b, "C": c}, T, samples=40_000, seed=3)
    outputs = ps.trained_ensemble(PAIR, x, y, T)(x_new).sample(40_000, seed=3)
    candidates = torch.stack([a, b, c])
    nearest, realised, agreed = torch.zeros(3), torch.zeros(3), torch.zeros(3)
    for f in outputs[:4000]:
        nearest[(f - candidates).square().sum(1).argmin()] += 1
        winners = (f - candidates).abs().argmin(0)
        for j in range(3):
            realised[j] += bool((winners == j).all())
            agreed[j] += (winners == j).double().mean()
    for j, name in enumerate("ABC"):
        assert abs(verdict.nearest[name] - float(nearest[j]) / 4000) < 0.04
        assert abs(verdict.realised[name] - float(realised[j]) / 4000) < 0.04
        assert abs(verdict.agreement[name] - float(agreed[j]) / 4000) < 0.04
    assert sum(verdict.nearest.values()) == pytest.approx(1)
    assert verdict.neither == pytest.approx(1 - sum(verdict.realised.values()))
    for kind in ("nearest", "realised"):
        for name, (low, high) in verdict.intervals[kind].items():
            assert low < high
            assert low <= getattr(verdict, kind)[name] <= high


def test_signs_are_realised_by_the_same_signs():
    x, _, x_new, _, _ = problem(6, 3)
    y = torch.tensor([1, -1, 1, 1, -1, -1])
    a, b = torch.tensor([1, 1, -1]), torch.tensor([-1, -1, 1])
    verdict = ps.compare(PAIR, x, y, x_new, {"A": a, "B": b}, T)
    g = ps.trained_ensemble(PAIR, x, y, T)(x_new)
    p, error = g.probability(lambda f: (torch.sign(f) == a).all(1), seed=9)
    assert verdict.rule == "signs"
    assert abs(verdict.realised["A"] - p) < 6 * error
    assert verdict.neither > 0


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("floating", [False, True])
def test_beside_signs_integers_that_are_all_equal_are_signs_too(sign, floating):
    x, _, x_new, _, _ = problem(6, 3)
    y = torch.tensor([1, -1, 1, 1, -1, -1])
    same, mixed = sign * torch.ones(3, dtype=torch.int64), torch.tensor([1, -1, 1])
    verdict = ps.compare(PAIR, x, y.double() if floating else y, x_new, {"same": same, "mixed": mixed}, T)
    expected = ps.compare(PAIR, x, y.double(), x_new, {"same": same.double(), "mixed": mixed.double()}, T)
    assert verdict.rule == "signs"
    assert verdict.realised == expected.realised


def test_signs_and_classes_may_stand_alone():
    x, _, x_new, _, _ = problem(6, 3)
    for y, a in (
        (torch.tensor([1, -1] * 3), torch.tensor([1, 1, -1])),
        (torch.tensor([0, 1] * 3), torch.ones(3).int()),
    ):
        verdict = ps.compare(PAIR, x, y, x_new, {"A": a}, T, samples=200)
        assert verdict.neither > 0


def test_numbers_that_test_nothing_or_may_be_meant_as_classes_are_said():
    x, y, x_new, a, b = problem()
    b[:3] = a[:3]
    told = ps.compare(PAIR, x, y, x_new, {"A": a, "B": b}, T, samples=10).notes
    assert any("agree at 3 of 4 test points" in note for note in told)
    assert not any("taken as numbers" in note for note in told)
    two = torch.tensor([0.0, 1.0, 1.0, 0.0, 0.0, 1.0])
    told = ps.compare(PAIR, x, two, x_new, {"A": a, "B": b + 1}, T, samples=10).notes
    assert any("y has two values and is taken as numbers" in note for note in told)
    assert not any("agree at" in note for note in told)
    onehot = torch.nn.functional.one_hot(torch.tensor([0, 1, 2, 0, 1, 2])).double()
    ways = {"A": torch.eye(3)[[0, 1, 2, 0]], "B": torch.eye(3)[[1, 1, 0, 2]]}
    told = ps.compare(PAIR, x, onehot, x_new, ways, T, samples=10).notes
    assert any("y looks one-hot" in note for note in told)


@pytest.mark.parametrize("given", [False, True])
def test_contradictory_training_points_are_said(given):
    x, y, x_new, a, b = problem()
    x[4] = x[1]
    model = mlp(3, 8, 1)
    kernel, start = (ps.EmpiricalNTK(model), model) if given else (PAIR, None)
    told = ps.compare(kernel, x, y, x_new, {"A": a, "B": b}, T, start=start, samples=10).notes
    assert any(n.startswith("1 pairs of training points have different labels") and "1 and 4" in n for n in told)
    y[4] = y[1]
    told = ps.compare(kernel, x, y, x_new, {"A": a, "B": b}, T, start=start, samples=10).notes
    assert not any("pairs of training points" in note for note in told)


def test_classes_that_are_all_one_stay_classes():
    x, _, x_new, _, _ = problem(6, 2)
    candidates = {"ones": torch.tensor([1, 1]), "mixed": torch.tensor([0, 1])}
    assert ps.compare(PAIR, x, torch.tensor([0, 1, 0, 1, 0, 1]), x_new, candidates, T).rule == "classes"


def test_classes_are_realised_by_the_same_argmax():
    x, _, x_new, _, _ = problem(9, 2)
    y = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2])
    a, b = torch.tensor([0, 3]), torch.tensor([1, 2])
    verdict = ps.compare(PAIR, x, y, x_new, {"A": a, "B": b}, T)
    targets = torch.nn.functional.one_hot(y, 4).double() - 0.25
    g = ps.trained_ensemble(PAIR, x, targets, T)(x_new)
    p, error = g.probability(lambda f: (f.argmax(-1) == b).all(1), seed=9)
    assert verdict.rule == "classes"
    assert abs(verdict.realised["B"] - p) < 6 * error + 1e-4


def test_one_given_network_is_deterministic_and_said_so():
    x, y, x_new, a, _ = problem()
    model = mlp(3, 32, 1)
    ntk = ps.EmpiricalNTK(model)
    path = ps.trajectory(ntk, x, y, T, start=model)(x_new)
    verdict = ps.compare(ntk, x, y, x_new, {"A": a, "B": path + 0.01}, T, start=model)
    assert verdict.nearest == {"A": 0.0, "B": 1.0}
    assert verdict.deterministic
    assert verdict.log_density is None
    assert "deterministic" in " ".join(verdict.notes)
    assert verdict.trust is None
    assert verdict.trust_reason


def test_a_zero_denominator_is_decided_by_the_mean_and_said():
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    pair = ps.KernelPair(ps.kernels.Linear(), ps.kernels.Linear())
    # A linear network trained to the end on two independent points is determined everywhere.
    verdict = ps.compare(
        pair,
        x,
        torch.tensor([1.0, 2.0]),
        torch.tensor([[2.0, 1.0]]),
        {"A": torch.tensor([4.0]), "B": torch.tensor([9.0])},
    )
    assert verdict.nearest == {"A": 1.0, "B": 0.0}
    assert "decided by its mean" in " ".join(verdict.notes)
    assert verdict.log_density is None
    assert "no log-density" in " ".join(verdict.notes)


def test_test_points_in_the_training_set_raise_or_are_dropped():
    x, y, x_new, a, b = problem()
    x_new[1] = x[2]
    with pytest.raises(IndistinguishableError, match=r"x_new\[1\].*cannot tell"):
        ps.compare(PAIR, x, y, x_new, {"A": a, "B": b}, T)
    verdict = ps.compare(PAIR, x, y, x_new, {"A": a, "B": b}, T, duplicates="drop")
    assert verdict.kept.tolist() == [0, 2, 3]
    without = ps.compare(PAIR, x, y, x_new[verdict.kept], {"A": a[verdict.kept], "B": b[verdict.kept]}, T)
    assert verdict.nearest == pytest.approx(without.nearest)
    with pytest.raises(IndistinguishableError, match="only training points"):
        ps.compare(PAIR, x, y, x[:2], {"A": a[:2], "B": b[:2]}, T, duplicates="drop")


def test_what_cannot_be_compared_raises():
    x, y, x_new, a, b = problem()
    for candidates, message in [
        ({}, "are empty"),
        ({"A": a, "B": a}, "equal at every test point"),
        ({"A": a}, "are a single one, of numbers"),
        ({"A": a, "neither": b}, "the candidate 'neither': has the name"),
        ({"A": a[:2]}, "candidate 'A'.*for 4 points"),
        ({"A": torch.randn(4, 2)}, "has 2 outputs"),
    ]:
        with pytest.raises(DataError, match=message):
            ps.compare(PAIR, x, y, x_new, candidates, T)
    with pytest.raises(NotCoveredError, match="one kernel and no network"):
        ps.compare(PAIR.ntk, x, y, x_new, {"A": a, "B": b}, T)


def test_frozen_pairs_are_taken_where_pairs_and_data_are(tmp_path):
    x, y, x_new, a, b = problem()
    whole = ps.compare(PAIR, x, y, x_new, {"A": a, "B": b}, T)
    frozen = ps.compare(PAIR.on(x), y, x_new, {"A": a, "B": b}, T)
    assert whole.nearest == frozen.nearest
    whole.save(tmp_path / "verdict.npz")
    assert ps.Verdict.load(tmp_path / "verdict.npz").realised == whole.realised
    assert whole.to_dict()["neither"] == whole.neither


@pytest.mark.filterwarnings("ignore:.*beyond the limit")
@pytest.mark.parametrize("given", [False, True])
def test_a_descent_that_diverges_names_the_step_limit(given):
    x, y, x_new, a, b = problem()
    training = ps.Training(learning_rate=100.0, steps=2000)
    model = mlp(3, 32, 1)
    kernel, start = (ps.EmpiricalNTK(model), model) if given else (PAIR, None)
    limit = ps.trajectory(kernel, x, y, training, start=start).step_limit
    with pytest.raises(NotCoveredError, match=rf"learning_rate=100.0\): diverges.*limit of this kernel is {limit:.4g}"):
        ps.compare(kernel, x, y, x_new, {"A": a, "B": b}, training, start=start)


def test_two_verdicts_are_compared_by_identity():
    x, y, x_new, a, b = problem()
    first, second = (ps.compare(PAIR, x, y, x_new, {"A": a, "B": b}, T, samples=10) for _ in range(2))
    assert first != second
    assert len({first, second}) == 2


def test_candidates_as_functions_are_their_labels():
    x, y, x_new, a, _ = problem()
    ways = {"A": a, "first": lambda points: points[:, 0]}
    given = ps.compare(PAIR, x, y, x_new, ways, T, samples=2000)
    labels = ps.compare(PAIR, x, y, x_new, {"A": a, "first": x_new[:, 0]}, T, samples=2000)
    assert given.to_dict() == labels.to_dict()
    with pytest.raises(DataError, match=r"candidate 'A'.* a function that gave a list"):
        ps.compare(PAIR, x, y, x_new, {"A": lambda points: [0.0] * len(points)}, T)
    with pytest.raises(DataError, match=r"candidate 'A'.*for 4 points"):
        ps.compare(PAIR, x, y, x_new, {"A": lambda points: points[:2, 0]}, T)


def test_every_point_has_its_own_probability():
    x, _, x_new, _, _ = problem(6, 3)
    y, a = torch.tensor([1, -1, 1, 1, -1, -1]), torch.tensor([1, 1, -1])
    verdict = ps.compare(PAIR, x, y, x_new, {"A": a, "B": -a}, T)
    g = ps.trained_ensemble(PAIR, x, y, T)(x_new)
    exact = torch.distributions.Normal(0.0, 1.0).cdf(a * g.mean / g.variance.sqrt())
    assert (verdict.per_point["A"] - exact).abs().max() < 4 * 0.5 / 100_000**0.5
    assert torch.allclose(verdict.per_point["A"] + verdict.per_point["B"], torch.ones(3))
    assert verdict.agreement["A"] == pytest.approx(float(verdict.per_point["A"].mean()))


def test_every_point_has_its_own_probability_for_classes_and_for_one_network():
    x, _, x_new, _, _ = problem(9, 2)
    y = torch.tensor([0, 1, 2] * 3)
    verdict = ps.compare(PAIR, x, y, x_new, {"A": torch.tensor([0, 1]), "B": torch.tensor([1, 2])}, T)
    law = ps.trained_ensemble(PAIR, x, torch.nn.functional.one_hot(y).double() - 1 / 3, T)(x_new)
    for i, label in enumerate([1, 2]):
        p, error = law.probability(lambda f, i=i, label=label: f[:, i].argmax(-1) == label, seed=4)
        assert abs(float(verdict.per_point["B"][i]) - p) < 6 * error
    model = mlp(3, 16, 1)
    x, y, x_new, _, _ = problem()
    path = ps.trajectory(ps.EmpiricalNTK(model), x, y, T, start=model)(x_new)
    half = torch.cat([path[:2] + 0.1, path[2:] - 5])
    one = ps.compare(ps.EmpiricalNTK(model), x, y, x_new, {"half": half, "rest": path + 2}, T, start=model)
    assert one.per_point["half"].tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("rule", ["signs", "classes", "regression"])
def test_margins_are_positive_where_a_candidate_is_realised(rule):
    values = {"signs": torch.randn(3, 4, 1).sign(), "regression": torch.randn(3, 4, 2)}
    classes = torch.nn.functional.one_hot(torch.randint(3, (3, 4)), 3) - 1 / 3
    labels = encode(torch.randn(4), 4)
    known = Hypotheses(("A", "B", "C"), values.get(rule, classes), rule, labels)
    outputs = torch.randn(500, 4, known.values.shape[-1])
    for i in range(3):
        assert torch.equal(known.margins(outputs, i) >= 0, known.realises(outputs)[:, i])


def test_what_no_sample_realises_is_looked_for_where_it_is():
    x, _, x_new, _, _ = problem(6, 3)
    y, a = torch.tensor([1, -1, 1, 1, -1, -1]), torch.tensor([1, 1, -1])
    whole = ps.compare(PAIR, x, y, x_new, {"A": a, "B": -a}, T)
    few = ps.compare(PAIR, x, y, x_new, {"A": a, "B": -a}, T, samples=10)
    assert "from samples led there" in " ".join(few.notes)
    for name in "AB":
        low, high = few.intervals["realised"][name]
        assert low < whole.realised[name] < high
    assert few.neither == pytest.approx(1 - sum(few.realised.values()))


def test_what_is_too_rare_or_too_dear_stays_counted_and_says_so():
    x = torch.randn(5, 3)
    y, away = torch.tensor([1, -1, 1, 1, -1]), torch.tensor([1, 1, 1])
    near = x[:3] + 1e-4  # three points that the data decide
    verdict = ps.compare(PAIR, x, y, near, {"data": y[:3], "away": away}, ps.Training(), samples=500)
    assert verdict.realised["away"] == 0
    assert verdict.intervals["realised"]["away"][1] > 0
    assert "below 1e-09" in " ".join(verdict.notes)
    many = torch.randn(600, 3)
    a = torch.randn(600).sign()
    verdict = ps.compare(PAIR, x, y, many, {"A": a, "B": -a}, T, samples=200)
    assert "too many to look for it" in " ".join(verdict.notes)


def test_a_law_of_samples_is_counted_and_has_no_density():
    known = Hypotheses(
        ("A", "B"), torch.tensor([[[1.0], [2.0]], [[-1.0], [0.0]]]), "regression", encode(torch.ones(2), 2)
    )
    values = torch.randn(3000, 2)
    verdict = judged(Samples(values), known, torch.arange(2), (), samples=100_000, seed=0)
    to_a = (values - torch.tensor([1.0, 2.0])).square().sum(1) < (values - torch.tensor([-1.0, 0.0])).square().sum(1)
    assert verdict.nearest["A"] == float(to_a.double().mean())
    assert "nearest" in verdict.intervals
    assert verdict.log_density is None
    assert "known by samples alone" in " ".join(verdict.notes)
    assert "3000 networks" in " ".join(verdict.notes)


def test_a_step_beyond_the_limit_warns_and_is_exact():
    x, y, x_new, a, b = problem()
    training = ps.Training(learning_rate=0.3, steps=4)
    with pytest.warns(ps.PriorscopeWarning, match="beyond the limit"):
        verdict = ps.compare(PAIR, x, y, x_new, {"A": a, "B": b}, training)
    assert any("learning_rate=0.3 is beyond the limit" in note for note in verdict.to_dict()["notes"])
    with pytest.warns(ps.PriorscopeWarning):
        law = ps.trained_ensemble(PAIR, x, y, training)(x_new)
    assert verdict.log_density["A"] == float(law.log_prob(a))


def test_predicates_are_counted_and_led_to():
    x, y, x_new, _, _ = problem()
    law = ps.trained_ensemble(PAIR, x, y, T)(x_new)
    p = ps.probability_of(PAIR, x, y, x_new, lambda f: f[:, 0] > f[:, 1], T)
    mean, variance = law.project(torch.tensor([1.0, -1.0, 0.0, 0.0]))
    exact = torch.distributions.Normal(0.0, 1.0).cdf(torch.tensor(mean / variance**0.5))
    assert p.interval[0] < exact < p.interval[1]
    far = float(law.mean[0] + 5.5 * law.variance[0].sqrt())
    beyond = ps.probability_of(PAIR.on(x), y, x_new, lambda f: f[:, 0] >= far, T)
    assert (beyond.p, beyond.interval[0], beyond.effective) == (0, 0, None)
    led = ps.probability_of(PAIR, x, y, x_new, lambda f: f[:, 0] >= far, T, score=lambda f: f[:, 0] - far)
    assert led.interval[0] < 1.899e-8 < led.interval[1]
    with pytest.raises(DataError, match="exactly where the predicate holds"):
        ps.probability_of(PAIR, x, y, x_new, lambda f: f[:, 0] >= far, T, score=lambda f: f[:, 0])
    with pytest.raises(DataError, match=r"returned \(100000, 4\)"):
        ps.probability_of(PAIR, x, y, x_new, lambda f: f > 0, T)
    with pytest.raises(NotCoveredError, match="one kernel and no network"):
        ps.probability_of(PAIR.ntk, x, y, x_new, lambda f: f[:, 0] > 0, T)


def test_a_verdict_shows_itself_as_a_table():
    x, y, x_new, a, b = problem()
    html = ps.compare(PAIR, x, y, x_new, {"A<": a, "B": b}, T, samples=100)._repr_html_()
    assert "A&lt;" in html
    assert "neither" in html


UNCHECKED = """
import torch
import priorscope as ps

x, y, x_new, a = torch.randn(4, 2), torch.randn(4), torch.randn(2, 2), torch.randn(2)
pair = ps.KernelPair(ps.kernels.RBF(), ps.kernels.RBF())
for changed in (
    {"candidates": [a, -a]}, {"training": "sgd"}, {"duplicates": "ignore"}, {"samples": 0}, {"samples": 10.5},
):
    arguments = {"candidates": {"A": a, "B": -a}, "training": ps.Training(), **changed}
    try:
        ps.compare(pair, x, y, x_new, **arguments)
        print("nothing was raised for", changed)
    except ps.PriorscopeError as error:
        print(error)
"""


def test_arguments_of_another_kind_say_what_to_give():
    starts = [
        "candidates: are a list",
        "training: is a str",
        "duplicates: is 'ignore'",
        "samples: is 0",
        "samples: is 1",
    ]
    for message, start in zip(messages(UNCHECKED), starts, strict=True):
        assert message.startswith(start)


def test_a_limit_knows_how_many_classes_its_network_has():
    init = ps.Initialization(2.0, 0.1, "ntk")
    limit = ps.infinite_width(init.apply_(mlp(3, 64, 4), 0), init)
    x, x_new = torch.randn(6, 3), torch.randn(2, 3)
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    verdict = ps.compare(limit, x, y, x_new, {"A": torch.tensor([0, 1]), "B": torch.tensor([1, 2])}, T)
    targets = torch.nn.functional.one_hot(y, 4).double() - 0.25
    law = ps.trained_ensemble(limit, x, targets, T)(x_new)
    p, error = law.probability(lambda f: (f.argmax(-1) == torch.tensor([0, 1])).all(1), seed=4)
    assert abs(verdict.realised["A"] - p) < 6 * error + 1e-4
    with pytest.raises(DataError, match="outputs"):
        ps.compare(limit, x, y, x_new, {"A": torch.tensor([0, 7]), "B": torch.tensor([1, 2])}, T)


def test_mini_batches_alone_are_random_for_one_given_network():
    """Against really trained copies of a network linear in its parameters, over the draws of its batches."""
    generator = torch.Generator().manual_seed(5)
    x, x_new = torch.randn(12, 3, generator=generator), torch.randn(2, 3, generator=generator)
    y = torch.sign(x[:, 0] + 0.3 * torch.randn(12, generator=generator))
    model = torch.nn.Linear(3, 1).double()
    training = ps.Training(learning_rate=0.02, steps=33, batch_size=5)
    runs = [ps.train(model, x, y, training, record=x_new, at=[], seed=seed).outputs[-1, :, 0] for seed in range(300)]
    ends = torch.stack(runs)
    middle = ends.mean(0)
    candidates = {"above": middle + 0.05 * ends.std(0), "below": middle - 0.05 * ends.std(0)}
    verdict = ps.compare(ps.EmpiricalNTK(model), x, y, x_new, candidates, training, start=model)
    assert not verdict.deterministic
    above = (ends - candidates["above"]).square().sum(1) < (ends - candidates["below"]).square().sum(1)
    share = float(above.double().mean())
    assert abs(verdict.nearest["above"] - share) < 4 * (0.25 / 300) ** 0.5
    assert 0.1 < share < 0.9
