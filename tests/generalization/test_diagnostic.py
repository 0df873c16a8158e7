"""The gain of every example by brute force: a comparison with it added; the information by a loop over networks."""

import math

import pytest
import torch

import priorscope as ps
from priorscope.errors import DataError, IndistinguishableError
from tests.unchecked import messages

PAIR = ps.KernelPair(
    ps.kernels.ArcCosine() * 0.5 + ps.kernels.Linear(0.3, 0.1), ps.kernels.ArcCosine() + ps.kernels.RBF()
)
T = ps.Training(time=3.0)


def problem(j=2):
    x, y, x_new, pool = torch.randn(5, 3), torch.randn(5), torch.randn(3, 3), torch.randn(4, 3)
    names = "ABC"[:j]
    return x, y, x_new, {n: torch.randn(3) for n in names}, pool, {n: torch.randn(4) for n in names}


@pytest.mark.parametrize("loss", ["half_sse", "mse"])
def test_gains_are_those_of_comparisons_with_the_example_added(loss):
    x, y, x_new, ways, pool, labels = problem()
    training = ps.Training(loss=loss, time=3.0)
    told = ps.most_diagnostic(PAIR, x, y, x_new, ways, pool, labels, training, samples=100)
    before = ps.compare(PAIR, x, y, x_new, ways, training, samples=10).nearest
    assert told.before.tolist() == pytest.approx(list(before.values()), abs=1e-9)
    for i in range(4):
        gain = 0.0
        for a, name in enumerate(ways):
            data, with_label = torch.cat([x, pool[i : i + 1]]), torch.cat([y, labels[name][i : i + 1]])
            after = ps.compare(PAIR, data, with_label, x_new, ways, training, samples=10).nearest
            assert told.after[i, a].tolist() == pytest.approx(list(after.values()), abs=1e-9)
            gain += (after[name] - before[name]) / 2
        assert float(told.gain[i]) == pytest.approx(gain, abs=1e-9)
    assert told.gain[told.ranking].tolist() == sorted(told.gain.tolist(), reverse=True)


def test_three_candidates_by_what_is_realised(tmp_path):
    x, y, x_new, ways, pool, labels = problem(3)
    told = ps.most_diagnostic(PAIR, x, y, x_new, ways, pool, labels, T, by="realised", samples=4000)
    data, with_label = torch.cat([x, pool[2:3]]), torch.cat([y, labels["C"][2:3]])
    verdict = ps.compare(PAIR, data, with_label, x_new, ways, T)
    for found, p in zip(told.after[2, 2], verdict.realised.values(), strict=True):
        assert abs(float(found) - p) < 4 * math.sqrt(p * (1 - p) / 4000) + 1e-3
    told.save(tmp_path / "told.npz")
    assert torch.equal(ps.Diagnostic.load(tmp_path / "told.npz").ranking, told.ranking)
    assert "information" in told._repr_html_()


@pytest.mark.parametrize("by", ["nearest", "realised"])
def test_information_equals_a_loop_over_networks(by):
    x, y, x_new, ways, pool, labels = problem()
    told = ps.most_diagnostic(PAIR, x, y, x_new, ways, pool, labels, T, by=by, samples=3000, seed=1)
    outputs = ps.trained_ensemble(PAIR, x, y, T)(torch.cat([x_new, pool])).sample(3000, seed=1)
    candidates, at_pool = torch.stack(list(ways.values())), torch.stack(list(labels.values()))
    for i in range(4):
        seen = {}
        for f in outputs:
            if by == "nearest":
                outcome = int((f[:3] - candidates).square().sum(1).argmin())
            else:
                closest = (f[:3] - candidates).abs().argmin(0)
                outcome = int(closest[0]) if bool((closest == closest[0]).all()) else 2
            key = (outcome, int((f[3 + i] - at_pool[:, i]).abs().argmin()))
            seen[key] = seen.get(key, 0) + 1 / 3000
        bits = 0.0
        for (a, b), p in seen.items():
            alone = sum(q for (c, _), q in seen.items() if c == a) * sum(q for (_, d), q in seen.items() if d == b)
            bits += p * math.log2(p / alone)
        assert float(told.information[i]) == pytest.approx(bits, abs=1e-8)


