"""Bare parameters in every operation, and parameters that are used in several places."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from .case import Awkward, Net, floats, tokens


def net(name: str, rule, points=None, **parts) -> Awkward:
    """A rule with these submodules and parameters: shapes of parameters as tuples, makers of modules as functions."""

    def made(part):
        return torch.randn(part) if isinstance(part, tuple) else part()

    return Awkward(name, lambda: Net(rule, **{key: made(part) for key, part in parts.items()}), points or floats(3))


def linear(a: int, b: int, **options):
    return lambda: nn.Linear(a, b, **options)


BARE = [
    net("bias", lambda m, x: (m.first(x) + m.b).tanh(), first=linear(3, 2), b=(2,)),
    net("bias of one channel", lambda m, x: (m.first(x) + m.b).tanh(), floats(4, 3), first=linear(3, 2), b=(4, 1)),
    net("x @ w", lambda m, x: m.last((x @ m.w).tanh()), w=(3, 4), last=linear(4, 2)),
    net("x @ w on sequences", lambda m, x: (x @ m.w).tanh(), floats(2, 3), w=(3, 2)),
    net("w @ x", lambda m, x: (m.w @ x.mT).tanh(), floats(2, 3), w=(4, 3)),
    net("w @ h", lambda m, x: (m.w @ m.first(x).tanh().mT).sin(), floats(2, 3), w=(2, 4), first=linear(3, 4)),
    net("w @ w @ x", lambda m, x: (x @ m.w @ m.w).tanh(), w=(3, 3)),
    net("x @ v", lambda m, x: (x @ m.v).tanh(), v=(3,)),
    net("matrix of a batch", lambda m, x: (x @ m.w).tanh(), floats(2, 3, 3), w=(2, 3, 2)),
    net("einsum", lambda m, x: torch.einsum("ntd,dk->ntk", x, m.w).tanh(), floats(2, 3), w=(3, 2)),
    net("einsum of heads", lambda m, x: torch.einsum("nd,hdk->nhk", x, m.w).tanh(), w=(2, 3, 2)),
    net("einsum of three", lambda m, x: torch.einsum("ni,ijk,nj->nk", x, m.w, x), w=(3, 3, 2)),
    net("tensordot", lambda m, x: torch.tensordot(x, m.w, dims=([1, 2], [0, 1])).tanh(), floats(2, 3), w=(2, 3, 2)),
    net("bmm", lambda m, x: torch.bmm(x, m.w.expand(len(x), 3, 2)).tanh(), floats(2, 3), w=(3, 2)),
    net("baddbmm", lambda m, x: torch.baddbmm(m.b, x, m.w.expand(len(x), 3, 2)), floats(2, 3), w=(3, 2), b=(1, 2, 2)),
    net("addmm", lambda m, x: torch.addmm(m.b, x, m.w).tanh(), w=(3, 2), b=(2,)),
    net("addmm with factors", lambda m, x: torch.addmm(m.b, x, m.w, beta=0.3, alpha=2.0).tanh(), w=(3, 2), b=(2,)),
    net("functional linear", lambda m, x: functional.linear(x, m.w, m.b).tanh(), floats(2, 3), w=(2, 3), b=(2,)),
    net("functional linear, scaled", lambda m, x: functional.linear(x, 0.5 * m.w, m.b), w=(2, 3), b=(2,)),
    net("functional conv", lambda m, x: functional.conv1d(x, m.w, m.b).tanh(), floats(2, 4), w=(3, 2, 2), b=(3,)),
    net("functional layer norm", lambda m, x: functional.layer_norm(x, (3,), m.g, m.b).sin(), g=(3,), b=(3,)),
    net("functional bilinear", lambda m, x: functional.bilinear(x, x.sin(), m.w, m.b), w=(2, 3, 3), b=(2,)),
    net(
        "nn.Bilinear",
        lambda m, x, z: m.inner(x, m.first(z)).tanh(),
        lambda n: (torch.randn(n, 3), torch.randn(n, 2)),
        inner=lambda: nn.Bilinear(3, 4, 2),
        first=linear(2, 4),
    ),
    net("number", lambda m, x: m.last(torch.sin(m.scale * x)), scale=(), last=linear(3, 2)),
    net("number added", lambda m, x: m.last(torch.sin(m.shift + x)), shift=(), last=linear(3, 2)),
    net("power", lambda m, x: x.abs() ** m.power, power=()),
    net("power of three", lambda m, x: (x.abs() + 1) ** m.power, power=(3,)),
    net("temperature", lambda m, x: torch.softmax(m.first(x) / m.t.exp(), -1), first=linear(3, 2), t=()),
    net(
        "positions",
        lambda m, x: m.last((x + m.position).tanh().mean(1)),
        floats(4, 3),
        position=(4, 3),
        last=linear(3, 2),
    ),
    net(
        "positions of a prefix",
        lambda m, x: m.last((x + m.p[: x.shape[1]]).tanh().mean(1)),
        floats(4, 3),
        p=(6, 3),
        last=linear(3, 2),
    ),
    net(
        "class token",
        lambda m, x: m.last(torch.cat([m.token.expand(len(x), -1, -1), x], 1).tanh().cumsum(1)[:, -1]),
        floats(2, 3),
        token=(1, 1, 3),
        last=linear(3, 2),
    ),
    net(
        "repeated token",
        lambda m, x: m.last(torch.cat([m.t.repeat(len(x), 1), x], 1).tanh()),
        t=(1, 2),
        last=linear(5, 2),
    ),
    net("layer scale", lambda m, x: x + m.scale * m.first(x).tanh(), scale=(3,), first=linear(3, 3)),
    net("shared PReLU", lambda m, x: m.last(m.act(m.first(x))), first=linear(3, 4), act=nn.PReLU, last=linear(4, 2)),
    net(
        "PReLU per channel",
        lambda m, x: m.act(m.first(x)).flatten(1),
        floats(2, 4),
        first=lambda: nn.Conv1d(2, 3, 2),
        act=lambda: nn.PReLU(3),
    ),
    net("functional PReLU", lambda m, x: functional.prelu(m.first(x), m.slope), first=linear(3, 4), slope=(4,)),
    net("where", lambda m, x: torch.where(x > 0, m.a * x, m.b * x), a=(3,), b=(3,)),
    net("clamp by parameters", lambda m, x: torch.maximum(x, m.low) + torch.clamp(x * m.low, -1, 1), low=(3,)),
    net("distances", lambda m, x: m.last((-torch.cdist(x, m.centres)).exp()), centres=(4, 3), last=linear(4, 2)),
    net("norm of a parameter", lambda m, x: x @ (m.w / m.w.norm(dim=0)), w=(3, 2)),
    net("parameter alone", lambda m, x: m.b.expand(len(x), 2) + 0 * x[:, :2], b=(2,)),
    net("softmax of a parameter", lambda m, x: x * torch.softmax(m.w, 0), w=(3,)),
    net("interpolated", lambda m, x: torch.lerp(x, m.first(x), m.w), first=linear(3, 3), w=(3,)),
    net(
        "gathered",
        lambda m, x, i: x[:, :1] * m.w.gather(0, i),
        lambda n: (torch.randn(n, 3), torch.randint(4, (n, 2))),
        w=(4, 2),
    ),
    net("outer product", lambda m, x: (x[:, :, None] * m.w).sin().sum(1), w=(4,)),
    net("addcmul", lambda m, x: torch.addcmul(m.b, x, m.w, value=0.5).tanh(), b=(3,), w=(3,)),
    net("inverse", lambda m, x: x @ torch.linalg.inv(m.w @ m.w.T + torch.eye(3)), w=(3, 3)),
    net("unbound", lambda m, x: sum((x * row).sin() for row in m.rows.unbind()), rows=(3, 3)),
    net("flipped", lambda m, x: (x * m.w.flip(0) + m.w.roll(1)).tanh(), w=(3,)),
    net("masked", lambda m, x: x @ (m.w * torch.ones(3, 3).tril()), w=(3, 3)),
    net(
        "list of parameters",
        lambda m, x: (x * m.all[0]).tanh() * m.all[1],
        all=lambda: nn.ParameterList([torch.randn(3), torch.randn(3)]),
    ),
    net(
        "dictionary of parameters",
        lambda m, x: (x * m.all["a"]).tanh() * m.all["b"],
        all=lambda: nn.ParameterDict({"a": torch.randn(3), "b": torch.randn(())}),
    ),
    net("unused", lambda m, x: m.first(x), first=linear(3, 2), unused=(4,), idle=linear(2, 2)),
]


class Tied(nn.Module):
    """Two layers, the second of which takes parameters of the first."""

    def __init__(self, transposed: bool = False, bias_only: bool = False):
        super().__init__()
        self.transposed = transposed
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        if not bias_only:
            self.second.weight = self.first.weight
        if bias_only:
            self.second.bias = self.first.bias

    def forward(self, x):
        h = self.first(x).tanh()
        return h @ self.first.weight + self.second.bias if self.transposed else self.second(h).sin()


class Held(nn.Module):
    """One module under two names, the second of them within a list."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 3)
        self.all = nn.ModuleList([self.a, nn.Linear(3, 2)])

    def forward(self, x):
        h = self.a(x).tanh()
        for inner in self.all:
            h = inner(h.sin())
        return h


