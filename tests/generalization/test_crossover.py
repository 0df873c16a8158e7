"""Every point of the curves is a comparison with these examples added; crossings of curves that are known."""

import pytest
import torch

import priorscope as ps
from priorscope.errors import DataError, IndistinguishableError, NotCoveredError
from tests.cases import mlp
from tests.unchecked import messages

PAIR = ps.KernelPair(
    ps.kernels.ArcCosine() * 0.5 + ps.kernels.Linear(0.3, 0.1), ps.kernels.ArcCosine() + ps.kernels.RBF()
)
T = ps.Training(time=3.0)
COUNTS = [0, 2, 7]


def problem():
    """The label is the sign of the first coordinate, and of the second; the pool tells that it is the second's."""
    x = torch.randn(8, 3)
    x[:, 1] = x[:, 0].sign() * x[:, 1].abs()
    extra, x_new = torch.randn(7, 3), torch.randn(3, 3)
    extra[:, 1], x_new[:, 1] = -extra[:, 0].sign(), -x_new[:, 0].sign() * x_new[:, 1].abs()
    ways = {"first": lambda p: p[:, 0].sign(), "second": lambda p: p[:, 1].sign()}
    return x, x[:, 0].sign(), x_new, ways, extra, extra[:, 1].sign()


@pytest.mark.parametrize("base", [None, 5])
def test_every_point_is_a_comparison_with_the_examples_added(base):
    x, y, x_new, ways, extra, extra_y = problem()
    curve = ps.crossover(PAIR, x, y, x_new, ways, extra, extra_y, COUNTS, T, base=base, repeats=3, samples=4000, seed=5)
    assert curve.realised.shape == (3, 3, 2)
    for repeat in range(3):
        generator = torch.Generator().manual_seed(5 + repeat)
        rows = torch.randperm(8, generator=generator)[: base or 8].sort().values
        order = torch.randperm(7, generator=generator)
        for i, k in enumerate(COUNTS):
            data, labels = torch.cat([x[rows], extra[order[:k]]]), torch.cat([y[rows], extra_y[order[:k]]])
            alone = ps.compare(PAIR, data, labels, x_new, ways, T, samples=4000, seed=5 + repeat)
            assert curve.nearest[repeat, i].tolist() == pytest.approx(list(alone.nearest.values()), abs=1e-9)
            for j, name in enumerate(ways):
                low, high = alone.intervals["realised"][name]
                assert low - 1e-3 <= curve.realised[repeat, i, j] <= high + 1e-3
    assert torch.allclose(curve.neither, 1 - curve.realised.sum(-1))


def test_the_pool_decides_in_the_end(tmp_path):
    x, y, x_new, ways, extra, extra_y = problem()
    curve = ps.crossover(PAIR, x, y, x_new, ways, extra, extra_y, COUNTS, T, repeats=4, samples=500)
    assert curve.nearest[:, -1, 1].mean() > curve.nearest[:, 0, 1].mean()
    assert curve.counts.tolist() == COUNTS
    curve.save(tmp_path / "curve.npz")
    again = ps.Crossover.load(tmp_path / "curve.npz")
    assert again.crossing() == curve.crossing()
    assert "± " in curve._repr_html_()


def curves(gap):
    """Of data sets with P(b) − P(a) = gap, (r, k), at 0, 10, 20 examples."""
    b = 0.5 + gap / 2
    both = torch.stack([1 - b, b], -1)
    return ps.Crossover(("a", "b"), torch.tensor([0, 10, 20]), both, both, torch.zeros(gap.shape))


def test_crossings_of_known_curves():
    steady = torch.tensor([[-0.5, 0.5, 1.0]]).repeat(12, 1)
    crossing = curves(steady).crossing()
    assert crossing.number == pytest.approx(5.0)
    assert crossing.interval == pytest.approx((5.0, 5.0))
    assert crossing.share == 1
    assert curves(steady).crossing("a", "b", kind="nearest") == crossing
    assert curves(steady).crossing("b", "a") == curves(-steady).crossing() == crossing
    varied = curves(steady + 0.3 * torch.randn(12, 3)).crossing()
    assert varied.interval[0] < varied.number < varied.interval[1]
    never = curves(-steady.abs()).crossing()
    assert (never.number, never.interval, never.share) == (None, None, 0.0)
    with pytest.raises(DataError, match="none of a, b"):
        curves(steady).crossing("a", "z")


@pytest.mark.parametrize(
    ("gap", "number", "note"),
    [
        ((0.0, 0.0, 0.0), None, "equal at every count"),
        ((-0.4, 0.0, 0.0), None, "'a' is never behind; at 10, 20 they are equal"),
        ((0.0, 0.0, 0.3), None, "'b' is never behind; at 0, 10 they are equal"),
        ((0.0, 0.3, -0.1), 17.5, ""),
        ((-0.4, 0.0, 0.3), 10.0, ""),
    ],
)
def test_a_tie_is_no_crossing(gap, number, note):
    crossing = curves(torch.tensor([gap]).repeat(12, 1)).crossing()
    assert crossing.number == (None if number is None else pytest.approx(number))
    assert note in " ".join(crossing.notes)
    assert (crossing.interval is None) == (number is None)


