"""Attention: the function, the module, and the layers of transformers."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from .case import Awkward, Net, floats


def function(name: str, **options) -> Awkward:
    """scaled_dot_product_attention with these options."""

    def rule(m, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (2, 2)).transpose(1, 2) for part in m.project(x).chunk(3, -1))
        return m.last(functional.scaled_dot_product_attention(q, k, v, **options).transpose(1, 2).flatten(2).mean(1))

    return Awkward(name, lambda: Net(rule, project=nn.Linear(3, 12), last=nn.Linear(4, 2)), floats(4, 3))


def self_attention(name: str, need_weights: bool = False, mask: Tensor | None = None, **options) -> Awkward:
    """MultiheadAttention of a sequence with itself."""

    def rule(m, x: Tensor) -> Tensor:
        h = m.first(x)
        out, _ = m.attention(h, h, h, need_weights=need_weights, attn_mask=mask)
        return m.last(out.mean(1))

    return Awkward(
        name,
        lambda: Net(
            rule,
            first=nn.Linear(3, 4),
            attention=nn.MultiheadAttention(4, 2, batch_first=True, **options),
            last=nn.Linear(4, 2),
        ),
        floats(3, 3),
    )


def weights_rule(m, x: Tensor) -> Tensor:
    """The attention weights are the output."""
    return m.attention(x, x, x, need_weights=True, average_attn_weights=False)[1]


def time_first_rule(m, x: Tensor) -> Tensor:
    h = m.first(x).transpose(0, 1)
    return m.last(m.attention(h, h, h)[0].transpose(0, 1).mean(1))


def cross_rule(m, x: Tensor, memory: Tensor) -> Tensor:
    return m.last(m.attention(x, memory, memory)[0].mean(1))


def values_rule(m, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return m.last(m.attention(x, keys, values, need_weights=False)[0].mean(1))


def padded_rule(m, x: Tensor, padding: Tensor) -> Tensor:
    return m.last(m.attention(x, x, x, key_padding_mask=padding, need_weights=False)[0].mean(1))


CAUSAL = torch.ones(3, 3, dtype=torch.bool).triu(1)

MODULES = [
    self_attention("self-attention"),
    self_attention("self-attention with weights", need_weights=True),
    self_attention("self-attention without bias", bias=False),
    self_attention("self-attention with a key and value bias", add_bias_kv=True),
    self_attention("self-attention with zero attention", add_zero_attn=True),
    self_attention("self-attention with a mask of booleans", mask=CAUSAL),
    self_attention("self-attention with a mask of numbers", mask=-1.5 * CAUSAL.to(torch.float64)),
    Awkward(
        "attention weights",
        lambda: Net(weights_rule, attention=nn.MultiheadAttention(4, 2, batch_first=True)),
        floats(2, 4),
    ),
    Awkward(
        "self-attention, time first",
        lambda: Net(
            time_first_rule, first=nn.Linear(3, 4), attention=nn.MultiheadAttention(4, 2), last=nn.Linear(4, 2)
        ),
        floats(3, 3),
    ),
    Awkward(
        "cross-attention",
        lambda: Net(cross_rule, attention=nn.MultiheadAttention(4, 2, batch_first=True), last=nn.Linear(4, 2)),
        lambda n: (torch.randn(n, 2, 4), torch.randn(n, 3, 4)),
    ),
    Awkward(
        "cross-attention with other widths",
        lambda: Net(
            values_rule,
            attention=nn.MultiheadAttention(4, 2, kdim=3, vdim=5, batch_first=True),
            last=nn.Linear(4, 2),
        ),
        lambda n: (torch.randn(n, 2, 4), torch.randn(n, 3, 3), torch.randn(n, 3, 5)),
    ),
    Awkward(
        "self-attention with padded keys",
        lambda: Net(padded_rule, attention=nn.MultiheadAttention(4, 2, batch_first=True), last=nn.Linear(4, 2)),
        lambda n: (torch.randn(n, 3, 4), torch.arange(3).expand(n, 3) > torch.arange(1, n + 1)[:, None]),
    ),
]

FUNCTIONS = [
    function("attention function"),
    function("attention function, causal", is_causal=True),
    function("attention function with a mask", attn_mask=torch.ones(4, 4, dtype=torch.bool).tril()),
    function("attention function with a scale", scale=0.3),
]


def encoder_layer(**options) -> nn.Module:
    return nn.TransformerEncoderLayer(4, 2, 3, **({"batch_first": True} | options))


def encoder(name: str, make) -> Awkward:
    return Awkward(
        name,
        lambda: nn.Sequential(nn.Linear(3, 4), make(), nn.Flatten(), nn.Linear(12, 2)),
        floats(3, 3),
    )


def time_first(inner: nn.Module) -> nn.Module:
    return Net(lambda m, x: m.inner(x.transpose(0, 1)).transpose(0, 1), inner=inner)


def decoder_rule(m, x: Tensor, memory: Tensor) -> Tensor:
    return m.last(m.decoder(x, memory, tgt_mask=CAUSAL).mean(1))


TRANSFORMERS = [
    encoder("transformer encoder layer", encoder_layer),
    encoder("transformer encoder layer, norm first", lambda: encoder_layer(norm_first=True)),
    encoder("transformer encoder layer, gelu without bias", lambda: encoder_layer(activation="gelu", bias=False)),
    encoder("transformer encoder layer, time first", lambda: time_first(encoder_layer(batch_first=False))),
    encoder(
        "transformer encoder",
        lambda: nn.TransformerEncoder(encoder_layer(), 2, norm=nn.LayerNorm(4), enable_nested_tensor=False),
    ),
    encoder(
        "transformer encoder, causal",
        lambda: Net(
            lambda m, x: m.inner(x, mask=CAUSAL, is_causal=True),
            inner=nn.TransformerEncoder(encoder_layer(norm_first=True), 2, enable_nested_tensor=False),
        ),
    ),
    Awkward(
        "transformer decoder layer",
        lambda: Net(decoder_rule, decoder=nn.TransformerDecoderLayer(4, 2, 3, batch_first=True), last=nn.Linear(4, 2)),
        lambda n: (torch.randn(n, 3, 4), torch.randn(n, 2, 4)),
    ),
    Awkward(
        "transformer decoder, norm first",
        lambda: Net(
            decoder_rule,
            decoder=nn.TransformerDecoder(nn.TransformerDecoderLayer(4, 2, 3, batch_first=True, norm_first=True), 2),
            last=nn.Linear(4, 2),
        ),
        lambda n: (torch.randn(n, 3, 4), torch.randn(n, 2, 4)),
    ),
]

ATTENTION = MODULES + FUNCTIONS + TRANSFORMERS
