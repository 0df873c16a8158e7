"""The limit against sampled wide networks and slow oracles; spellings, gradients, explanations."""

import copy
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from priorscope import Initialization, KernelPair
from priorscope.errors import DataError, ModelError, NoRuleError, NotExactError, PriorscopeWarning, RatesError
from priorscope.kernels.infinite import dual, infinite_width, rule
from priorscope.kernels.infinite.registry import RULES
from tests.cases import mlp
from tests.kernels.infinite.golden import Residual
from tests.kernels.infinite.oracles import network
from tests.oracles import ntk_by_loop

INIT = Initialization(2.0, 0.1, "ntk")


def limit_of(model, init=INIT, **options):
    return infinite_width(init.apply_(model.eval(), seed=0), init, **options)


class Spelled(nn.Module):
    """Two hidden layers; the activation and the last layers as one of many spellings."""

    def __init__(self, spelling):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 1)
        self.spelling = spelling

    def forward(self, x):
        return self.spelling(self, x)


def by_parts(m, x):
    return F.linear(
        F.relu(F.linear(F.relu(F.linear(x, m.a.weight, m.a.bias)), m.b.weight, m.b.bias)), m.c.weight, m.c.bias
    )


SPELLINGS = {
    "functional": lambda m, x: m.c(F.relu(m.b(F.relu(m.a(x))))),
    "torch": lambda m, x: m.c(torch.relu(m.b(torch.relu(m.a(x))))),
    "methods": lambda m, x: m.c(m.b(m.a(x).relu()).relu()),
    "in place": lambda m, x: m.c(F.relu(m.b(m.a(x).relu_()), inplace=True)),
    "F.linear": by_parts,
    "keywords": lambda m, x: m.c(F.relu(input=m.b(F.relu(m.a(input=x))))),
    "flat": lambda m, x: m.c(m.b(m.a(x.view(x.shape[0], -1)).relu().flatten(1)).relu()).squeeze(-1),
    "dropout": lambda m, x: m.c(F.dropout(m.b(m.a(x).relu()), training=m.training).relu()),
    "scaled": lambda m, x: -m.c(m.b((2 * m.a(x) / 2).relu()).relu() * 3.0 / 3),
    "leaky": lambda m, x: m.c(F.leaky_relu(m.b(F.leaky_relu(m.a(x), 0.0)), negative_slope=0.0)),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings_agree(spelling):
    x1, x2 = torch.randn(5, 3), torch.randn(4, 3)
    expected = limit_of(mlp(3, 8, 8, 1))(x1, x2)
    found = limit_of(Spelled(SPELLINGS[spelling]))(x1, x2)
    for a, b in zip(expected, found, strict=True):
        assert float((a - b).abs().max()) <= 1e-14 * float(a.max())


def test_a_pair_of_kernels():
    limit = limit_of(mlp(3, 8, 1))
    x = torch.randn(5, 3)
    assert isinstance(limit, KernelPair)
    assert torch.equal(limit.nngp(x), limit(x).nngp)
    assert torch.equal(limit.ntk(x, x[:2]), limit(x, x[:2]).ntk)
    assert limit.nngp.origin.kind == "nngp"
    assert limit.ntk.origin.kind == "ntk"
    assert limit.ntk.origin.rates == INIT.rates(limit.joint.model)
    assert torch.equal(limit.on(x).ntk(x), limit.ntk(x))


def test_images_are_flattened():
    x = torch.randn(4, 2, 3, 3)
    flat = limit_of(mlp(18, 8, 1))(x.flatten(1))
    for layers in ([nn.Flatten()], [nn.Flatten(2), nn.Flatten(1)]):
        found = limit_of(nn.Sequential(*layers, mlp(18, 8, 1)))(x)
        for a, b in zip(flat, found, strict=True):
            assert float((a - b).abs().max()) <= 1e-14


# Against sampled networks


def residual(width):
    return nn.Sequential(
        nn.Linear(3, width), Residual(nn.Sequential(nn.ReLU(), nn.Linear(width, width))), nn.ReLU(), nn.Linear(width, 1)
    )


ARCHITECTURES = {
    "relu": lambda width: mlp(3, width, width, 1),
    "tanh, erf": lambda width: mlp(3, width, 1, activation=nn.Tanh),
    "residual": residual,
}


@pytest.mark.parametrize("parameterization", ["standard", "ntk"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_sampled_networks_tend_to_the_limit(name, parameterization):
    """The mean of J diag(c) Jᵀ over draws, in standard errors, and a deviation that falls with width."""
    init = Initialization(1.8, 0.2, parameterization)
    x = torch.randn(3, 3)
    deviations = []
    for width, draws in ((4, 100), (32, 100)):
        model = ARCHITECTURES[name](width)
        rates = init.rates(model)
        sampled = torch.stack([ntk_by_loop(init.apply_(model, seed), x, x, rates)[:, 0, :, 0] for seed in range(draws)])
        limit = infinite_width(model, init).ntk(x)
        error = sampled.std(0) / draws**0.5
        assert float(((sampled.mean(0) - limit).abs() / (error + 4 / width * limit.abs())).max()) < 4
        deviations.append(float((sampled - limit).norm(dim=(1, 2)).mean() / limit.norm()))
    assert deviations[1] < 0.6 * deviations[0]


def test_sampled_outputs_have_the_nngp_covariance():
    init, width, x, draws = Initialization(1.8, 0.2), 64, torch.randn(4, 3), 600
    model = residual(width)
    outputs = torch.stack([init.apply_(model, seed)(x)[:, 0].detach() for seed in range(draws)])
    nngp = infinite_width(model, init).nngp(x)
    assert float((outputs.T @ outputs / draws - nngp).norm() / nngp.norm()) < 0.2


# Against the slow oracle

SCALARS = {
    "relu": (nn.ReLU, (lambda u: np.maximum(u, 0), lambda u: (u > 0) * 1.0)),
    "tanh": (nn.Tanh, (np.tanh, lambda u: 1 - np.tanh(u) ** 2)),
    "leaky": (lambda: nn.LeakyReLU(0.3), (lambda u: np.where(u > 0, u, 0.3 * u), lambda u: np.where(u > 0, 1, 0.3))),
    "sigmoid": (nn.Sigmoid, (lambda u: 1 / (1 + np.exp(-u)), lambda u: np.exp(-u) / (1 + np.exp(-u)) ** 2)),
}


@settings(max_examples=15, deadline=None)
@given(
    names=st.lists(st.sampled_from(sorted(SCALARS)), min_size=1, max_size=3),
    widths=st.lists(st.integers(2, 9), min_size=3, max_size=3),
    weight=st.floats(0.3, 2.5),
    bias=st.floats(0.01, 0.5),
    parameterization=st.sampled_from(["standard", "ntk"]),
    seed=st.integers(0, 1000),
)
def test_random_architectures_against_the_oracle(names, widths, weight, bias, parameterization, seed):
    layers, specs, width = [], [], 3
    for name, out in zip(names, widths, strict=False):
        make, scalar = SCALARS[name]
        layers += [nn.Linear(width, out), make()]
        specs.append((width, scalar))
        width = out
    layers.append(nn.Linear(width, 2))
    specs.append((width, None))
    init = Initialization(weight, bias, parameterization)
    limit = limit_of(nn.Sequential(*layers), init)
    rates = [(1.0, 1.0) if parameterization == "standard" else (weight / fan, bias) for fan, _ in specs]
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(seed))
    nngp, ntk = limit(x[:1], x[1:])
    expected = network(x[0].numpy(), x[1].numpy(), specs, weight, bias, rates)
    assert float(nngp) == pytest.approx(expected[0], rel=1e-8, abs=1e-9)
    assert float(ntk) == pytest.approx(expected[1], rel=1e-8, abs=1e-8)


# Rates


def test_frozen_parameters_do_not_learn():
    model = mlp(3, 8, 8, 1)
    full = limit_of(model, Initialization(2.0, 0.1))
    x = torch.randn(4, 3)
    only_last = dict.fromkeys(full.ntk.origin.rates, 0.0) | {"4.weight": 1.0}
    last = limit_of(model, Initialization(2.0, 0.1), rates=only_last)
    hidden = limit_of(copy.deepcopy(model)[:4], Initialization(2.0, 0.1)).nngp(x)
    assert torch.allclose(last.ntk(x), 8 * hidden)
    for parameter in model[:4].parameters():
        parameter.requires_grad_(False)
    model[4].bias.requires_grad_(False)
    frozen = infinite_width(model, Initialization(2.0, 0.1))
    assert frozen.ntk.origin.rates == only_last
    assert torch.allclose(frozen.ntk(x), last.ntk(x))


def test_rates_of_another_initialization_or_limit():
    model = mlp(3, 8, 1)
    x = torch.randn(4, 3)
    standard = Initialization(2.0, 0.1)
    textbook = limit_of(model, INIT)
    for rates in (INIT, textbook, INIT.rates(model)):
        assert torch.allclose(limit_of(model, standard, rates=rates).ntk(x), textbook.ntk(x))
    with pytest.raises(RatesError):
        limit_of(model, standard, rates={"0.weight": 1.0})


def test_torch_default():
    model = mlp(100, 50, 1)
    x = torch.randn(3, 100)
    k = x @ x.T / 100 / 3 + 1 / 300
    assert torch.allclose(infinite_width(model[:1]).nngp(x), k)
    assert torch.allclose(infinite_width(model[:1]).ntk(x), x @ x.T + 1)


# Gradients


@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU, nn.Tanh, lambda: nn.LeakyReLU(0.2)])
@pytest.mark.parametrize("parameterization", ["standard", "ntk"])
def test_gradients_of_inputs_and_variances(activation, parameterization):
    x, z = torch.randn(3, 3).requires_grad_(), torch.randn(2, 3).requires_grad_()
    w, b = (torch.tensor(value, requires_grad=True) for value in (1.7, 0.2))
    model = INIT.apply_(mlp(3, 8, 8, 1, activation=activation), seed=0)

    def both(x, z, w, b):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PriorscopeWarning)
            return tuple(infinite_width(model, Initialization(w, b, parameterization))(x, z))

    assert torch.autograd.gradcheck(both, (x, z, w, b), atol=1e-6, fast_mode=True)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU, nn.Tanh])
