"""Small networks with a forward of their own, at any width: recurrent ones, attention, graphs, gates, residual blocks.

Each maker gives a module whose last layer, and last parameters, are the readout `c`.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ADJACENCY = torch.tensor(
    [[0.5, 0.5, 0.0, 0.0], [0.3, 0.4, 0.3, 0.0], [0.0, 0.2, 0.5, 0.3], [0.0, 0.0, 0.6, 0.4]], dtype=torch.float64
)
IDS = 5
"""How many distinct ids the embeddings know."""


class Written(nn.Module):
    """Named parts, and the forward as a function of the module and its inputs."""

    def __init__(self, written: Callable[..., Any], **parts: Any):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.written = written

    def forward(self, *x: Any) -> Any:
        return self.written(self, *x)


def sample(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape, generator=torch.Generator().manual_seed(0)))


def _heads(m: Any, x: Tensor) -> Tensor:
    h = m.a(x)
    n, t, d = h.shape
    q, v = (layer(h).view(n, t, 4, d // 4).transpose(1, 2) for layer in (m.q, m.v))
    attended = F.scaled_dot_product_attention(q, q, v, scale=1 / q.shape[-1])
    return m.c(m.o(attended.transpose(1, 2).reshape(n, t, d)).relu().mean(1))


def _soft(m: Any, x: Tensor) -> Tensor:
    h = m.a(x)
    q = m.q(h)
    weights = torch.softmax(q @ q.transpose(-2, -1) / q.shape[-1], -1)
    return m.c(m.o(weights @ m.v(h)).relu().mean(1))


def _relu_scores(m: Any, x: Tensor) -> Tensor:
    h = m.a(x)
    q = m.q(h)
    return m.c((((q @ q.mT) / q.shape[-1]).relu() @ m.v(h)).mean(1))


def _independent(m: Any, x: Tensor) -> Tensor:
    q, k, v = m.qkv(m.a(x)).chunk(3, -1)
    return m.c(m.o(torch.softmax(q @ k.mT * (1 / q.shape[-1]), -1) @ v).relu().mean(1))


def _class_token(m: Any, x: Tensor) -> Tensor:
    h = torch.cat([m.p.expand(len(x), -1, -1), m.a(x)], 1)
    q = m.q(h)
    return m.c(F.scaled_dot_product_attention(q, q, m.v(h), scale=1 / q.shape[-1])[:, 0])


def _encoder(m: Any, x: Tensor) -> Tensor:
    h = m.a(x) + m.p
    q = m.q(m.n(h))
    h = h + m.o(torch.softmax(q @ q.mT / q.shape[-1], -1) @ m.v(m.n2(h)))
    return m.c((h + m.e(m.d(h).relu())).mean(1))


def _residual(m: Any, x: Tensor) -> Tensor:
    """A pre-activation and a post-activation block; the second's shortcut is its own input."""
    h = m.a(x)
    h = h + m.d(F.relu(m.b(h)))
    return m.c(F.relu(h + m.f(F.relu(m.e(h)))).mean((2, 3)))


def _gated(m: Any, x: Tensor) -> Tensor:
    h = m.a(x)
    return F.silu(m.b(h)) * m.d(h)


def _lin(i: int, o: int) -> nn.Linear:
    return nn.Linear(i, o)


