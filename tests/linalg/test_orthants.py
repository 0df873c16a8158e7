"""Orthants of four Gaussians against nested quadrature, and against their own symmetries."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from priorscope.linalg.orthants import Signs, TwoPoints, orthant, quadrant

CASES = {
    "apart": (1.3, 0.7, 0.5, 0.9, 0.6, -0.3),
    "close": (1.0, 1.1, 0.8, 0.9, 0.999, 0.99),
    "opposite": (1.0, 0.6, 0.4, 0.5, -0.95, -0.8),
    "independent": (0.8, 0.9, 1.0, 1.2, 0.0, 0.0),
}
SLOPES = (1.0, 0.7)


def points(a1: float, a2: float, b1: float, b2: float, ra: float, rb: float) -> TwoPoints:
    return TwoPoints(*(torch.tensor([value], dtype=torch.float64) for value in (a1, a2, b1, b2, 1 - ra, 1 - rb)))


def nested(a1: float, a2: float, b1: float, b2: float, ra: float, rb: float) -> tuple[float, float]:
    """P and E[s s'] for all positive: over the quadrant of z, z' of what s and s' given them have."""
    p, q = SLOPES
    x, w = np.polynomial.legendre.leggauss(24)
    edges = np.array([0, 0.7, 1.6, 3, 5, 8])
    low, width = edges[:-1, None], np.diff(edges)[:, None]
    nodes, weights = (low + width * (x + 1) / 2).ravel(), (width * w / 2).ravel()
    z, other = np.meshgrid(nodes, nodes, indexing="ij")
    sine = 1 - ra**2
    density = np.exp(-(z**2 - 2 * ra * z * other + other**2) / (2 * sine)) / (2 * np.pi * sine**0.5)
    h, k = p * (a1 / b1) ** 0.5 * z, q * (a2 / b2) ** 0.5 * other
    # Of a bivariate normal, the probability by the integral over its correlation, and E[(h + u)(k + v)] above 0.
    r, step = rb * (x + 1) / 2, rb * w / 2
    rest = 1 - r**2
    exponent = -(h[..., None] ** 2 - 2 * r * h[..., None] * k[..., None] + k[..., None] ** 2) / (2 * rest)
    both = norm.cdf(h) * norm.cdf(k) + (np.exp(exponent) / rest**0.5) @ step / (2 * np.pi)
    s = (1 - rb**2) ** 0.5
    ends = k * norm.pdf(h) * norm.cdf((k - rb * h) / s) + h * norm.pdf(k) * norm.cdf((h - rb * k) / s)
    corner = np.exp(-(h**2 - 2 * rb * h * k + k**2) / (2 * s**2)) / (2 * np.pi)
    moment = ((h * k + rb) * both + ends + s * corner) * (b1 * b2) ** 0.5
    area = np.outer(weights, weights) * density
    return float((area * both).sum()), float((area * moment).sum())


@pytest.mark.parametrize("name", ["apart", "opposite"])
def test_probability_and_moment_against_nested_quadrature(name):
    case = CASES[name]
    found = [float(part) for part in orthant(points(*case), *SLOPES, Signs(1, 1, 1, 1))]
    expected = nested(*case)
    assert found[0] == pytest.approx(expected[0], abs=1e-10)
    assert found[1] == pytest.approx(expected[1], abs=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_all_orthants_together_are_everything(name):
    """The 16 probabilities sum to 1, and E[s s'] is the covariance."""
    p, q = SLOPES
    probability, moment = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for z, s, other_z, other_s in product((1, -1), repeat=4):
        one, two = orthant(points(*CASES[name]), p, q, Signs(z, s, other_z, other_s))
        probability, moment = probability + one, moment + s * other_s * two
    a1, a2, b1, b2, ra, rb = CASES[name]
    assert float(probability) == pytest.approx(1, abs=1e-11)
    assert float(moment) == pytest.approx(p * q * ra * (a1 * a2) ** 0.5 + rb * (b1 * b2) ** 0.5, abs=1e-11)


@pytest.mark.parametrize("name", CASES)
def test_summed_over_z_they_are_quadrants_of_s(name):
    """Both signs of z and z': s and s' alone, the arc-cosine kernel."""
    p, q = SLOPES
    a1, a2, b1, b2, ra, rb = CASES[name]
    v1, v2 = p * p * a1 + b1, q * q * a2 + b2
    k = p * q * ra * (a1 * a2) ** 0.5 + rb * (b1 * b2) ** 0.5
    rho = torch.tensor(k / (v1 * v2) ** 0.5, dtype=torch.float64)
    theta = rho.arccos()
    sums: list[Tensor] = [torch.zeros(1, dtype=torch.float64) for _ in range(2)]
    for z, other_z in product((1, -1), repeat=2):
        found = orthant(points(*CASES[name]), p, q, Signs(z, 1, other_z, 1))
        sums = [total + part for total, part in zip(sums, found, strict=True)]
    assert float(sums[0]) == pytest.approx(float((torch.pi - theta) / (2 * torch.pi)), abs=1e-11)
    arc = (v1 * v2) ** 0.5 * (theta.sin() + (torch.pi - theta) * theta.cos()) / (2 * torch.pi)
    assert float(sums[1]) == pytest.approx(float(arc), abs=1e-11)


@pytest.mark.parametrize("signs", list(product((1, -1), repeat=2)))
def test_points_that_coincide_are_quadrants(signs):
    z, s = signs
    a, b = torch.tensor([1.3], dtype=torch.float64), torch.tensor([0.4], dtype=torch.float64)
    nothing = torch.zeros(1, dtype=torch.float64)
    found = orthant(TwoPoints(a, a, b, b, nothing, nothing), 0.7, 0.7, Signs(z, s, z, s))
    for ours, exact in zip(found, quadrant(a, b, 0.7, z, s), strict=True):
        assert float(ours) == pytest.approx(float(exact), abs=1e-12)
    other = orthant(TwoPoints(a, a, b, b, nothing, nothing), 0.7, 0.7, Signs(z, s, -z, s))
    assert all(abs(float(part)) < 1e-12 for part in other)


@pytest.mark.parametrize("angle", [1.0, 1e-2, 1e-4, 1e-6, 1e-8])
def test_the_path_is_followed_up_to_nearly_equal_points(angle, monkeypatch):
    case = points(1.0, 1.0 + angle, 0.5, 0.5, 1.0, 1.0)._replace(
        less_a=torch.tensor([angle**2 / 2], dtype=torch.float64), less_b=torch.tensor([angle**2], dtype=torch.float64)
    )
    coarse = orthant(case, 1.0, 1.0, Signs(1, 1, 1, 1))
    from priorscope.linalg import orthants

    for name, value in (("PANELS", 40), ("NODES", 20), ("RATIO", 0.5)):
        monkeypatch.setattr(orthants, name, value)
    orthants._nodes.cache_clear()
    fine = orthant(case, 1.0, 1.0, Signs(1, 1, 1, 1))
    monkeypatch.undo()
    orthants._nodes.cache_clear()
    for a, b in zip(coarse, fine, strict=True):
        assert float((a - b).abs()) < 1e-11


def test_derivatives():
    case = [part.requires_grad_() for part in points(*CASES["apart"])]
    assert torch.autograd.gradcheck(
        lambda *parts: orthant(TwoPoints(*parts), *SLOPES, Signs(1, 1, -1, 1)), case, fast_mode=True
    )
