"""Layers against slow oracles: autograd through layers that are linear in their weights, and sums over times."""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from priorscope import Initialization
from priorscope.errors import DataError, ModelError, NoRuleError, PriorscopeWarning
from priorscope.kernels.infinite import infinite_width
from tests.cases import mlp
from tests.kernels.infinite.layers import ADJACENCY, Written, sample
from tests.kernels.infinite.oracles import expectation
from tests.oracles import ntk_by_loop

INIT = Initialization(1.5, 0.1, "ntk")


def limit_of(model, init=INIT, seed=0, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PriorscopeWarning)
        init.apply_(model.eval(), seed)
    return infinite_width(model, init, **options)


# A first layer is linear in its weights: c = σ²/fan_in makes J diag(c) Jᵀ its exact covariance, for any weights.

FIRST = {
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(3, 1, 4, 3, 2, 1, dilation=2), (3, 5)),
    "ConvTranspose1d without a bias": (lambda: nn.ConvTranspose1d(3, 1, 2, bias=False), (3, 5)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(2, 1, (3, 2), (2, 1), (1, 0)), (2, 3, 4)),
    "ConvTranspose3d": (lambda: nn.ConvTranspose3d(2, 1, 2, 2), (2, 2, 1, 2)),
    "ConvTranspose1d by F": (
        lambda: Written(
            lambda m, x: F.conv_transpose1d(x, m.a.weight, m.a.bias, 2, padding=1), a=nn.ConvTranspose1d(3, 1, 3)
        ),
        (3, 4),
    ),
    "Linear at positions": (lambda: nn.Linear(3, 1), (4, 3)),
}


