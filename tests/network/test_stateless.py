import pytest
import torch
from torch import nn

from priorscope.errors import ModelError
from priorscope.network.stateless import call, check_mode, tensors
from tests.cases import EMPIRICAL


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


@pytest.mark.parametrize(
    ("layer", "cause"),
    [
        (nn.BatchNorm1d(3), "mixes the batch"),
        (nn.BatchNorm1d(3, track_running_stats=False).eval(), "no running statistics"),
        (nn.Dropout(0.5), "random"),
        (nn.LSTM(3, 3, num_layers=2, dropout=0.1), "random"),
        (nn.MultiheadAttention(4, 2, dropout=0.1), "random"),
        (nn.RReLU(), "random"),
    ],
)
def test_random_and_batch_mixing_modules_are_named(layer, cause):
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(layer))
    with pytest.raises(ModelError, match=f"1.0.*{cause}"):
        check_mode(model)


def test_modules_that_are_neither_pass():
    check_mode(nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5)).eval())
    check_mode(nn.Sequential(nn.Dropout(0.0), nn.LayerNorm(3)))
