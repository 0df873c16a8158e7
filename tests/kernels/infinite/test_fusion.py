"""Fused pointwise functions, as users write them, against quadrature of the very same function one pair at a time."""

import math
from itertools import pairwise

import mpmath
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from priorscope import Initialization
from priorscope.errors import NoRuleError
from priorscope.kernels.infinite import infinite_width
from priorscope.kernels.infinite.fused import entry
from priorscope.kernels.infinite.fusion import fuse
from priorscope.kernels.infinite.registry import Dual, Rule, find, is_leaf
from priorscope.network.watching import watch
from tests.kernels.infinite.golden import Pointwise
from tests.kernels.infinite.oracles import _legendre

CLOSED = {
    "sign": torch.sign,
    "step": lambda h: torch.heaviside(h, torch.tensor(0.5)),
    "comparison": lambda h: (h > 0).float(),
    "gate": lambda h: h * (h > 0),
    "x + relu": lambda h: h + h.relu(),
    "relu - 2x": lambda h: torch.relu(h) - 2 * h,
    "where": lambda h: torch.where(h > 0, h, 0.2 * h),
    "clamp at 0": lambda h: h.clamp(min=0),
    "clamp_min": lambda h: h.clamp_min(0.0),
    "maximum": lambda h: torch.maximum(h, 0.3 * h),
    "abs of relu": lambda h: (h.relu() - 1.5 * h).abs(),
    "x·|x|": lambda h: h * h.abs(),
    "relu²": lambda h: F.relu(h) ** 2,
    "relu³": lambda h: torch.relu(h).pow(3),
    "leaky²": lambda h: -0.5 * F.leaky_relu(h, 0.4).square(),
    "leaky³": lambda h: F.leaky_relu(h, -0.4) ** 3,
    "monomial": lambda h: h**3,
    "product": lambda h: h * h,
    "polynomial": lambda h: 0.3 - h + 0.5 * h**2 + 0.2 * h**3,
    "1 - h²": lambda h: 1 - h * h,
    "hermite": lambda h: torch.special.hermite_polynomial_he(h, 3),
    "physicists' hermite": lambda h: torch.special.hermite_polynomial_h(h, 2),
    "sine": lambda h: 1.3 * torch.sin(0.7 * h + 0.4),
    "cosine": lambda h: torch.cos(-1.2 * h + 0.4) / 2,
    "rbf features": lambda h: math.sqrt(2) * torch.sin(0.8 * h + math.pi / 4),
    "exp": lambda h: 0.6 * torch.exp(0.5 * h - 0.2),
    "gaussian": lambda h: 1.5 * torch.exp(-0.6 * h**2),
    "growing gaussian": lambda h: torch.exp(0.05 * h * h),
    "scaled erf": lambda h: 2 * torch.erf(-0.6 * h),
    "scaled gelu": lambda h: F.gelu(1.7 * h) / 1.7,
}
INTEGRATED = {
    "elu": F.elu,
    "selu": nn.SELU(),
    "celu": nn.CELU(0.7),
    "hardtanh": nn.Hardtanh(-0.5, 1.0),
    "relu6": F.relu6,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": nn.Hardswish(),
    "softshrink": nn.Softshrink(0.3),
    "hardshrink": nn.Hardshrink(0.3),
    "threshold": nn.Threshold(0.1, -0.2),
    "softsign": F.softsign,
    "clamp": lambda h: torch.clamp(h, -1, 0.5),
    "relu + 1": lambda h: h.relu() + 1,
    "relu of a shift": lambda h: (h - 0.5).relu(),
    "where of a shift": lambda h: torch.where(h > 0.3, h * h, -h),
    "relu of a parabola": lambda h: (h**2 - 0.5).relu(),
    "two in a row": lambda h: h.relu().tanh(),
    "in place": lambda h: (2 * h).relu_().sin_(),
    "x + tanh": lambda h: h + h.tanh(),
    "1 - sigmoid": lambda h: 1 - h.sigmoid(),
    "snake": lambda h: h + torch.sin(h) ** 2,
    "tanh gelu": lambda h: 0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3))),
    "swish by hand": lambda h: h / (1 + torch.exp(-h)),
    "root": lambda h: torch.sqrt(1 + h * h),
    "relu of cosine": lambda h: torch.relu(torch.cos(2 * h)),
    "silu": nn.Sequential(nn.SiLU(), nn.Dropout(0.3), nn.Tanh()).eval(),
}
FUNCTIONS = CLOSED | INTEGRATED
PAIRS = [
    *[(1.0, 1.0, 0.3), (0.4, 1.7, -0.5), (1.2, 0.8, 0.95), (0.9, 0.9, -0.899), (2.0, 0.1, 0.0)],
    *[(1.0, 1.0, 1 - 1e-4), (0.7, 0.71, 0.7049)],
]
KINKS = (-3.0, -1.0, -0.5, -0.3, 0.0, 0.1, 0.3, 0.5, 1.0, 3.0, 6.0, 0.5**0.5, -(0.5**0.5), *(np.arange(-9.5, 10) * np.pi / 4 * 1.0))