class TiedDecoder(nn.Module):
    """nn.Linear as decoder with the embedding's own weight."""

    def __init__(self):
        super().__init__()
        self.embedding, self.hidden, self.decoder = nn.Embedding(5, 3), nn.Linear(3, 3), nn.Linear(3, 5, bias=False)
        self.decoder.weight = self.embedding.weight

    def forward(self, ids):
        return self.decoder(self.hidden(self.embedding(ids)).tanh().mean(1))


def same_conv() -> nn.Module:
    a, b = nn.Conv1d(2, 2, 3, padding=1), nn.Conv1d(2, 2, 3, stride=2)
    b.weight = a.weight
    return nn.Sequential(a, nn.Tanh(), b, nn.Flatten())


def mirrored_conv() -> nn.Module:
    a, b = nn.Conv1d(2, 3, 2), nn.ConvTranspose1d(3, 2, 2)
    b.weight = a.weight
    return nn.Sequential(a, nn.Tanh(), b, nn.Flatten())


def slices_rule(m, x: Tensor) -> Tensor:
    return functional.linear(functional.linear(x, m.w[:4], m.b[:4]).tanh(), m.w[4:].T, m.b[4:7])


def flat_rule(m, x: Tensor) -> Tensor:
    first, bias, last = m.flat[:12].view(4, 3), m.flat[12:16], m.flat[16:].view(2, 4)
    return functional.linear(functional.linear(x, first, bias).tanh(), last)


