"""Every face of the kernel, on every awkward module, against a loop of plain autograd: no case may raise."""

import pytest
import torch
from torch import Tensor

from priorscope.kernels.empirical import EmpiricalNTK
from tests.kernels.empirical.cases import AWKWARD, Awkward
from tests.oracles import jacobian_by_loop

TOLERANCE = 1e-10


def assert_equal(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    assert not actual.requires_grad
    assert float((actual - expected).abs().max()) <= TOLERANCE * float(expected.abs().max())


def blocks(j1: Tensor, j2: Tensor, c: Tensor | float = 1.0) -> Tensor:
    return torch.einsum("iap,jbp->iajb", j1 * c, j2)


def trace(four: Tensor) -> Tensor:
    return torch.einsum("iaja->ij", four) / four.shape[1]


def names_of(cases: list[Awkward]) -> list[str]:
    return [case.name for case in cases]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("case", AWKWARD, ids=repr)
def test_equals_the_loop(case: Awkward):
    model, x1, x2 = case.model(), case.points(3), case.points(2)
    j1, j2 = (jacobian_by_loop(model, x, None, case.readout) for x in (x1, x2))
    kernel = EmpiricalNTK(model, readout=case.readout)
    assert_equal(kernel.features(x1), j1.flatten(0, 1))
    assert_equal(kernel(x1), trace(blocks(j1, j1)))
    assert_equal(kernel.blocks(x1, x2), blocks(j1, j2))
    check_layers(kernel, model, x1, x2, j1, j2)

    learns = {name: p for name, p in model.named_parameters() if p.requires_grad}
    rates = {name: 0.5 + 2 * float(torch.rand(())) for name, _ in model.named_parameters()}
    c = torch.cat([torch.full((p.numel(),), rates[name]) for name, p in learns.items()])
    rated = EmpiricalNTK(model, readout=case.readout, rates=rates)
    assert_equal(rated.blocks(x1), blocks(j1, j1, c))
    assert_equal(rated(x1, x2), trace(blocks(j1, j2, c)))
    assert_equal(rated.diagonal(x1), trace(blocks(j1, j1, c)).diagonal())
    if hasattr(rated, "per_output"):
        assert_equal(rated.per_output(x1, x2), torch.einsum("iaja->aij", blocks(j1, j2, c)))
    assert all(p.grad is None for p in model.parameters())


def check_layers(kernel: EmpiricalNTK, model, x1, x2, j1: Tensor, j2: Tensor) -> None:
    """The layers add up to the kernel, and each that is a module has the part of that module's own parameters."""
    if not hasattr(kernel, "layers"):
        return
    layers = kernel.layers(x1, x2)
    assert_equal(sum(layers.values()), trace(blocks(j1, j2)))
    columns: dict[str, list[Tensor]] = {}
    learns = {name: p for name, p in model.named_parameters() if p.requires_grad}
    places = torch.arange(j1.shape[-1]).split([p.numel() for p in learns.values()])
    for name, place in zip(learns, places, strict=True):
        columns.setdefault(name.rpartition(".")[0], []).append(place)
    scale = float(trace(blocks(j1, j2)).abs().max())
    for path, part in columns.items():
        if path:
            own = torch.cat(part)
            assert float((layers[path] - trace(blocks(j1[..., own], j2[..., own]))).abs().max()) <= TOLERANCE * scale


def test_no_two_cases_have_one_name():
    assert len(set(names_of(AWKWARD))) == len(AWKWARD)
