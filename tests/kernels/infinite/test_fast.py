"""The compiled loops against the plain path, which they replace where they can, and against 50 digits."""

import importlib.util
import math
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
from torch import nn

from priorscope import Initialization
from priorscope.kernels.infinite import infinite_width
from priorscope.kernels.infinite.fast import coefficients
from tests.kernels.infinite.golden import CASES, Residual, build, values
from tests.kernels.infinite.oracles import relu_in_50_digits
from tests.kernels.infinite.test_precision import ANGLES, LIMITS, points, relu_limit

LIMIT = "priorscope.kernels.infinite.limit.SMALL"
ROOT = Path(__file__).parents[3]
FAST = "compiled loops on the CPU"
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}


def conv(channels, kernel=3, padding=1, **other):
    return nn.Conv2d(channels, 4, kernel, padding=padding, **other)


class GlobalMean(nn.Module):
    def forward(self, x):
        return x.mean(tuple(range(2, x.ndim)))


NETWORKS = {
    "vectors": lambda: ((10,), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1)),
    "kinds": lambda: (
        *((2, 5), nn.Flatten(), nn.Linear(10, 8), nn.LeakyReLU(0.3)),
        *(Residual(nn.Sequential(nn.Linear(8, 8), Absolute(), nn.Linear(8, 8))), nn.Linear(8, 1)),
    ),
    "sum": lambda: (
        *((10,), nn.Linear(10, 8), Residual(nn.Sequential(nn.ReLU(), nn.Linear(8, 8))), nn.ReLU(), nn.Linear(8, 1)),
    ),
    "flatten": lambda: (
        *((3, 8, 8), conv(3), nn.ReLU(), conv(4, 3, 0, stride=2), Absolute(), nn.Flatten(), nn.Linear(36, 4)),
        *(nn.ReLU(), nn.Linear(4, 1)),
    ),
    "circular": lambda: (
        *((3, 6, 7), conv(3), nn.ReLU(), conv(4, padding_mode="circular"), nn.LeakyReLU(0.2), GlobalMean()),
        nn.Linear(4, 1),
    ),
    "circular, flat": lambda: (
        *((3, 6, 7), conv(3, padding_mode="circular"), nn.ReLU(), conv(4), nn.ReLU(), nn.Flatten()),
        nn.Linear(168, 1),
    ),
    "pooling": lambda: (
        *((3, 8, 8), conv(3), nn.ReLU(), conv(4), nn.ReLU(), nn.AvgPool2d(2), conv(4), Absolute(), GlobalMean()),
        *(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1)),
    ),
    "wide patches": lambda: (
        *((3, 8, 8), conv(3, 5, 2, padding_mode="circular"), nn.ReLU(), nn.AvgPool2d(2), conv(4, 3, 1, stride=2)),
        *(nn.ReLU(), nn.Flatten(), nn.Linear(16, 1)),
    ),
    "strided pairs": lambda: (
        *((3, 7, 8), conv(3, (2, 3), 1, stride=(2, 1)), nn.ReLU(), conv(4, 3, 2, dilation=2), nn.ReLU(), GlobalMean()),
        nn.Linear(4, 1),
    ),
    "one axis": lambda: (
        *((3, 12), nn.Conv1d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv1d(4, 4, 3, dilation=2), nn.ReLU()),
        *(nn.AvgPool1d(2), nn.Flatten(), nn.Linear(16, 1)),
    ),
    "residual": lambda: (
        *((3, 6, 6), conv(3), Residual(nn.Sequential(nn.ReLU(), conv(4), nn.ReLU(), conv(4))), nn.ReLU()),
        *(conv(4, stride=2), nn.ReLU(), GlobalMean(), nn.Linear(4, 1)),
    ),
    "norms and groups": lambda: (
        *((3, 6, 6), conv(3), nn.BatchNorm2d(4, affine=False), nn.ReLU(), conv(4, groups=2), nn.ReLU()),
        *(conv(4, groups=4), nn.Conv2d(4, 4, 1), nn.ReLU(), GlobalMean(), nn.Linear(4, 1)),
    ),
    "branches of other sizes": lambda: (
        *((3, 6, 6), conv(3), nn.ReLU()),
        *(Branches(nn.Sequential(conv(4), nn.ReLU(), conv(4, stride=2)), conv(4, 1, 0, stride=2)), nn.ReLU()),
        *(nn.AvgPool2d(3), conv(4), nn.ReLU(), GlobalMean(), nn.Linear(4, 1)),
    ),
    "every position": lambda: (
        *((5, 3), nn.Linear(3, 4), nn.ReLU(), Residual(nn.Sequential(nn.Linear(4, 4), Absolute(), nn.Linear(4, 4)))),
        *(nn.Linear(4, 4), nn.ReLU(), Tokens(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1)),
    ),
    "every position, flat": lambda: (
        *((5, 3), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(20, 1)),
    ),
    "large patches": lambda: (
        *((2, 5, 6), conv(2, (3, 5), (1, 2)), nn.ReLU(), conv(4, 4, "same"), Absolute(), conv(4, 3, 2, dilation=2)),
        *(nn.ReLU(), nn.AvgPool2d((5, 2), stride=(5, 1)), conv(4), nn.ReLU(), GlobalMean(), nn.Linear(4, 1)),
    ),
    "padding beyond the image": lambda: (
        *((3, 2, 1), conv(3, 5, 2), nn.ReLU(), conv(4, 3, 1), nn.ReLU(), GlobalMean(), nn.Linear(4, 1)),
    ),
    "edges of two kinds": lambda: (
        *((3, 5, 4), conv(3, padding_mode="circular"), nn.ReLU(), conv(4), nn.ReLU()),
        *(conv(4, padding_mode="circular"), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 1)),
    ),
}
BOTH_DTYPES = ("vectors", "sum", "flatten", "pooling", "strided pairs", "branches of other sizes")
"""In float32 the others run with the slow tests."""


