"""Gradients of convolutional kernels; nothing is NaN at zero and coinciding inputs, large variances, depth 100."""

import importlib.util
import math
from itertools import pairwise
from pathlib import Path

import mpmath
import pytest
import torch
from torch import nn

import priorscope as ps
from priorscope.errors import NoRuleError
from tests.cases import mlp

DOCS = Path(__file__).parents[3] / "docs"


def meta(make):
    with torch.device("meta"):
        return make()


def flat(activation=nn.ReLU):
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), activation(), nn.Conv2d(4, 4, 2), activation(), nn.Flatten(), nn.Linear(16, 1)
    )


def pooled(activation=nn.ReLU):
    body = nn.Sequential(nn.Conv2d(2, 4, 2), activation(), nn.AvgPool2d(2, 1), nn.Conv2d(4, 4, 1), activation())
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1))


# Gradients


SLOW = pytest.mark.slow
"""Of what takes half a minute, and is like what is tested beside it."""


@pytest.mark.parametrize(
    ("make", "activation"),
    [
        *((make, a) for make in (flat, pooled) for a in (nn.ReLU, nn.GELU)),
        (flat, nn.Tanh),
        pytest.param(pooled, nn.Tanh, marks=SLOW),
    ],
)
def test_gradients_of_convolutions_and_pooling(make, activation):
    x, z = torch.randn(2, 2, 3, 3).requires_grad_(), torch.randn(2, 2, 3, 3).requires_grad_()
    w, b = (torch.tensor(value, requires_grad=True) for value in (1.7, 0.2))
    model = meta(lambda: make(activation))

    def both(x, z, w, b):
        limit = ps.infinite_width(model, ps.Initialization(w, b, "ntk"))
        return (*limit(x, z), *limit(x), limit.ntk.diagonal(x))

    assert torch.autograd.gradcheck(both, (x, z, w, b), atol=1e-6, fast_mode=True)


@pytest.mark.parametrize("make", [flat, pooled])
def test_gradients_at_zero_and_coinciding_pictures_are_finite(make):
    x = torch.randn(4, 2, 3, 3)
    x[1], x[2] = x[0], 0
    x.requires_grad_()
    w = torch.tensor(2.0, requires_grad=True)
    for bias in (0.0, 0.1):
        for matrix in ps.infinite_width(meta(lambda: make()), ps.Initialization(w, bias))(x):
            for gradient in torch.autograd.grad(matrix.square().sum(), (x, w), retain_graph=True):
                assert torch.isfinite(gradient).all()


def test_the_marginal_likelihood_is_differentiable_and_the_posteriors():
    x, y = torch.randn(6, 3), torch.randn(6, 2)
    logs = torch.tensor([0.3, -1.0, -2.0], requires_grad=True)
    model = meta(lambda: mlp(3, 8, 2))

    def likelihood(logs):
        w, b, noise = logs.exp()
        kernel = ps.infinite_width(model, ps.Initialization(w, b)).nngp
        return ps.GaussianProcess(kernel, noise).log_marginal_likelihood(x, y)

    assert torch.autograd.gradcheck(likelihood, (logs,))
    w, b, noise = logs.detach().exp().tolist()
    kernel = ps.infinite_width(model, ps.Initialization(w, b)).nngp
    post = ps.GaussianProcess(kernel, noise).condition(x, y)
    assert float(likelihood(logs).detach()) == pytest.approx(post.log_marginal_likelihood, rel=1e-10)


def test_a_singular_kernel_has_no_marginal_likelihood():
    kernel = ps.kernels.Linear()
    with pytest.raises(ps.PriorscopeError, match="rank 2 of 4"):
        ps.GaussianProcess(kernel).log_marginal_likelihood(torch.randn(4, 2), torch.randn(4))


def test_variances_are_fitted_by_the_documents_script():
    spec = importlib.util.spec_from_file_location("fitting", DOCS / "fitting.py")
    fitting = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fitting)
    x, y, *_ = fitting.data(16, 4)
    _, history = fitting.fit(x, y, steps=3)
    assert all(later > sooner for sooner, later in pairwise(history))


