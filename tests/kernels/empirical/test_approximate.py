"""Estimates of the empirical kernel against the exact one: unbiased, with errors that are what they say."""

import pytest
import torch
from torch import nn

from priorscope.errors import DataError, MemoryBudgetError, NotExactError
from priorscope.kernels.empirical import EmpiricalNTK
from priorscope.network.initialization import Initialization
from tests.cases import EMPIRICAL, mlp
from tests.contracts.kernels import check_kernel
from tests.kernels.empirical.cases import named, vectors
from tests.kernels.empirical.test_empirical_ntk import assert_equal, trace
from tests.kernels.empirical.test_operator import Applies, Once

METHODS = {"projection": 60, "parameters": 30}
"""Each with a size."""


@pytest.mark.parametrize("method", METHODS)
def test_contract(method: str):
    check_kernel(EmpiricalNTK(mlp(3, 6, 3)).approximate(method, METHODS[method]), vectors(7))


@pytest.mark.parametrize("method", METHODS)
def test_all_of_it_is_one_set_of_features(method: str):
    model, x1, x2 = mlp(3, 6, 2), vectors(4), vectors(3)
    rates = Initialization(2.0, 0.1, "ntk").rates(model)
    ntk = EmpiricalNTK(model, rates=rates)
    kernel = ntk.approximate(method, size=METHODS[method], seed=3)
    f1, f2 = kernel.features(x1), kernel.features(x2)
    assert f1.shape == (8, METHODS[method])
    cross = (f1 @ f2.T).view(4, 2, 3, 2)
    assert_equal(kernel.blocks(x1, x2), cross)
    assert_equal(kernel(x1, x2), trace(cross))
    assert torch.equal(kernel(x1), kernel(x1).T)
    assert_equal(kernel.features(x1[1:3]), f1[2:6])
    assert_equal(ntk.approximate(method, METHODS[method], seed=3).features(x1), f1)
    assert float((ntk.approximate(method, METHODS[method], seed=4)(x1) - kernel(x1)).abs().max()) > 1e-3
    assert kernel.origin == ntk.origin
    assert kernel.outputs(x1) == 2


def test_directions_are_random_signs_times_the_root_of_the_rates():
    # Columns of J √c are what a linear layer on unit inputs shows of the directions.
    kernel = EmpiricalNTK(nn.Linear(5, 1, bias=False), rates={"weight": 4.0}).approximate("projection", size=2000)
    signs = kernel.features(torch.eye(5)) * 2000**0.5 / 2
    assert torch.allclose(signs.abs(), torch.ones(5, 2000))
    assert float((signs @ signs.T / 2000 - torch.eye(5)).abs().max()) < 4 / 2000**0.5
    assert float(signs.mean(1).abs().max()) < 4 / 2000**0.5


@pytest.mark.parametrize("batch", [None, 1])
def test_the_budget_does_not_change_the_directions(batch):
    model, x = mlp(3, 64, 2), vectors(40)
    plenty = EmpiricalNTK(model).approximate("projection", 20)
    with pytest.raises(MemoryBudgetError) as error:
        EmpiricalNTK(model, memory=1000).approximate("projection", 20)(x)
    least = int(str(error.value).split("memory=")[1].split(" ")[0])
    assert_equal(EmpiricalNTK(model, memory=least).approximate("projection", 20).features(x), plenty.features(x))
    with pytest.raises(MemoryBudgetError, match="random features"):
        EmpiricalNTK(model, memory=least).approximate("projection", 10**6)(x)


@pytest.mark.parametrize("name", ["mlp", "cnn", "tied", "layernorm"])
def test_all_entries_give_the_exact_kernel(name: str):
    case = next(case for case in EMPIRICAL if case.name == name)
    model, x1, x2 = case.model(), case.points(4), case.points(3, seed=2)
    rates = {n: 0.5 + i for i, (n, _) in enumerate(model.named_parameters())}
    exact = EmpiricalNTK(model, rates=rates)
    kernel = exact.approximate("parameters", size=sum(p.numel() for p in model.parameters()))
    assert_equal(kernel.blocks(x1, x2), exact.blocks(x1, x2))
    assert float(kernel.standard_errors(x1, x2).max()) == 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["LSTM, plain", "own function without a vmap rule", "inputs as a dictionary"])
def test_awkward_modules(method: str, name: str):
    case = named(name)
    exact, x = EmpiricalNTK(case.model(), readout=case.readout), case.points(3)
    size = 400 if method == "projection" else sum(p.numel() for p in exact.snapshot.values.values())
    kernel = exact.approximate(method, size)
    z = (kernel(x) - exact(x)) / kernel.standard_errors(x).clamp_min(1e-10)
    assert float(z.abs().max()) < 4.5


