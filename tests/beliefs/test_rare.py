"""Rare sets: orthants and tails in closed form down to 1e-8; what does not lead to a set is refused."""

import math

import pytest
import torch
from scipy.stats import binom, norm

import priorscope as ps
from priorscope.errors import DataError


def least(functions):
    return functions.flatten(1).amin(1)


def independent(m):
    return ps.Gaussian(torch.zeros(m), torch.eye(m))


@pytest.mark.parametrize("m", [8, 17, 27])
def test_orthants_of_independent_values_are_a_half_to_the_power(m):
    p = ps.rare_probability(independent(m), least, samples=8000)
    low, high = p.interval
    assert low < 2.0**-m < high
    assert high / low < 4
    assert p.effective > 30


@pytest.mark.parametrize("m", [12, 60])
def test_orthants_at_the_correlation_one_half(m):
    law = ps.Gaussian(torch.zeros(m), 0.5 * torch.eye(m) + 0.5)
    low, high = ps.rare_probability(law, least).interval
    assert low < 1 / (m + 1) < high


def test_a_shifted_and_correlated_tail():
    a = torch.randn(6, 6)
    covariance, mean = a @ a.T, torch.randn(6)
    d = torch.randn(6)
    centre, variance = ps.Gaussian(mean, covariance).project(d)
    threshold = centre + 5.6 * variance**0.5
    low, high = ps.rare_probability(ps.Gaussian(mean, covariance), lambda f: f @ d - threshold).interval
    assert low < norm.sf(5.6) < high
    assert norm.sf(5.6) < 1.1e-8


def test_outputs_that_share_a_covariance_and_singular_ones():
    law = ps.Gaussian(torch.zeros(5, 2), torch.eye(5))
    low, high = ps.rare_probability(law, least).interval
    assert low < 2.0**-10 < high
    same = ps.Gaussian(torch.zeros(4), torch.ones(4, 4))
    low, high = ps.rare_probability(same, lambda f: least(f) - 4.0).interval
    assert low < norm.sf(4.0) < high


def test_intervals_cover_as_often_as_they_say():
    missed = 0
    for seed in range(30):
        low, high = ps.rare_probability(independent(5), least, samples=2000, seed=seed).interval
        missed += not low < 2.0**-5 < high
    assert missed <= binom.ppf(0.9999, 30, 0.01)


def test_a_likely_set_is_counted_and_never_certain():
    p = ps.rare_probability(independent(2), lambda f: f.amin(1) + 9)
    assert p.p == 1
    assert p.interval[0] < 1
    assert p.effective <= p.samples


def test_a_score_of_few_values_leads_too():
    low, high = ps.rare_probability(independent(12), lambda f: (f > 0).sum(1) - 12.0).interval
    assert low < 2.0**-12 < high


def test_what_does_not_lead_there_is_refused():
    law = independent(3)
    for score, message in [
        (lambda f: torch.full((len(f),), -1.0), "rises no further"),
        (lambda f: f[:, 0] - 40, "below 1e-15"),
        (lambda f: f, "returned .* torch.float64"),
        (lambda f: f[:, 0] > 0, "returned .* torch.bool"),
        (lambda f: f[:, 0] * math.nan, "is NaN"),
    ]:
        with pytest.raises(DataError, match=message):
            ps.rare_probability(law, score)
    with pytest.raises(DataError, match="at least 2000"):
        ps.rare_probability(law, least, samples=1999)
    with pytest.raises(DataError, match="does not vary"):
        ps.rare_probability(ps.Gaussian(torch.zeros(2), torch.zeros(2, 2)), least)


def test_the_same_seed_gives_the_same_answer():
    first, again, other = (ps.rare_probability(independent(9), least, seed=s).p for s in (1, 1, 2))
    assert first == again != other
