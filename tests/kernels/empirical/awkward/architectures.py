"""Whole architectures, as small as they come."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from .case import Awkward, Net, floats, tokens
from .layers import with_statistics
from .parameters import linear, net


def conv(a: int, b: int, kernel: int = 3, **options) -> nn.Conv2d:
    return nn.Conv2d(a, b, kernel, padding=kernel // 2, bias=False, **options)


class Residual(nn.Module):
    """A block of a ResNet, with a projection where it strides."""

    def __init__(self, a: int, b: int, stride: int = 1):
        super().__init__()
        norms = [with_statistics(nn.BatchNorm2d(b), b, 2, 2) for _ in range(2)]
        self.body = nn.Sequential(conv(a, b, stride=stride), norms[0], nn.ReLU(inplace=True), conv(b, b), norms[1])
        self.skip = nn.Conv2d(a, b, 1, stride=stride) if stride > 1 or a != b else nn.Identity()

    def forward(self, x):
        return functional.relu(self.body(x) + self.skip(x), inplace=True)


def resnet() -> nn.Module:
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(conv(2, 2), Residual(2, 2), Residual(2, 3, stride=2), pool, nn.Linear(3, 2))


class Block(nn.Module):
    """A block of a transformer, norm first, written by hand."""

    def __init__(self, width: int, causal: bool):
        super().__init__()
        self.causal = causal
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 3), nn.GELU(), nn.Linear(3, width))

    def forward(self, x):
        q, k, v = (h.unflatten(-1, (2, -1)).transpose(1, 2) for h in self.qkv(self.norms[0](x)).chunk(3, -1))
        scores = q @ k.mT / q.shape[-1] ** 0.5
        if self.causal:
            hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
            scores = scores.masked_fill(hidden, float("-inf"))
        x = x + self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norms[1](x))


class ViT(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(2, 4, 2, stride=2)
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, 4)), nn.Parameter(torch.randn(1, 5, 4))
        self.blocks, self.norm, self.head = Block(4, causal=False), nn.LayerNorm(4), nn.Linear(4, 2)

    def forward(self, x):
        h = self.patches(x).flatten(2).transpose(1, 2)
        h = torch.cat([self.token.expand(len(x), -1, -1), h], 1) + self.positions
        return self.head(self.norm(self.blocks(h))[:, 0])


class GPT(nn.Module):
    """The head is tied to the embedding."""

    def __init__(self):
        super().__init__()
        self.words, self.positions = nn.Embedding(5, 4), nn.Embedding(3, 4)
        self.blocks, self.norm = nn.Sequential(Block(4, causal=True), Block(4, causal=True)), nn.LayerNorm(4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids):
        h = self.words(ids) + self.positions(torch.arange(ids.shape[1]))
        return self.head(self.norm(self.blocks(h)))[:, -1]


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.deep = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 3, 2, stride=2)
        self.up, self.last = nn.ConvTranspose2d(3, 2, 2, stride=2), nn.Conv2d(4, 1, 1)

    def forward(self, x):
        h = self.down(x).tanh()
        return self.last(torch.cat([h, self.up(self.deep(h).tanh())], 1))


def experts(m, x: Tensor) -> Tensor:
    gates = torch.softmax(m.gate(x), -1)
    return (gates[:, :, None] * torch.stack([expert(x) for expert in m.experts], 1)).sum(1)


def squeeze_excite(m, x: Tensor) -> Tensor:
    h = m.conv(x)
    scale = m.up(m.down(h.mean((2, 3))).relu()).sigmoid()
    return m.last((h * scale[:, :, None, None]).flatten(1))


ADJACENCY = torch.tensor([[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]], dtype=torch.float64) / 2


def graph(m, x: Tensor) -> Tensor:
    h = (ADJACENCY @ m.first(x)).tanh()
    return m.last((ADJACENCY @ h + m.own(h)).tanh().mean(1))


def hypernetwork(m, x: Tensor) -> Tensor:
    """The weights of the last layer depend on the point."""
    weights = m.weights(x).view(-1, 2, 3)
    return (weights @ x[:, :, None]).squeeze(-1) + m.bias(x)


def fixed_hypernetwork(m, x: Tensor) -> Tensor:
    """The weights of a layer are another network's outputs."""
    return functional.linear(m.first(x).tanh(), m.maker(m.code).view(2, 4).tanh(), m.code[:2])


def one_point_linear(m, x: Tensor) -> Tensor:
    """F.linear with weights made from each point."""
    return torch.stack([functional.linear(row, m.weights(row).view(2, 3), m.bias) for row in x])


def equilibrium(m, x: Tensor) -> Tensor:
    z = torch.zeros(len(x), 4)
    for _ in range(5):
        z = torch.tanh(m.inner(z) + m.inject(x))
    return m.last(z)


def low_rank(m, x: Tensor) -> Tensor:
    """A frozen weight with a low-rank change."""
    return m.base(x).tanh() + x @ m.a @ m.b


def frozen_linear() -> nn.Module:
    return nn.Linear(3, 2).requires_grad_(False)


