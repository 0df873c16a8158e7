"""Both similarities against plain formulas, and their result on disk."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cosine_similarity

import priorscope as ps
from priorscope.beliefs.grouping import grouping
from priorscope.beliefs.similarities import Similarities, similarities
from priorscope.errors import DataError
from priorscope.kernels import Linear

GROUPS = ("a", "a", "b", "b", "b")


def test_both_are_their_formulas(tmp_path):
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    x, features = torch.randn(5, 3), torch.randn(5, 4)
    found = similarities(ps.EmpiricalNTK(model), x, features, GROUPS)
    gradients = [torch.autograd.grad(model(point).sum(), list(model.parameters())) for point in x]
    rows = torch.stack([torch.cat([g.flatten() for g in one]) for one in gradients])
    assert torch.allclose(found.kernel, cosine_similarity(rows[:, None], rows[None], dim=-1))
    assert torch.allclose(found.features, cosine_similarity(features[:, None], features[None], dim=-1))
    assert found.kernel_grouping.nearest == grouping(found.kernel, GROUPS).nearest
    gap = found.kernel_grouping.average_precision - found.feature_grouping.average_precision
    assert found.difference.value == pytest.approx((float(gap[:2].mean()) + float(gap[2:].mean())) / 2)
    loaded = Similarities.load(found.save(tmp_path / "s.npz"))
    assert torch.equal(loaded.kernel, found.kernel)
    assert loaded.kernel_grouping.nearest == found.kernel_grouping.nearest


def test_without_groups_there_is_nothing_to_group():
    x = torch.randn(4, 2)
    found = similarities(Linear(), x, x)
    assert found.groups is found.kernel_grouping is found.difference is None
    assert found.rank_correlation == pytest.approx(1.0)


def test_what_cannot_be_right_raises_before_the_kernel_is_asked():
    class Never(Linear):
        def matrix(self, x1, x2):
            raise AssertionError

    x = torch.randn(3, 2)
    for arguments, message in [
        ((x[:1], x[:1]), "has 1 input"),
        ((x, x[:2]), "for 3 inputs"),
        ((x, [1, 2, 3]), "is no tensor"),
        ((x, x * float("nan")), "NaN"),
        ((x, x, ("a", "b")), "2 names for 3"),
        ((x, x, ("a", "b", "c")), "all alone"),
    ]:
        with pytest.raises(DataError, match=message):
            similarities(Never(), *arguments)
