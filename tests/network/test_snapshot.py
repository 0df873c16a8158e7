"""Snapshots: values and modes of one moment."""

import pytest
import torch
from torch import nn

from priorscope.errors import ModelError
from priorscope.network.snapshot import Snapshot
from tests.cases import EMPIRICAL, mlp


@pytest.mark.parametrize("case", EMPIRICAL, ids=repr)
def test_single_calls_agree_with_the_module_also_with_other_values(case):
    model, x = case.model(), case.points(3)
    snapshot = Snapshot(model)
    other = {name: 1.5 * value + 0.1 for name, value in snapshot.values.items()}
    with snapshot.installed():
        assert torch.allclose(torch.stack([snapshot.single({}, xi) for xi in x]), snapshot.outputs(x), atol=1e-13)
        moved = torch.stack([snapshot.single(other, xi) for xi in x])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5).add_(0.1)
        assert torch.allclose(moved, model(x).reshape(3, -1), atol=1e-12)


def test_a_snapshot_keeps_values_and_modes_and_leaves_the_live_module_as_it_was():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2)).eval()
    x = torch.randn(3, 3)
    before = model(x).detach()
    snapshot = Snapshot(model)
    with torch.no_grad():
        for tensor in [*model.parameters(), model[1].running_mean]:
            tensor += 1.0
    model[0].weight.requires_grad_(False)
    model.train()
    live = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    objects = dict(model.named_parameters()) | dict(model.named_buffers())
    with snapshot.installed():
        assert not model.training
        assert model[0].weight.requires_grad
        assert torch.equal(snapshot.outputs(x), before)
    with pytest.raises(ModelError), snapshot.installed():
        snapshot.outputs(torch.randn(3, 5))
    assert model.training
    assert model[2].training
    assert not model[0].weight.requires_grad
    assert all(torch.equal(live[name], tensor) for name, tensor in model.state_dict().items())
    now = dict(model.named_parameters()) | dict(model.named_buffers())
    assert all(now[name] is tensor for name, tensor in objects.items())


def test_what_the_forward_pass_writes_into_a_buffer_stays_outside():
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 1)
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x):
            self.calls += 1
            return self.linear(x) + self.calls

    model = Counter()
    snapshot, x = Snapshot(model), torch.randn(2, 2)
    with snapshot.installed():
        first = snapshot.outputs(x)
    with snapshot.installed():
        assert torch.equal(snapshot.outputs(x), first)
    assert float(model.calls) == 0


def test_a_replaced_parameter_is_an_error():
    model = mlp(2, 3, 1)
    snapshot = Snapshot(model)
    model[0].weight = nn.Parameter(torch.zeros(3, 2))
    with pytest.raises(ModelError, match=r"`0\.weight`.*replaced"), snapshot.installed():
        pass


def test_its_own_dtype_is_that_of_its_moment():
    model = mlp(2, 1).float()
    snapshot = Snapshot(model)
    model.double()
    x = snapshot.cast({"a": torch.randn(2, dtype=torch.float64), "b": torch.arange(2)})
    assert (x["a"].dtype, x["b"].dtype) == (torch.float32, torch.int64)
    with snapshot.installed():
        assert snapshot.outputs(torch.randn(3, 2, dtype=torch.float32)).dtype == torch.float32


def test_a_readout_makes_the_outputs():
    model, x = nn.LSTM(2, 3, batch_first=True), torch.randn(4, 5, 2)
    snapshot = Snapshot(model, readout=lambda out: out[0][:, -1])
    with snapshot.installed():
        assert torch.equal(snapshot.outputs(x), model(x)[0][:, -1])
        assert torch.allclose(snapshot.single({}, x[1]), model(x)[0][1, -1])


def test_not_a_module_and_a_lazy_module():
    with pytest.raises(ModelError, match=r"nn\.Module"):
        Snapshot(lambda x: x)
    with pytest.raises(ModelError, match="lazy"):
        Snapshot(nn.LazyLinear(3))
