"""What depends on each other is never taken as independent, and what differs never as alike: exact, or refused."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from priorscope import Initialization, PriorscopeWarning, infinite_width
from priorscope.errors import DataError, NoRuleError
from tests.kernels.infinite.layers import Written

INIT = Initialization(1.5, 0.1, parameterization="ntk")
WIDTH = 32
VECTORS = torch.randn(3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
LINES = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def nngp(written: Callable[..., Tensor], x: Tensor, **parts: nn.Module) -> Tensor:
    model = INIT.apply_(Written(written, **parts).double(), 0)
    return infinite_width(model, INIT).nngp(x)


def linear(inputs: int = WIDTH, outputs: int = WIDTH) -> nn.Linear:
    return nn.Linear(inputs, outputs)


def first(x: Tensor) -> Tensor:
    """K of the first layer's outputs."""
    return 1.5 * x @ x.T / x.shape[1] + 0.1


@pytest.mark.parametrize(
    "written", [lambda p, q: p + p, lambda p, q: p + q, lambda p, q: p * q, lambda p, q: torch.relu(p + q)]
)
def test_positions_of_one_layer_that_are_unbound_are_dependent(written):
    with pytest.raises(NoRuleError, match=r"same random outputs"):
        nngp(
            lambda m, x: (lambda p: m.o(written(p[0], p[1])))(m.a(x).unbind(2)),
            LINES,
            a=nn.Conv1d(4, WIDTH, 1),
            o=linear(WIDTH, 1),
        )


@pytest.mark.parametrize("layer", [nn.Conv1d, nn.ConvTranspose1d])
def test_depthwise_outputs_depend_on_what_they_read(layer):
    parts = {"a": nn.Conv1d(4, WIDTH, 1), "o": linear(WIDTH, 1)}

    def depthwise() -> nn.Module:
        return layer(WIDTH, WIDTH, 1, groups=WIDTH)

    with pytest.raises(NoRuleError, match="same random outputs"):
        nngp(lambda m, x: (lambda h: m.o((h * m.d(h))[:, :, 0]))(m.a(x)), LINES, d=depthwise(), **parts)
    with pytest.raises(NoRuleError, match="same random outputs"):
        nngp(
            lambda m, x: (lambda h: m.o((m.d(h) * m.e(h))[:, :, 0]))(m.a(x)),
            LINES,
            d=depthwise(),
            e=depthwise(),
            **parts,
        )
    # Sums are uncorrelated all the same.
    k = 1.5 * LINES[:, :, 0] @ LINES[:, :, 0].T / 4 + 0.1
    made = nngp(lambda m, x: (lambda h: m.o((h + m.d(h))[:, :, 0]))(m.a(x)), LINES, d=depthwise(), **parts)
    assert torch.allclose(made, 1.5 * (k + 1.5 * k + 0.1) + 0.1, rtol=1e-12)


UNLIKE = {
    "a slice": lambda h: h[:, WIDTH:],
    "a chunk": lambda h: h.chunk(2, 1)[1],
    "a narrow": lambda h: h.narrow(1, WIDTH, WIDTH),
}


@pytest.mark.parametrize("name", UNLIKE)
def test_a_part_of_unlike_coordinates_is_refused(name):
    def written(m: nn.Module, x: Tensor) -> Tensor:
        return m.o(UNLIKE[name](torch.cat([3 * torch.relu(m.a(x)), 0.1 * m.b(x)], 1)))

    with pytest.raises(NoRuleError, match="differ"):
        nngp(written, VECTORS, a=linear(5), b=linear(5), o=linear(WIDTH, 1))


def test_other_places_where_unlike_coordinates_meet_are_refused():
    with pytest.raises(NoRuleError, match="differ"):
        nngp(
            lambda m, x: m.o(m.r(x.mT)[0][:, -1, :WIDTH]),
            LINES,
            r=nn.RNN(4, WIDTH, batch_first=True, bidirectional=True),
            o=linear(WIDTH, 1),
        )
    with pytest.raises(NoRuleError, match="differ"):
        nngp(
            lambda m, x: m.o(torch.relu(m.a(x)).transpose(1, 2).flatten(1)[:, : 3 * WIDTH]),
            LINES,
            a=nn.Conv1d(4, WIDTH, 1),
            o=linear(3 * WIDTH, 1),
        )
    with pytest.raises(NoRuleError, match="differ"):
        nngp(
            lambda m, x: m.o(torch.cos(m.g(torch.cat([2 * m.a(x), 0.05 * m.b(x)], 1)))[:, :, 0]),
            LINES,
            a=nn.Conv1d(4, WIDTH, 1),
            b=nn.Conv1d(4, WIDTH, 1),
            g=nn.Conv1d(2 * WIDTH, 2 * WIDTH, 1, groups=2),
            o=linear(2 * WIDTH, 1),
        )


