"""Every pointwise function against quadrature in polar coordinates, one pair at a time."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from priorscope.kernels.infinite.registry import find
from priorscope.linalg.quadrature import hermite_pairs
from tests.kernels.infinite.oracles import expectation

FUNCTIONS = {
    "relu": (torch.relu, {}),
    "leaky_relu": (F.leaky_relu, {"negative_slope": 0.2}),
    "abs": (torch.abs, {}),
    "erf": (torch.erf, {}),
    "gelu": (F.gelu, {}),
    "gelu tanh": (F.gelu, {"approximate": "tanh"}),
    "sin": (torch.sin, {}),
    "cos": (torch.cos, {}),
    "tanh": (torch.tanh, {}),
    "sigmoid": (torch.sigmoid, {}),
    "silu": (F.silu, {}),
    "mish": (F.mish, {}),
    "softplus": (F.softplus, {"beta": 2.0}),
    "logsigmoid": (F.logsigmoid, {}),
    "tanhshrink": (F.tanhshrink, {}),
}
PAIRS = [(1.0, 1.0, 0.3), (0.4, 1.7, -0.5), (1.2, 0.8, 0.95), (0.9, 0.9, -0.899), (2.0, 0.1, 0.0)]


def numpy_of(function, settings, slope=False):
    def call(u):
        u = torch.from_numpy(u).requires_grad_()
        out = function(u, **settings)
        return (torch.autograd.grad(out.sum(), u)[0] if slope else out.detach()).numpy()

    return call


def apply_dual(entry, k, v1, v2, gap, settings):
    extra = {name: value for name, value in (("gap", gap), ("deviation", None)) if name in entry.wants}
    return entry.function(k, v1, v2, **extra, **settings)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_against_quadrature(name):
    function, settings = FUNCTIONS[name]
    v1, v2, k = torch.tensor(PAIRS).T
    gap = (v1 + v2) / 2 - k
    answer = apply_dual(find(function), k, v1, v2, gap, settings)
    f, slope = (numpy_of(function, settings, s) for s in (False, True))
    for i, (a, b, c) in enumerate(PAIRS):
        assert abs(float(answer[0][i]) - expectation(f, f, a, b, c)) <= 1e-10
        assert abs(float(answer[1][i]) - expectation(slope, slope, a, b, c)) <= 1e-10
        if len(answer) > 2 and answer[2] is not None:
            own = (expectation(f, f, a, a, a) + expectation(f, f, b, b, b)) / 2
            assert abs(float(answer[2][i]) - own + expectation(f, f, a, b, c)) <= 1e-10


@pytest.mark.parametrize("name", [n for n in FUNCTIONS if n != "gelu tanh"])
def test_the_gap_keeps_its_digits(name):
    """At nearly equal points the gap after φ is E[φ'²]·gap: relative digits, where a difference would have none."""
    function, settings = FUNCTIONS[name]
    v = torch.tensor([0.7])
    gap = torch.tensor([1e-22])
    answer = apply_dual(find(function), v - gap, v, v.clone(), gap, settings)
    slope = apply_dual(find(function), v, v, v, torch.zeros(1), settings)[1]
    assert float(answer[2] / (slope * gap) - 1) == pytest.approx(0, abs=1e-9)


def test_gelu_closed_form_against_the_series():
    v1, v2 = torch.rand(40, 1) * 3, torch.rand(1, 40) * 3
    k = (torch.rand(40, 40) * 2 - 1) * (v1 * v2).sqrt() * 0.95
    gap = (v1 + v2) / 2 - k
    closed = find(F.gelu).function(k, v1, v2, gap, None)
    series = hermite_pairs(F.gelu, v1, v2, gap, 1e-13)
    assert float((closed[0] - series.value).abs().max()) <= 1e-12
    assert float((closed[1] - series.slope).abs().max()) <= 1e-11


def test_exact_derivatives_by_price():
    """∂E[φφ]/∂k = E[φ'φ'], for the closed forms, by finite differences."""
    for name in ("relu", "abs", "erf", "gelu", "sin", "cos"):
        function, settings = FUNCTIONS[name]
        v1, v2, k = torch.tensor(PAIRS).T
        step = 1e-6

        def value(k, v1=v1, v2=v2, function=function, settings=settings):
            return apply_dual(find(function), k, v1, v2, (v1 + v2) / 2 - k, settings)

        slope = (value(k + step)[0] - value(k - step)[0]) / (2 * step)
        np.testing.assert_allclose(slope, value(k)[1], atol=1e-7)
