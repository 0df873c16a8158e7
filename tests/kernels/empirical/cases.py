"""Awkward architectures: what other engines get wrong or refuse. Each with inputs that need not be plain tensors."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True)
class Awkward:
    name: str
    make: Callable[[], nn.Module]
    points: Callable[[int], Any]
    readout: Callable[[Any], torch.Tensor] | None = None
    looped: bool | None = None
    """Whether it must run one point at a time; None: either."""

    def __repr__(self) -> str:
        return self.name


def images(n: int) -> torch.Tensor:
    return torch.randn(n, 2, 5, 5)


def sequences(n: int) -> torch.Tensor:
    return torch.randn(n, 4, 3)


def vectors(n: int) -> torch.Tensor:
    return torch.randn(n, 3)


def last_step(out: Any) -> torch.Tensor:
    return out[0][:, -1]


def convolution(*args: Any, kind: type[nn.Module] = nn.Conv2d, **keywords: Any) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(kind(*args, **keywords), nn.Tanh(), nn.Flatten(), nn.LazyLinear(2))


class Bare(nn.Module):
    """Bare parameters, one of them a number and one unused."""

    def __init__(self):
        super().__init__()
        self.scale, self.matrix = nn.Parameter(torch.tensor(0.7)), nn.Parameter(torch.randn(3, 2))
        self.unused = nn.Parameter(torch.randn(4))

    def forward(self, x):
        return torch.sin(self.scale * x) @ self.matrix


class TiedEmbedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.hidden = nn.Linear(4, 4)

    def forward(self, tokens):
        return self.hidden(self.embedding(tokens)).tanh().mean(1) @ self.embedding.weight.T


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.linear = nn.Embedding(5, 3), nn.Linear(3, 2)

    def forward(self, tokens, x):
        return self.linear(torch.tanh(self.embedding(tokens) * x))


class Product(torch.autograd.Function):
    """Without a vmap rule."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x * w

    @staticmethod
    def backward(ctx, grad):
        x, w = ctx.saved_tensors
        return grad * w, (grad * x).sum(0)


class Custom(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale, self.linear = nn.Parameter(torch.randn(3)), nn.Linear(3, 2)

    def forward(self, x):
        return self.linear(torch.tanh(Product.apply(x, self.scale)))


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, x):
        return self.second(checkpoint(lambda h: self.first(h).tanh(), x, use_reentrant=False))


class ReadsValues(nn.Module):
    """Looks at a value in Python: another branch for some points."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x):
        return torch.cat([(self.a if row.sum().item() > 0 else self.b)(row[None]) for row in x])


class Hooked(nn.Module):
    """A tensor hook changes the gradient."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        h = self.first(x).tanh()
        if h.requires_grad:
            h.register_hook(lambda grad: 2 * grad)
        return self.second(h)


class SquareAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.project, self.last = nn.Linear(3, 12), nn.Linear(4, 2)

    def forward(self, x):
        q, k, v = self.project(x)[:, None].chunk(3, -1)
        return self.last(functional.scaled_dot_product_attention(q, k, v)[:, 0].mean(1))


def transformer() -> nn.Module:
    return nn.Sequential(nn.TransformerEncoderLayer(4, 2, 6, batch_first=True), nn.Flatten(), nn.Linear(12, 2))


def batch_norm() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 2))
    model(images(8))
    return model


def partly_frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    model[0].weight.requires_grad_(False)
    return model


AWKWARD = [
    Awkward("rnn", lambda: nn.RNN(3, 4, batch_first=True), sequences, last_step, looped=True),
    Awkward("gru", lambda: nn.GRU(3, 4, batch_first=True), sequences, last_step, looped=True),
    Awkward("lstm", lambda: nn.LSTM(3, 4, 2, batch_first=True, bidirectional=True), sequences, last_step, looped=True),
    Awkward("prelu", lambda: nn.Sequential(nn.Linear(3, 4), nn.PReLU(4), nn.Linear(4, 2)), vectors),
    Awkward("batch norm", batch_norm, images, looped=False),
    Awkward(
        "group norm",
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(36, 2)),
        images,
        looped=False,
    ),
    Awkward("rms norm", lambda: nn.Sequential(nn.Linear(3, 4), nn.RMSNorm(4), nn.Linear(4, 2)), vectors, looped=False),
    Awkward("embedding", TiedEmbedding, lambda n: torch.randint(7, (n, 3)), looped=False),
    Awkward("in place", lambda: nn.Sequential(nn.Linear(3, 6), nn.ReLU(inplace=True), nn.Linear(6, 2)), vectors),
    Awkward("frozen", partly_frozen, vectors, looped=False),
    Awkward("bare", Bare, vectors, looped=False),
    Awkward(
        "dictionary", TwoInputs, lambda n: {"x": torch.randn(n, 3), "tokens": torch.randint(5, (n,))}, looped=False
    ),
    Awkward("tuple", TwoInputs, lambda n: (torch.randint(5, (n,)), torch.randn(n, 3)), looped=False),
    Awkward("not contiguous", lambda: nn.Linear(3, 2), lambda n: torch.randn(3, 2 * n).T[::2], looped=False),
    Awkward("squeezed", lambda: nn.Linear(3, 1), vectors, lambda out: out.squeeze(), looped=False),
    Awkward("grouped conv", convolution(2, 4, 3, groups=2), images),
    Awkward("dilated conv", convolution(2, 3, 2, dilation=2), images),
    Awkward("strided conv", convolution(2, 3, 3, stride=2, padding=1), images),
    Awkward("circular conv", convolution(2, 3, 3, padding="same", padding_mode="circular"), images),
    Awkward("transposed conv", convolution(2, 3, 3, stride=2, kind=nn.ConvTranspose2d), images),
    Awkward("conv 1d", convolution(4, 3, 2, kind=nn.Conv1d), sequences),
    Awkward("attention function", SquareAttention, sequences),
    Awkward("transformer", transformer, lambda n: torch.randn(n, 3, 4)),
    Awkward("custom function", Custom, vectors, looped=True),
    Awkward("checkpoint", Checkpointed, vectors),
    Awkward("reads values", ReadsValues, vectors, looped=True),
    Awkward("tensor hook", Hooked, vectors),
]
