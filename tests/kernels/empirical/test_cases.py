"""Every face of the kernel, on every awkward module, against a loop of plain autograd: no case may raise."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from priorscope.kernels.empirical import EmpiricalNTK
from tests.kernels.empirical.cases import EVERY, Awkward
from tests.oracles import jacobian_by_loop

TOLERANCE = 1e-10


pytestmark = [
    # What torch says of the modules themselves.
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
    pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True to a scalar"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning"),
]


def assert_equal(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    assert not actual.requires_grad
    assert float((actual - expected).abs().max()) <= TOLERANCE * float(expected.abs().max())


def blocks(j1: Tensor, j2: Tensor, c: Tensor | float = 1.0) -> Tensor:
    return torch.einsum("iap,jbp->iajb", j1 * c, j2)


def trace(four: Tensor) -> Tensor:
    return torch.einsum("iaja->ij", four) / four.shape[1]


def random_rates(model: nn.Module) -> tuple[dict[str, float], Tensor]:
    """A positive c for every parameter, by name and by column of the Jacobian."""
    rates = {name: 0.5 + 2 * float(torch.rand(())) for name, _ in model.named_parameters()}
    learns = [(name, p.numel()) for name, p in model.named_parameters() if p.requires_grad]
    return rates, torch.cat([torch.full((size,), rates[name]) for name, size in learns])


def columns_of_layers(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """(layer, columns of its parameters in the Jacobian)."""
    learns = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    places = torch.arange(sum(learns.values())).split(list(learns.values()))
    layers = [name.rpartition(".")[0] or name for name in learns]
    for layer in dict.fromkeys(layers):
        yield layer, torch.cat([place for place, own in zip(places, layers, strict=True) if own == layer])


def by_grams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every parameter goes by Grams that can: these models are so small that plans prefer Jacobians."""
    for choice in ("_cheapest", "_smallest"):
        monkeypatch.setattr(f"priorscope.kernels.empirical.plan.{choice}", lambda share, work: share.ways(work.form)[0])


@pytest.mark.parametrize("case", EVERY, ids=repr)
def test_equals_the_loop(case: Awkward, monkeypatch):
    model, x = case.model(), case.points(3)
    j = jacobian_by_loop(model, x, None, case.readout)
    rates, c = random_rates(model)
    kernel = EmpiricalNTK(model, readout=case.readout, rates=rates)
    assert_equal(kernel(x), trace(blocks(j, j, c)))
    assert all(p.grad is None for p in model.parameters())
    by_grams(monkeypatch)
    assert_equal(kernel.blocks(x), blocks(j, j, c))


@pytest.mark.slow
@pytest.mark.parametrize("grams", [False, True])
@pytest.mark.parametrize("case", EVERY, ids=repr)
def test_every_other_face_equals_the_loop(case: Awkward, grams: bool, monkeypatch):
    if grams:
        by_grams(monkeypatch)
    model, x1, x2 = case.model(), case.points(3), case.points(2)
    j1, j2 = (jacobian_by_loop(model, x, None, case.readout) for x in (x1, x2))
    rates, c = random_rates(model)
    rated = EmpiricalNTK(model, readout=case.readout, rates=rates)
    assert_equal(rated.features(x1), j1.flatten(0, 1))
    assert_equal(rated.blocks(x1), blocks(j1, j1, c))
    assert_equal(rated.blocks(x1, x2), blocks(j1, j2, c))
    assert_equal(rated.diagonal(x1), trace(blocks(j1, j1, c)).diagonal())
    assert_equal(rated.per_output(x1, x2), torch.einsum("iaja->aij", blocks(j1, j2, c)))
    kernel = EmpiricalNTK(model, readout=case.readout)
    assert_equal(kernel(x1, x2), trace(blocks(j1, j2)))
    layers = kernel.layers(x1, x2)
    scale = float(trace(blocks(j1, j2)).abs().max())
    assert_equal(sum(layers.values()), trace(blocks(j1, j2)))
    assert set(layers) == {layer for layer, _ in columns_of_layers(model)}
    for layer, own in columns_of_layers(model):
        part = trace(blocks(j1[..., own], j2[..., own]))
        assert float((layers[layer] - part).abs().max()) <= TOLERANCE * scale


def test_no_two_cases_have_one_name():
    names = [case.name for case in EVERY]
    assert len(set(names)) == len(names)