def mixer(m, x: Tensor) -> Tensor:
    x = x + m.over_positions(m.norm(x).transpose(1, 2)).transpose(1, 2)
    return (x + m.over_channels(m.norm(x))).mean(1)


def rotary(m, x: Tensor) -> Tensor:
    angles = torch.arange(x.shape[1])[:, None] * torch.tensor([1.0, 0.3])
    turn = torch.polar(torch.ones_like(angles), angles)
    q, k = (torch.view_as_complex(p(x).unflatten(-1, (2, 2)).contiguous()) * turn for p in (m.q, m.k))
    scores = torch.einsum("ntd,nsd->nts", q, k.conj()).real
    return (scores.softmax(-1) @ m.v(x)).mean(1)


def dense(m, x: Tensor) -> Tensor:
    for inner in m.all:
        x = torch.cat([x, inner(x).tanh()], -1)
    return m.last(x)


def highway(m, x: Tensor) -> Tensor:
    gate = m.gate(x).sigmoid()
    return m.last(gate * m.body(x).tanh() + (1 - gate) * x)


def siamese(m, a: Tensor, b: Tensor) -> Tensor:
    return (m.body(a) - m.body(b)).square().sum(-1)


def leapfrog(m, x: Tensor) -> Tensor:
    """A residual network in continuous time, by Runge-Kutta steps of one field."""
    for _ in range(2):
        k = m.field(x).tanh()
        x = x + 0.5 * m.field(x + 0.5 * k).tanh()
    return m.last(x)


def coupling(m, x: Tensor) -> Tensor:
    """A layer of a normalising flow, with its log-determinant."""
    fixed, free = x.chunk(2, -1)
    scale, shift = m.body(fixed).chunk(2, -1)
    return torch.cat([fixed, free * scale.exp() + shift, scale.sum(-1, keepdim=True)], -1)


ARCHITECTURES = [
    Awkward("ResNet", resnet, floats(2, 4, 4)),
    Awkward("ViT", ViT, floats(2, 4, 4)),
    Awkward("GPT", GPT, tokens(3)),
    Awkward("U-Net", UNet, floats(1, 4, 4)),
    net(
        "mixture of experts",
        experts,
        gate=linear(3, 2),
        experts=lambda: nn.ModuleList([nn.Linear(3, 2) for _ in range(2)]),
    ),
    net("GLU", lambda m, x: functional.glu(m.first(x)), first=linear(3, 4)),
    net(
        "SwiGLU",
        lambda m, x: m.c(functional.silu(m.a(x)) * m.b(x)),
        floats(2, 3),
        a=linear(3, 4),
        b=linear(3, 4),
        c=linear(4, 3),
    ),
    net(
        "squeeze and excite",
        squeeze_excite,
        floats(2, 3, 3),
        conv=lambda: nn.Conv2d(2, 4, 2),
        down=linear(4, 2),
        up=linear(2, 4),
        last=linear(16, 2),
    ),
    net("graph network", graph, floats(4, 3), first=linear(3, 3), own=linear(3, 3), last=linear(3, 2)),
    net("hypernetwork", hypernetwork, weights=linear(3, 6), bias=linear(3, 2)),
    net("hypernetwork of a code", fixed_hypernetwork, first=linear(3, 4), maker=linear(3, 8), code=(3,)),
    net("hypernetwork, point by point", one_point_linear, weights=linear(3, 6), bias=(2,)),
    net("deep equilibrium", equilibrium, inner=linear(4, 4), inject=linear(3, 4), last=linear(4, 2)),
    net("low-rank adaptation", low_rank, base=frozen_linear, a=(3, 1), b=(1, 2)),
    net(
        "MLP mixer",
        mixer,
        floats(2, 3),
        norm=lambda: nn.LayerNorm(3),
        over_positions=linear(2, 2),
        over_channels=linear(3, 3),
    ),
    net("rotary attention", rotary, floats(3, 3), q=linear(3, 4), k=linear(3, 4), v=linear(3, 2)),
    net("dense connections", dense, all=lambda: nn.ModuleList([nn.Linear(3, 2), nn.Linear(5, 2)]), last=linear(7, 2)),
    net("highway", highway, gate=linear(3, 3), body=linear(3, 3), last=linear(3, 2)),
    net("siamese", siamese, lambda n: (torch.randn(n, 3), torch.randn(n, 3)), body=linear(3, 4)),
    net("residual flow in steps", leapfrog, field=linear(3, 3), last=linear(3, 2)),
    net(
        "normalising flow", coupling, floats(4), body=lambda: nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 4))
    ),
    net("sine network", lambda m, x: m.b(torch.sin(3 * m.a(x))), a=linear(3, 4), b=linear(4, 1)),
    net("empty parts", lambda m, x: m.b(m.e(m.a(x)).tanh()), a=linear(3, 4), e=nn.Identity, b=linear(4, 2)),
    Awkward(
        "set network",
        lambda: Net(lambda m, x: m.b(m.a(x).relu().amax(1)), a=nn.Linear(3, 4), b=nn.Linear(4, 2)),
        floats(4, 3),
    ),
]