# Nothing is NaN


def deep_dense(depth, activation):
    return mlp(3, *[4] * depth, 1, activation=activation)


def deep_flat(depth, activation):
    layers = [nn.Conv2d(2, 4, 3, padding=1)]
    for _ in range(depth - 1):
        layers += [activation(), nn.Conv2d(4, 4, 3, padding=1)]
    return nn.Sequential(*layers, activation(), nn.Flatten(), nn.Linear(36, 1))


def deep_pooled(depth, activation):
    return nn.Sequential(*deep_flat(depth, activation)[:-2], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("make", "shape", "bias"),
    [
        (deep_dense, (3,), 0.0),
        (deep_dense, (3,), 0.1),
        (deep_flat, (2, 3, 3), 0.0),
        (deep_flat, (2, 3, 3), 0.1),
        pytest.param(deep_pooled, (2, 3, 3), 0.0, marks=SLOW),
        (deep_pooled, (2, 3, 3), 0.1),
    ],
)
def test_depth_100(make, shape, bias, dtype):
    x = torch.randn(4, *shape, dtype=dtype)
    x[1], x[2] = x[0], 0
    model = meta(lambda: make(100, nn.ReLU))
    for answer in (ps.infinite_width(model, ps.Initialization(2.0, bias, "ntk"))(x),):
        for matrix in answer:
            assert torch.isfinite(matrix).all()
            assert torch.equal(matrix[0, 1], matrix[0, 0])
            smallest = torch.linalg.eigvalsh(matrix.double())[0]
            assert float(smallest) > -1e-5 * float(matrix.max())


class Erf(nn.Module):
    def forward(self, x):
        return torch.erf(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("activation", "weight"), [pytest.param(nn.Tanh, 1.5, marks=pytest.mark.slow), (Erf, 1.0), (nn.GELU, 2.0)]
)
def test_depth_100_of_smooth_functions(activation, weight, dtype):
    x = torch.randn(5, 3, dtype=dtype)
    x[1], x[2], x[4] = x[0], 0, -x[3]
    with torch.device("meta"):
        model = deep_dense(100, activation)
    for bias in (0.0, 0.1):
        for matrix in ps.infinite_width(model, ps.Initialization(weight, bias, "ntk"))(x):
            assert torch.isfinite(matrix).all()
            assert torch.equal(matrix, matrix.T)
            assert torch.equal(matrix[0, 1], matrix[0, 0])
            assert float(torch.linalg.eigvalsh(matrix.double())[0]) > -1e-5 * float(matrix.max())


@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU, Erf, nn.GELU, nn.Tanh])
@pytest.mark.parametrize("make", [flat, pooled])
def test_borders_where_a_variance_is_zero(make, activation):
    """Pictures that are 0 in places, or opposite in places, with padding and without biases."""
    x = torch.randn(4, 2, 3, 3)
    x[0, :, :2], x[1, :, 1:], x[3] = 0, 0, -x[2]
    x.requires_grad_()
    w = torch.tensor(1.5, requires_grad=True)
    for dtype in (torch.float64, torch.float32):
        answer = ps.infinite_width(meta(lambda: make(activation)), ps.Initialization(w, 0.0))(x.to(dtype))
        for matrix in answer:
            assert torch.isfinite(matrix).all()
            assert torch.equal(matrix, matrix.T)
            for gradient in torch.autograd.grad(matrix.double().square().sum(), (x, w), retain_graph=True):
                assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("make", [flat, pooled])
@pytest.mark.parametrize("variance", [1e-6, 1e3, 1e6])
def test_large_and_small_variances(make, variance):
    x = torch.randn(3, 2, 3, 3)
    answer = ps.infinite_width(meta(make), ps.Initialization(variance, 0.1, "ntk"))(x)
    for matrix in answer:
        assert torch.isfinite(matrix).all()
        assert (matrix.diagonal() > 0).all()
    scaled = ps.infinite_width(meta(make), ps.Initialization(2.0, 0.0, "ntk"))
    one, large = scaled.nngp(x), scaled.nngp(1e6 * x)
    assert torch.allclose(large, 1e12 * one, rtol=1e-10)


