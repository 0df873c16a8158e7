"""Fused pointwise functions, as users write them, against quadrature of the very same function one pair at a time."""

import math

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
from priorscope.kernels.infinite.registry import Dual, find, is_leaf
from priorscope.network.watching import watch
from tests.kernels.infinite.golden import Pointwise
from tests.kernels.infinite.oracles import _legendre
from tests.oracles import ntk_by_loop

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


def ask(dual, k, v1, v2, gap=None, deviation=None):
    gap = (v1 + v2) / 2 - k if gap is None else gap
    extra = {"gap": gap, "deviation": deviation}
    return dual.function(k, v1, v2, **{name: extra[name] for name in dual.wants})


def slope_of(function):
    def slope(u):
        u = torch.from_numpy(np.array(u)).requires_grad_()
        out = function(u.clone()).double()
        # torch has no derivative of heaviside at all.
        jumps = not out.requires_grad or "Heaviside" in type(out.grad_fn).__name__ or "NotImpl" in str(out.grad_fn)
        return np.zeros(u.shape) if jumps else torch.autograd.grad(out.sum(), u)[0].numpy()

    return slope


def over_squares(f, g, v1, v2, k, kinks):
    """E[f(u) g(w)]: Gauss-Legendre over u, then over w given u, between all kinks of either."""
    s1, slope, rest = v1**0.5, k / v1, (v2 - k * k / v1) ** 0.5
    kinks = np.array(kinks)
    u, weights = _panels(np.sort(np.concatenate([np.arange(-9.0, 9.1, 0.5), np.clip(kinks / s1, -9, 9)])))
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


def fused_entry_of(function):
    model = nn.Sequential(nn.Linear(2, 2, bias=False), Pointwise(function))
    graph = watch(model, torch.randn(13, 2), is_leaf)
    return entry(fuse(graph)[0][graph.output.node.index])


def powers_of_sides(left, right, degree, v1, v2, gap):
    """E[φφ] and E[φ'φ'] in 50 digits: Cho and Saul's J_n."""

    def j(n, theta):
        sine, cosine = mpmath.sin(theta), mpmath.cos(theta)
        if n == 0:
            return mpmath.pi - theta
        if n == 1:
            return sine + (mpmath.pi - theta) * cosine
        if n == 2:
            return 3 * sine * cosine + (mpmath.pi - theta) * (1 + 2 * cosine**2)
        return 4 * sine + 11 * sine * cosine**2 + (mpmath.pi - theta) * (9 * cosine + 6 * cosine**3)

    with mpmath.workdps(50):
        v1, v2, gap = (mpmath.mpf(value) for value in (v1, v2, gap))
        size = mpmath.sqrt(v1 * v2)
        theta = mpmath.acos(min(((v1 + v2) / 2 - gap) / size, mpmath.mpf(1)))

        def moment(n, left, right):
            both, cross = j(n, theta), j(n, mpmath.pi - theta)
            return size**n * ((left**2 + right**2) * both + 2 * left * right * cross) / (2 * mpmath.pi)

        slope = moment(degree - 1, -degree * left, degree * right) if degree else 0
        own = [v**degree * (left**2 + right**2) * j(degree, mpmath.mpf(0)) / (2 * mpmath.pi) for v in (v1, v2)]
        value = moment(degree, left, right)
        return float(value), float(slope), float(sum(own) / 2 - value)


SIDES = {
    "sign": (torch.sign, -1.0, 1.0, 0),
    "step": (CLOSED["comparison"], 0.0, 1.0, 0),
    "relu²": (CLOSED["relu²"], 0.0, 1.0, 2),
    "x·|x|": (CLOSED["x·|x|"], -1.0, 1.0, 2),
    "relu³": (CLOSED["relu³"], 0.0, 1.0, 3),
    "leaky³": (CLOSED["leaky³"], 0.064, 1.0, 3),
    "x³": (CLOSED["monomial"], -1.0, 1.0, 3),
}


