"""Sums, products, the user's own kernels, the classical ones; and calls that cannot be right."""

import pytest
import torch
from sklearn.gaussian_process import kernels as sk

from priorscope import (
    FunctionKernel,
    GaussianProcess,
    KernelPair,
    PrecomputedKernel,
    eigenmodes,
    kernels,
    trajectory,
)
from priorscope.errors import DataError, MemoryBudgetError
from priorscope.linalg.memory import check_memory


def test_classical_kernels_equal_scikit_learn():
    x, z = torch.randn(5, 3), torch.randn(4, 3)
    rbf = 2.0 * sk.RBF(0.7)
    assert torch.allclose(kernels.RBF(0.7, 2.0)(x, z), torch.as_tensor(rbf(x.numpy(), z.numpy())))
    dot = sk.DotProduct(0.5**0.5)
    assert torch.allclose(kernels.Linear(1.0, 0.5)(x, z), torch.as_tensor(dot(x.numpy(), z.numpy())))
    t = torch.randn(5, 1)
    sine = sk.ExpSineSquared(length_scale=0.8, periodicity=2.0)
    assert torch.allclose(kernels.Periodic(2.0, 0.8)(t), torch.as_tensor(sine(t.numpy())))


@pytest.mark.parametrize(("degree", "unit"), [(0, lambda u: (u > 0).double()), (1, torch.relu)])
def test_arc_cosine_is_the_expectation_over_a_layer(degree, unit):
    x = torch.randn(4, 3)
    features = unit(x @ torch.randn(3, 1_000_000)) * 2**0.5
    sampled = features @ features.T / features.shape[1]
    assert torch.allclose(kernels.ArcCosine(degree)(x), sampled, rtol=0, atol=0.02 * float(sampled.max()))


def test_sum_product_scaling():
    x = torch.randn(4, 2)
    k, q = kernels.RBF(), kernels.Linear(1.0, 0.2)
    assert torch.allclose((k + q)(x), k(x) + q(x))
    assert torch.allclose((k * q)(x), k(x) * q(x))
    assert torch.allclose((3 * k)(x), 3 * k(x))
    with pytest.raises(DataError, match="scale"):
        -1 * k


def test_a_precomputed_kernel_is_indexed_by_rows():
    x = torch.randn(6, 2)
    k = PrecomputedKernel(kernels.RBF()(x))
    assert torch.equal(k(torch.tensor([4, 1]), torch.tensor([0])), kernels.RBF()(x)[[4, 1]][:, [0]])
    for rows, message in [(torch.tensor([6]), "outside"), (torch.tensor([0.5]), "row indices")]:
        with pytest.raises(DataError, match=message):
            k(rows)
    with pytest.raises(DataError, match="not symmetric"):
        PrecomputedKernel(torch.randn(3, 3))
    with pytest.raises(DataError, match=r"has dtype torch.int64"):
        PrecomputedKernel(torch.eye(3).long())
    with pytest.raises(DataError, match="is a list"):
        PrecomputedKernel([[1.0]])


def test_a_kernel_that_is_none_raises_where_it_is_used():
    x, y = torch.arange(2), torch.randn(2)
    for kernel, cause in (
        (PrecomputedKernel(torch.tensor([[0.0, 1.0], [1.0, 0.0]])), "semi-definite"),
        (FunctionKernel(lambda a, b: a[:, None] - b + 3 * torch.eye(2)), "symmetric"),
    ):
        for use in (
            lambda k: eigenmodes(k, x),
            lambda k: trajectory(k, x, y),
            lambda k: GaussianProcess(k, noise=0.1).condition(x, y),
            lambda k: GaussianProcess(k).prior(x),
        ):
            with pytest.raises(DataError, match=cause):
                use(kernel)


def test_calls_that_cannot_be_right():
    k = kernels.RBF()
    with pytest.raises(DataError, match="empty"):
        k(torch.empty(0, 2))
    with pytest.raises(DataError, match="NaN"):
        k(torch.tensor([[float("nan")]]))
    with pytest.raises(DataError, match="points have shapes"):
        k(torch.ones(2, 3), torch.ones(2, 4))
    with pytest.raises(DataError, match="lengthscale"):
        kernels.RBF(0.0)
    with pytest.raises(DataError, match=r"Return \(3, 3\)"):
        FunctionKernel(lambda a, b: a @ b.T[:, :1])(torch.ones(3, 2))


def test_a_kernel_too_large_for_the_memory_raises_before_it_starts():
    with pytest.raises(MemoryBudgetError, match="the kernel matrix: needs"):
        kernels.RBF()(torch.zeros(2_000_000, 1))
    with pytest.raises(MemoryBudgetError):
        check_memory(11, "it", memory=10)


def test_on_data_computes_its_matrix_once():
    calls = []

    def function(a, b):
        calls.append(1)
        return torch.exp(-torch.cdist(a, b))

    x = torch.randn(5, 2)
    on = FunctionKernel(function).on(x)
    on(x), on.eigen, on.gram, on.cross(x)
    assert len(calls) == 1
    assert on.on(x) is on
    pair = KernelPair(kernels.RBF(), kernels.Linear())
    assert pair.on(x).on(x).x is x
    assert pair.x is None


def test_a_factorisation_that_does_not_fit_raises_before_it_starts():
    x = torch.randn(100, 2)
    assert kernels.RBF().on(x, memory=10**7).eigen.rank > 10
    with pytest.raises(MemoryBudgetError, match="factorisation of a kernel on 100 points"):
        _ = kernels.RBF().on(x, memory=10**5).eigen