pytestmark = pytest.mark.filterwarnings("ignore:.*channels in each group")
EVEN = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")


def in_dtypes(names):
    return [
        pytest.param(name, dtype, id=f"{name}-{dtype}", marks=[] if quick else [pytest.mark.slow])
        for name in names
        for dtype in (torch.float64, torch.float32)
        for quick in [dtype == torch.float64 or name in BOTH_DTYPES]
    ]


class Branches(nn.Module):
    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x):
        return self.first(x) + self.second(x)


class Tokens(nn.Module):
    def forward(self, x):
        return x.mean(1)


class Absolute(nn.Module):
    def forward(self, x):
        return torch.abs(x)


def made(name, bias=0.05):
    shape, *layers = NETWORKS[name]()
    init = Initialization(2.0, bias, "ntk")
    return shape, infinite_width(init.apply_(nn.Sequential(*layers).eval(), seed=0), init)


def both_ways(limit, monkeypatch, *x):
    monkeypatch.setattr(LIMIT, 0)
    fast = limit(*x)
    assert FAST in str(limit.explain())
    rows = limit.explain().rows
    monkeypatch.setattr(LIMIT, math.inf)
    plain = limit(*x)
    assert FAST not in str(limit.explain())
    assert limit.explain().rows == rows
    return fast, plain


def assert_close(fast, plain, tolerance):
    for one, other in zip(fast, plain, strict=True):
        assert one.dtype == other.dtype
        assert float((one - other).abs().max()) <= tolerance * float(other.abs().max())


@EVEN
@pytest.mark.parametrize(("name", "dtype"), in_dtypes(NETWORKS))
def test_equals_the_plain_path(name, dtype, monkeypatch):
    shape, limit = made(name)
    generator = torch.Generator().manual_seed(1)
    x1, x2 = torch.randn(2, 4, *shape, generator=generator, dtype=dtype)
    x2[0], x2[1] = x1[0], x1[1] * (1 + 1e-3)
    cross = both_ways(limit, monkeypatch, x1, x2)
    gram = both_ways(limit, monkeypatch, torch.cat([x1, x2[:2]]))
    for fast, plain in (cross, gram):
        # Averages of gaps of coinciding points (rows 0 and 1) cancel, in both ways: the wider bound of LIMITS there.
        assert_close(fast, plain, LIMITS[dtype][2])
        assert_close([matrix[2:4] for matrix in fast], [matrix[2:4] for matrix in plain], TOLERANCE[dtype])
    fast, _ = gram
    for matrix in fast:
        assert torch.equal(matrix, matrix.T)


@EVEN
@pytest.mark.parametrize(("name", "dtype"), in_dtypes(NETWORKS))
@pytest.mark.parametrize("bias", [0.0, 0.05])
def test_zero_and_opposite_points(name, bias, dtype, monkeypatch):
    shape, limit = made(name, bias)
    x = torch.randn(4, *shape, generator=torch.Generator().manual_seed(2), dtype=dtype)
    x[1], x[2] = -x[0], 0
    if bias == 0:
        # They step aside for points on one line, whose angles no bias changes.
        monkeypatch.setattr(LIMIT, 0)
        limit(x)
        assert "nearly opposite" in str(limit.explain())
        x = x[1:]
    # What rounding leaves of an angle of exactly π: the wider bound of LIMITS.
    assert_close(*both_ways(limit, monkeypatch, x), LIMITS[dtype][2])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("bias", [0.0, 0.05])
