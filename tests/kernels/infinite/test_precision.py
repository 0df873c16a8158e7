"""Digits at nearly equal, opposite, coinciding and zero points, against 50-digit arithmetic."""

import math

import mpmath
import pytest
import torch
from torch import nn

from priorscope import Initialization
from priorscope.errors import NoRuleError
from priorscope.kernels.infinite import infinite_width
from tests.cases import mlp
from tests.kernels.infinite.duals_in_50_digits import FUNCTIONS, Applied, network_in_50_digits
from tests.kernels.infinite.oracles import expectation, relu_in_50_digits

ANGLES = [0.0, 1e-9, 1e-7, 1e-6, 3e-5, 1e-4, 1e-3, 2e-2, 0.1, 0.7, 1.5, 2.5, 3.1, math.pi - 1e-4, math.pi]
LIMITS = {torch.float64: (1e-5, 1e-10, 1e-7), torch.float32: (1e-2, 1e-5, 5e-4)}


def relu_limit(depth, bias=0.05, weight=2.0):
    init = Initialization(weight, bias, "ntk")
    model = mlp(6, *[32] * depth, 1, bias=bias > 0)
    return infinite_width(init.apply_(model, seed=0), init)


def points(angles, dtype):
    """A first point, and points at these angles from it, of slightly different lengths."""
    one, two = torch.linalg.qr(torch.randn(6, 2)).Q.T
    others = [(math.cos(t) * one + math.sin(t) * two) * (1 + (0.3 if i % 3 == 2 else 0)) for i, t in enumerate(angles)]
    return (1.5 * one)[None].to(dtype), (1.5 * torch.stack(others)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("bias", [0.0, 0.05])
@pytest.mark.parametrize("depth", [1, 3, 10])
def test_relu_against_50_digits(depth, bias, dtype):
    x1, x2 = points(ANGLES, dtype)
    answer = relu_limit(depth, bias)(x1, x2)
    assert answer.ntk.dtype == dtype
    exact = [relu_in_50_digits(x1[0], row, depth, 2.0, bias) for row in x2]
    border, far, near = LIMITS[dtype]
    for matrix, column in zip(answer, zip(*exact, strict=True), strict=True):
        expected = torch.tensor(column)
        errors = (matrix[0].double() - expected).abs() / expected.abs().max()
        for angle, error in zip(ANGLES, errors.tolist(), strict=True):
            assert error <= (far if angle > border else near), (angle, error)


def test_gram_diagonals_are_the_variances_exactly():
    limit = relu_limit(3)
    x = torch.randn(40, 6)
    for kernel in (limit.nngp, limit.ntk):
        gram = kernel(x)
        assert torch.equal(gram, gram.T)
        assert float((gram.diagonal() - kernel.diagonal(x)).abs().max()) <= 1e-15 * float(gram.max())


PAIRS = [math.pi / 2, 0.3, 1e-1, 2e-2, 1e-3, 1e-5, 1e-7, 0.0, math.pi - 1e-3, math.pi]
LENGTHS = (1.0, 1.25, 0.5)
BIAS = 1 / 16


def limit_of(function, depth, bias):
    act = (lambda: function.scalar) if isinstance(function.scalar, nn.Module) else lambda: Applied(function.scalar)
    with torch.device("meta"):
        model = mlp(6, *[32] * depth, 1, activation=act, bias=bias > 0)
    return infinite_width(model, Initialization(function.weight, bias, "ntk"))


def pairs_of(function, dtype):
    """A point of variance 1 in the first layer, and others of three lengths at all angles; ends of lines are exact."""
    one, two = torch.linalg.qr(torch.randn(6, 2)).Q.T * math.sqrt(6 * (1 - BIAS) / function.weight)

    def at(angle, length):
        if 0 < angle < math.pi:
            return length * (math.cos(angle) * one + math.sin(angle) * two)
        return (2 if length > 1 else length) * (one if angle == 0 else -one).to(dtype).to(one.dtype)

    return one[None].to(dtype), torch.stack([at(a, r) for r in LENGTHS for a in PAIRS]).to(dtype)


def assert_digits(answer, x1, x2, function, depth, bias):
    border, far, near = LIMITS[answer.nngp.dtype]
    exact = torch.tensor([network_in_50_digits(function, x1[0], z, depth, function.weight, bias) for z in x2])
    for matrix, column in zip(answer, exact.T, strict=True):
        expected = column.reshape(len(LENGTHS), -1)
        errors = (matrix[0].double().reshape(expected.shape) - expected).abs()
        worst = (errors / expected.abs().max(1, keepdim=True).values).max(0).values
        for angle, error in zip(PAIRS, worst.tolist(), strict=True):
            assert error <= (far if angle > border else near), (angle, error)


ALWAYS = ("relu", "erf", "gelu")
CASES = [
    pytest.param(name, depth, marks=() if depth == 1 or (depth == 3 and name in ALWAYS) else pytest.mark.slow)
    for name, function in FUNCTIONS.items()
    for depth in function.depths
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("name", "depth"), CASES)
def test_every_function_against_50_digits(name, depth, dtype):
    function = FUNCTIONS[name]
    x1, x2 = pairs_of(function, dtype)
    for bias in (0.0, BIAS):
        limit = limit_of(function, depth, bias)
        answer = limit(x1, x2)
        assert answer.nngp.dtype == dtype
        assert_digits(answer, x1, x2, function, depth, bias)
        for kernel, gram in zip((limit.nngp, limit.ntk), limit(x2), strict=True):
            assert torch.equal(gram, gram.T)
            own = kernel.diagonal(x2)
            assert float(((gram.diagonal() - own) / own).abs().max()) <= 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(
    "depth", [1, pytest.param(3, marks=pytest.mark.slow), pytest.param(10, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", ["relu", "leaky relu", "abs"])
def test_compiled_loops_against_50_digits(name, depth, dtype, monkeypatch):
    """Without a bias they step aside for points on one line, where they have too few digits."""
    monkeypatch.setattr("priorscope.kernels.infinite.limit.SMALL", 0)
    function = FUNCTIONS[name]
    x1, x2 = pairs_of(function, dtype)
    for bias, path in ((0.0, "nearly parallel with different lengths"), (BIAS, "compiled loops")):
        limit = limit_of(function, depth, bias)
        assert_digits(limit(x1, x2), x1, x2, function, depth, bias)
        assert path in str(limit.explain())
    alone = limit_of(function, depth, 0.0)
    alone(x1, x2[: len(PAIRS) - 2])
    assert "compiled loops" in str(alone.explain())


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "normalized exp"])
def test_the_written_moments_are_those_of_the_function(name):
    """The oracle's own formulas, by quadrature."""
    function = FUNCTIONS[name]

    def scalar(u):
        return function.scalar(torch.from_numpy(u)).numpy()

    for k, v1, v2 in ((0.3, 1.0, 0.7), (-0.5, 0.8, 0.6)):
        assert float(function.moment(*map(mpmath.mpf, (k, v1, v2)))) == pytest.approx(
            expectation(scalar, scalar, v1, v2, k), abs=1e-10
        )


@pytest.mark.parametrize("activation", [torch.nn.ReLU, lambda: torch.nn.LeakyReLU(0.3), torch.nn.Tanh, torch.nn.GELU])
def test_zero_inputs_without_biases(activation):
    init = Initialization(2.0, 0.0)
    model = init.apply_(mlp(3, 8, 8, 1, activation=activation, bias=False), seed=0)
    x = torch.cat([torch.zeros(2, 3), torch.randn(3, 3)]).requires_grad_()
    answer = infinite_width(model, init)(x)
    for matrix in answer:
        assert torch.isfinite(matrix).all()
        assert float(matrix[:2].detach().abs().max()) <= 1e-10
        assert torch.isfinite(torch.autograd.grad(matrix.sum(), x, retain_graph=True)[0]).all()


def test_blocks_of_rows_give_the_same(monkeypatch):
    limit = relu_limit(2)
    x = torch.randn(23, 6)
    whole, cross = limit(x), limit(x, x[:5] + 1)
    monkeypatch.setattr("priorscope.kernels.infinite.tiles.FAST_NUMBERS", 150)
    for a, b in zip((*whole, *cross), (*limit(x), *limit(x, x[:5] + 1)), strict=True):
        assert float((a - b).abs().max()) <= 1e-14 * float(a.max())
    assert torch.equal(limit(x).ntk, limit(x).ntk.T)


VARIANCES = [1e-8, 1e-4, 1.0, 1e2, 1e4, 1e8]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "exp"])
def test_variances_from_1e_8_to_1e8(name, dtype):
    """Both kernels of one hidden layer, relative to those of the two points with themselves."""
    function, angles = FUNCTIONS[name], (0.0, 1e-3, 1.5, math.pi - 1e-3, math.pi)
    act = function.scalar if isinstance(function.scalar, nn.Module) else Applied(function.scalar)
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(2, 4, bias=False), act, nn.Linear(4, 1, bias=False))
    limit = infinite_width(model, Initialization(1.0, 0.0, "ntk"))
    lines = [{0.0: (1.0, 0.0), math.pi: (-1.0, 0.0)}.get(a, (math.cos(a), math.sin(a))) for a in angles]
    x1 = torch.tensor([[math.sqrt(2 * v), 0.0] for v in VARIANCES]).to(dtype)
    x2 = torch.tensor([[math.sqrt(2 * v) * c for c in line] for v in VARIANCES for line in lines]).to(dtype)
    answer = limit(x1, x2)
    own1, own2 = limit(x1), limit(x2)
    for i, a in enumerate(x1):
        for j, b in enumerate(x2):
            exact = network_in_50_digits(function, a, b, 1, 1.0, 0.0)
            for matrix, first, second, expected in zip(answer, own1, own2, exact, strict=True):
                scale = float((first[i, i].double() * second[j, j].double()).sqrt())
                assert abs(float(matrix[i, j]) - expected) <= 16 * torch.finfo(dtype).eps * scale


def test_exponentials_of_large_variances_are_refused_by_name():
    with torch.device("meta"):
        model = mlp(2, 4, 1, activation=lambda: Applied(torch.exp))
    with pytest.raises(NoRuleError, match=r"has moments too large for torch\.float64 at the variance"):
        infinite_width(model, Initialization(1.0, 0.1))(1e3 * torch.randn(2, 2))