@pytest.mark.parametrize("name", FIRST)
def test_first_layers_are_what_their_weights_make(name):
    make, shape = FIRST[name]
    layer = make()
    x = torch.randn(3, *shape)
    model = Written(lambda m, x: m.layer(x).flatten(1), layer=layer)
    limit = limit_of(model)
    expected = ntk_by_loop(model, x, x, INIT.rates(model)).diagonal(dim1=1, dim2=3).mean(-1)
    torch.testing.assert_close(limit.ntk(x), expected, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(limit.nngp(x), expected, rtol=1e-10, atol=1e-14)
    axes = (1,) if name == "Linear at positions" else tuple(range(2, x.ndim))
    pooled = Written(lambda m, x: m.layer(x).sum(axes), layer=layer)
    expected = ntk_by_loop(pooled, x, x, INIT.rates(pooled))[:, 0, :, 0]
    torch.testing.assert_close(limit_of(pooled).ntk(x), expected, rtol=1e-10, atol=1e-13)


def test_embeddings_know_ids_alone():
    ids = torch.tensor([[0, 1], [0, 2], [3, 3], [0, 1]])
    model = Written(lambda m, x: m.e(x).flatten(1), e=nn.Embedding(4, 8, padding_idx=3))
    found = limit_of(model)(ids)
    equal = torch.tensor([[2.0, 1, 0, 2], [1, 2, 0, 1], [0, 0, 0, 0], [2, 1, 0, 2]]) / 2
    torch.testing.assert_close(found.nngp, 1.5 * equal, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.ntk, 1.5 * equal, rtol=1e-12, atol=0)
    assert bool((model.e.weight[3] == 0).all())
    with pytest.raises(ModelError, match="does not run on the example"):
        limit_of(mlp(2, 8, 1))(ids)


def test_embeddings_by_a_function_are_the_layer_s():
    ids = torch.tensor([[0, 1, 2], [0, 2, 3], [3, 3, 1]])
    parts = {"e": nn.Embedding(4, 8), "p": nn.Embedding(3, 8), "b": nn.Linear(8, 8), "c": nn.Linear(8, 1)}

    def by_layers(m, x):
        return m.c(m.b(m.e(x) + m.p(torch.arange(3))).relu().mean(1))

    def by_functions(m, x):
        return m.c(m.b(F.embedding(x, m.e.weight) + F.embedding(torch.arange(3), m.p.weight)).relu().mean(1))

    layers, functions = (limit_of(Written(written, **parts))(ids) for written in (by_layers, by_functions))
    for one, other in zip(layers, functions, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=0)
    for options in ({"max_norm": 1.0}, {"scale_grad_by_freq": True}, {"padding_idx": 0}):
        wrong = Written(lambda m, x, o=options: m.c(F.embedding(x, m.e.weight, **o).mean(1)), **parts)
        with pytest.raises(NoRuleError, match=r"options|padding_idx"):
            limit_of(wrong)(ids)
        places = Written(
            lambda m, x, o=options: m.c((m.e(x) + F.embedding(torch.arange(3), m.p.weight, **o)).mean(1)), **parts
        )
        with pytest.raises(NoRuleError, match="has no law"):
            limit_of(places)(ids)


# Recurrent networks: one pair of times after the other


def recurrent(x1, x2, w, b, cw, cb, f, slope):
    """K and Θ of h at the last times; both biases are b, both rates cb."""

    def state(a, s, c, t):
        """(E h h', Θ) between time s of a and time t of c."""
        if s == 0 or t == 0:
            return 0.0, 0.0
        k, tangent = inside(a, s, c, t)
        v1, v2 = inside(a, s, a, s)[0], inside(c, t, c, t)[0]
        return expectation(f, f, v1, v2, k), tangent * expectation(slope, slope, v1, v2, k)

    def inside(a, s, c, t):
        before, tangent = state(a, s - 1, c, t - 1)
        reads = float(a[s - 1] @ c[t - 1]) / len(a[0])
        return w * reads + w * before + 2 * b, w * tangent + cw * (reads + before) + 2 * cb

    return np.array([[state(x1, s, x2, t) for t in range(1, len(x2) + 1)] for s in range(1, len(x1) + 1)])


@pytest.mark.parametrize(
    ("nonlinearity", "f", "slope"),
    [
        ("relu", lambda u: np.maximum(u, 0), lambda u: (u > 0) * 1.0),
        ("tanh", np.tanh, lambda u: 1 / np.cosh(u) ** 2),
    ],
)
def test_recurrent_networks_time_by_time(nonlinearity, f, slope):
    x = torch.randn(2, 3, 2)
    rnn = nn.RNN(2, 16, nonlinearity=nonlinearity, batch_first=True)
    expected = recurrent(x[0].numpy(), x[1].numpy(), 1.5, 0.1, 1.5, 0.1, f, slope)
    for read, weights in (
        (lambda h, last: h.mean(1), np.full((3, 3), 1 / 9)),
        (lambda h, last: last[-1], np.diag([0, 0, 1.0])[:, ::1]),
        (lambda h, last: h[:, 1], np.diag([0, 1.0, 0])),
    ):
        model = Written(lambda m, x, read=read: m.c(read(*m.r(x))), r=rnn, c=nn.Linear(16, 1))
        k, tangent = ((weights * expected[..., i]).sum() for i in range(2))
        found = limit_of(model)(x[:1], x[1:])
        assert float(found.nngp) == pytest.approx(1.5 * k + 0.1, rel=1e-6)
        assert float(found.ntk) == pytest.approx(1.5 * (tangent + k) + 0.1, rel=1e-6)


def test_recurrent_networks_refuse_by_name():
    x = torch.randn(2, 3, 2)
    last = lambda m, x: m.c(m.r(x)[0][:, -1])  # noqa: E731
    for make, cause in (
        (lambda: nn.GRU(2, 8, batch_first=True), "gates"),
        (lambda: nn.LSTM(2, 8, batch_first=True), "gates"),
        (lambda: nn.RNN(2, 8), "times as its first axis"),
    ):
        with pytest.raises(NoRuleError, match=cause):
            limit_of(Written(last, r=make(), c=nn.Linear(8, 1))).ntk(x)

    def unrolled(m, x):
        h = m.r(x[:, 0])
        return m.c(m.r(x[:, 1], h))

    with pytest.raises(NoRuleError, match="reused and tied"):
        limit_of(Written(unrolled, r=nn.RNNCell(2, 8), c=nn.Linear(8, 1))).ntk(x)


# Attention


def attention_by_hand(x1, x2, weigh):
    """K of one layer of attention with one value as queries and keys, and its mean over positions, from the data."""
    inside = {
        (i, j): 1.5 * (1.5 * a @ c.T / a.shape[1] + 0.1) + 0.1
        for i, a in enumerate((x1, x2))
        for j, c in enumerate((x1, x2))
    }
    first, second = weigh(inside[0, 0]), weigh(inside[1, 1])
    return first @ inside[0, 1] @ second.T


ATTENTION = {
    "softmax": (lambda a: torch.softmax(a, -1), lambda m, q: torch.softmax(q @ q.mT / 16, -1)),
    "relu": (torch.relu, lambda m, q: torch.relu(q @ q.transpose(1, 2) * (1 / 16))),
    "linear": (lambda a: a, lambda m, q: torch.bmm(q, q.permute(0, 2, 1)) / 16),
    "masked": (
        lambda a: torch.softmax(a.masked_fill(torch.ones(4, 4).triu(1).bool(), -torch.inf), -1),
        lambda m, q: torch.softmax((q @ q.mT / 16).masked_fill(torch.ones(4, 4).triu(1).bool(), -torch.inf), -1),
    ),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_by_hand(name):
    weigh, written = ATTENTION[name]
    x = torch.randn(2, 4, 3)
    model = Written(
        lambda m, x: m.c(written(m, m.q(m.a(x))) @ m.v(m.a2(x))),
        a=nn.Linear(3, 16),
        a2=nn.Linear(3, 16),
        q=nn.Linear(16, 16),
        v=nn.Linear(16, 16),
        c=nn.Linear(16, 1),
    )
    expected = attention_by_hand(x[0], x[1], weigh)
    flat = Written(lambda m, x: m.inner(x).mean(1), inner=model)
    found = limit_of(flat).nngp(x[:1], x[1:])
    assert float(found) == pytest.approx(float(1.5 * expected.mean() + 0.1), rel=1e-10)


def test_scaled_dot_product_attention_is_attention():
    x = torch.randn(3, 4, 3)
    parts = {n: nn.Linear(3 if n in "ab" else 16, 16 if n != "c" else 1) for n in "abqvc"}

    def by_hand(m, x):
        q = m.q(m.a(x))
        return m.c(torch.softmax(q @ q.mT / 16, -1) @ m.v(m.b(x))).mean(1)

    def built_in(m, x):
        q = m.q(m.a(x))
        return m.c(F.scaled_dot_product_attention(q, q, m.v(m.b(x)), scale=1 / 16)).mean(1)

    for one, other in zip(*(limit_of(Written(f, **parts))(x) for f in (by_hand, built_in)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=0)


def attention(scores):
    def forward(m, x):
        h = m.a(x)
        return m.c(scores(m, m.q(h), m.k(h), m.v(h)).mean(1))

    return Written(forward, a=nn.Linear(3, 16), **{n: nn.Linear(16, 16) for n in "qkv"}, c=nn.Linear(16, 1))


REFUSED = {
    "1/√d": (lambda m, q, k, v: torch.softmax(q @ k.mT / 4, -1) @ v, "stay random"),
    "no scale": (lambda m, q, k, v: torch.softmax(q @ k.mT, -1) @ v, "no infinite-width rule"),
    "another scale": (lambda m, q, k, v: torch.softmax(q @ k.mT / 3, -1) @ v, "a limit is known for 1/d"),
    "built in": (lambda m, q, k, v: F.scaled_dot_product_attention(q, k, v), "stay random"),
    "correlated": (lambda m, q, k, v: (q @ q.flip(1).mT / 16) @ v, "in another way than|correlated"),
    "a function of the queries": (lambda m, q, k, v: (q @ q.relu().mT / 16) @ v, "correlated"),
    "scores that vanish": (lambda m, q, k, v: (q @ k.mT / 16) @ v, "vanish"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_attention_without_a_limit_is_named(name):
    scores, cause = REFUSED[name]
    with pytest.raises(NoRuleError, match=cause) as raised:
        limit_of(attention(scores)).ntk(torch.randn(2, 4, 3))
    assert raised.value.remedy


# Graphs, positions, several inputs, several outputs


def test_graphs_are_linear_maps_of_positions():
    x = torch.randn(3, 4, 2)
    plain = limit_of(Written(lambda m, x: m.c(m.a(x).relu().mean(1)), a=nn.Linear(2, 8), c=nn.Linear(8, 1)))
    parts = {"a": nn.Linear(2, 8), "c": nn.Linear(8, 1)}
    mixed = limit_of(Written(lambda m, x: m.c((ADJACENCY.to(x) @ m.a(x)).relu().mean(1)), **parts))
    # W (A x) = A (W x), and a bias b becomes A b = b where rows sum to 1.
    before = ADJACENCY.to(x) @ x
    torch.testing.assert_close(mixed.ntk(x), plain.ntk(before), rtol=1e-10, atol=0)
    given = limit_of(Written(lambda m, x, a: m.c((a @ m.a(x)).relu().mean(1)), **parts))
    torch.testing.assert_close(given.ntk((x, ADJACENCY.to(x).expand(3, 4, 4))), mixed.ntk(x), rtol=1e-8, atol=0)


def test_added_constants_are_taken_as_they_are():
    x = torch.randn(3, 4, 3)
    waves = torch.sin(torch.arange(4.0)[:, None] * torch.arange(1, 9))
    parts = {"a": nn.Linear(3, 8), "b": nn.Linear(8, 8), "c": nn.Linear(8, 1)}
    model = Written(lambda m, x: m.c(m.b(m.a(x) + waves).mean(1)), **parts)
    k = 1.5 * torch.einsum("ipc,jqc->ijpq", x, x) / 3 + 0.1
    expected = 1.5 * (1.5 * (k + waves @ waves.T / 8) + 0.1).mean((2, 3)) + 0.1
    torch.testing.assert_close(limit_of(model).nngp(x), expected, rtol=1e-10, atol=0)
    with pytest.raises(NoRuleError, match="not Gaussian"):
        limit_of(Written(lambda m, x: m.c((m.a(x) + waves).relu().mean(1)), **parts)).nngp(x)
    encoded = Written(
        lambda m, x: m.c((m.a(x) + m.p[None, :4]).relu().mean(1)),
        a=nn.Linear(3, 64),
        p=sample(6, 64),
        c=nn.Linear(64, 1),
    )
    with pytest.warns(PriorscopeWarning, match="`p`"):
        INIT.apply_(encoded, 0)
    rates = INIT.rates(encoded, p=0.0)
    same = infinite_width(encoded, INIT, rates=rates).ntk(x)
    learned = infinite_width(encoded, INIT, rates={**rates, "p": 1.0}).ntk(x)
    assert bool((learned > same).all())


def test_coinciding_parts_of_points_do_not_coincide():
    x = torch.randn(4, 6)
    x[1, :3] = x[0, :3]
    parts = {"a": nn.Linear(3, 8), "b": nn.Linear(3, 8), "c": nn.Linear(8, 1)}
    summed = Written(lambda m, x: m.c((m.a(x[:, :3]) + m.b(x[:, 3:])).relu()), **parts)
    one = Written(lambda m, x: m.c(m.d(x).relu()), d=nn.Linear(6, 8), c=nn.Linear(8, 1))
    found = limit_of(summed, Initialization(1.5, 0.0, "ntk")).nngp(x)
    expected = limit_of(one, Initialization(1.5, 0.0, "ntk")).nngp(x * 2**0.5)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)


def test_several_inputs_and_outputs():
    x, y = torch.randn(4, 3), torch.randn(4, 2)
    parts = {"a": nn.Linear(3, 8), "b": nn.Linear(2, 8), "c": nn.Linear(8, 1), "d": nn.Linear(8, 2)}

    def trunk(m, x, y):
        return (m.a(x) + m.b(y)).relu()

    one = limit_of(Written(lambda m, x, y: m.c(trunk(m, x, y)), **parts))((x, y))

    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            for name, part in parts.items():
                setattr(self, name, part)

        def forward(self, x, y):
            h = (self.a(x) + self.b(y)).relu()
            return self.c(h), {"other": self.d(h)}

    with pytest.raises(NoRuleError, match=r"no part was chosen\. Choose one: readout="):
        limit_of(Heads())((x, y))
    chosen = limit_of(Heads(), readout=lambda out: out[0])
    torch.testing.assert_close(chosen((x, y)).ntk, one.ntk, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        limit_of(Heads(), readout=lambda out: out[1]["other"])((x, y)).ntk, one.ntk, rtol=1e-12, atol=0
    )
    with pytest.raises(ModelError, match="more than choose one"):
        limit_of(Heads(), readout=lambda out: out[0] + 1)((x, y))
    joined = limit_of(Written(lambda m, x, y: m.c(torch.cat([m.a(x), m.b(y)], 1)), **{**parts, "c": nn.Linear(16, 1)}))
    assert joined((x, y)).nngp.shape == (4, 4)
    with pytest.raises(DataError, match="different first axes"):
        chosen((x, y[:2]))


def test_pieces_of_a_layer_are_told_apart():
    x = torch.randn(3, 3)
    parts = {"a": nn.Linear(3, 8), "b": nn.Linear(8, 16), "c": nn.Linear(8, 1), "d": nn.Linear(8, 8)}

    def forward(m, x):
        u, v = m.b(m.a(x)).chunk(2, -1)
        return m.c(u * v.sigmoid())

    by_layers = Written(lambda m, x: (lambda h: m.c(m.d(h) * m.e(h).sigmoid()))(m.a(x)), e=nn.Linear(8, 8), **parts)
    torch.testing.assert_close(
        limit_of(Written(forward, **parts)).ntk(x), limit_of(by_layers).ntk(x), rtol=1e-12, atol=0
    )
    for wrong in (
        lambda m, h: h.chunk(2, -1)[0] * h.chunk(2, -1)[0].sigmoid(),
        lambda m, h: h[:, :8] * h.chunk(2, -1)[0],
    ):
        with pytest.raises(NoRuleError, match="correlated"):
            limit_of(Written(lambda m, x, wrong=wrong: m.c(wrong(m, m.b(m.a(x)))), **parts)).ntk(x)
