"""transfer: its cases are the committed ones; kernel regression and alignment against plain formulas; small runs."""

import json
from pathlib import Path

import pytest
import torch

from priorscope.experiments import Config, transfer

CASES = Path(__file__).parents[2] / "cases"
SMALL = {"widths": (4, 8), "networks": 3, "first": 20, "second": 10, "test": 20, "steps": 20}


def test_the_cases_are_those_that_were_fixed_before():
    assert json.loads((CASES / "transfer.json").read_text()) == transfer.cases()


@pytest.fixture
def kernel():
    features = torch.randn(12, 15, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return features @ features.T


def test_the_test_error_is_that_of_ridge_regression(kernel):
    y = torch.tensor([1.0, -1.0] * 6, dtype=torch.float64)
    ridge = transfer.RIDGE * kernel[:8, :8].diagonal().mean() * torch.eye(8, dtype=torch.float64)
    predicted = kernel[8:, :8] @ torch.linalg.solve(kernel[:8, :8] + ridge, y[:8])
    assert float(transfer.test_error(kernel, y, 8)) == float((predicted.sign() != y[8:]).double().mean())


def test_alignment_is_that_of_centred_matrices(kernel):
    y = torch.randn(12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    h = torch.eye(12, dtype=torch.float64) - 1 / 12
    centred, target = h @ kernel @ h, h @ torch.outer(y, y) @ h
    cosine = (centred * target).sum() / centred.norm() / target.norm()
    torch.testing.assert_close(transfer.alignment(kernel, y), cosine)
    torch.testing.assert_close(transfer.alignment(torch.outer(y, y), y), torch.tensor(1.0, dtype=torch.float64))


def test_the_brighter_half_is_of_the_picture():
    left = torch.zeros(1, 8, 8)
    left[:, :, :4] = 1
    generator = torch.Generator()
    label = transfer.SECOND["brighter half"]
    assert label(left.reshape(1, 64), torch.tensor([3]), generator).tolist() == [True]
    assert label(left.flip(2).reshape(1, 64), torch.tensor([3]), generator).tolist() == [False]


def test_a_small_run(monkeypatch, tmp_path):
    monkeypatch.setattr(transfer, "FULL", SMALL)
    outcomes = [transfer.run(Config(full=True, keep=tmp_path)) for _ in range(2)]
    assert outcomes[0].to_dict() == outcomes[1].to_dict()
    assert len(list(tmp_path.iterdir())) == 2
    assert set(outcomes[0].numbers["tasks"]) == set(transfer.SECOND)
    assert len(transfer.draw(outcomes[0]).axes) == 3
