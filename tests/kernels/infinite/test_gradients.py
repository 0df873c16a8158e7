"""Derivatives in inputs and variances, against finite differences, for networks of every kind and at special points."""

import warnings

import pytest
import torch
from torch import nn

import priorscope as ps
from priorscope.errors import PriorscopeWarning
from tests.cases import mlp
from tests.kernels.infinite.duals_in_50_digits import FUNCTIONS, Applied
from tests.kernels.infinite.layers import ARCHITECTURES, points

KINKED = {"elu": nn.ELU(), "hardtanh": nn.Hardtanh(), "softsign": nn.Softsign(), "relu6": nn.ReLU6()}
SMOOTH = {"tanh": nn.Tanh(), "silu": nn.SiLU()}
ALWAYS = ("relu", "abs", "sign", "erf", "gelu", "sin", "gaussian", "elu", "tanh")
EVERY = [
    pytest.param(name, marks=() if name in ALWAYS else pytest.mark.slow) for name in (*FUNCTIONS, *KINKED, *SMOOTH)
]


def limit_of(model, weight, bias, parameterization="standard"):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PriorscopeWarning)
        return ps.infinite_width(model, ps.Initialization(weight, bias, parameterization))


def variances():
    return tuple(torch.tensor(value, requires_grad=True) for value in (1.3, 0.2))


def activation(name):
    function = {**KINKED, **SMOOTH}.get(name) or FUNCTIONS[name].scalar
    return function if isinstance(function, nn.Module) else Applied(function)


@pytest.mark.parametrize("name", EVERY)
def test_every_function(name):
    """Between points in general position, and the Gram matrix of these."""
    with torch.device("meta"):
        model = mlp(3, 4, 1, activation=lambda: activation(name))
    x, z = 0.5 * torch.randn(3, 3), 0.5 * torch.randn(2, 3)

    def both(x, z, w, b):
        limit = limit_of(model, w, b, "ntk")
        return (*limit(x, z), *limit(x), limit.ntk.diagonal(x))

    inputs = (x.requires_grad_(), z.requires_grad_(), *variances())
    assert torch.autograd.gradcheck(both, inputs, atol=1e-6, fast_mode=True)


SLOW = ("rnn, both directions", "rnn, last state")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
        for name in ARCHITECTURES
        if name != "transformer encoder"
    ],
)
@pytest.mark.filterwarnings("ignore:.*channels in each group")
def test_every_kind_of_network(name):
    model = ARCHITECTURES[name](4).eval()
    x = points(name, 2)
    differentiable = x.is_floating_point()

    def both(w, b, *x):
        limit = limit_of(model, w, b)
        return tuple(limit(*x)) if x else tuple(limit(points(name, 2)))

    inputs = (*variances(), *((x.requires_grad_(),) if differentiable else ()))
    assert torch.autograd.gradcheck(both, inputs, atol=1e-6, fast_mode=True)


@pytest.mark.parametrize("name", EVERY)
def test_no_gradient_is_nan_at_coinciding_opposite_and_zero_points(name):
    with torch.device("meta"):
        model = mlp(3, 4, 4, 1, activation=lambda: activation(name))
    x = 0.4 * torch.randn(6, 3)
    x[1], x[2], x[3], x[5] = x[0], -x[0], 0, 0.5 * x[4]
    x.requires_grad_()
    w = torch.tensor(0.5, requires_grad=True)
    for bias in (0.0, 0.1):
        for matrix in limit_of(model, w, bias, "ntk")(x):
            assert torch.isfinite(matrix).all()
            for gradient in torch.autograd.grad(matrix.square().sum(), (x, w), retain_graph=True, allow_unused=True):
                assert gradient is None or torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", ["relu", "abs", "erf", "gelu", "sin", "gaussian", "rbf", "tanh", "elu", "hardtanh"])
def test_the_variances_of_coinciding_points(name):
    """K(x, x) and Θ(x, x) along a line through x, also for a second point that coincides with it and stays there."""
    with torch.device("meta"):
        model = mlp(3, 4, 4, 1, activation=lambda: activation(name))
    x = torch.randn(1, 3)

    def diagonal(t, w, b):
        limit = limit_of(model, w, b, "ntk")
        gram = limit(t * torch.cat([x, x]))
        return gram.nngp[0, 0], gram.nngp[0, 1], gram.ntk[0, 0], gram.ntk[0, 1]

    t = torch.tensor(1.1, requires_grad=True)
    assert torch.autograd.gradcheck(diagonal, (t, *variances()), atol=1e-6)
