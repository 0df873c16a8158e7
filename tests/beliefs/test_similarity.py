import pytest
import torch

from priorscope.beliefs import (
    GaussianProcess,
    Neighbours,
    cosine,
    indistinguishable,
    indistinguishable_pairs,
    influence,
    most_similar,
    similarity,
)
from priorscope.errors import DataError
from priorscope.kernels import RBF, ArcCosine, FunctionKernel, Linear


def test_cosines_are_those_of_the_features():
    x1, x2 = torch.randn(5, 3), torch.randn(4, 3)
    expected = torch.nn.functional.cosine_similarity(x1[:, None], x2[None], dim=-1)
    assert torch.allclose(cosine(Linear(), x1, x2), expected)
    assert torch.allclose(cosine(Linear(), x1).diagonal(), torch.ones(5))
    frozen = Linear().on(x1)
    assert torch.equal(cosine(frozen, x1), cosine(Linear(), x1))
    assert torch.equal(cosine(frozen, x2, x1), cosine(Linear(), x2, x1))
    assert torch.equal(cosine(frozen, x1, x2), cosine(Linear(), x1, x2))


def test_cosine_without_variance_is_zero():
    x = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    assert torch.allclose(cosine(Linear(), x), torch.tensor([[0.0, 0.0], [0.0, 1.0]]))


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_influence_is_the_dual_weight(ridge):
    x, x_new = torch.randn(6, 2), torch.randn(3, 2)
    expected = RBF()(x_new, x) @ torch.linalg.inv(RBF()(x) + ridge * torch.eye(6))
    assert torch.allclose(influence(RBF(), x, x_new, ridge), expected, atol=1e-9)
    post = GaussianProcess(RBF(), ridge).condition(x, torch.randn(6))
    assert torch.allclose(influence(RBF().on(x), x_new, ridge), post.influence(x_new))


def test_influence_of_a_singular_kernel_is_the_limit_of_small_ridges():
    x, x_new = torch.randn(6, 2), torch.randn(3, 2)
    assert torch.allclose(influence(Linear(), x, x_new), influence(Linear(), x, x_new, 1e-8), atol=1e-6)
    with pytest.raises(DataError, match="ridge"):
        influence(Linear(), x, x_new, -1.0)


def test_raw_kernel_values_are_not_influence():
    x = torch.tensor([[0.0], [0.3], [3.0]])
    weights = influence(RBF(), x, torch.tensor([[0.6]]))
    assert weights.min() < 0
    assert RBF()(torch.tensor([[0.6]]), x).min() > 0


def test_most_similar_points():
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
    found = most_similar(Linear(), x, torch.tensor([[0.1, 3.0], [2.0, 2.1]]), k=2)
    assert found.index.tolist() == [[1, 2], [2, 1]]
    assert torch.equal(found.cosine, most_similar(Linear().on(x), torch.tensor([[0.1, 3.0], [2.0, 2.1]]), 2).cosine)
    with pytest.raises(DataError, match="k: is 4"):
        most_similar(Linear(), x, x, k=4)


def test_neighbours_are_saved(tmp_path):
    x = torch.randn(4, 2)
    found = most_similar(Linear(), x, x, k=2)
    assert torch.equal(Neighbours.load(found.save(tmp_path / "n.npz")).index, found.index)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_that_a_kernel_cannot_tell_apart(dtype, monkeypatch):
    monkeypatch.setattr(similarity, "CHUNK", 20)
    x = torch.randn(9, 5, dtype=dtype)

    def shifts(a, b):
        """Invariant to circular shifts, as convolutions with pooling are."""
        rolled = torch.stack([b.roll(s, 1) for s in range(5)])
        return sum(ArcCosine(1)(a, r) for r in rolled) / 5

    x_new = torch.cat([torch.randn(4, 5, dtype=dtype), x[[3]].roll(2, 1), x[[7]]])
    expected = [False] * 4 + [True, True]
    assert indistinguishable(FunctionKernel(shifts), x, x_new).tolist() == expected
    assert indistinguishable_pairs(FunctionKernel(shifts).on(x), x_new).tolist() == [[4, 3], [5, 7]]
    assert indistinguishable(ArcCosine(1), x, x_new).tolist() == [False] * 5 + [True]


def test_near_points_are_not_the_same():
    x = torch.ones(1, 2)
    assert not bool(indistinguishable(RBF(), x, x + 1e-4))
    assert not bool(indistinguishable(RBF(), x.float(), x.float() + 1e-2))
    assert bool(indistinguishable(RBF(), x, x + 1e-9))
