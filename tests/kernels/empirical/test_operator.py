"""Kernel-vector products against the loop of plain autograd, iterative solvers against direct ones."""

import numpy as np
import pytest
import scipy.sparse.linalg as iterative
import torch
from torch import Tensor, nn

from priorscope.errors import DataError, MemoryBudgetError, ModelError, NotExactError
from priorscope.kernels.empirical import EmpiricalNTK
from priorscope.network.initialization import Initialization
from tests.cases import EMPIRICAL, Case, mlp
from tests.kernels.empirical.cases import AWKWARD, Awkward, named, vectors
from tests.kernels.empirical.test_bad_input import Middle, each_row
from tests.kernels.empirical.test_empirical_ntk import assert_equal, trace
from tests.oracles import jacobian_by_loop, ntk_by_loop

TWICE = ("own function without a vmap rule", "tensor hook that changes the gradient")
"""Modules whose forward derivatives torch refuses, or gets wrong."""


def flat(blocks: Tensor) -> Tensor:
    return blocks.flatten(2).flatten(0, 1)


def check(model: nn.Module, x1, x2, readout=None):
    ntk = EmpiricalNTK(model, readout=readout)
    j1, j2 = (
        jacobian_by_loop(model, x1, None, readout).flatten(0, 1),
        jacobian_by_loop(model, x2, None, readout).flatten(0, 1),
    )
    for batch in (None, 1, 2):
        gram, cross = ntk.operator(x1, batch=batch), ntk.operator(x1, x2, batch=batch)
        v1, v2 = torch.randn(len(j1), 2), torch.randn(len(j2))
        assert gram.shape == (len(j1), len(j1))
        assert cross.shape == (len(j1), len(j2))
        assert_equal(gram.matmul(v1), j1 @ (j1.T @ v1))
        assert_equal(cross @ v2, j1 @ (j2.T @ v2))
        assert_equal(cross.rmatmul(v1), j2 @ (j1.T @ v1))
    return ntk.operator(x1)


@pytest.mark.parametrize("case", EMPIRICAL, ids=repr)
def test_every_case_equals_the_loop(case: Case):
    model = case.model()
    assert check(model, case.points(4), case.points(3, seed=2)).method == "forward mode"


@pytest.mark.parametrize("case", AWKWARD, ids=repr)
def test_awkward_modules_equal_the_loop(case: Awkward):
    operator = check(case.model(), case.points(4), case.points(3), case.readout)
    expected = "two backward passes" if case.name in TWICE else "forward mode"
    assert operator.method == expected, operator.reason


@pytest.mark.parametrize("name", ["mlp", "cnn", "tied"])
def test_dense_equals_the_loop(name: str):
    case = next(case for case in EMPIRICAL if case.name == name)
    model, x1, x2 = case.model(), case.points(4), case.points(3, seed=2)
    rates = {n: 0.5 + i for i, (n, _) in enumerate(model.named_parameters())}
    ntk = EmpiricalNTK(model, rates=rates)
    gram, cross = ntk_by_loop(model, x1, x1, rates), ntk_by_loop(model, x1, x2, rates)
    assert_equal(ntk.operator(x1, batch=2).dense("blocks"), gram)
    assert_equal(ntk.operator(x1).dense("trace"), trace(gram))
    assert_equal(ntk.operator(x1, x2, batch=2).dense(), cross)
    assert_equal(ntk.operator(x1, x2).dense("trace"), trace(cross))
    dense = flat(ntk.operator(x1).dense())
    assert torch.equal(dense, dense.T)
    assert_equal(flat(ntk.operator(x1).plus(0.3).dense()), flat(gram) + 0.3 * torch.eye(len(dense)))
    assert_equal(ntk.operator(x1).plus(0.3).dense("trace"), trace(gram) + 0.3 * torch.eye(4))


@pytest.mark.parametrize("name", ["LSTM, plain", *TWICE])
def test_dense_where_vectors_run_one_at_a_time(name: str):
    case = named(name)
    model, x = case.model(), case.points(3)
    j = jacobian_by_loop(model, x, None, case.readout).flatten(0, 1)
    assert_equal(flat(EmpiricalNTK(model, readout=case.readout).operator(x).dense()), j @ j.T)


def test_rates_and_some_parameters():
    model, x = mlp(3, 5, 2), vectors(4)
    rates = Initialization(2.0, 0.1, "ntk").rates(model)
    v = torch.randn(8)
    assert_equal(EmpiricalNTK(model, rates=rates).operator(x) @ v, flat(ntk_by_loop(model, x, x, rates)) @ v)
    some = EmpiricalNTK(model, parameters="0")
    assert_equal(some.operator(x) @ v, flat(some.blocks(x)) @ v)