def test_an_example_beside_the_test_points_tells_more_than_one_far_away():
    x, x_new = torch.tensor([[0.0], [0.5]]), torch.tensor([[3.0], [3.4]])
    pool = torch.tensor([[0.2], [3.2], [30.0]])
    pair = ps.KernelPair(ps.kernels.RBF(), ps.kernels.RBF())
    ways = {"up": lambda p: torch.ones(len(p)), "down": lambda p: -torch.ones(len(p))}
    told = ps.most_diagnostic(pair, x, torch.tensor([1.0, -1.0]), x_new, ways, pool, ways)
    assert told.ranking[0] == 1
    assert told.gain[1] > 0.2
    assert abs(told.gain[2]) < 1e-6
    assert told.information[1] > 0.3
    assert told.information[2] < 0.01


def test_contradictions_are_said():
    x, y, x_new, ways, pool, labels = problem()
    x[3], pool[2], labels["A"][2], labels["B"][2] = x[1], x[0], y[0], y[0]
    agreeing = ps.most_diagnostic(PAIR, x, y, x_new, ways, pool, labels, T, samples=10).notes
    assert [note for note in agreeing if "pairs of" in note] == [
        "1 pairs of training points have different labels, and the kernel cannot tell them apart: 1 and 3"
    ]
    labels["B"][2] += 1
    notes = ps.most_diagnostic(PAIR, x, y, x_new, ways, pool, labels, T, samples=10).notes
    assert notes[-1].startswith("1 pairs of points of pool_x and training points have different labels")
    assert notes[-1].endswith(": 2 and 0")


def test_what_cannot_be_asked_raises():
    x, y, x_new, ways, pool, labels = problem()
    with pytest.raises(DataError, match="are a single one, from which no example tells"):
        ps.most_diagnostic(PAIR, x, y.sign(), x_new, {"A": ways["A"].sign()}, pool, {"A": labels["A"].sign()}, T)
    with pytest.raises(DataError, match="pool_x: is empty"):
        ps.most_diagnostic(PAIR, x, y, x_new, ways, pool[:0], labels, T)
    with pytest.raises(DataError, match="labels that A, B would give"):
        ps.most_diagnostic(PAIR, x, y, x_new, ways, pool, {"A": labels["A"]}, T)
    with pytest.raises(DataError, match=r"pool_labels\['B'\]: has shape"):
        ps.most_diagnostic(PAIR, x, y, x_new, ways, pool, {**labels, "B": torch.zeros(2)}, T)
    with pytest.raises(IndistinguishableError, match="points of pool_x"):
        ps.most_diagnostic(PAIR, x, y, x_new, ways, torch.cat([pool[:3], x_new[:1]]), labels, T)


UNCHECKED = """
import torch
import priorscope as ps

x, y, x_new, a = torch.randn(4, 2), torch.randn(4), torch.randn(2, 2), torch.randn(2)
pair = ps.KernelPair(ps.kernels.RBF(), ps.kernels.RBF())
for changed in ({"by": "luck"}, {"pool_labels": [a]}, {"samples": 0}, {"training": "sgd"}):
    arguments = {"pool_labels": {"A": a, "B": -a}, **changed}
    try:
        ps.most_diagnostic(pair, x, y, x_new, {"A": a, "B": -a}, torch.randn(2, 2), **arguments)
        print("nothing was raised")
    except ps.PriorscopeError as error:
        print(error)
"""


def test_arguments_of_another_kind_say_what_to_give():
    starts = ["by: is 'luck'", "pool_labels: are a list", "samples: is 0", "most_diagnostic: was given a str"]
    for message, start in zip(messages(UNCHECKED), starts, strict=True):
        assert message.startswith(start)