@pytest.mark.parametrize("difference", [0.0, 1e-9, 0.1])
@pytest.mark.parametrize("name", SIDES)
def test_near_pairs_against_50_digits(name, difference):
    """At angles down to 1e-9: values to 1e-12, and the root of the gap, which is the next angle, to 1e-12."""
    function, left, right, degree = SIDES[name]
    dual = function_of("sign") if name == "sign" else fused_entry_of(function)
    for angle in (1e-9, 1e-7, 1e-5, 1e-3, 0.1, 1.0, 2.5):
        v1, v2 = 1.3, 1.3 * (1 + difference)
        gap = (v1**0.5 - v2**0.5) ** 2 / 2 + (v1 * v2) ** 0.5 * 2 * math.sin(angle / 2) ** 2
        v, w, g = (torch.tensor([value]) for value in (v1, v2, gap))
        value, slope, after, *_ = ask(dual, (v + w) / 2 - g, v, w, g)
        expected = powers_of_sides(left, right, degree, v1, v2, gap)
        assert float(value) == pytest.approx(expected[0], abs=1e-10 if angle >= 1e-5 else 2e-8)
        assert float(slope) == pytest.approx(expected[1], abs=2e-10 if angle >= 1e-5 else 1e-7)
        if difference == 0:
            assert float(after) ** 0.5 == pytest.approx(max(expected[2], 0) ** 0.5, rel=1e-5, abs=1e-12)


JUMPS = ("sign", "step", "comparison", "hardshrink", "threshold", "where of a shift")
STEEP = ["elu", "hardtanh", "relu6", "relu + 1", "two in a row", "x·|x|", "sign", "sine", "tanh", "silu layer"]


@pytest.mark.parametrize("name", [n for n in FUNCTIONS if n not in JUMPS])
def test_the_gap_keeps_its_digits(name):
    """At nearly equal points the gap after a continuous φ is E[φ'²]·gap."""
    dual = function_of(name)
    v = torch.tensor([0.7])
    gap = torch.tensor([1e-14])
    answer = ask(dual, v - gap, v, v.clone(), gap)
    slope = ask(dual, v, v, v, torch.zeros(1))[1]
    if answer[2] is not None:
        assert float(answer[2] / (slope * gap)) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_zero_coinciding_and_opposite_points(name):
    """No NaN, and a point of variance 0 is φ(0): E[φ(0)φ(v)] = φ(0) E[φ(v)]."""
    dual, function = function_of(name), FUNCTIONS[name]
    v1 = torch.tensor([0.0, 0.0, 1.0, 1.0, 1e-14])
    v2 = torch.tensor([0.0, 1.0, 1.0, 1.0, 1.0])
    k = torch.tensor([0.0, 0.0, 1.0, -1.0, 0.0])
    answer = ask(dual, k, v1, v2)
    assert all(bool(torch.isfinite(part).all()) for part in answer[:3] if isinstance(part, torch.Tensor))
    zero = float(function(torch.zeros(1, dtype=torch.float64)))
    assert float(answer[0][0]) == pytest.approx(zero**2, abs=3e-6)
    edges = np.sort(
        np.concatenate(
            [np.arange(-9.0, 9.1, 0.3), np.clip([s * t for t in KINKS.get(name, (0.0,)) for s in (1, -1)], -9, 9)]
        )
    )
    z, w = _panels(edges)
    values = function(torch.from_numpy(z)).double().numpy()
    assert float(answer[0][1]) == pytest.approx(zero * float(w @ values), abs=3e-6)
    assert float(answer[0][2]) == pytest.approx(float(w @ values**2), rel=1e-8)
    mirrored = function(torch.from_numpy(-z)).double().numpy()
    assert float(answer[0][3]) == pytest.approx(float(w @ (values * mirrored)), abs=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("variance", [1e-8, 1e3, 1e6])
@pytest.mark.parametrize("name", STEEP)
def test_large_and_small_variances_give_numbers_or_a_refusal(name, variance):
    function = {"tanh": torch.tanh, "silu layer": F.silu}.get(name) or FUNCTIONS[name]
    init = Initialization(variance, 0.0)
    model = init.apply_(
        nn.Sequential(nn.Linear(3, 8, bias=False), Pointwise(function), nn.Linear(8, 1, bias=False)), seed=0
    )
    x = torch.randn(4, 3)
    try:
        answer = infinite_width(model, init)(x)
    except NoRuleError as error:
        assert "variance" in str(error)  # noqa: PT017 (either is right)
        assert name in ("two in a row", "tanh", "silu layer", "elu")
    else:
        assert all(bool(torch.isfinite(part).all()) for part in answer)


# In networks


class Network(nn.Module):
    """A trunk with a fused function, shared by two readers, and another after it."""

    def __init__(self, width):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, width), nn.Linear(width, width), nn.Linear(width, 1)

    def forward(self, x):
        h = self.a(x)
        g = self.b(h + F.elu(h) - 0.5)
        return self.c((1 - g.relu()) * g)


