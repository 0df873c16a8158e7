"""Random architectures of every kind of block, nested in each other, against a loop of plain autograd."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from priorscope.kernels.empirical import EmpiricalNTK
from tests.kernels.empirical.awkward.case import Net
from tests.oracles import jacobian_by_loop

LENGTH, WIDTH, VOCABULARY = 3, 4, 5

Make = Callable[[], nn.Module]
"""What makes a block, (n, length, width) -> (n, length, width)."""


class Transposed(nn.Module):
    """A block of (n, width, length)."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x.transpose(1, 2)).transpose(1, 2)


class First(nn.Module):
    """The first of what a block returns."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)[0]


def tied_rule(m, x: Tensor) -> Tensor:
    return (m.a(x).tanh() @ m.a.weight + m.b).sin()


def attention_rule(m, x: Tensor) -> Tensor:
    return m.attention(x, x, x, need_weights=False)[0]


def residual_rule(m, x: Tensor) -> Tensor:
    return x + m.inner(x)


def shared_rule(m, x: Tensor) -> Tensor:
    return m.inner(m.inner(x).tanh())


def gated_rule(m, x: Tensor) -> Tensor:
    return m.a(x).sigmoid() * m.b(x)


@st.composite
def linear(draw) -> Make:
    bias, hidden = draw(st.booleans()), draw(st.integers(1, 5))
    activation = draw(st.sampled_from([nn.ReLU, nn.Tanh, nn.GELU, nn.PReLU, lambda: nn.SiLU(inplace=True)]))
    return lambda: nn.Sequential(nn.Linear(WIDTH, hidden, bias=bias), activation(), nn.Linear(hidden, WIDTH))


@st.composite
def convolution(draw) -> Make:
    mode = draw(st.sampled_from(["zeros", "circular", "replicate"]))
    groups, kernel, dilation = draw(st.sampled_from([1, 2, 4])), draw(st.sampled_from([1, 3])), draw(st.integers(1, 2))
    options = {"padding": "same", "padding_mode": mode, "groups": groups, "dilation": dilation}
    return lambda: Transposed(nn.Conv1d(WIDTH, WIDTH, kernel, **options))


@st.composite
def transposed_convolution(draw) -> Make:
    groups, bias = draw(st.sampled_from([1, 2])), draw(st.booleans())
    return lambda: Transposed(nn.ConvTranspose1d(WIDTH, WIDTH, 3, padding=1, groups=groups, bias=bias))


@st.composite
def norm(draw) -> Make:
    return draw(
        st.sampled_from(
            [
                lambda: nn.LayerNorm(WIDTH),
                lambda: nn.RMSNorm(WIDTH),
                lambda: Transposed(nn.GroupNorm(2, WIDTH)),
                lambda: Transposed(nn.InstanceNorm1d(WIDTH, affine=True)),
                lambda: Transposed(nn.BatchNorm1d(WIDTH)),
            ]
        )
    )


@st.composite
def recurrent(draw) -> Make:
    kind, bias, both = draw(st.sampled_from([nn.RNN, nn.GRU, nn.LSTM])), draw(st.booleans()), draw(st.booleans())
    width = WIDTH // 2 if both else WIDTH
    return lambda: First(kind(WIDTH, width, bias=bias, bidirectional=both, batch_first=True))


@st.composite
def attention(draw) -> Make:
    heads, bias = draw(st.sampled_from([1, 2])), draw(st.booleans())
    return lambda: Net(attention_rule, attention=nn.MultiheadAttention(WIDTH, heads, bias=bias, batch_first=True))


@st.composite
def encoder(draw) -> Make:
    first = draw(st.booleans())
    return lambda: nn.TransformerEncoderLayer(WIDTH, 2, 3, batch_first=True, norm_first=first)


LEAVES = st.one_of(
    linear(),
    convolution(),
    transposed_convolution(),
    norm(),
    recurrent(),
    attention(),
    encoder(),
    st.just(lambda: Net(tied_rule, a=nn.Linear(WIDTH, WIDTH), b=torch.randn(WIDTH))),
)


def nested(inner: st.SearchStrategy[Make]) -> st.SearchStrategy[Make]:
    """Blocks of blocks."""
    return st.one_of(
        inner.map(lambda make: lambda: Net(residual_rule, inner=make())),
        inner.map(lambda make: lambda: Net(shared_rule, inner=make())),
        st.tuples(inner, inner).map(lambda two: lambda: nn.Sequential(two[0](), two[1]())),
        st.tuples(inner, inner).map(lambda two: lambda: Net(gated_rule, a=two[0](), b=two[1]())),
    )


BLOCKS = st.recursive(LEAVES, nested, max_leaves=4)


@dataclass
class Drawn:
    """A model, its inputs, and its read-out."""

    model: nn.Module
    points: Callable[[int], Any]
    readout: Callable[[Any], Tensor] | None


def whole_rule(m, x: Tensor) -> Tensor:
    return m.head(m.body(m.stem(x)).mean(1))


def tied_head_rule(m, x: Tensor) -> Tensor:
    return m.body(m.stem(x)).mean(1) @ m.stem.weight.T


def two_heads_rule(m, x: Tensor) -> dict[str, Tensor]:
    h = m.body(m.stem(x))
    return {"all": m.head(h), "mean": h.mean(1)}


@st.composite
def architectures(draw) -> Drawn:
    body, seed = draw(BLOCKS), draw(st.integers(0, 99))
    of_tokens, frozen = draw(st.booleans()), draw(st.booleans())
    kind = draw(st.sampled_from(["whole", "tied", "dictionary"] if of_tokens else ["whole", "dictionary"]))
    torch.manual_seed(seed)
    stem = nn.Embedding(VOCABULARY, WIDTH) if of_tokens else nn.Linear(2, WIDTH)
    rule = {"whole": whole_rule, "tied": tied_head_rule, "dictionary": two_heads_rule}[kind]
    head = {} if kind == "tied" else {"head": nn.Linear(WIDTH, draw(st.integers(1, 2)))}
    model = Net(rule, stem=stem, body=body(), **head).eval()
    parameters = list(model.parameters())
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.1 * torch.randn_like(parameter))
    if frozen:
        for parameter in parameters[1::3]:
            parameter.requires_grad_(False)
    readout = draw(st.sampled_from([lambda out: out["all"][:, -1], lambda out: out["mean"][:, 0] - out["mean"][:, 1]]))

    def points(n: int) -> Tensor:
        return torch.randint(VOCABULARY, (n, LENGTH)) if of_tokens else torch.randn(n, LENGTH, 2)

    return Drawn(model, points, readout if kind == "dictionary" else None)


@settings(max_examples=20, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(drawn=architectures(), n1=st.integers(1, 3), n2=st.integers(1, 3))
def test_random_architectures_equal_the_loop(drawn: Drawn, n1: int, n2: int):
    x1, x2 = drawn.points(n1), drawn.points(n2)
    rates = {name: 0.5 + i / 7 for i, (name, _) in enumerate(drawn.model.named_parameters())}
    j1, j2 = (jacobian_by_loop(drawn.model, x, rates, drawn.readout) for x in (x1, x2))
    kernel = EmpiricalNTK(drawn.model, readout=drawn.readout, rates=rates)
    o = j1.shape[1]
    assert_close(kernel.blocks(x1, x2), torch.einsum("iap,jbp->iajb", j1, j2))
    assert_close(kernel(x1), torch.einsum("iap,jap->ij", j1, j1) / o)


def assert_close(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    assert float((actual - expected).abs().max()) <= 1e-10 * float(expected.abs().max())
