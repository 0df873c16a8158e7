"""Bad models and bad inputs: each raises an error of the tree that names place, cause and remedy; none is computed."""

import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import priorscope as ps
from priorscope.errors import DataError, ModelError, NoRuleError, NotExactError, PriorscopeWarning, RatesError
from tests.unchecked import messages

INIT = ps.Initialization(2.0, 0.1)


class Written(nn.Module):
    """Three layers, and the forward as a function of them."""

    def __init__(self, forward=lambda m, x: m.c(m.b(m.a(x).relu()).relu()), **parts):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 1)
        for name, part in parts.items():
            setattr(self, name, part)
        self.written = forward

    def forward(self, x):
        return self.written(self, x)


class Running(nn.Module):
    def forward(self, x):
        return torch.cumsum(x, -1)


class ShiftedLinear(nn.Linear):
    def forward(self, x):
        return super().forward(x) + x.sum()


class SortedConvolution(nn.Conv2d):
    def forward(self, x):
        return super().forward(x).sort(-1).values


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def changed(change):
    model = Written()
    change(model)
    return model


def statistics():
    norm = nn.BatchNorm1d(8)
    nn.init.normal_(norm.running_mean)
    return nn.Sequential(nn.Linear(3, 8), norm, nn.ReLU(), nn.Linear(8, 1)).eval()


def image(*layers):
    return nn.Sequential(nn.Conv2d(2, 4, 3), *layers)


def in_place(change):
    """The model whose first layer's outputs are changed in place."""

    def forward(m, x):
        h = m.a(x)
        change(m, h)
        return m.c(h.relu())

    return Written(forward)


def _out(m, x):
    h = m.a(x)
    out = torch.zeros_like(h)
    torch.add(h, h, out=out)
    return m.c(out)


def _view(m, x):
    h = m.a(x)
    h.view(-1).relu_()
    return m.c(h)


def _set(m, h):
    h[:, 0] = 0


def _set_input(m, x):
    x[:, 0] = 0
    return m.c(m.a(x).relu())


def _more(m, x):
    return m.c(m.a(x).relu()) if len(x) > 2 else m.c(m.b(x))