def test_what_comes_back_is_like_what_was_given():
    model, x = mlp(3, 5, 2).float(), vectors(4).float()
    operator = EmpiricalNTK(model).operator(x)
    dense = operator.dense()
    assert dense.dtype == torch.float32
    assert operator.dtype == np.float32
    for v in (torch.randn(8), torch.randn(8, 1), torch.randn(8, 3).float(), torch.randn(8, 0)):
        result = operator @ v
        assert result.shape == v.shape
        assert result.dtype == v.dtype
        array = operator @ v.numpy()
        assert isinstance(array, np.ndarray)
        assert array.dtype == v.numpy().dtype
        assert np.array_equal(array, result.numpy())
        assert torch.allclose(result.float(), flat(dense) @ v.float(), rtol=1e-4, atol=1e-4)
    assert (operator @ np.arange(8)).dtype == np.float32
    half = EmpiricalNTK(mlp(3, 5, 2).to(torch.bfloat16), rates=None)
    with pytest.raises(ModelError, match="bfloat16"):
        _ = half.operator(x[:1]).dtype


def test_vectors_are_left_as_they_are():
    model = nn.Linear(3, 2)
    operator = EmpiricalNTK(model, rates={"weight": 2.0, "bias": 3.0}).operator(vectors(1))
    v = torch.randn(2)
    before = v.clone()
    operator.matmul(v)
    assert torch.equal(v, before)


def test_it_is_of_a_snapshot_of_model_and_points():
    model, x = mlp(3, 5, 2), vectors(4)
    operator, v = EmpiricalNTK(model).operator(x), torch.randn(8)
    before = operator @ v
    with torch.no_grad():
        model[0].weight += 1
        x += 1
    changed = model(x).detach()
    assert torch.equal(operator @ v, before)
    assert torch.equal(model(x), changed)
    assert all(p.grad is None for p in model.parameters())


def test_scipys_solvers():
    model, x = mlp(3, 8, 2), vectors(5)
    ntk = EmpiricalNTK(model)
    operator, dense = ntk.operator(x), flat(ntk.blocks(x)).numpy()
    values = iterative.eigsh(operator, k=3, return_eigenvectors=False)
    assert np.allclose(np.sort(values), np.linalg.eigvalsh(dense)[-3:], rtol=1e-9)
    b = np.random.default_rng(0).normal(size=10)
    for solve in (iterative.cg, iterative.minres):
        found, failed = solve(operator.plus(0.1), b, rtol=1e-12)
        assert failed == 0
        assert np.allclose(found, np.linalg.solve(dense + 0.1 * np.eye(10), b), rtol=1e-7, atol=1e-9)
    cross = iterative.aslinearoperator(ntk.operator(x, vectors(3)))
    wide = np.ones((6, 2))
    assert np.allclose(cross.matmat(wide), cross.matvec(wide[:, 0])[:, None] * np.ones(2))
    assert np.allclose(cross.rmatmat(np.ones((10, 2)))[:, 0], cross.H @ np.ones(10))


def test_linear_operators_solver():
    linear_cg = pytest.importorskip("linear_operator.utils.linear_cg").linear_cg
    ntk, x = EmpiricalNTK(mlp(3, 8, 2)), vectors(5)
    operator, b = ntk.operator(x).plus(0.5), torch.randn(10, 3)
    found = linear_cg(operator.matmul, b, tolerance=1e-6, max_iter=200, max_tridiag_iter=0)
    assert torch.allclose(found, torch.linalg.solve(flat(operator.dense()), b), rtol=1e-4, atol=1e-5)


def test_regression_on_digits_equals_the_direct_solve():
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = datasets.load_digits(return_X_y=True)
    x = torch.tensor(images / 16)
    y = torch.nn.functional.one_hot(torch.tensor(labels)).double() - 0.1
    train, test = slice(0, 100), slice(100, 140)
    ntk = EmpiricalNTK(mlp(64, 32, 10))
    ridge = 0.2
    operator = ntk.operator(x[train]).plus(ridge)
    weights, failed = iterative.cg(operator, y[train].flatten().numpy(), rtol=1e-10, maxiter=2000)
    assert failed == 0
    predicted = (ntk.operator(x[test], x[train]) @ torch.as_tensor(weights)).view(-1, 10)
    gram, cross = flat(ntk.blocks(x[train])), flat(ntk.blocks(x[test], x[train]))
    direct = cross @ torch.linalg.solve(gram + ridge * torch.eye(1000), y[train].flatten())
    assert torch.allclose(predicted.flatten(), direct, rtol=1e-6, atol=1e-6)
    assert float((predicted.argmax(1) == torch.tensor(labels[test])).double().mean()) > 0.7