def test_unlike_positions_side_by_side_are_no_gaussian():
    x = torch.randn(2, 3, 2, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    parts = {"a": linear(5), "o": linear(2 * WIDTH, 1)}
    unlike = x * torch.tensor([0.1, 2.0], dtype=torch.float64)[:, None]
    with pytest.raises(NoRuleError, match="not Gaussian"):
        nngp(lambda m, x: m.o(torch.cos(m.a(x).flatten(2)))[:, 0], unlike, **parts)
    alike = x[:, :, :1].expand(-1, -1, 2, -1)
    made = nngp(lambda m, x: m.o(torch.cos(m.a(x).flatten(2)))[:, 0], alike.contiguous(), **parts)
    k = first(x[:, 0, 0])
    v = k.diagonal()
    cosine = torch.exp(-(v[:, None] + v[None]) / 2) * torch.cosh(k)
    assert torch.allclose(made, 1.5 * cosine + 0.1, rtol=1e-12)


def test_rows_that_moved_are_not_told_apart():
    half = WIDTH // 2

    def rolled(m: nn.Module, x: Tensor) -> Tensor:
        h = m.a(x)
        return m.o(h.roll(half, 1).chunk(2, 1)[0] + h.chunk(2, 1)[1])

    def sliced(m: nn.Module, x: Tensor) -> Tensor:
        h = m.a(x)
        return m.p(h[:, half:].chunk(2, 1)[0] + h.chunk(4, 1)[2])

    for written in (rolled, sliced):
        with pytest.raises(NoRuleError, match="same random outputs"):
            nngp(written, VECTORS, a=linear(5), o=linear(half, 1), p=linear(half // 2, 1))

    def apart(m: nn.Module, x: Tensor) -> Tensor:
        h = m.a(x)
        return m.p(h[:, half:].chunk(2, 1)[0] + h.chunk(4, 1)[3])

    made = nngp(apart, VECTORS, a=linear(5), o=linear(half, 1), p=linear(half // 2, 1))
    assert torch.allclose(made, 1.5 * 2 * first(VECTORS) + 0.1, rtol=1e-12)


def test_few_channels_in_a_group_are_warned_of():
    model = nn.Sequential(nn.Conv1d(4, 32, 1), nn.ReLU(), nn.Conv1d(32, 32, 1, groups=16), nn.Flatten())
    model.append(nn.Linear(32 * 6, 1))
    limit = infinite_width(INIT.apply_(model.double(), 0), INIT)
    with pytest.warns(PriorscopeWarning, match=r"`2.weight` reads 2 channels in each group"):
        limit(LINES)


def test_the_order_of_joined_positions_does_not_change_what_gains_do():
    parts = {"a": linear(4), "b": linear(4), "n": nn.LayerNorm(WIDTH), "o": linear(WIDTH, 1)}
    found = []
    for order in (1, -1):

        def written(m: nn.Module, x: Tensor, order: int = order) -> Tensor:
            joined = torch.cat([m.b(x.mT), m.n(m.a(x.mT))][::order], 1)
            return m.o(torch.cos(joined)).mean(1)

        model = Written(written, **parts).double()
        with pytest.warns(PriorscopeWarning, match="no law"):
            INIT.apply_(model, 0)
        rates = INIT.rates(model, **{"n.weight": 5.0, "n.bias": 0.0})
        try:
            found.append(infinite_width(model, INIT, rates).ntk(LINES))
        except NoRuleError as error:
            found.append(str(error.cause))
    assert "gains reach" in found[0]
    assert found[0] == found[1]


def test_gains_of_positions_are_refused():
    model = Written(lambda m, x: m.o(m.n(m.a(x.mT))).mean(1), a=linear(4), n=nn.GroupNorm(1, 6), o=linear(WIDTH, 1))
    with pytest.warns(PriorscopeWarning, match="no law"):
        INIT.apply_(model.double(), 0)
    with pytest.raises(NoRuleError, match="gains for positions"):
        infinite_width(model, INIT, dict.fromkeys(dict(model.named_parameters()), 1.0)).ntk(LINES)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_rounding_is_refused(dtype):
    with pytest.raises(NoRuleError, match="whole numbers or truth values"):
        nngp(lambda m, x: m.o(m.a(x).to(dtype).to(x.dtype)), VECTORS, a=linear(5), o=linear(WIDTH, 1))


def test_attributes_that_change_between_calls_are_seen():
    model = Written(lambda m, x: m.o(torch.relu(m.a(x)) * m.scale), a=linear(5), o=linear(WIDTH, 1))
    model.scale = 1.0
    limit = infinite_width(INIT.apply_(model.double(), 0), INIT)
    before = limit.nngp(VECTORS)
    model.scale = 3.0
    assert torch.allclose(limit.nngp(VECTORS) - 0.1, 9 * (before - 0.1), rtol=1e-12)


def test_half_precision_and_the_other_name_of_an_axis():
    model = Written(lambda m, x: m.o(F.relu(m.a(x)).mean(axis=2)), a=nn.Conv1d(4, WIDTH, 1), o=linear(WIDTH, 1))
    model = INIT.apply_(model.double(), 0)
    exact = infinite_width(model, INIT).nngp(LINES)
    assert torch.allclose(exact, infinite_width(model, INIT).nngp(LINES.mT.contiguous().mT), rtol=1e-12)
    with pytest.raises(DataError, match=r"bfloat16.*Give float32"):
        infinite_width(model.bfloat16(), INIT).nngp(LINES.bfloat16())


def test_a_gate_of_channels_whose_positions_were_dropped_is_refused_by_name():
    def gated(m, x):
        h = m.a(x).relu()
        return m.o((h * m.g(h.mean(2)).sigmoid()[:, :, None]).mean(2))

    with pytest.raises(NoRuleError, match="keepdim=True"):
        nngp(gated, LINES, a=nn.Conv1d(4, WIDTH, 1), g=linear(), o=linear(WIDTH, 1))


def test_a_gate_of_rows_is_refused_by_name():
    images = torch.randn(5, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def gated(m, x):
        h = m.a(x).relu()
        return m.o((h * m.g(h.mean(3, keepdim=True)).sigmoid()).mean((2, 3)))

    layers = {"a": nn.Conv2d(2, WIDTH, 1), "g": nn.Conv2d(WIDTH, WIDTH, 1), "o": linear(WIDTH, 1)}
    with pytest.raises(NoRuleError, match="a single position"):
        nngp(gated, images, **layers)