def test_few_data_sets_have_no_interval_and_their_crossings_a_spread():
    early, late, never = torch.tensor([[-0.5, 0.5, 1.0], [-0.5, -0.5, 0.5], [-0.5, -0.5, -0.5]])
    one = curves(early[None]).crossing()
    assert (one.number, one.interval, one.spread, one.crossed) == (pytest.approx(5.0), None, None, 1.0)
    assert "no interval: of 1 data sets, it takes at least 10" in one.notes
    nine, ten = (curves(torch.stack([early] * n + [late] * 4)).crossing() for n in (5, 6))
    assert nine.interval is None
    assert ten.interval[0] < ten.number < ten.interval[1]
    assert ten.spread == nine.spread == pytest.approx((5.0, 15.0))
    few = curves(torch.stack([early, late, never])).crossing()
    assert few.crossed == pytest.approx(2 / 3)
    assert few.spread == pytest.approx((10.0, 17.5))


def test_contradictions_in_the_pool_are_said():
    x, y, x_new, ways, extra, extra_y = problem()
    extra[2], extra_y[2] = x[1], -y[1]
    curve = ps.crossover(PAIR, x, y, x_new, ways, extra, extra_y, [0, 1], T, repeats=1, samples=10)
    assert "1 pairs of training points" in curve.notes[-1]
    assert curve.notes[-1].endswith(": 1 and 10")


def test_a_rate_beyond_the_limit_warns_once_and_stays():
    x, y, x_new, ways, extra, extra_y = problem()
    limit = ps.trained_ensemble(PAIR, x, y).step_limit
    training = ps.Training(learning_rate=0.999 * limit, steps=3)
    with pytest.warns(ps.PriorscopeWarning, match="beyond the step limit for 2 of 4 training sets") as caught:
        curve = ps.crossover(PAIR, x, y, x_new, ways, extra, extra_y, [0, 7], training, repeats=2, samples=10)
    assert len(caught) == 1
    assert "beyond the step limit for 2 of 4 training sets" in curve.notes[1]


def test_classes_of_a_limit_and_one_evaluation_of_its_kernels(monkeypatch):
    init = ps.Initialization(2.0, 0.1, "ntk")
    limit = ps.infinite_width(init.apply_(mlp(3, 64, 3), 0), init)
    x, x_new, extra = torch.randn(6, 3), torch.randn(2, 3), torch.randn(3, 3)
    y, ways = torch.tensor([0, 1, 2] * 2), {"A": torch.tensor([0, 1]), "B": torch.tensor([1, 0])}
    asked = []
    both = type(limit.joint).both
    monkeypatch.setattr(type(limit.joint), "both", lambda self, a, b: asked.append(len(a)) or both(self, a, b))
    curve = ps.crossover(limit, x, y, x_new, ways, extra, torch.tensor([0, 1, 0]), [0, 3], T, repeats=2, samples=2000)
    assert asked == [11]
    data, labels = torch.cat([x, extra]), torch.cat([y, torch.tensor([0, 1, 0])])
    alone = ps.compare(limit, data, labels, x_new, ways, T)
    assert curve.nearest[0, 1].tolist() == pytest.approx(list(alone.nearest.values()), abs=1e-9)


def test_what_cannot_be_asked_raises():
    x, y, x_new, ways, extra, extra_y = problem()

    def ask(pool=extra, labels=extra_y, counts=(0, 1), kernel=PAIR, new=x_new, **more):
        return ps.crossover(kernel, x, y, new, ways, pool, labels, counts, T, samples=10, repeats=1, **more)

    for arguments, message in [
        ({"counts": (0, 8)}, "ask for 8 examples, the pool has 7"),
        ({"counts": (3, 1)}, "whole numbers, ascending"),
        ({"counts": ()}, "whole numbers, ascending"),
        ({"pool": extra[:0], "labels": extra_y[:0]}, "extra_x: is empty"),
        ({"labels": extra_y[:3]}, "extra_y: has shape"),
        ({"pool": torch.randn(7, 2)}, "cannot be joined"),
        ({"base": 9}, "there are 8 training points"),
    ]:
        with pytest.raises(DataError, match=message):
            ask(**arguments)
    with pytest.raises(IndistinguishableError, match=r"x_new\[1\].*points of extra_x"):
        ask(new=torch.stack([x_new[0], extra[3], x_new[1]]))
    with pytest.raises(IndistinguishableError, match=r"x_new\[0\].*training points"):
        ask(new=torch.stack([x[0], x_new[0], x_new[1]]))
    with pytest.raises(NotCoveredError, match="lone"):
        ask(kernel=PAIR.ntk)
    two = mlp(3, 8, 2)
    with pytest.raises(NotCoveredError, match="coupled"):
        ask(kernel=ps.KernelPair(PAIR.nngp, ps.EmpiricalNTK(two)))


UNCHECKED = """
import torch
import priorscope as ps

x, y, x_new, a = torch.randn(4, 2), torch.randn(4), torch.randn(2, 2), torch.randn(2)
pair = ps.KernelPair(ps.kernels.RBF(), ps.kernels.RBF())
for changed in ({"counts": [0, 1.5]}, {"counts": 3}, {"repeats": 0}, {"base": 1.5}, {"training": "sgd"}):
    try:
        ps.crossover(pair, x, y, x_new, {"A": a, "B": -a}, torch.randn(2, 2), a, **{"counts": [0, 1], **changed})
        print("nothing was raised")
    except ps.PriorscopeError as error:
        print(error)
"""


def test_arguments_of_another_kind_say_what_to_give():
    starts = ["counts: are [0, 1.5]", "counts: are 3", "repeats: is 0", "base: is 1.5", "crossover: was given a str"]
    for message, start in zip(messages(UNCHECKED), starts, strict=True):
        assert message.startswith(start)
