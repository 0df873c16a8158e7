"""Laws and rates: the variances drawn are the ones promised, and every parameter has a rate or is named."""

import pytest
import torch
from torch import nn

from priorscope import Initialization
from priorscope.errors import PriorscopeWarning, RatesError
from priorscope.network.initialization import resolve_rates
from priorscope.network.weights import fan_in, layers_with_a_law, random_entries
from tests.cases import Tied, mlp


@pytest.mark.parametrize("init", [Initialization(2.0, 0.3), Initialization.torch_default()])
def test_apply_draws_gaussians_of_the_stated_variances(init):
    model = nn.Sequential(nn.Conv2d(3, 200, 5), nn.Flatten(), nn.Linear(200, 2000))
    init.apply_(model, seed=3)
    model.requires_grad_(False)
    for layer in (model[0], model[2]):
        w, b = init.variances(layer)
        n, m = layer.weight.numel(), layer.bias.numel()
        assert abs(float(layer.weight.square().mean()) * fan_in(layer) / w - 1) < 5 * (2 / n) ** 0.5
        assert abs(float(layer.bias.square().mean()) / b - 1) < 5 * (2 / m) ** 0.5
        kurtosis = float((layer.weight**4).mean() / layer.weight.square().mean() ** 2)
        assert abs(kurtosis - 3) < 5 * (96 / n) ** 0.5


def test_apply_is_in_place_seeded_and_leaves_the_global_generator_alone():
    model = mlp(3, 5, 1)
    weight = model[0].weight
    state = torch.get_rng_state()
    assert Initialization().apply_(model, seed=1) is model
    assert torch.equal(torch.get_rng_state(), state)
    first = weight.clone()
    Initialization().apply_(model, seed=1)
    assert torch.equal(weight, first)
    Initialization().apply_(model, seed=2)
    assert not torch.equal(weight, first)


def test_torch_default_has_the_variances_of_torch():
    layer = nn.Linear(50, 4000).requires_grad_(False)
    w, b = Initialization.torch_default().variances(layer)
    assert abs(float(layer.weight.square().mean()) * 50 / w - 1) < 0.02
    assert abs(float(layer.bias.square().mean()) / b - 1) < 0.1


def test_measured_is_the_second_moment_layer_by_layer():
    model = mlp(3, 50, 1)
    with torch.no_grad():
        model[0].weight.mul_(2)
    measured = Initialization.measured(model)
    w, b = measured.variances(model[0])
    assert w == pytest.approx(3 * float(model[0].weight.detach().square().mean()))
    assert b == pytest.approx(float(model[0].bias.detach().square().mean()))
    with pytest.raises(RatesError, match="not of the measured model"):
        measured.variances(nn.Linear(2, 2))


def test_a_layer_without_a_bias_has_bias_variance_zero():
    assert Initialization(2.0, 0.5).variances(nn.Linear(3, 2, bias=False)).bias == 0


def test_rates_of_both_parameterizations():
    model = mlp(3, 5, 1)
    assert set(Initialization().rates(model).values()) == {1.0}
    rates = Initialization(1.5, 0.2, "ntk").rates(model)
    assert rates == pytest.approx({"0.weight": 0.5, "0.bias": 0.2, "2.weight": 0.3, "2.bias": 0.2})
    model[0].bias.requires_grad_(False)
    assert Initialization(1.5, 0.2, "ntk").rates(model)["0.bias"] == 0.0
    assert resolve_rates(model)["0.bias"] == 0.0


def test_tied_parameters_have_the_name_that_named_parameters_gives():
    model = Tied()
    rates = Initialization(1.0, 0.1, "ntk").rates(model, bias=1.0)
    assert list(rates) == [name for name, _ in model.named_parameters()]


def test_parameters_without_a_law_are_said():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    with pytest.warns(PriorscopeWarning, match=r"`1.weight`, `1.bias`: left as they are"):
        Initialization().apply_(model, seed=0)
    assert bool((model[1].weight == 1).all())
    assert Initialization().rates(model)["1.weight"] == 1.0
    with pytest.raises(RatesError, match=r"`1.weight`.*has no law.*Name it"):
        Initialization(parameterization="ntk").rates(model)
    named = Initialization(parameterization="ntk").rates(model, **{"1.weight": 1.0, "1.bias": 0.5})
    assert named["1.bias"] == 0.5


def test_rates_that_cannot_be_right_raise():
    model = mlp(3, 5, 1)
    with pytest.raises(RatesError, match="`nonsense`: is not a parameter"):
        resolve_rates(model, {"nonsense": 1.0})
    with pytest.raises(RatesError, match="has no rate"):
        resolve_rates(model, {"0.weight": 1.0})
    with pytest.raises(RatesError, match="finite number"):
        Initialization().rates(model, **{"0.weight": -1.0})
    with pytest.raises(RatesError, match="variance"):
        Initialization(weight_variance=-1.0)
    with pytest.raises(RatesError, match="is not a mapping"):
        resolve_rates(model, 3.0)


def test_apply_draws_from_seed_zero_by_default():
    model, again = mlp(3, 4, 1), mlp(3, 4, 1)
    init = Initialization(2.0, 0.1)
    init.apply_(model)
    init.apply_(again, seed=0)
    assert torch.equal(model[0].weight, again[0].weight)
    assert not torch.equal(model[0].weight, init.apply_(again, seed=1)[0].weight)


LAYERS = {
    "transposed": lambda: nn.ConvTranspose2d(60, 40, 5, bias=True),
    "grouped and transposed": lambda: nn.ConvTranspose1d(120, 80, 9, groups=2),
    "recurrent": lambda: nn.RNN(60, 90, 2, batch_first=True),
    "attention": lambda: nn.MultiheadAttention(96, 4),
    "attention of other keys": lambda: nn.MultiheadAttention(96, 4, kdim=60, vdim=70),
    "embedding": lambda: nn.Embedding(90, 80, padding_idx=2),
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_weight_has_the_variance_that_torch_gives_it_and_is_redrawn_with_it(name):
    torch.manual_seed(0)
    layer = LAYERS[name]().requires_grad_(False)
    init = Initialization.torch_default()
    for model in (layer, init.apply_(LAYERS[name](), seed=1).requires_grad_(False)):
        seen = set()
        for _, part in layers_with_a_law(model):
            w, b = init.variances(part)
            moment = float(random_entries(part).square().mean())
            assert moment == pytest.approx(w / fan_in(part), rel=5 * (2 / random_entries(part).numel()) ** 0.5)
            seen.add(id(part.weight))
            bias = getattr(part, "bias", None)
            if bias is not None:
                seen.add(id(bias))
                assert float(bias.square().mean()) == pytest.approx(b, rel=5 * (2 / bias.numel()) ** 0.5)
        assert seen == {id(parameter) for parameter in model.parameters()}
    assert name != "embedding" or bool((layer.weight[2] == 0).all())


def test_an_output_of_a_transposed_convolution_sums_over_channels_and_kernel():
    assert fan_in(nn.ConvTranspose2d(6, 4, (3, 2), groups=2)) == 3 * 6
    assert fan_in(nn.Embedding(7, 3)) == 1
    rates = Initialization(2.0, 0.1, "ntk").rates(nn.RNN(4, 8))
    assert rates == {"weight_ih_l0": 0.5, "weight_hh_l0": 0.25, "bias_ih_l0": 0.1, "bias_hh_l0": 0.1}
