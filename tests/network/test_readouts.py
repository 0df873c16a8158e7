"""Named read-outs are the functions that their formulas say, and scalar."""

import pytest
import torch
from torch import nn

import priorscope as ps
from priorscope.errors import ModelError
from priorscope.network.readouts import MEANINGS, direction, named_readout


def test_read_outs_are_their_formulas():
    out = torch.randn(4, 3)
    expected = {
        "logsumexp": [sum(torch.exp(f) for f in row).log() for row in out],
        "sum": [row[0] + row[1] + row[2] for row in out],
        "energy": [sum(f * f for f in row) / 2 for row in out],
        "projection": [sum(u * f for u, f in zip(direction(3, 5), row, strict=True)) for row in out],
    }
    for name, values in expected.items():
        assert torch.allclose(named_readout(name, 5).function(out), torch.stack(values))
    assert named_readout("trace").function is None
    assert set(expected) | {"trace"} == set(MEANINGS)


def test_the_mean_over_projections_is_the_trace_kernel():
    model, x = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2)), torch.randn(4, 3)
    blocks = ps.EmpiricalNTK(model).blocks(x)
    one = ps.EmpiricalNTK(model, readout=named_readout("projection", 1).function)(x)
    u = direction(2, 1)
    assert torch.allclose(one, torch.einsum("iajb,a,b->ij", blocks, u, u))
    drawn = torch.stack([direction(2, seed) for seed in range(4000)])
    second = drawn.T @ drawn / len(drawn)
    assert torch.allclose(second, torch.eye(2) / 2, atol=0.05)


def test_read_outs_of_what_is_no_tensor_and_unknown_names_raise():
    with pytest.raises(ModelError, match="is a tuple"):
        named_readout("sum").function((1, 2))
    with pytest.raises(ModelError, match=r"'best'.* is not known\. Choose one of logsumexp"):
        named_readout("best")


@pytest.mark.parametrize("name", MEANINGS)
def test_read_outs_run_under_vmap(name):
    model, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(5, 3)
    plan = ps.EmpiricalNTK(model, readout=named_readout(name).function).plan(x)
    assert "one point at a time" not in plan.method
