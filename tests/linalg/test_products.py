"""Means of products of a function and its derivatives: against a double sum, and against closed forms' gradients."""

import itertools
import math

import numpy as np
import pytest
import torch

from priorscope.linalg.products import HomogeneousProducts, Pairs, SmoothProducts, Term, derivatives, jumps

CORRELATION = -0.45


def pair() -> Pairs:
    return Pairs(torch.tensor([1.3, 0.6]), torch.tensor([0]), torch.tensor([1]), torch.tensor([CORRELATION]))


def one(products, first: Term, second: Term) -> float:
    (part,) = products.parts()
    return float(part.mean(first, second))


def of_sine(term: Term, x):
    """∂ᵖ(sinⁱ cosʲ), by autograd of the product."""
    x = x.clone().requires_grad_()
    value = x.sin() ** term.values * x.cos() ** term.slopes + 0 * x
    for _ in range(term.derivatives):
        (value,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    return value.detach()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Term(1, 0, 0), Term(1, 0, 0)),
        (Term(2, 0, 4), Term(0, 0, 0)),
        (Term(1, 0, 2), Term(1, 0, 2)),
        (Term(0, 1, 3), Term(0, 1, 1)),
        (Term(0, 2, 4), Term(0, 0, 0)),
        (Term(2, 1, 0), Term(0, 1, 0)),
        (Term(1, 1, 1), Term(0, 0, 0)),
        (Term(0, 2, 0), Term(0, 2, 0)),
        (Term(4, 0, 0), Term(0, 0, 0)),
    ],
)
def test_smooth_products_against_a_double_sum(first, second):
    z, w = np.polynomial.hermite_e.hermegauss(80)
    z, w = torch.from_numpy(z), torch.from_numpy(w / w.sum())
    v1, v2 = (float(v) for v in pair().variances)
    k = CORRELATION * (v1 * v2) ** 0.5
    a = v1**0.5 * z[:, None] + 0 * z
    b = k / v1**0.5 * z[:, None] + (v2 - k * k / v1) ** 0.5 * z
    expected = float(w @ (of_sine(first, a) * of_sine(second, b)) @ w)
    assert one(SmoothProducts(torch.sin, pair()), first, second) == pytest.approx(expected, abs=1e-9)


def closed(k11, k12, k22, left, right):
    """E[φφ] at different points of two straight sides: Cho and Saul 2009, with −left and right the slopes."""
    scale = (k11 * k22).sqrt()
    rho = k12 / scale
    angle = torch.acos(rho)

    def half(angle, rho):
        return scale * (angle.sin() + (math.pi - angle) * rho) / (2 * math.pi)

    return (left**2 + right**2) * half(angle, rho) + 2 * left * right * half(math.pi - angle, -rho)


@pytest.mark.parametrize(("left", "right"), [(0.0, 1.0), (-0.2, 1.5), (1.0, 1.0)])
def test_derivatives_of_straight_sides_are_those_of_the_closed_form(left, right):
    """∂E[φφ]/∂K12 = E[φ'φ'], ∂/∂K11 = E[φ''φ]/2, and so on (Price), though φ'' is no function."""
    v1, v2 = (float(v) for v in pair().variances)
    k = torch.tensor([v1, CORRELATION * (v1 * v2) ** 0.5, v2], requires_grad=True)
    products = HomogeneousProducts(left, right, pair())
    value = closed(*k, left, right)
    assert one(products, Term(1, 0, 0), Term(1, 0, 0)) == pytest.approx(float(value.detach()), rel=1e-12)
    (gradient,) = torch.autograd.grad(value, k, create_graph=True)
    steps, weights = ((2, 0), (1, 1), (0, 2)), (0.5, 1.0, 0.5)
    assert one(products, Term(0, 1, 0), Term(0, 1, 0)) == pytest.approx(float(gradient[1].detach()), rel=1e-12)
    for e, (p, q) in enumerate(steps):
        found = weights[e] * one(products, Term(1, 0, p), Term(1, 0, q))
        assert found == pytest.approx(float(gradient[e].detach()), rel=1e-12, abs=1e-13)
        second = torch.autograd.grad(gradient[e], k, retain_graph=True)[0]
        for f, (r, s) in enumerate(steps):
            found = weights[e] * weights[f] * one(products, Term(1, 0, p + r), Term(1, 0, q + s))
            assert found == pytest.approx(float(second[f]), rel=1e-11, abs=1e-12)
    slope = gradient[1]
    (gradient,) = torch.autograd.grad(slope, k, create_graph=True)
    for e, f in itertools.product(range(3), repeat=2):
        (second,) = torch.autograd.grad(gradient[e], k, retain_graph=True)
        p, q = (a + b for a, b in zip(steps[e], steps[f], strict=True))
        found = weights[e] * weights[f] * one(products, Term(0, 1, p), Term(0, 1, q))
        assert found == pytest.approx(float(second[f]), rel=1e-11, abs=1e-12)


def test_fourth_moments_of_relu():
    """E[relu(u)² relu(w)²]: Cho and Saul 2009, n = 2."""
    v1, v2 = (float(v) for v in pair().variances)
    angle = math.acos(CORRELATION)
    inner = 3 * math.sin(angle) * math.cos(angle) + (math.pi - angle) * (1 + 2 * math.cos(angle) ** 2)
    found = one(HomogeneousProducts(0.0, 1.0, pair()), Term(2, 0, 0), Term(2, 0, 0))
    assert found == pytest.approx(v1 * v2 * inner / (2 * math.pi), rel=1e-12)


def test_a_straight_line_has_two_straight_sides():
    lines = HomogeneousProducts(-1.0, 1.0, pair()), SmoothProducts(lambda z: 1.0 * z, pair())
    for first, second in ((Term(1, 0, 0), Term(1, 0, 0)), (Term(2, 1, 2), Term(0, 1, 0)), (Term(4, 0, 0),) * 2):
        straight, smooth = (one(line, first, second) for line in lines)
        assert straight == pytest.approx(smooth, rel=1e-9)


def test_products_that_are_not_even_are_refused():
    with pytest.raises(ValueError, match="odd degree"):
        one(HomogeneousProducts(0.0, 1.0, pair()), Term(1, 0, 0), Term(0, 1, 0))


def test_derivatives_of_a_polynomial_end():
    x = torch.tensor([0.5, -2.0])
    found = derivatives(lambda z: z**2, x)
    expected = torch.stack([x**2, 2 * x, 2 + 0 * x, 0 * x, 0 * x, 0 * x])
    assert torch.equal(found, expected)


def test_jumps_of_any_derivative_are_found():
    assert jumps(torch.nn.functional.elu, [0.0]) == [0.0]  # of φ''
    assert jumps(torch.relu, [0.0]) == [0.0]
    assert jumps(torch.nn.functional.softplus, [20.0]) == []  # of 2e-9, where torch changes the formula
    assert jumps(torch.tanh, [0.0, 1.0]) == []
    assert jumps(torch.tanh, []) == []


def test_the_series_say_what_they_leave_out():
    steep = SmoothProducts(lambda z: torch.tanh(100 * z), pair()._replace(correlations=torch.tensor([0.9999])))
    assert steep.error > 1e-3
    assert SmoothProducts(torch.tanh, pair()).error < 1e-9
