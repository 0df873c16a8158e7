"""Inputs that are no plain tensor, and outputs that a read-out chooses from."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .case import Awkward, Net, floats
from .parameters import linear


def two(rule, points, readout=None, name: str = "") -> Awkward:
    return Awkward(
        name, lambda: Net(rule, a=nn.Linear(3, 4), b=nn.Linear(4, 2), table=nn.Embedding(5, 3)), points, readout
    )


def plain(m, x: Tensor) -> Tensor:
    return m.b(m.a(x).tanh())


def both(m, ids: Tensor, x: Tensor) -> Tensor:
    return m.b(m.a(m.table(ids) * x).tanh())


def nested(m, first: dict, second: tuple) -> Tensor:
    x, (z, ids) = first["x"], second
    return m.b(m.a(x + m.table(ids)).tanh() + m.a(z)) * (1 if first["flag"] else 2)


def optional(m, x: Tensor, mask: Tensor | None = None, scale: float = 1.0) -> Tensor:
    h = m.a(x).tanh() * scale
    return m.b(h if mask is None else h * mask[:, None])


INPUTS = [
    two(plain, lambda n: torch.randn(3, 2 * n).T[::2], name="not contiguous"),
    two(plain, lambda n: torch.randn(n, 3, 2).transpose(1, 2), name="not contiguous on sequences"),
    two(plain, lambda n: torch.randn(1, 3).expand(n, 3), name="expanded: equal points"),
    two(plain, lambda n: torch.randn(n, 3, requires_grad=True), name="inputs that require gradients"),
    two(plain, lambda n: torch.randn(n, 3) * (torch.arange(n) > 0)[:, None], name="a point of zeros"),
    two(lambda m, x: plain(m, x.to(torch.float64)), lambda n: torch.randint(5, (n, 3)), name="integers as numbers"),
    two(lambda m, x: plain(m, x.to(torch.float64)), lambda n: torch.rand(n, 3) > 0.4, name="booleans"),
    two(both, lambda n: {"x": torch.randn(n, 3), "ids": torch.randint(5, (n,))}, name="inputs as a dictionary"),
    two(both, lambda n: (torch.randint(5, (n,)), torch.randn(n, 3)), name="inputs as a tuple"),
    two(both, lambda n: [torch.randint(5, (n,)), torch.randn(n, 3)], name="inputs as a list"),
    two(
        nested,
        lambda n: ({"x": torch.randn(n, 3), "flag": False}, (torch.randn(n, 3), torch.randint(5, (n,)))),
        name="nested",
    ),
    two(
        nested,
        lambda n: {
            "first": {"x": torch.randn(n, 3), "flag": True},
            "second": (torch.randn(n, 3), torch.randint(5, (n,))),
        },
        name="nested keywords",
    ),
    two(optional, lambda n: {"x": torch.randn(n, 3), "mask": None, "scale": 2.0}, name="keywords that are no tensors"),
    two(optional, lambda n: {"x": torch.randn(n, 3), "mask": torch.arange(n) % 2}, name="a mask of integers"),
]


@dataclass
class Output:
    logits: Tensor
    state: Tensor


class ModelOutput(dict):
    """As transformer libraries return it: a dictionary with attributes."""

    def __getattr__(self, name: str):
        return self[name]


def pair(m, x: Tensor):
    h = m.a(x).tanh()
    return m.b(h), h


def dictionary(m, x: Tensor):
    out, h = pair(m, x)
    return {"logits": out, "state": h}


READOUTS = [
    two(pair, floats(3), lambda out: out[0], "tuple"),
    two(pair, floats(3), lambda out: torch.cat(out, 1), "both of a tuple"),
    two(dictionary, floats(3), lambda out: out["logits"], "dictionary"),
    two(lambda m, x: Output(*pair(m, x)), floats(3), lambda out: out.state, "dataclass"),
    two(plain, floats(3), lambda out: out[:, 1], "one logit"),
    two(plain, floats(3), lambda out: out[:, :1], "one logit with its axis"),
    two(plain, floats(3), lambda out: out[:, 0] - out[:, 1], "margin"),
    two(plain, floats(3), lambda out: out.sum(1), "sum of the logits"),
    two(plain, floats(3), lambda out: out.log_softmax(1), "log-probabilities"),
    two(plain, floats(3), lambda out: out.logsumexp(1), "free energy"),
    two(plain, floats(2, 3), lambda out: out.mean(1), "mean over positions"),
    two(plain, floats(2, 3), lambda out: out[:, -1], "last position"),
    two(plain, floats(2, 3), None, "all positions"),
    Awkward("squeezed", lambda: nn.Linear(3, 1), floats(3), lambda out: out.squeeze()),
    Awkward("flat outputs", lambda: nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)), floats(3)),
    Awkward(
        "complex outputs, read as their size",
        lambda: Net(lambda m, x: torch.fft.fft(m.a(x)), a=linear(3, 3)()),
        floats(3),
        abs,
    ),
]


class LanguageModel(nn.Module):
    """Called by keywords of integers, returns a dictionary; reads in Python whether any token is padded."""

    def __init__(self):
        super().__init__()
        self.embeddings = nn.ModuleDict({"word": nn.Embedding(7, 4), "position": nn.Embedding(6, 4)})
        self.norm, self.project, self.last = nn.LayerNorm(4), nn.Linear(4, 12), nn.Linear(4, 4)
        self.register_buffer("positions", torch.arange(6)[None])

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, return_dict: bool = True):
        h = self.embeddings["word"](input_ids) + self.embeddings["position"](self.positions[:, : input_ids.shape[1]])
        h = self.norm(h)
        mask = None
        if attention_mask is not None and not torch.all(attention_mask == 1):
            mask = attention_mask[:, None, None, :].bool()
        q, k, v = (part.unflatten(-1, (2, 2)).transpose(1, 2) for part in self.project(h).chunk(3, -1))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        state = h + self.last(mixed.transpose(1, 2).flatten(2))
        return ModelOutput(last_hidden_state=state) if return_dict else (state,)


def mean_pooled(out) -> Tensor:
    return out.last_hidden_state.mean(1)


def padded(n: int) -> Tensor:
    return (torch.arange(4) < torch.arange(n)[:, None] % 4 + 1).to(torch.int64)


LANGUAGE = [
    Awkward(
        "language model, no token padded",
        LanguageModel,
        lambda n: {"input_ids": torch.randint(7, (n, 4)), "attention_mask": torch.ones(n, 4, dtype=torch.int64)},
        mean_pooled,
    ),
    Awkward(
        "language model, padded tokens",
        LanguageModel,
        lambda n: {"input_ids": torch.randint(7, (n, 4)), "attention_mask": padded(n)},
        mean_pooled,
    ),
    Awkward("language model, no mask", LanguageModel, lambda n: {"input_ids": torch.randint(7, (n, 4))}, mean_pooled),
    Awkward(
        "language model, all states",
        LanguageModel,
        lambda n: {"input_ids": torch.randint(7, (n, 2)), "return_dict": False},
        lambda out: out[0],
    ),
]

INPUTS_AND_OUTPUTS = INPUTS + READOUTS + LANGUAGE