@pytest.mark.slow
def test_sampled_networks_tend_to_the_limit():
    init, x = Initialization(1.4, 0.2, "ntk"), torch.randn(3, 3)
    deviations = []
    for width in (8, 64):
        model = Network(width)
        rates = init.rates(model)
        sampled = torch.stack([ntk_by_loop(init.apply_(model, seed), x, x, rates)[:, 0, :, 0] for seed in range(60)])
        limit = infinite_width(model, init).ntk(x)
        error = sampled.std(0) / 60**0.5
        assert float(((sampled.mean(0) - limit).abs() / (error + 4 / width * limit.abs())).max()) < 4
        deviations.append(float((sampled.mean(0) - limit).norm() / limit.norm()))
    assert deviations[1] < 0.15


@pytest.mark.slow
def test_sampled_outputs_have_the_nngp_covariance():
    init, x, draws = Initialization(1.4, 0.2), torch.randn(4, 3), 800
    model = Network(96)
    outputs = torch.stack([init.apply_(model, seed)(x)[:, 0].detach() for seed in range(draws)])
    nngp = infinite_width(model, init).nngp(x)
    assert float((outputs.T @ outputs / draws - nngp).norm() / nngp.norm()) < 0.2


@pytest.mark.parametrize("function", [F.elu, lambda h: h + h.relu()], ids=["elu", "x + relu"])
def test_layouts_agree(function):
    """A convolution of 1 × 1 pictures with every layout is the linear network; pooled pictures go through all pairs."""
    init, x = Initialization(1.5, 0.1, "ntk"), torch.randn(4, 3)
    flat = nn.Sequential(nn.Linear(3, 8), Pointwise(function), nn.Linear(8, 8), Pointwise(function), nn.Linear(8, 1))
    image = nn.Sequential(
        nn.Conv2d(3, 8, 1),
        Pointwise(function),
        nn.AvgPool2d(2),
        nn.Conv2d(8, 8, 1),
        Pointwise(function),
        Pointwise(lambda h: h.mean((2, 3))),
        nn.Linear(8, 1),
    )
    expected = infinite_width(init.apply_(flat, 0), init)(x)
    found = infinite_width(init.apply_(image, 0), init)(x[:, :, None, None].expand(-1, -1, 2, 2).clone())
    for a, b in zip(expected, found, strict=True):
        assert float((a - b).abs().max()) <= 1e-8 * float(a.max())


@pytest.mark.parametrize(
    "name",
    [
        *("relu²", "polynomial", "sine", "gaussian", "exp", "elu"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("relu + 1", "clamp")),
    ],
)
def test_gradients(name):
    function = FUNCTIONS[name]
    model = Initialization(1.2, 0.1).apply_(nn.Sequential(nn.Linear(3, 8), Pointwise(function), nn.Linear(8, 1)), 0)
    x, z = torch.randn(2, 3).requires_grad_(), torch.randn(2, 3).requires_grad_()
    limit = infinite_width(model, Initialization(1.2, 0.1))
    assert torch.autograd.gradcheck(lambda x, z: tuple(limit(x, z)), (x, z), atol=1e-6, fast_mode=True)


def test_functions_of_the_data_are_done_to_them():
    init, x = Initialization(1.2, 0.1), torch.randn(5, 3)
    model = nn.Sequential(Pointwise(lambda h: h + torch.relu(h) ** 2), nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    found = infinite_width(init.apply_(model, 0), init)(x)
    expected = infinite_width(model[1:], init)(x + x.relu() ** 2)
    for a, b in zip(expected, found, strict=True):
        assert torch.allclose(a, b, rtol=1e-13)


def test_explain_names_the_operations():
    init = Initialization(1.2, 0.1)
    model = nn.Sequential(nn.Linear(3, 8), Pointwise(lambda h: h.relu() + 1), nn.Linear(8, 1))
    limit = infinite_width(init.apply_(model, 0), init, example=torch.randn(3, 3))
    assert "relu → add, quadrature, error ≤" in str(limit.explain())


REFUSED = {
    "a branch that is not pointwise": (lambda h: h + h.flip(1), "correlated"),
    "another power": (lambda h: h**-1.0, "comes to 0"),
    "too fast growth": (lambda h: torch.exp(2 * h * h), "second moment is infinite"),
    "rounding": (lambda h: torch.round(h), "no infinite-width rule"),
    "a vector": (lambda h: h * torch.arange(8.0), "not a finite Python number"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_scalar_function_raises(name):
    function, cause = REFUSED[name]
    init = Initialization(1.2, 0.1)
    model = init.apply_(nn.Sequential(nn.Linear(3, 8), Pointwise(function), nn.Linear(8, 1)), 0)
    with pytest.raises(NoRuleError, match=cause):
        infinite_width(model, init)(torch.randn(4, 3))