def test_gradients_at_coinciding_points(activation):
    """K(x, x') is smooth in x at x = x' (half of the variance's gradient); the NTK's gradient is finite there."""
    limit = limit_of(mlp(3, 8, 8, 1, activation=activation))
    point = torch.randn(1, 3)
    x = point.clone().requires_grad_()
    (slope,) = torch.autograd.grad(limit.nngp(x, point).sum(), x)
    y = point.clone().requires_grad_()
    (of_variance,) = torch.autograd.grad(limit.nngp.diagonal(y).sum(), y)
    assert torch.allclose(slope, of_variance / 2, atol=1e-8)
    both = torch.cat([point, point, torch.randn(2, 3)]).requires_grad_()
    (gram,) = torch.autograd.grad(limit.ntk(both).sum(), both)
    assert torch.isfinite(gram).all()


# Explanations


def test_explain():
    limit = limit_of(Spelled(SPELLINGS["functional"]))
    with pytest.raises(DataError, match="was not called yet"):
        limit.explain()
    limit(torch.randn(3, 3))
    text = str(limit.explain())
    assert [word in text for word in ("a nn.Linear", "F.relu", "test_limit.py:", "Cho and Saul", "σ_w²")] == [True] * 5
    assert "<table>" in limit.explain()._repr_html_()
    smooth = limit_of(mlp(3, 8, 1, activation=nn.Tanh), example=torch.randn(2, 3))
    assert "quadrature, error ≤" in str(smooth.explain())


