"""The module as a function: arguments, casting, safe calls, outputs, modes."""

import pytest
import torch
from torch import nn

from priorscope.errors import ModelError, NotExactError
from priorscope.network.function import call, cast, check_mode, evaluate, outputs_of, pair_of_points, tensors
from tests.cases import EMPIRICAL, mlp


@pytest.mark.parametrize("case", EMPIRICAL, ids=repr)
def test_a_call_with_other_values_equals_a_model_that_has_them(case):
    model, x = case.model(), case.points(3)
    values = {name: torch.randn_like(tensor) for name, tensor in tensors(model).items()}
    other = case.model()
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            parameter.copy_(values[name])
    before, at_start = {n: t.clone() for n, t in tensors(model).items()}, model(x)
    torch.testing.assert_close(call(model, values, x), other(x))
    assert torch.equal(model(x), at_start), "the model itself is as it was"
    assert all(torch.equal(before[name], tensor) for name, tensor in tensors(model).items())


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 3)

    def forward(self, a, b):
        return self.linear(a) * b


def test_arguments_from_tuples_and_dictionaries():
    a, b = torch.randn(4, 2), torch.randn(4, 3)
    model = Two()
    other = {name: 2 * tensor for name, tensor in tensors(model).items()}
    for x in ((a, b), [a, b], {"b": b, "a": a}):
        assert torch.equal(outputs_of(model, x), model(a, b))
        assert torch.equal(evaluate(model, x), model(a, b))
        torch.testing.assert_close(call(model, other, x), 2 * model(a, b))


def test_floats_are_cast_and_integers_are_not():
    x = {"a": torch.randn(2, dtype=torch.float64, requires_grad=True), "b": torch.arange(2), "c": 1.5}
    done = cast(x, mlp(2, 1).float().parameters())
    assert (done["a"].dtype, done["b"].dtype, done["c"]) == (torch.float32, torch.int64, 1.5)
    assert not done["a"].requires_grad
    same = cast(x, nn.ReLU().parameters())
    assert same["a"].dtype == torch.float64
    assert same["b"] is not None
    assert same["b"].data_ptr() == x["b"].data_ptr()
    assert cast(x, [], copy=True)["b"].data_ptr() != x["b"].data_ptr()


def test_evaluation_is_in_the_models_dtype_and_leaves_inputs_alone():
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 2)).float()
    x = torch.randn(5, 3)
    before = x.clone()
    values = evaluate(model, x)
    assert values.dtype == torch.float64
    assert not values.requires_grad
    assert torch.equal(values, model(x.float()).double())
    assert torch.equal(x, before)
    with pytest.raises(NotExactError):
        evaluate(nn.Dropout(0.5), x)


@pytest.mark.parametrize(
    ("make", "points", "message"),
    [
        (lambda: nn.LSTM(2, 3, batch_first=True), 3, "is a tuple.*readout="),
        (lambda: nn.Sequential(nn.Linear(2, 3), nn.Flatten(0)), 3, "shape .*for 3 points.*readout="),
        (lambda: nn.Linear(5, 3), 3, "does not run on inputs of shape"),
    ],
)
def test_outputs_that_cannot_be_used(make, points, message):
    model = make()
    x = torch.randn(points, 4, 2) if isinstance(model, nn.LSTM) else torch.randn(points, 2)
    with pytest.raises(ModelError, match=message):
        outputs_of(model, x)


def test_integer_outputs_are_an_error():
    with pytest.raises(ModelError, match="dtype"):
        outputs_of(mlp(2, 3), torch.randn(3, 2), readout=lambda out: out.argmax(1))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), r"`1` \(nn\.BatchNorm1d\).*model\.eval\(\)"),
        (nn.Sequential(nn.Dropout(0.1)), r"`0` \(nn\.Dropout\).*model\.eval\(\)"),
        (nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Dropout(0.1))), r"`1\.0` \(nn\.Dropout\).*random"),
        (nn.LSTM(2, 3, num_layers=2, dropout=0.1), r"LSTM.*model\.eval\(\)"),
        (nn.MultiheadAttention(4, 2, dropout=0.1), "random"),
        (nn.RReLU(), "random"),
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