def _conv(i: int, o: int, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(i, o, 3, padding=1, **options)


Maker = Callable[[int], nn.Module]

RECURRENT: dict[str, Maker] = {
    "rnn, last state": lambda w: Written(
        lambda m, x: m.c(m.r(x)[1][-1]), r=nn.RNN(3, w, batch_first=True), c=_lin(w, 1)
    ),
    "rnn, two relu layers, mean over time": lambda w: Written(
        lambda m, x: m.c(m.r(x)[0].mean(1)), r=nn.RNN(3, w, 2, "relu", batch_first=True), c=_lin(w, 1)
    ),
    "rnn, both directions": lambda w: Written(
        lambda m, x: m.c(m.r(x)[0].mean(1)), r=nn.RNN(3, w, batch_first=True, bidirectional=True), c=_lin(2 * w, 1)
    ),
}
ATTENTION: dict[str, Maker] = {
    "softmax attention, 1/d": lambda w: Written(
        _soft, a=_lin(3, w), q=_lin(w, w), v=_lin(w, w), o=_lin(w, w), c=_lin(w, 1)
    ),
    "relu attention, 1/d": lambda w: Written(_relu_scores, a=_lin(3, w), q=_lin(w, w), v=_lin(w, w), c=_lin(w, 1)),
    "four heads": lambda w: Written(
        _heads, a=_lin(3, 4 * w), q=_lin(4 * w, 4 * w), v=_lin(4 * w, 4 * w), o=_lin(4 * w, w), c=_lin(w, 1)
    ),
    "independent queries and keys": lambda w: Written(
        _independent, a=_lin(3, w), qkv=_lin(w, 3 * w), o=_lin(w, w), c=_lin(w, 1)
    ),
    "class token": lambda w: Written(
        _class_token, a=_lin(3, w), p=sample(1, 1, w), q=_lin(w, w), v=_lin(w, w), c=_lin(w, 1)
    ),
    "transformer encoder": lambda w: Written(
        _encoder,
        a=_lin(3, w),
        p=sample(4, w),
        n=nn.LayerNorm(w, elementwise_affine=False),
        n2=nn.LayerNorm(w, elementwise_affine=False),
        q=_lin(w, w),
        v=_lin(w, w),
        o=_lin(w, w),
        d=_lin(w, w),
        e=_lin(w, w),
        c=_lin(w, 1),
    ),
}
OTHERS: dict[str, Maker] = {
    "transposed convolution": lambda w: Written(
        lambda m, x: m.c(m.b(m.a(x.mT).relu()).relu().flatten(1)),
        a=nn.Conv1d(3, w, 3, padding=1),
        b=nn.ConvTranspose1d(w, w, 3, 2, 1, 1),
        c=_lin(8 * w, 1),
    ),
    "graph": lambda w: Written(
        lambda m, x: m.c((ADJACENCY.to(x) @ m.b((ADJACENCY.to(x) @ m.a(x)).relu())).relu().sum(1)),
        a=_lin(3, w),
        b=_lin(w, w),
        c=_lin(w, 1),
    ),
    "position encodings": lambda w: Written(
        lambda m, x: m.c(m.b(m.a(x) + m.p).relu().mean(1)), a=_lin(3, w), p=sample(4, w), b=_lin(w, w), c=_lin(w, 1)
    ),
    "at every position": lambda w: Written(
        lambda m, x: m.c(m.b(m.a(x).relu()).relu().mean(1)), a=_lin(3, w), b=_lin(w, w), c=_lin(w, 1)
    ),
    "gated by another layer": lambda w: Written(
        lambda m, x: m.c(_gated(m, x[:, 0])),
        a=_lin(3, w),
        b=_lin(w, w),
        d=_lin(w, w),
        c=_lin(w, 1),
    ),
    "gated by a piece": lambda w: Written(
        lambda m, x: (lambda u, v: m.c(u * v.sigmoid()))(*m.b(m.a(x[:, 0])).chunk(2, -1)),
        a=_lin(3, w),
        b=_lin(w, 2 * w),
        c=_lin(w, 1),
    ),
    "gated channels": lambda w: Written(
        lambda m, x: (lambda h: m.c((h * m.b(h.mean(2, keepdim=True)).sigmoid()).mean(2)))(m.a(x.mT).relu()),
        a=nn.Conv1d(3, w, 3, padding=1),
        b=nn.Conv1d(w, w, 1),
        c=_lin(w, 1),
    ),
    "depthwise convolution": lambda w: Written(
        lambda m, x: m.c(m.b(m.a(x.mT).relu()).mean(2)),
        a=nn.Conv1d(3, w, 3, padding=1),
        b=nn.Conv1d(w, w, 3, padding=1, groups=w),
        c=_lin(w, 1),
    ),
    "grouped convolution": lambda w: Written(
        lambda m, x: m.c(m.b(m.a(x.mT).relu()).relu().mean(2)),
        a=nn.Conv1d(3, w, 3, padding=1),
        b=nn.Conv1d(w, w, 3, padding=1, groups=2),
        c=_lin(w, 1),
    ),
    "interpolation": lambda w: Written(
        lambda m, x: m.c(
            F.interpolate(F.interpolate(m.a(x.mT).relu(), 6), 5, mode="linear", align_corners=False).mean(2)
        ),
        a=nn.Conv1d(3, w, 3, padding=1),
        c=_lin(w, 1),
    ),
    "residual convolutions": lambda w: Written(
        lambda m, x: _residual(m, x.unsqueeze(1)),
        a=_conv(1, w),
        b=_conv(w, w),
        d=_conv(w, w),
        e=_conv(w, w),
        f=_conv(w, w),
        c=_lin(w, 1),
    ),
    "embedding": lambda w: Written(
        lambda m, x: m.c(m.b(m.a(x) + m.p(torch.arange(4))).relu().mean(1)),
        a=nn.Embedding(IDS, w),
        p=nn.Embedding(4, w),
        b=_lin(w, w),
        c=_lin(w, 1),
    ),
}