@pytest.mark.parametrize(
    ("rates", "meaning"),
    [(None, "rates 1 (standard)"), (Initialization(2.0, 0.0, "ntk"), "does not depend"), ("given", "start of train")],
)
def test_explain_says_what_the_rates_mean(rates, meaning):
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    init = Initialization(2.0, 0.0)
    given = {name: 0.3 for name, _ in model.named_parameters()} if rates == "given" else rates
    limit = infinite_width(init.apply_(model, 0), init, given)
    limit(torch.randn(3, 3))
    assert meaning in str(limit.explain())
    assert meaning in limit.explain()._repr_html_()


# Errors


class Written(nn.Module):
    def __init__(self, forward, **parts):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 1)
        self.scale = nn.Parameter(torch.ones(3))
        self.written = forward

    def forward(self, x):
        return self.written(self, x)


REFUSED = {
    "a sum of dependent values": (lambda m, x: (lambda h: m.c(h.relu() + h.flip(1).relu()))(m.a(x)), "correlated"),
    "a residual on the input": (lambda m, x: m.c(x + m.a(x)), "adds the input itself"),
    "a layer twice": (lambda m, x: m.c(m.a(m.a(x).relu())), "reused and tied weights"),
    "what a bare parameter computes, added": (lambda m, x: m.c(m.a(x) + m.scale * 2), "computes of `scale`"),
    "a bare parameter as factor": (lambda m, x: m.c(m.a(x) * m.scale), "not a finite Python number"),
    "a bare weight": (lambda m, x: F.linear(x, m.scale[None]), "a computed tensor as its weight"),
    "a changed weight": (lambda m, x: F.linear(x, m.c.weight * 2), "a computed tensor as its weight"),
    "a product with the input": (lambda m, x: m.c(m.a(x) * x), "multiplies by the data"),
    "a divisor that comes to zero": (lambda m, x: (lambda h: m.c(h.cos() / h))(m.a(x)), "comes to 0"),
    "softmax": (lambda m, x: m.c(torch.softmax(m.a(x), -1)), "`torch.softmax` in the model"),
    "mixed points": (lambda m, x: m.c(m.a(x).reshape(3, -1).T), "mixes the axis of the points"),
    "detach": (lambda m, x: m.c(m.a(x).detach()), "detach"),
    "no output of layers": (lambda m, x: x * 2, "no tensor that random layers make"),
    "dropout": (lambda m, x: m.c(F.dropout(m.a(x))), "training mode"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_rule_raises_by_name(name):
    forward, cause = REFUSED[name]
    model = Written(forward)
    with pytest.warns(PriorscopeWarning, match="no law"):
        Initialization(2.0, 0.1).apply_(model, seed=0)
    limit = infinite_width(model, Initialization(2.0, 0.1))
    with pytest.raises(NoRuleError, match=cause) as raised:
        limit(torch.randn(4, 3))
    assert raised.value.remedy


def test_a_sum_of_dependent_values_is_not_activated():
    forward = lambda m, x: (lambda h: m.c((h.tanh() + m.b(x) + h.flip(1)).relu()))(m.a(x))  # noqa: E731
    model = Written(forward)
    with pytest.warns(PriorscopeWarning, match="no law"):
        Initialization(2.0, 0.1).apply_(model, seed=0)
    with pytest.raises(NoRuleError, match="correlated"):
        infinite_width(model, Initialization(2.0, 0.1))(torch.randn(4, 3))


def test_unknown_layers_raise_at_construction_with_an_example():
    model = nn.Sequential(nn.Linear(3, 8), nn.GroupNorm(2, 8), nn.Linear(8, 1)).eval()
    with pytest.warns(PriorscopeWarning, match="no law"):
        INIT.apply_(model, seed=0)
    standard = Initialization(2.0, 0.1)
    with pytest.raises(NoRuleError, match=r"`1` \(nn\.GroupNorm\): normalises several groups"):
        infinite_width(model, standard, example=torch.randn(2, 3))
    image = nn.Sequential(nn.Conv2d(1, 4, 1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 1))
    with pytest.raises(
        NoRuleError, match=r"`1` is nn\.MaxPool2d: no infinite-width rule\. Use nn\.AvgPool2d, register"
    ):
        limit_of(image, example=torch.randn(2, 1, 4, 4))


def test_tied_weights_raise():
    model = mlp(3, 3, 3, 1)
    model[2].weight = model[0].weight
    with pytest.raises(NoRuleError, match=r"`2` \(nn\.Linear\): uses `0\.weight`, which `0` \(nn\.Linear\) uses too"):
        limit_of(model)(torch.randn(2, 3))


def test_reading_values_raises():
    def forward(m, x):
        return m.c(m.a(x) if x.sum() > 0 else m.b(x))

    model = Written(forward)
    with pytest.raises(NotExactError, match=r"reads the value of a tensor in Python \(__bool__\)"):
        infinite_width(model)(torch.randn(2, 3))


class Doubled(nn.Linear):
    def forward(self, x):
        return super().forward(2 * x)


def test_a_subclass_is_read_by_its_own_forward():
    x = torch.randn(4, 3)
    found = limit_of(nn.Sequential(Doubled(3, 8), nn.ReLU(), nn.Linear(8, 1)))(x)
    plain = limit_of(mlp(3, 8, 1))(2 * x)
    for a, b in zip(found, plain, strict=True):
        if a is found.nngp:
            assert torch.allclose(a, b)
    assert torch.allclose(found.ntk, plain.ntk)


def test_hooked_and_parametrized_layers_are_opened():
    x = torch.randn(4, 3)
    hooked = mlp(3, 8, 1)
    hooked[0].register_forward_hook(lambda m, args, out: 2 * out)
    limit = limit_of(hooked)
    plain = limit_of(mlp(3, 8, 1))
    assert torch.allclose(limit.nngp(x) - 0.1, 4 * (plain.nngp(x) - 0.1))
    model = mlp(3, 8, 1)
    limit_of(model)
    nn.utils.parametrizations.weight_norm(model[0])
    with pytest.raises(NoRuleError, match="computed tensor as its weight"):
        infinite_width(model, Initialization(2.0, 0.1))(x)


# The user's own


class Square(nn.Module):
    def forward(self, x):
        return x * x


def test_a_dual_of_the_users():
    @dual(Square)
    def square(k, v1, v2):
        """E[u² v²] and E[2u 2v]."""
        return v1 * v2 + 2 * k**2, 4 * k

    try:
        x = torch.randn(4, 3)
        limit = limit_of(nn.Sequential(nn.Linear(3, 8), Square(), nn.Linear(8, 1)))
        k = 2 * x @ x.T / 3 + 0.1
        v = k.diagonal()
        assert torch.allclose(limit.nngp(x), 2 * (torch.outer(v, v) + 2 * k**2) + 0.1)
    finally:
        del RULES[Square]


def test_a_rule_of_the_users():
    @rule(Square)
    def nothing(layer, m, init):
        return m

    try:
        limit = limit_of(nn.Sequential(nn.Linear(3, 8), Square(), nn.Linear(8, 1)))
        x = torch.randn(4, 3)
        assert torch.allclose(limit.ntk(x), limit_of(nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 1))).ntk(x))
    finally:
        del RULES[Square]


def test_what_is_no_model_raises():
    with pytest.raises(ModelError, match="model: is a int"):
        infinite_width(3)


def test_no_grad_around_a_module_raises():
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 1)

        def forward(self, x):
            with torch.no_grad():
                h = self.a(x)
            return self.b(h)

    with pytest.raises(NotExactError, match="switches gradients off"):
        infinite_width(Initialization(2.0, 0.1).apply_(Frozen(), seed=0), Initialization(2.0, 0.1)).ntk(
            torch.randn(4, 3)
        )