def check_calibration(method: str, size: int, outputs: int, seeds: int) -> None:
    """Over many seeds, for each entry: no bias, and a spread that is what the standard errors say."""
    exact, x = EmpiricalNTK(mlp(3, 12, outputs, activation=nn.Tanh)), vectors(3)
    both = []
    for seed in range(seeds):
        kernel = exact.approximate(method, size, seed)
        features = kernel._features(x, None)  # made once for both
        kernel._features = lambda *points, features=features: features
        both.append(torch.stack([kernel(x), kernel.standard_errors(x)]))
    estimates, errors = torch.stack(both, 1)
    truth, spread = exact(x), estimates.std(0)
    # 4.5 standard errors of the mean: chance exceeds that in one entry of 150,000.
    assert float(((estimates.mean(0) - truth) / spread).abs().max()) < 4.5 / seeds**0.5
    # A standard deviation of so many numbers is itself known within 1/√(2 seeds).
    allowed = 4.5 / (2 * seeds) ** 0.5
    ratio = errors.square().mean(0).sqrt() / spread
    assert 1 - allowed < float(ratio.min())
    assert float(ratio.max()) < 1 + allowed
    z = (estimates - truth) / errors
    assert float((z.std(0) - 1).abs().max()) < allowed + 0.05
    assert 0.9 < float((z.abs() < 1.96).double().mean()) < 0.98


@pytest.mark.parametrize(("method", "size"), [("projection", 120), ("parameters", 40)])
def test_errors_are_calibrated(method: str, size: int):
    check_calibration(method, size, outputs=2, seeds=120)


@pytest.mark.slow
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize(("method", "size"), [("projection", 250), ("parameters", 40)])
def test_errors_are_calibrated_over_many_seeds(method: str, size: int, outputs: int):
    check_calibration(method, size, outputs, seeds=1000)


def test_signs_are_better_than_normal_directions():
    # A kernel of one entry is exact by signs; by normal numbers its relative error would be √(2/d).
    exact = EmpiricalNTK(nn.Linear(1, 1, bias=False))
    x = vectors(2)[:, :1]
    assert_equal(exact.approximate("projection", 3)(x), exact(x))


def test_strata_have_their_share_and_at_least_two():
    model = mlp(3, 50, 1)
    strata = EmpiricalNTK(model).approximate("parameters", 101).strata
    drawn = [stratum.drawn for stratum in strata]
    assert [stratum.population for stratum in strata] == [150, 50, 50, 1]
    assert sum(drawn) == 101
    assert drawn[0] == pytest.approx(60, abs=2)
    assert drawn[3] == 1
    assert [s.drawn for s in EmpiricalNTK(model).approximate("parameters", 7).strata] == [2, 2, 2, 1]


def test_parameters_need_no_forward_derivative():
    model, x = Applies(Once), vectors(3)
    exact = EmpiricalNTK(model)
    assert_equal(exact.approximate("parameters", 8)(x), exact(x))
    with pytest.raises(NotExactError, match="two backward passes"):
        exact.approximate("projection", 8)(x)


def test_float32_and_the_live_model():
    model, x = mlp(3, 8, 2).float(), vectors(4)
    exact = EmpiricalNTK(model)
    kernel = exact.approximate("projection", 2000)
    before = kernel(x)
    assert before.dtype == torch.float32
    assert kernel.standard_errors(x).dtype == torch.float32
    assert float(((before - exact(x)) / kernel.standard_errors(x)).abs().max()) < 4.5
    with torch.no_grad():
        model[0].weight += 1
    assert torch.equal(kernel(x), before)


def test_it_says_what_it_is():
    exact = EmpiricalNTK(mlp(3, 4, 1))
    assert repr(exact.approximate("projection", 9)) == (
        "ApproximateNTK(an estimate by projection, size=9 directions, seed=0)"
    )
    assert "size=9 of 21 parameter entries" in repr(exact.approximate("parameters", 9))


def test_errors():
    exact = EmpiricalNTK(mlp(3, 4, 1))
    with pytest.raises(DataError, match="projection"):
        exact.approximate("sketch", 5)
    for size in (0, -1, True):
        with pytest.raises(DataError, match="size"):
            exact.approximate("projection", size)
    with pytest.raises(DataError, match="seed"):
        exact.approximate("projection", 5, seed=-1)
    for size in (6, 22):
        with pytest.raises(DataError, match=r"size.*7 .*21"):
            exact.approximate("parameters", size)
    with pytest.raises(DataError, match="no spread"):
        exact.approximate("projection", 1).standard_errors(vectors(3))
    with pytest.raises(DataError, match="NaN"):
        exact.approximate("projection", 2)(torch.full((2, 3), float("nan")))
