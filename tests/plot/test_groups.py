"""The heat map of similarities says which inputs belong together, and on which scale."""

import matplotlib.pyplot as plt
import pytest
import torch

from priorscope.errors import DataError
from priorscope.plot.groups import MOST_NAMED, by_group


def test_groups_are_framed_and_named_and_the_scale_leaves_the_diagonal_out():
    s = torch.full((5, 5), 0.2).fill_diagonal_(1.0)
    s[0, 1] = s[1, 0] = 0.4
    ax = by_group(s, ("a", "a", "b", "b", "a very long name indeed"))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b", "a very long nam…"]
    assert list(ax.get_yticks()) == [0.5, 2.5, 4.0]
    assert len(ax.lines) == 3
    low, high = ax.images[0].get_clim()
    assert pytest.approx(low) == 0.2
    assert high <= 0.4
    ax.figure.canvas.draw()
    plt.close("all")


def test_without_groups_and_with_many():
    s = torch.rand(60, 60)
    assert not by_group(s).lines
    assert not by_group(s, [str(i // 2) for i in range(60)]).get_yticklabels()
    assert MOST_NAMED < 30
    plt.close("all")


def test_what_cannot_be_drawn_raises():
    for s, groups, message in [
        (torch.rand(3, 2), None, "square"),
        (torch.rand(1, 1), None, "at least 2"),
        (torch.rand(3, 3), ("a",), "1 names for 3"),
    ]:
        with pytest.raises(DataError, match=message):
            by_group(s, groups)
