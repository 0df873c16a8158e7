"""One decomposition answers everything about a symmetric matrix."""

import torch

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