@pytest.mark.parametrize("depth", [1, 3, 10])
def test_relu_against_50_digits(depth, bias, dtype, monkeypatch):
    monkeypatch.setattr(LIMIT, 0)
    x1, x2 = points(ANGLES, dtype)
    limit = relu_limit(depth, bias)
    answer = limit(x1, x2)
    assert (FAST in str(limit.explain())) == (bias > 0)
    exact = [relu_in_50_digits(x1[0], row, depth, 2.0, bias) for row in x2]
    border, far, near = LIMITS[dtype]
    for matrix, column in zip(answer, zip(*exact, strict=True), strict=True):
        expected = torch.tensor(column)
        errors = (matrix[0].double() - expected).abs() / expected.abs().max()
        for angle, error in zip(ANGLES, errors.tolist(), strict=True):
            assert error <= (far if min(angle, math.pi - angle) > border else near), (angle, error)


@pytest.mark.parametrize("name", ["fc-relu-3", "fc-leaky", "cnn-same-flatten", "cnn-circular-gap", "cnn-myrtle5"])
def test_golden(name, monkeypatch):
    monkeypatch.setattr(LIMIT, 0)
    case, expected = CASES[name], values(name)
    init = Initialization(case["weight_variance"], case["bias_variance"], "ntk")
    limit = infinite_width(init.apply_(build(case), seed=0), init)
    cross = limit(expected["x1"], expected["x2"])
    assert FAST in str(limit.explain())
    for key, matrix in (("nngp", cross.nngp), ("ntk", cross.ntk)):
        error = float((matrix - expected[key]).abs().max() / expected[key].abs().max())
        assert error <= max(case["relative_tolerance"], 1e-10)


def test_steps_aside_and_says_why(monkeypatch):
    monkeypatch.setattr(LIMIT, 0)
    init = Initialization(2.0, 0.0)
    tanh = infinite_width(init.apply_(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), seed=0), init)
    x = torch.randn(5, 3)
    tanh(x)
    assert "plain torch" in str(tanh.explain())
    assert "nn.Tanh" in str(tanh.explain())
    _, limit = made("vectors")
    limit(torch.randn(5, 10).requires_grad_())
    assert "gradients" in str(limit.explain())
    limit(torch.randn(5, 10) * 1e-145)
    assert "very small" in str(limit.explain())


def test_is_taken_where_there_is_enough_to_do():
    """By the number of moments, not of points: a few images have many."""
    init = Initialization(2.0, 0.0)
    flat = nn.Sequential(conv(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 1))
    pooled = nn.Sequential(conv(4), nn.ReLU(), GlobalMean(), nn.Linear(4, 1))
    generator = torch.Generator().manual_seed(0)
    for model, many, few in ((flat, 36, 4), (pooled, 4, 1)):
        limit = infinite_width(init.apply_(model, seed=0), init)
        x = torch.randn(many, 4, 8, 8, generator=generator)
        limit(x)
        assert FAST in str(limit.explain())
        limit(x[:few])
        assert "too little work" in str(limit.explain())


def test_keeps_torchs_threads(monkeypatch):
    monkeypatch.setattr(LIMIT, 0)
    before = torch.get_num_threads()
    _, limit = made("pooling")
    limit(torch.randn(3, 3, 8, 8))
    assert torch.get_num_threads() == before


def test_memory_does_not_change_the_answer(monkeypatch):
    monkeypatch.setattr(LIMIT, 0)
    for name in ("flatten", "pooling"):
        shape, limit = made(name)
        x = torch.randn(7, *shape)
        whole = limit(x)
        with monkeypatch.context() as patch:
            patch.setattr("priorscope.kernels.infinite.fast.run.ENTRIES", 2**12)
            assert_close(limit(x), whole, 1e-14)


def script():
    spec = importlib.util.spec_from_file_location("arc_polynomials", ROOT / "scripts" / "arc_polynomials.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("dtype", "limit"), [("float32", 3e-7), ("float64", 5e-16)])
def test_polynomials(dtype, limit):
    made_by = script()
    kind = np.dtype(dtype).type
    for table, function in ((coefficients.ARC, made_by.arc), (coefficients.EXCESS, made_by.excess)):
        for y in np.linspace(1e-3, 0.5, 101).astype(dtype):
            value = kind(0)
            for c in table[dtype][::-1]:
                value = value * y + kind(c)
            with mpmath.workdps(40):
                exact = function(mpmath.mpf(float(y)))
                assert abs(mpmath.mpf(float(value)) / exact - 1) <= limit