class MixesBatch(nn.Module):
    def forward(self, x):
        return x * torch.softmax(x, 0)


class WrongForward(torch.autograd.Function):
    """Its forward derivative is not that of its backward pass, where x is large."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return 1 * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_forward(inputs[0])

    @staticmethod
    def backward(ctx, grad):
        return grad

    @staticmethod
    def jvp(ctx, tangent):
        (x,) = ctx.saved_tensors
        return torch.where(x > 100, 2.0, 1.0) * tangent


class Once(torch.autograd.Function):
    """Neither a forward derivative nor a second backward pass."""

    @staticmethod
    def forward(ctx, x):
        return 1 * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return grad


class Applies(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function, self.linear = function, nn.Linear(3, 2)

    def forward(self, x):
        return self.function.apply(self.linear(x))


def test_a_wrong_forward_derivative_is_found():
    x = vectors(4)
    model = Applies(WrongForward)
    assert EmpiricalNTK(model).operator(x).method == "forward mode"
    x[2] *= 1e4  # right for the first and the last point
    with pytest.raises(NotExactError, match="kernel-vector product is wrong"):
        EmpiricalNTK(model).operator(x)
    x[0] *= 1e4
    with torch.no_grad():
        x = x[[0, 2]] if float(model(x)[0].max()) > 100 else -x[[0, 2]]
    operator = EmpiricalNTK(model).operator(x)
    assert operator.method == "two backward passes"
    assert "wrong for `linear." in operator.reason


def test_a_module_without_either_derivative_raises_by_name():
    with pytest.raises(NotExactError, match=r"\(Applies\).*forward mode: .*two backward passes: "):
        EmpiricalNTK(Applies(Once)).operator(vectors(3))


def test_values_read_in_python_are_found():
    model = nn.Sequential(nn.Linear(3, 4), Middle(each_row), nn.Linear(4, 2))
    with pytest.raises(NotExactError, match=r"Middle.*reads a value"):
        EmpiricalNTK(model).operator(vectors(3))


def test_batch_mixing_is_found():
    model = nn.Sequential(nn.Linear(3, 4), MixesBatch(), nn.Linear(4, 2))
    with pytest.raises(NotExactError, match=r"`1` \(MixesBatch\)"):
        EmpiricalNTK(model).operator(vectors(3))
    nn.init.zeros_(model[2].weight)
    with pytest.raises(NotExactError, match=r"`2\.weight`.*depends on the other points"):
        EmpiricalNTK(model).operator(vectors(3))


def test_other_errors():
    ntk, x = EmpiricalNTK(mlp(3, 5, 2)), vectors(4)
    operator = ntk.operator(x)
    for bad in (torch.randn(7), torch.randn(8, 1, 1), [0.0] * 8, torch.full((8,), torch.nan), torch.randn(8) * 1j):
        with pytest.raises(DataError, match=r"^v: "):
            operator.matmul(bad)
    with pytest.raises(TypeError):
        np.ones(8) @ operator
    for batch in (0, -2, True):
        with pytest.raises(DataError, match="batch"):
            ntk.operator(x, batch=batch)
    with pytest.raises(DataError, match="one set"):
        ntk.operator(x, vectors(2)).plus(0.1)
    with pytest.raises(DataError, match="noise"):
        operator.plus(-1.0)
    with pytest.raises(DataError, match="form"):
        operator.dense("diagonal")
    with pytest.raises(DataError, match="empty"):
        ntk.operator(x[:0])
    with pytest.raises(ModelError, match="does not run"):
        ntk.operator(x, torch.randn(2, 7))
    with pytest.raises(ModelError, match=r"`.*` *.*NaN"):
        EmpiricalNTK(nn.Sequential(nn.Linear(3, 2), Root())).operator(torch.zeros(2, 3))


class Root(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))

    def forward(self, x):
        return (self.weight * x).abs().sqrt()


def test_the_budget_decides_the_batch():
    model, x = mlp(3, 64, 64, 2), vectors(200)
    with pytest.raises(MemoryBudgetError) as error:
        EmpiricalNTK(model, memory=1000).operator(x)
    least = int(str(error.value).split("memory=")[1].split(" ")[0])
    tight, plenty = EmpiricalNTK(model, memory=least).operator(x), EmpiricalNTK(model).operator(x)
    assert (tight.batch, plenty.batch) == (1, 200)
    v = torch.randn(400)
    assert_equal(tight @ v, plenty @ v)
    with pytest.raises(MemoryBudgetError, match="smaller batch"):
        EmpiricalNTK(model, memory=least).operator(x, batch=50)
    with pytest.raises(MemoryBudgetError, match="dense"):
        tight.dense()
