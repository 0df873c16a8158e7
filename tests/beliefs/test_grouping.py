"""Measures of grouping against the obvious loop, and chance against really random orders."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from priorscope.beliefs.grouping import difference, grouping, members, names_of, neighbours, rank_correlation
from priorscope.errors import DataError


def symmetric(n, seed=0):
    s = torch.rand(n, n, generator=torch.Generator().manual_seed(seed))
    return (s + s.T) / 2


def by_loop(similarity, groups):
    """(share of nearest, average precisions) as one would explain them."""
    nearest, precisions = [], []
    for i, own in enumerate(groups):
        others = sorted((j for j in range(len(groups)) if j != i), key=lambda j: -float(similarity[i, j]))
        if own not in [groups[j] for j in others]:
            continue
        hits, at_hits = 0, []
        for k, j in enumerate(others, start=1):
            if groups[j] == own:
                hits += 1
                at_hits.append(hits / k)
        nearest.append(groups[others[0]] == own)
        precisions.append(sum(at_hits) / hits)
    return sum(nearest) / len(nearest), precisions


GROUPS = ("a", "b", "a", "c", "b", "a", "d", "c", "a", "b")


def test_measures_are_those_of_the_loop():
    s = symmetric(10)
    found = grouping(s, GROUPS)
    nearest, precisions = by_loop(s, GROUPS)
    assert found.nearest == pytest.approx(nearest)
    assert found.mean_average_precision == pytest.approx(sum(precisions) / len(precisions))
    assert found.average_precision.isnan().tolist() == [g == "d" for g in GROUPS]
    kept = found.average_precision[~found.average_precision.isnan()]
    assert torch.allclose(kept, torch.tensor(precisions))


def test_a_perfect_similarity_has_precision_one_and_scale_does_not_matter():
    s = torch.tensor([[float(a == b) for b in GROUPS] for a in GROUPS])
    assert grouping(s, GROUPS).nearest == grouping(s, GROUPS).mean_average_precision == 1.0
    t = symmetric(10)
    assert grouping(3 * t - 7, GROUPS).mean_average_precision == grouping(t, GROUPS).mean_average_precision
    assert grouping(t.fill_diagonal_(-5), GROUPS).nearest == grouping(symmetric(10), GROUPS).nearest


def test_chance_is_the_mean_of_random_orders():
    found = [grouping(torch.rand(10, 10, generator=torch.Generator().manual_seed(i)), GROUPS) for i in range(800)]
    for measured, stated in (("mean_average_precision", "chance_precision"), ("nearest", "chance_nearest")):
        values = torch.tensor([getattr(one, measured) for one in found])
        error = float(values.std()) / len(values) ** 0.5
        assert abs(float(values.mean()) - getattr(found[0], stated)) < 4 * error


def test_the_smallest_case():
    found = grouping(torch.rand(3, 3), ("a", "a", "b"))
    assert found.chance_nearest == 0.5
    assert found.chance_precision == pytest.approx(0.75)


def test_equal_similarities_keep_the_order():
    assert neighbours(torch.ones(3, 3)).tolist() == [[1, 2], [0, 2], [0, 1]]


def test_a_difference_is_paired_and_clustered_by_group():
    a, b = grouping(symmetric(10, 1), GROUPS), grouping(symmetric(10, 2), GROUPS)
    gaps = (a.average_precision - b.average_precision).tolist()
    means = []
    for group in "abc":
        own = [gap for gap, g in zip(gaps, GROUPS, strict=True) if g == group]
        means.append(sum(own) / len(own))
    found = difference(a, b, GROUPS)
    assert found.value == pytest.approx(sum(means) / 3)
    assert found.standard_error == pytest.approx(float(torch.tensor(means).std()) / 3**0.5)
    assert not difference(a, a, GROUPS).clear
    assert difference(a, b, GROUPS).value == -difference(b, a, GROUPS).value


def test_rank_correlation_is_scipys_over_pairs():
    a, b = symmetric(8, 1), symmetric(8, 2)
    a[0, 1] = a[1, 0] = a[2, 3]  # a tie
    rows, columns = torch.triu_indices(8, 8, offset=1)
    assert rank_correlation(a, b) == pytest.approx(spearmanr(a[rows, columns], b[rows, columns]).statistic)
    assert rank_correlation(a, a.exp()) == pytest.approx(1.0)
    assert rank_correlation(a, -a) == pytest.approx(-1.0)
    assert rank_correlation(a, torch.ones(8, 8)) != rank_correlation(a, torch.ones(8, 8))  # NaN


def test_what_has_no_answer_raises():
    s = symmetric(3)
    for groups in (("a", "a", "a"), ("a", "b", "c")):
        with pytest.raises(DataError, match="all alone, or all one"):
            grouping(s, groups)
    with pytest.raises(DataError, match="for 2 groups"):
        grouping(s, ("a", "b"))
    with pytest.raises(DataError, match="two square matrices"):
        rank_correlation(s, symmetric(4))


def test_names_come_from_lists_tensors_and_arrays():
    expected = ("1", "0", "1")
    for given in (["1", "0", "1"], torch.tensor([1, 0, 1]), np.array([1, 0, 1]), (1, 0, 1)):
        assert names_of(given, 3) == expected
    assert {name: rows.tolist() for name, rows in members(expected).items()} == {"1": [0, 2], "0": [1]}
    for bad, message in [
        ("101", "is '101'"),
        (["1"], "has 1 names for 3"),
        (None, "is None"),
        (torch.eye(3)[0, 0], "1.0"),
    ]:
        with pytest.raises(DataError, match=message):
            names_of(bad, 3)
