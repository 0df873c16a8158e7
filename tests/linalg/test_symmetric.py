"""One decomposition answers everything about a symmetric matrix."""

import math

import pytest
import torch

from priorscope.errors import DataError
from priorscope.linalg.symmetric import decompose, fix_signs


def test_functions_of_a_full_rank_matrix():
    a = torch.randn(6, 6)
    k = a @ a.T + torch.eye(6)
    e = decompose(k)
    y = torch.randn(6, 2)
    assert e.rank == 6
    assert torch.allclose(e.solve(y), torch.linalg.solve(k, y))
    assert torch.allclose(e.solve(y, 0.3), torch.linalg.solve(k + 0.3 * torch.eye(6), y))
    assert torch.allclose(e.apply(lambda v: torch.exp(-v), y), torch.matrix_exp(-k) @ y)
    assert bool((e.values.diff() <= 0).all())


def test_null_modes_contribute_exactly_zero():
    a = torch.randn(6, 2)
    e = decompose(a @ a.T)
    assert e.rank == 2
    assert e.is_singular
    y = torch.randn(6)
    assert torch.allclose(e.solve(y), torch.linalg.pinv(a @ a.T) @ y)
    assert torch.allclose(e.apply(torch.ones_like, y), a @ torch.linalg.pinv(a) @ y)


def test_the_rank_tolerance_is_that_of_the_precision():
    a = torch.randn(50, 2, dtype=torch.float32)
    k = a @ a.T + 1
    assert decompose(k).rank == 3
    assert decompose(k.double(), torch.float32).rank == 3


def test_the_sign_of_a_column_does_not_depend_on_its_sign():
    v = torch.linalg.qr(torch.randn(5, 5)).Q
    flips = torch.tensor([1.0, -1, 1, -1, -1])
    assert torch.equal(fix_signs(v), fix_signs(v * flips))


@pytest.mark.parametrize(
    ("matrix", "cause"),
    [
        ([[0.0, 1.0], [1.0, 0.0]], "not positive semi-definite: its least eigenvalue is -1"),
        ([[-1.0]], "not positive semi-definite"),
        ([[1.0, 0.5], [0.4, 1.0]], "not symmetric"),
        ([[1.0, math.nan], [math.nan, 1.0]], "2 entries that are NaN or infinite"),
    ],
)
def test_what_is_no_kernel_matrix_raises(matrix, cause):
    for dtype in (torch.float64, torch.float32):
        with pytest.raises(DataError, match=cause):
            decompose(torch.tensor(matrix, dtype=dtype))


def test_what_rounding_makes_negative_is_null():
    noise = torch.diag(torch.tensor([1e-16, -2e-16]))
    with pytest.raises(DataError, match="semi-definite"):
        decompose(noise)
    assert decompose(noise, tolerance=1e-15).rank == 0
    assert decompose(torch.diag(torch.tensor([1.0, -1e-8]))).rank == 1
    assert decompose(torch.diag(torch.tensor([1.0, -1e-4])), torch.float32).rank == 1
    assert decompose(torch.zeros(2, 2)).rank == 0