def function_of(name):
    """The entry that propagate would use for the function, and its root's graph."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), Pointwise(FUNCTIONS[name]).eval())
    graph = watch(model.eval(), torch.randn(13, 2), is_leaf)
    fused, _ = fuse(graph)
    last = graph.output.node
    return entry(fused[last.index]) if last.index in fused else find(last.target)


def ask(dual, k, v1, v2, gap=None, opposition=None):
    gap = (v1 + v2) / 2 - k if gap is None else gap
    extra = {"gap": gap, "opposition": opposition}
    return dual.function(k, v1, v2, **{name: extra[name] for name in dual.wants})


def slope_of(function):
    def slope(u):
        u = torch.from_numpy(np.array(u)).requires_grad_()
        out = function(u.clone())
        return torch.autograd.grad(out.sum(), u)[0].numpy() if out.requires_grad else np.zeros(u.shape)

    return slope


def over_squares(f, g, v1, v2, k):
    """E[f(u) g(w)]: Gauss-Legendre between all kinks of either variable, given the other."""
    s1, slope, rest = v1**0.5, k / v1, max(v2 - k * k / v1, 0.0) ** 0.5
    kinks = [float(t) for t in KINKS]
    outer = sorted({*np.arange(-9.0, 10.0) * s1, *(t for t in kinks if abs(t) < 9 * s1), *(t / slope for t in kinks if slope and abs(t / slope) < 9 * s1)})
    total = 0.0
    for low, high in pairwise(outer):
        u, wu = _legendre(low, high, 14)
        for a, weight in zip(u, wu * np.exp(-(u**2) / (2 * v1)) / (2 * np.pi * v1) ** 0.5, strict=True):
            z = sorted({*np.arange(-9.0, 10.0, 1.5), *((t - slope * a) / rest for t in kinks if abs(t - slope * a) < 9 * rest)})
            edges = np.array(z)
            nodes, weights = _legendre(0.0, 1.0, 12)
            grid = edges[:-1, None] + np.diff(edges)[:, None] * nodes
            density = np.diff(edges)[:, None] * weights * np.exp(-(grid**2) / 2) / (2 * np.pi) ** 0.5
            total += weight * float(f(np.array([a]))[0] * (g(slope * a + rest * grid) * density).sum())
    return total


@pytest.mark.parametrize("name", FUNCTIONS)
def test_against_quadrature(name):
    function = FUNCTIONS[name]
    dual = function_of(name)
    assert isinstance(dual, Dual)
    v1, v2, k = torch.tensor(PAIRS).T
    answer = ask(dual, k, v1, v2)
    assert (answer[3] > 0) == (name in INTEGRATED) if len(answer) > 3 else name in CLOSED
    f, slope = lambda u: function(torch.from_numpy(np.array(u))).double().numpy(), slope_of(function)
    for i, (a, b, c) in enumerate(PAIRS[:3] + PAIRS[-1:]):
        at = i if i < 3 else len(PAIRS) - 1
        assert float(answer[0][at]) == pytest.approx(over_squares(f, f, a, b, c), abs=2e-8)
        if name not in ("step", "comparison"):
            assert float(answer[1][at]) == pytest.approx(over_squares(slope, slope, a, b, c), abs=2e-8)