def test_smooth_functions_at_large_variances_are_refused_by_name_not_nan():
    model = meta(lambda: mlp(3, 8, 1, activation=nn.Tanh))
    with pytest.raises(NoRuleError, match="at the variance"):
        ps.infinite_width(model, ps.Initialization(1e6, 0.1))(torch.randn(3, 3))


# Digits, at each position

ANGLES = [0.0, 1e-9, 1e-7, 1e-6, 3e-5, 1e-4, 1e-3, 2e-2, 0.1, 0.7, 1.5, 2.5, 3.1, math.pi]
LIMITS = {torch.float64: (1e-5, 1e-10, 1e-7), torch.float32: (1e-2, 1e-5, 5e-4)}


def convolution_in_50_digits(x, z, depth, weight, bias):
    """NNGP and NTK of circular width-3 convolutions of lines, ReLU, flattened to a linear layer, position by position.

    x, z: (channels, positions).
    """
    with mpmath.workdps(50):
        channels, size = x.shape
        rows = [[[mpmath.mpf(float(v)) for v in point[:, p]] for p in range(size)] for point in (x, z)]

        def inner(a, b):
            return [sum(u * v for u, v in zip(a[p], b[p], strict=True)) / channels for p in range(size)]

        k, v1, v2 = inner(rows[0], rows[1]), inner(rows[0], rows[0]), inner(rows[1], rows[1])
        t = [mpmath.mpf(0)] * size

        def layer(values):
            return [weight * (values[p - 1] + values[p] + values[(p + 1) % size]) / 3 for p in range(size)]

        for _ in range(depth):
            k, v1, v2, t = layer(k), layer(v1), layer(v2), layer(t)
            k, v1, v2 = ([v + bias for v in values] for values in (k, v1, v2))
            t = [a + b for a, b in zip(t, k, strict=True)]
            for p in range(size):
                length = mpmath.sqrt(v1[p] * v2[p])
                cosine = max(min(k[p] / length, mpmath.mpf(1)), mpmath.mpf(-1))
                theta = mpmath.acos(cosine)
                t[p] *= (mpmath.pi - theta) / (2 * mpmath.pi)
                k[p] = length * (mpmath.sin(theta) + (mpmath.pi - theta) * cosine) / (2 * mpmath.pi)
                v1[p], v2[p] = v1[p] / 2, v2[p] / 2
        nngp = weight * sum(k) / size + bias
        return float(nngp), float(weight * sum(t) / size + nngp)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("bias", [0.0, 0.05])
@pytest.mark.parametrize("depth", [1, 3, 10])
def test_convolutions_against_50_digits(depth, bias, dtype):
    layers = []
    for i in range(depth):
        convolution = nn.Conv1d(6 if i == 0 else 8, 8, 3, padding=1, padding_mode="circular", bias=bias > 0)
        layers += [convolution, nn.ReLU()]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(32, 1, bias=bias > 0))
    init = ps.Initialization(2.0, bias, "ntk")
    one, two = torch.linalg.qr(torch.randn(24, 2)).Q.T.reshape(2, 6, 4)
    x = (1.5 * one)[None].to(dtype)
    others = [(1.5 if i % 2 else 1.9) * (math.cos(a) * one + math.sin(a) * two) for i, a in enumerate(ANGLES)]
    others = torch.stack(others).to(dtype)
    answer = ps.infinite_width(init.apply_(model, 0), init)(x, others)
    exact = [convolution_in_50_digits(x[0], z, depth, 2.0, bias) for z in others]
    border, far, near = LIMITS[dtype]
    for matrix, column in zip(answer, zip(*exact, strict=True), strict=True):
        expected = torch.tensor(column)
        errors = (matrix[0].double() - expected).abs() / expected.abs().max()
        for angle, error in zip(ANGLES, errors.tolist(), strict=True):
            assert error <= (far if angle > border else near), (angle, error)