def chunked_rule(m, x: Tensor) -> Tensor:
    gate, value = (functional.linear(x, w, b) for w, b in zip(m.w.chunk(2), m.b.chunk(2), strict=True))
    return gate.sigmoid() * value


def repeated(times: int):
    def rule(m, x: Tensor) -> Tensor:
        h = torch.zeros_like(x)
        for _ in range(times):
            h = (m.inner(h) + x).tanh()
        return m.last(h)

    return rule


SHARED = [
    net("module used twice", lambda m, x: m.a(m.a(x).tanh()), a=linear(3, 3)),
    net("module used twice on sequences", lambda m, x: m.a(m.a(x).tanh()), floats(2, 3), a=linear(3, 3)),
    net(
        "module used on two inputs",
        lambda m, x, z: m.a(x).tanh() * m.a(z),
        lambda n: (torch.randn(n, 3), torch.randn(n, 3)),
        a=linear(3, 2),
    ),
    net("module used on other shapes", lambda m, x: m.a(x).sum(1) * m.a(x[:, 0]).tanh(), floats(2, 3), a=linear(3, 3)),
    net("module used five times", repeated(5), inner=linear(3, 3), last=linear(3, 2)),
    net("conv used twice", lambda m, x: m.a(m.a(x).tanh()), floats(2, 4), a=lambda: nn.Conv1d(2, 2, 2)),
    net("norm used twice", lambda m, x: m.n(m.a(m.n(x))), n=lambda: nn.LayerNorm(3), a=linear(3, 3)),
    net(
        "embedding used twice", lambda m, ids: m.a(ids).sum(1) * m.a(ids[:, 0]), tokens(3), a=lambda: nn.Embedding(5, 2)
    ),
    net("weight also a bare operand", lambda m, x: m.a(x).tanh() @ m.a.weight, a=linear(3, 4)),
    net("weight in two functions", lambda m, x: functional.linear((x @ m.w).tanh(), m.w.T), w=(3, 3)),
    net("bias also a gain", lambda m, x: m.a(x).tanh() * m.a.bias, a=linear(3, 4)),
    net("penalised by its own norm", lambda m, x: m.a(x) - m.a.weight.square().sum() * x[:, :2], a=linear(3, 2)),
    net(
        "tied decoder by transpose",
        lambda m, ids: m.e(ids).tanh().mean(1) @ m.e.weight.T,
        tokens(3),
        e=lambda: nn.Embedding(5, 3),
    ),
    net("slices of one parameter", slices_rule, w=(8, 3), b=(7,)),
    net("chunks of one parameter", chunked_rule, w=(4, 3), b=(4,)),
    net("views of a flat parameter", flat_rule, flat=(24,)),
    Awkward("tied weights", Tied, floats(3)),
    Awkward("tied weights, transposed", lambda: Tied(transposed=True), floats(3)),
    Awkward("shared bias", lambda: Tied(bias_only=True), floats(3)),
    Awkward("held twice", Held, floats(3)),
    Awkward("tied decoder", TiedDecoder, tokens(3)),
    Awkward("conv weight in two layers", same_conv, floats(2, 5)),
    Awkward("conv weight in a transposed conv", mirrored_conv, floats(2, 4)),
    Awkward("layers of a repeated list", lambda: nn.Sequential(*[nn.Linear(3, 3), nn.Tanh()] * 3), floats(3)),
]

PARAMETERS = BARE + SHARED
