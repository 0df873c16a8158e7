"""Linear layers, convolutions, normalisations, embeddings: every option that changes what a weight's gradient is."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from .case import Awkward, Net, floats, headed, layer, tokens

LINEAR = [
    layer("linear on vectors", lambda: nn.Linear(3, 4), floats(3)),
    layer("linear on sequences", lambda: nn.Linear(3, 4), floats(2, 3)),
    layer("linear on three axes", lambda: nn.Linear(3, 2), floats(2, 2, 3)),
    layer("linear on sequences without bias", lambda: nn.Linear(3, 4, bias=False), floats(2, 3)),
    layer("linear on one feature", lambda: nn.Linear(1, 4), floats(1)),
    layer("linear on longer sequences than its width", lambda: nn.Linear(2, 2), floats(7, 2)),
]

SIZE = {1: (5,), 2: (4, 5), 3: (3, 3, 2)}
CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}

CONVOLUTIONS: list[tuple[str, dict[str, Any]]] = [
    ("plain", {}),
    ("without bias", {"bias": False}),
    ("strided", {"stride": 2}),
    ("dilated", {"dilation": 2, "padding": 1}),
    ("grouped", {"groups": 2}),
    ("depthwise", {"groups": 2, "out_channels": 2}),
    ("depthwise with a multiplier", {"groups": 2, "out_channels": 4, "padding": 1}),
    ("same", {"kernel_size": 3, "padding": "same"}),
    ("valid", {"padding": "valid"}),
    ("padded", {"padding": 1}),
    ("even and same", {"padding": "same"}),
    ("even, same and without bias", {"padding": "same", "bias": False}),
    ("reflected", {"padding": 1, "padding_mode": "reflect"}),
    ("replicated", {"padding": 1, "padding_mode": "replicate"}),
    ("circular", {"padding": 1, "padding_mode": "circular"}),
    ("circular and same", {"kernel_size": 3, "padding": "same", "padding_mode": "circular"}),
    ("circular and grouped", {"padding": 1, "padding_mode": "circular", "groups": 2}),
    ("strided, dilated and padded", {"stride": 2, "dilation": 2, "padding": 2}),
    ("kernel of one", {"kernel_size": 1}),
    ("kernel of one, strided", {"kernel_size": 1, "stride": 2}),
]
IN_TWO_DIMENSIONS: list[tuple[str, dict[str, Any]]] = [
    ("asymmetric strides", {"stride": (2, 1)}),
    ("asymmetric all over", {"kernel_size": (2, 3), "stride": (1, 2), "padding": (1, 0), "dilation": (2, 1)}),
    ("kernel as large as the image", {"kernel_size": (4, 5)}),
    ("asymmetric and circular", {"kernel_size": (3, 2), "padding": (1, 0), "padding_mode": "circular"}),
]
TRANSPOSED_CONVOLUTIONS: list[tuple[str, dict[str, Any]]] = [
    ("plain", {}),
    ("without bias", {"bias": False}),
    ("strided", {"stride": 2}),
    ("padded", {"stride": 2, "padding": 1}),
    ("output padded", {"stride": 2, "padding": 1, "output_padding": 1}),
    ("dilated", {"dilation": 2}),
    ("grouped", {"groups": 2, "stride": 2}),
    ("depthwise", {"groups": 2, "out_channels": 2}),
    ("all at once", {"stride": 2, "padding": 1, "output_padding": 1, "dilation": 2, "groups": 2}),
]


def convolution(dimensions: int, kinds: dict[int, type[nn.Module]], name: str, options: dict[str, Any]) -> Awkward:
    kind = kinds[dimensions]
    keywords = {"in_channels": 2, "out_channels": 4, "kernel_size": 2} | options
    return layer(f"{kind.__name__}, {name}", lambda: kind(**keywords), floats(2, *SIZE[dimensions]))


CONV_CASES = [convolution(d, CONV, name, options) for d in (1, 2, 3) for name, options in CONVOLUTIONS]
CONV_CASES += [convolution(2, CONV, name, options) for name, options in IN_TWO_DIMENSIONS]
CONV_CASES += [
    convolution(d, TRANSPOSED, name, options) for d in (1, 2, 3) for name, options in TRANSPOSED_CONVOLUTIONS
]


def with_statistics(norm: nn.Module, *shape: int) -> nn.Module:
    """A norm whose running statistics are not those of the start."""
    norm.train()(1.5 * torch.randn(8, *shape) + 0.5)
    return norm.eval()


NORMS = [
    layer("LayerNorm", lambda: nn.LayerNorm(3), floats(3)),
    layer("LayerNorm on sequences", lambda: nn.LayerNorm(3), floats(2, 3)),
    layer("LayerNorm over two axes", lambda: nn.LayerNorm((2, 3)), floats(2, 3)),
    layer("LayerNorm without bias", lambda: nn.LayerNorm(3, bias=False), floats(2, 3)),
    layer("LayerNorm without parameters", lambda: nn.LayerNorm(3, elementwise_affine=False), floats(3)),
    layer("RMSNorm", lambda: nn.RMSNorm(3), floats(3)),
    layer("RMSNorm on sequences", lambda: nn.RMSNorm(3), floats(2, 3)),
    layer("GroupNorm", lambda: nn.GroupNorm(2, 4), floats(4, 3)),
    layer("GroupNorm on images", lambda: nn.GroupNorm(2, 4), floats(4, 2, 2)),
    layer("GroupNorm on vectors", lambda: nn.GroupNorm(2, 4), floats(4)),
    layer("GroupNorm of one group", lambda: nn.GroupNorm(1, 4), floats(4, 3)),
    layer("InstanceNorm1d", lambda: nn.InstanceNorm1d(2, affine=True), floats(2, 4)),
    layer("InstanceNorm2d", lambda: nn.InstanceNorm2d(2, affine=True), floats(2, 3, 3)),
    layer(
        "InstanceNorm2d with statistics",
        lambda: with_statistics(nn.InstanceNorm2d(2, affine=True, track_running_stats=True), 2, 3, 3),
        floats(2, 3, 3),
    ),
    layer("BatchNorm1d on vectors", lambda: with_statistics(nn.BatchNorm1d(3), 3), floats(3)),
    layer("BatchNorm1d on sequences", lambda: with_statistics(nn.BatchNorm1d(2), 2, 3), floats(2, 3)),
    layer("BatchNorm2d", lambda: with_statistics(nn.BatchNorm2d(2), 2, 3, 3), floats(2, 3, 3)),
    layer("BatchNorm without parameters", lambda: with_statistics(nn.BatchNorm1d(3, affine=False), 3), floats(3)),
    layer("LocalResponseNorm", lambda: nn.LocalResponseNorm(2), floats(3, 4)),
]


def bag(mode: str) -> Awkward:
    return layer(f"EmbeddingBag, {mode}", lambda: nn.EmbeddingBag(5, 3, mode=mode), tokens(4))


EMBEDDINGS = [
    layer("Embedding of one id", lambda: nn.Embedding(5, 3), lambda n: torch.randint(5, (n,))),
    layer("Embedding with repeated ids", lambda: nn.Embedding(3, 3), tokens(5, 3)),
    layer("Embedding of ids in two dimensions", lambda: nn.Embedding(5, 3), lambda n: torch.randint(5, (n, 2, 3))),
    layer("Embedding with a padding id", lambda: nn.Embedding(4, 3, padding_idx=1), tokens(5, 4)),
    layer("Embedding, sparse", lambda: nn.Embedding(5, 3, sparse=True), tokens(3)),
    bag("sum"),
    bag("mean"),
    bag("max"),
    layer("EmbeddingBag with a padding id", lambda: nn.EmbeddingBag(5, 3, padding_idx=0), tokens(4)),
    Awkward(
        "EmbeddingBag with weights",
        lambda: Net(
            lambda m, ids, w: m.last(m.bag(ids, per_sample_weights=w)).tanh(),
            bag=nn.EmbeddingBag(5, 3, mode="sum"),
            last=nn.Linear(3, 2),
        ),
        lambda n: (torch.randint(5, (n, 4)), torch.randn(n, 4)),
    ),
    Awkward(
        "embedding of a bare parameter",
        lambda: Net(
            lambda m, ids: m.last(functional.embedding(ids, m.table).tanh().mean(1)),
            table=torch.randn(5, 3),
            last=nn.Linear(3, 2),
        ),
        tokens(3),
    ),
    Awkward(
        "embedding by indexing a bare parameter",
        lambda: Net(lambda m, ids: m.last(m.table[ids].tanh().mean(1)), table=torch.randn(5, 3), last=nn.Linear(3, 2)),
        tokens(3),
    ),
    Awkward(
        "embedding by index_select",
        lambda: Net(
            lambda m, ids: m.last(m.table.index_select(0, ids.flatten()).view(*ids.shape, 3).tanh().mean(1)),
            table=torch.randn(5, 3),
            last=nn.Linear(3, 2),
        ),
        tokens(3),
    ),
    Awkward(
        "embedding by one-hot vectors",
        lambda: Net(
            lambda m, ids: m.last(functional.one_hot(ids, 5).to(m.table.dtype) @ m.table).tanh().mean(1),
            table=torch.randn(5, 3),
            last=nn.Linear(3, 2),
        ),
        tokens(3),
    ),
]

POOLS = [
    Awkward(
        f"{pool}", headed(lambda pool=pool: nn.Sequential(nn.Conv2d(2, 2, 1), pool), floats(2, 4, 4)), floats(2, 4, 4)
    )
    for pool in (
        nn.MaxPool2d(2),
        nn.AvgPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.AdaptiveMaxPool2d(2),
        nn.LPPool2d(2, 2),
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Unfold(2),
        nn.ZeroPad2d(1),
        nn.PixelUnshuffle(2),
    )
]

LAYERS = LINEAR + CONV_CASES + NORMS + EMBEDDINGS + POOLS