PICTURE = (4, 2, 4, 4)
MODELS = {
    "unknown module": (lambda: Written(lambda m, x: m.c(m.o(m.a(x))), o=Running()), NoRuleError, "cumsum` in `o`"),
    "max pooling": (
        lambda: image(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 1)),
        *(NoRuleError, r"`1` is nn\.MaxPool2d: no infinite-width rule\. Use nn\.AvgPool2d", PICTURE),
    ),
    "max pooling, function": (
        lambda: image(Written(lambda m, x: F.max_pool2d(x, 2)), nn.Flatten(), nn.Linear(4, 1)),
        *(NoRuleError, "max_pool2d` in `1`", PICTURE),
    ),
    "a subclass's own forward": (
        lambda: nn.Sequential(ShiftedLinear(3, 4), nn.ReLU(), nn.Linear(4, 1)),
        *(NoRuleError, "in `0`, test_bad_input.py"),
    ),
    "a subclass of a convolution": (
        lambda: nn.Sequential(SortedConvolution(2, 4, 3), nn.Flatten(), nn.Linear(16, 1)),
        *(NoRuleError, r"sort` in `0`, test_bad_input\.py", PICTURE),
    ),
    "a hook": (
        lambda: changed(lambda m: m.a.register_forward_hook(lambda m, args, out: out.sort(-1).values)),
        *(NoRuleError, "sort` in `a`"),
    ),
    "a pre-hook": (
        lambda: changed(lambda m: m.b.register_forward_pre_hook(lambda m, args: (args[0].cumsum(-1),))),
        *(NoRuleError, "cumsum` in"),
    ),
    "a backward hook": (
        lambda: changed(lambda m: m.a.register_full_backward_hook(lambda m, before, after: None)),
        *(NotExactError, "`a` "),
    ),
    "weight_norm": (
        lambda: changed(lambda m: nn.utils.parametrizations.weight_norm(m.b)),
        *(NoRuleError, "in `b`: uses a computed tensor as its weight"),
    ),
    "spectral_norm": (
        lambda: changed(lambda m: nn.utils.parametrizations.spectral_norm(m.b)),
        *(NotExactError, "`b.parametrizations"),
    ),
    "control flow": (
        lambda: Written(lambda m, x: m.c(m.a(x)) if x.sum() > 0 else m.c(m.b(x))),
        *(NotExactError, r"reads the value of a tensor in Python \(__bool__\)"),
    ),
    "a number of the data": (lambda: Written(lambda m, x: m.c(m.a(x)) * x.max().item()), NotExactError, r"\(item\)"),
    "numpy": (lambda: Written(lambda m, x: m.c(torch.tensor(m.a(x).detach().numpy()))), NotExactError, r"\(numpy\)"),
    "times the batch's size": (
        lambda: Written(lambda m, x: m.c(m.a(x).relu()) * x.shape[0]),
        *(NotExactError, "does not do the same for 13 and for 2 points"),
    ),
    "over the batch's size": (
        lambda: Written(lambda m, x: m.c(m.a(x).relu()) / len(x)),
        *(NotExactError, "does not do the same for 13 and for 2 points"),
    ),
    "branches by the batch's size": (lambda: Written(_more), NotExactError, "does not do the same for 13"),
    "the batch's mean": (
        lambda: Written(lambda m, x: m.c((h := m.a(x)) - h.mean(0))),
        NoRuleError,
        "axis of the points",
    ),
    "the data's mean": (lambda: Written(lambda m, x: m.c(m.a(x - x.mean(0)))), NoRuleError, "axis of the points"),
    "points in another order": (
        lambda: Written(lambda m, x: m.c(m.a(x).relu().flip(0))),
        NoRuleError,
        "axis of the points",
    ),
    "points that are rolled": (lambda: Written(lambda m, x: m.c(m.a(x).roll(1, 0))), NoRuleError, "axis of the points"),
    "data in another order": (lambda: Written(lambda m, x: m.c(m.a(x.flip(0)))), NoRuleError, "the other points"),
    "random numbers": (lambda: Written(lambda m, x: m.c(m.a(x) + torch.randn(3))), NotExactError, "random or unset"),
    "two layers with one weight": (
        lambda: changed(lambda m: setattr(m.b, "weight", m.a.weight)),
        *(NoRuleError, r"`b` \(nn\.Linear\): uses `a\.weight`, which `a`"),
    ),
    "a module used twice": (
        lambda: Written(lambda m, x: m.c(m.b(m.b(m.a(x))))),
        NoRuleError,
        r"`b` \(nn\.Linear\): uses `b\.",
    ),
    "BatchNorm in training mode": (
        lambda: nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)).train(),
        *(NoRuleError, r"`1` \(nn\.BatchNorm1d\): depends on the batch"),
    ),
    "BatchNorm's statistics": (statistics, NoRuleError, "has statistics of data"),
    "GroupNorm": (
        lambda: nn.Sequential(nn.Linear(3, 8), nn.GroupNorm(2, 8), nn.Linear(8, 1)),
        *(NoRuleError, "normalises several groups"),
    ),
    "InstanceNorm": (
        lambda: image(nn.InstanceNorm2d(4), nn.Flatten(), nn.Linear(16, 1)),
        *(NoRuleError, r"nn\.InstanceNorm2d", PICTURE),
    ),
    "dropout in training mode": (
        lambda: nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1)).train(),
        *(NoRuleError, r"`1` \(nn\.Dropout\): draws dropout masks"),
    ),
    "a custom Function": (
        lambda: Written(lambda m, x: m.c(Straight.apply(m.a(x)))),
        NotExactError,
        "autograd.Function",
    ),
    "no random layers": (nn.ReLU, NoRuleError, "no tensor that random layers make"),
    "images as outputs": (image, NoRuleError, "has 4 axes", PICTURE),
    "a dictionary": (lambda: Written(lambda m, x: {"y": m.c(m.a(x))}), NoRuleError, "of which no part was chosen"),
    "one number": (lambda: Written(lambda m, x: m.c(m.a(x)).sum()), NoRuleError, "axis of the points"),
    "item assignment": (lambda: in_place(_set), NoRuleError, "__setitem__.*changes a tensor in place"),
    "item assignment to the data": (lambda: Written(_set_input), NoRuleError, "__setitem__"),
    "fill_": (lambda: in_place(lambda m, h: h.fill_(0)), NoRuleError, "fill_.*changes a tensor in place"),
    "copy_": (lambda: in_place(lambda m, h: h.copy_(m.b(h))), NoRuleError, "copy_.*changes a tensor in place"),
    "masked_fill_": (lambda: in_place(lambda m, h: h.masked_fill_(h < 0, 0)), NoRuleError, "changes a tensor in place"),
    "data.relu_": (lambda: in_place(lambda m, h: h.data.relu_()), NotExactError, r"reads \.data"),
    "detach().relu_": (lambda: in_place(lambda m, h: h.detach().relu_()), NotExactError, "was changed in place"),
    "a view in place": (lambda: Written(_view), NotExactError, "a view of a tensor that was changed in place"),
    "out=": (lambda: Written(_out), ModelError, "out="),
}


def quiet(model, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PriorscopeWarning)
        return ps.infinite_width(model, INIT, **options)


@pytest.mark.parametrize("name", MODELS)
def test_models(name):
    make, error, cause, *shape = MODELS[name]
    limit = quiet(make())
    x = torch.randn(*(shape[0] if shape else (4, 3)))
    for call in (lambda: limit(x), lambda: limit(x, x[:2]), lambda: limit.nngp(x), lambda: limit.ntk.diagonal(x)):
        with pytest.raises(error, match=cause) as raised:
            call()
        assert raised.value.place
        assert raised.value.remedy


def _relu(m, x):
    h = m.a(x)
    h.relu_()
    return m.c(h)


def _sum(m, x):
    h = m.a(x).relu()
    h += m.b(x)
    return m.c(h)


