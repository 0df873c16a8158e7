"""Sums and products of kernels: by outputs, as their blocks say."""

import pytest
import torch

from priorscope import EmpiricalNTK
from priorscope.errors import DataError
from priorscope.kernels import RBF
from priorscope.training.trajectory import trajectory
from tests.beliefs.kernels import Features
from tests.cases import mlp

X, OTHER = torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(4, 2), torch.ones(3, 2, dtype=torch.float64) / 3


@pytest.mark.parametrize("combine", [torch.add, torch.mul])
def test_coupled_outputs_are_combined_by_blocks(combine):
    coupled, other, rbf = Features(2, 3, 7), Features(2, 3, 9), RBF()
    independent = torch.einsum("ij,ab->iajb", rbf(X, OTHER), torch.eye(3))
    for pair, second in (((coupled, other), other.blocks(X, OTHER)), ((coupled, rbf), independent)):
        for first, last in (pair, pair[::-1]):
            kernel = first + last if combine is torch.add else first * last
            assert kernel.coupled
            assert kernel.outputs(X) == 3
            blocks = combine(coupled.blocks(X, OTHER), second)
            assert torch.allclose(kernel.blocks(X, OTHER), blocks)
            assert torch.allclose(kernel(X, OTHER), torch.einsum("iaja->ij", blocks) / 3)
            assert torch.allclose(kernel.diagonal(X), kernel(X).diagonal())


def test_a_kernel_with_itself_is_twice_the_kernel():
    kernel, y = EmpiricalNTK(mlp(2, 5, 2)), torch.randn(4, 2)
    assert (kernel + kernel).blocks(X).shape == (4, 2, 4, 2)
    first, second = trajectory(kernel + kernel, X, y), trajectory(2 * kernel, X, y)
    assert first.outputs == second.outputs == "coupled"
    assert torch.allclose(first(OTHER, at=0.1), second(OTHER, at=0.1))


def test_independent_outputs_stay_so():
    for kernel in (RBF() + RBF(2.0), RBF() * RBF(2.0)):
        assert not kernel.coupled
        assert kernel.outputs(X) is None
        assert torch.equal(kernel.blocks(X)[:, 0, :, 0], kernel(X))


def test_kernels_of_different_numbers_of_outputs_do_not_combine():
    kernel = Features(2, 3, 7) + Features(2, 2, 7)
    with pytest.raises(DataError, match="of 3 and of 2 outputs"):
        kernel.blocks(X)
