"""Fewer of a collection's inputs keep its groups; inputs that cannot be compared raise."""

from pathlib import Path

import pytest
import torch

from priorscope.data.collection import Collection, distinct_names
from priorscope.errors import DataError


def numbered(n, groups=None):
    return Collection("numbers", "points", torch.arange(float(n))[:, None], tuple(map(str, range(n))), groups)


def test_fewer_inputs_are_evenly_spread():
    assert numbered(10).at_most(5).names == ("0", "2", "4", "6", "8")
    assert numbered(3).at_most(5) is not None
    assert numbered(10).at_most(5).items[:, 0].tolist() == [0, 2, 4, 6, 8]
    assert "5 of the 10 points" in numbered(10).at_most(5).notes[-1]
    with pytest.raises(DataError, match="is 1"):
        numbered(10).at_most(1)


def test_fewer_inputs_keep_partners_in_their_group():
    groups = tuple("abcdefgh"[i // 4] for i in range(32))
    for points in (2, 4, 8, 9, 16, 24, 31):
        few = numbered(32, groups).at_most(points)
        assert len(few) <= points
        assert all(few.groups.count(group) >= 2 for group in few.groups)
    assert len(numbered(32, groups).at_most(16)) == 16
    uneven = numbered(12, tuple("ab"[i > 1] for i in range(12))).at_most(6)
    assert uneven.groups == ("a", "a", "b", "b", "b")


def test_groups_stand_together():
    assert numbered(5, ("b", "a", "b", "a", "c")).by_group().tolist() == [0, 2, 1, 3, 4]
    assert numbered(3).by_group().tolist() == [0, 1, 2]


def test_what_cannot_be_compared_raises():
    with pytest.raises(DataError, match="has 1 of the points"):
        numbered(1)
    with pytest.raises(DataError, match="2 names for 3"):
        numbered(3, ("a", "b"))


def test_groups_of_one_name_in_different_places_stay_apart():
    paths = [Path("one/cats"), Path("two/cats"), Path("one/cats"), Path("one/dogs")]
    assert distinct_names(paths) == ["one/cats", "two/cats", "one/cats", "one/dogs"]
    assert distinct_names(paths[2:]) == ["cats", "dogs"]