def _scaled(m, x):
    return m.c(m.a(x).mul_(2).add_(1).relu_())


IN_PLACE = {
    "relu_": (_relu, lambda m, x: m.c(m.a(x).relu())),
    "+=": (_sum, lambda m, x: m.c(m.a(x).relu() + m.b(x))),
    "mul_, add_": (_scaled, lambda m, x: m.c((2 * m.a(x) + 1).relu())),
    "an input": (lambda m, x: m.c(m.a(x.mul_(2)).relu()), lambda m, x: m.c(m.a(2 * x).relu())),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_operations_that_are_exact(name):
    x = torch.randn(4, 3)
    before = x.clone()
    found, expected = (quiet(Written(forward))(x) for forward in IN_PLACE[name])
    assert torch.equal(x, before)
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-14)


INPUTS = {
    "complex": (lambda: torch.randn(4, 3, dtype=torch.complex128), DataError, "complex128"),
    "NaN": (lambda: torch.full((4, 3), math.nan), DataError, "12 entries that are NaN or infinite"),
    "infinite": (lambda: torch.full((4, 3), math.inf), DataError, "12 entries that are NaN or infinite"),
    "no points": (lambda: torch.randn(0, 3), DataError, "is empty"),
    "features": (lambda: torch.randn(4, 5), ModelError, "does not run on the example"),
    "integers": (lambda: torch.randint(0, 3, (4, 3)), ModelError, "does not run on the example"),
    "truth values": (lambda: torch.randn(4, 3) > 0, DataError, "bool"),
    "one axis": (lambda: torch.randn(3), DataError, "one axis"),
    "a string": (lambda: "abc", DataError, "no tensor"),
    "None": (lambda: None, DataError, "no tensor"),
    "two inputs": (lambda: (torch.randn(4, 3), torch.randn(4, 3)), ModelError, "does not run on the example"),
    "another keyword": (lambda: {"q": torch.randn(4, 3)}, ModelError, "does not run on the example"),
    "too large": (lambda: torch.full((4, 3), 1e200), NoRuleError, "too large for torch.float64"),
}


@pytest.mark.parametrize("name", INPUTS)
def test_inputs(name):
    make, error, cause = INPUTS[name]
    limit = quiet(Written())
    limit(torch.randn(4, 3))
    with pytest.raises(error, match=cause) as raised:
        limit(make())
    assert raised.value.place
    assert raised.value.remedy


def test_second_inputs():
    limit, x = quiet(Written()), torch.randn(4, 3)
    for other in (torch.randn(2, 4), x.float(), math.nan * x, x[:0], torch.ones(2, 3, dtype=torch.long)):
        with pytest.raises(DataError, match="x2"):
            limit(x, other)


SETTINGS = {
    "a negative variance": (lambda m: ps.Initialization(-1.0), RatesError, "weight_variance: is -1.0"),
    "a negative bias": (lambda m: ps.Initialization(1.0, -1.0), RatesError, "bias_variance"),
    "no number": (lambda m: ps.Initialization("a"), RatesError, "is a str that is no number"),
    "several numbers": (lambda m: ps.Initialization(torch.ones(2)), RatesError, "is a Tensor that is no number"),
    "rates": (lambda m: ps.infinite_width(m, INIT, rates="mup"), RatesError, "rates: is not a mapping"),
    "fallback": (lambda m: quiet(m, fallback="nonsense"), DataError, "fallback: is 'nonsense'"),
    "example": (lambda m: quiet(m, example=torch.randn(2, 5)), ModelError, "does not run on the example"),
    "readout": (lambda m: quiet(m, readout=lambda out: out * 2)(torch.randn(4, 3)), ModelError, "readout"),
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.filterwarnings("ignore::priorscope.errors.PriorscopeWarning")
def test_settings(name):
    call, error, cause = SETTINGS[name]
    with pytest.raises(error, match=cause) as raised:
        call(Written())
    assert raised.value.remedy


def test_sizes_in_proportion_to_the_points_are_allowed_where_they_are_sizes():
    model = Written(lambda m, x: m.c(m.a(x).view(x.shape[0], -1).relu().reshape(len(x), 3)))
    assert quiet(model)(torch.randn(4, 3)).nngp.shape == (4, 4)


WRONG_TYPES = """
import torch, priorscope as ps
model = torch.nn.Linear(3, 1)
for call in (
    lambda: ps.infinite_width(model, "he"),
    lambda: ps.infinite_width(model, 2.0),
    lambda: ps.infinite_width(model, ps.Initialization.torch_default(), rates={"weight": "a", "bias": 1.0}),
    lambda: ps.infinite_width(model, fallback=[]),
):
    try:
        call()
    except ps.PriorscopeError as error:
        print(type(error).__name__, error)
"""


def test_settings_of_wrong_types():
    assert messages(WRONG_TYPES) == [
        "RatesError init: is a str. Give an Initialization.",
        "RatesError init: is a float. Give an Initialization.",
        "RatesError the rate of `weight`: is a. Give a finite number of at least 0.",
        "DataError fallback: is []. Give None or one of 'monte-carlo'.",
    ]
