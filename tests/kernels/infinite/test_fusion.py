"""Fused pointwise functions, as users write them, against quadrature of the very same function one pair at a time."""

import math

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
    "in place": lambda h: (2 * h).relu_().sin(),
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
PAIRS = [(1.0, 1.0, 0.3), (0.4, 1.7, -0.5), (2.0, 0.1, 0.1)]
KINKS = {
    "hardtanh": (-0.5, 1.0),
    "relu6": (0.0, 6.0),
    "hardsigmoid": (-3.0, 3.0),
    "hardswish": (-3.0, 3.0),
    "softshrink": (-0.3, 0.3),
    "hardshrink": (-0.3, 0.3),
    "threshold": (0.1,),
    "clamp": (-1.0, 0.5),
    "relu of a shift": (0.5,),
    "where of a shift": (0.3,),
    "relu of a parabola": (-(0.5**0.5), 0.5**0.5),
    "relu of cosine": tuple((i + 0.5) * math.pi / 2 for i in range(-12, 12)),
}


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


def over_squares(f, g, v1, v2, k, kinks):
    """E[f(u) g(w)]: Gauss-Legendre over u, then over w given u, between all kinks of either."""
    s1, slope, rest = v1**0.5, k / v1, (v2 - k * k / v1) ** 0.5
    kinks = np.array(kinks)
    u, weights = _panels(np.sort(np.concatenate([np.arange(-9.0, 9.1, 0.3), np.clip(kinks / s1, -9, 9)])))
    fixed = np.broadcast_to(np.arange(-9.0, 9.1), (len(u), 19))
    moving = np.clip((kinks - slope * s1 * u[:, None]) / rest, -9, 9)
    z, inner = _panels(np.sort(np.concatenate([fixed, moving], 1)))
    return float(weights @ (f(s1 * u) * (g(slope * s1 * u[:, None] + rest * z) * inner).sum(1)))


def _panels(edges):
    nodes, weights = _legendre(0.0, 1.0, 14)
    z = (edges[..., :-1, None] + np.diff(edges)[..., None] * nodes).reshape(*edges.shape[:-1], -1)
    w = (np.diff(edges)[..., None] * weights).reshape(z.shape)
    return z, w * np.exp(-(z**2) / 2) / (2 * np.pi) ** 0.5


@pytest.mark.parametrize("name", FUNCTIONS)
def test_against_quadrature(name):
    function, dual = FUNCTIONS[name], function_of(name)
    assert isinstance(dual, Dual)
    v1, v2, k = torch.tensor(PAIRS).T
    answer = ask(dual, k, v1, v2)
    assert (len(answer) > 3 and answer[3] > 0) == (name in INTEGRATED)
    kinks = KINKS.get(name, (0.0,))

    def value(u):
        return function(torch.from_numpy(np.array(u))).double().numpy()

    for f, found in ((value, answer[0]), (slope_of(function), answer[1])):
        scale = max(over_squares(f, f, v, v, 0.6 * v, kinks) for v in (0.1, 2.0)) + 0.1
        for i, (a, b, c) in enumerate(PAIRS):
            assert float(found[i]) == pytest.approx(over_squares(f, f, a, b, c, kinks), abs=3e-9 * scale)
    if answer[2] is not None:
        own1, own2 = (ask(dual, v, v, v, torch.zeros_like(v)) for v in (v1, v2))
        assert torch.allclose(answer[2], (own1[0] + own2[0]) / 2 - answer[0], rtol=0, atol=1e-9 * float(own1[0].max()))
        for i, (a, _, _) in enumerate(PAIRS[:2]):
            z, w = _panels(np.sort(np.concatenate([np.arange(-12.0, 12.1, 0.3), np.clip(np.array(kinks) / a**0.5, -12, 12)])))
            assert float(own1[0][i]) == pytest.approx(float(w @ value(a**0.5 * z) ** 2), rel=1e-9)
