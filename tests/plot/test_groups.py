"""The heat map of similarities says which inputs belong together, and on which scale."""

import matplotlib.pyplot as plt
import pytest
import torch

import priorscope as ps
from priorscope.errors import DataError
from priorscope.kernels import RBF
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


def shares(y=None, groups=("a", "a", "b", "c")):
    x, x_new = torch.randn(4, 2), torch.randn(3, 2)
    return ps.similar(RBF(), x, x_new, groups, y)


def heights(ax):
    return torch.tensor([[bar.get_height() for bar in bars] for bars in ax.containers]).T


def test_bars_are_contributions_and_lines_where_they_add_up_to():
    found = shares(torch.randn(4))
    ax = ps.plot.similar(found, names=["x", "y", "z"])
    assert torch.allclose(heights(ax), found.by().contributions)
    levels = [line.get_ydata()[0] for line in ax.lines[:3]]
    assert levels == pytest.approx(found.prediction.tolist())
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a (2)", "b (1)", "c (1)", "sum"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["x", "y", "z"]
    plt.close("all")


def test_bars_of_weights_and_of_one_output():
    found = shares()
    ax = ps.plot.similar(found.by())
    assert ax.get_ylabel() == "sum of dual weights"
    assert torch.allclose(heights(ax), found.by().weights)
    several = shares(torch.randn(4, 2)).by()
    assert torch.allclose(heights(ps.plot.similar(several, output=1)), several.contributions[..., 1])
    largest = several.contributions.sum(1).argmax(1)
    drawn = heights(ps.plot.similar(several))
    assert torch.allclose(drawn, torch.stack([several.contributions[i, :, c] for i, c in enumerate(largest)]))
    plt.close("all")


def test_bars_that_cannot_be_drawn_raise():
    for options, message in [({"names": ["x"]}, "1 for 3 points"), ({"output": 2}, "is 2 of 2")]:
        with pytest.raises(DataError, match=message):
            ps.plot.similar(shares(torch.randn(4, 2)), **options)
    x = torch.randn(9, 2)
    with pytest.raises(DataError, match="are 9, there are 7 colours"):
        ps.plot.similar(ps.similar(RBF(), x, x, list("abcdefghi")))
