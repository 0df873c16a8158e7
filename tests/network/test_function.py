"""The module as a function: arguments, read-outs, snapshots, modes."""

import pytest
import torch
from torch import nn

from priorscope.errors import ModelError, NotExactError
from priorscope.network.function import Snapshot, check_mode, pair_of_points
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


def test_arguments_from_tuples_and_dictionaries():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 3)

        def forward(self, a, b):
            return self.linear(a) * b

    a, b = torch.randn(4, 2), torch.randn(4, 3)
    model = Two()
    snapshot = Snapshot(model)
    with snapshot.installed():
        for x in ((a, b), [a, b], {"b": b, "a": a}):
            assert torch.equal(snapshot.outputs(x), model(a, b))


def test_floats_are_cast_and_integers_are_not():
    snapshot = Snapshot(mlp(2, 1).float())
    x = snapshot.cast({"a": torch.randn(2, dtype=torch.float64), "b": torch.arange(2)})
    assert (x["a"].dtype, x["b"].dtype) == (torch.float32, torch.int64)


@pytest.mark.parametrize(
    ("make", "points", "message"),
    [
        (lambda: nn.LSTM(2, 3, batch_first=True), 3, "is a tuple.*readout="),
        (lambda: nn.Sequential(nn.Linear(2, 3), nn.Flatten(0)), 3, "shape .*for 3 points.*readout="),
        (lambda: nn.Linear(5, 3), 3, "does not run on inputs of shape"),
    ],
)
def test_outputs_that_cannot_be_used(make, points, message):
    snapshot = Snapshot(make())
    x = torch.randn(points, 4, 2) if isinstance(snapshot.model, nn.LSTM) else torch.randn(points, 2)
    with snapshot.installed(), pytest.raises(ModelError, match=message):
        snapshot.outputs(x)


def test_integer_outputs_are_an_error():
    snapshot = Snapshot(mlp(2, 3), readout=lambda out: out.argmax(1))
    with snapshot.installed(), pytest.raises(ModelError, match="dtype"):
        snapshot.outputs(torch.randn(3, 2))


def test_not_a_module_and_a_lazy_module():
    with pytest.raises(ModelError, match=r"nn\.Module"):
        Snapshot(lambda x: x)
    with pytest.raises(ModelError, match="lazy"):
        Snapshot(nn.LazyLinear(3))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), r"`1` \(nn\.BatchNorm1d\).*model\.eval\(\)"),
        (nn.Sequential(nn.Dropout(0.1)), r"`0` \(nn\.Dropout\).*model\.eval\(\)"),
        (nn.LSTM(2, 3, num_layers=2, dropout=0.1), r"LSTM.*model\.eval\(\)"),
        (nn.BatchNorm1d(3, track_running_stats=False).eval(), "no running statistics"),
    ],
)
def test_modes_that_are_not_exact(module, message):
    with pytest.raises(NotExactError, match=message):
        check_mode(module)


def test_modes_that_are():
    check_mode(nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5)).eval())
    check_mode(nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.0)))


def test_pair_of_points():
    x = torch.arange(6).reshape(3, 2)
    assert pair_of_points(x).tolist() == [[0, 1], [4, 5]]
    assert pair_of_points(x[:1]).tolist() == [[0, 1], [1, 0]]
