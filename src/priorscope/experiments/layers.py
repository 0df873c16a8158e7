"""The table of `autokernel`: for every layer with an infinite-width rule a small network that has it, at any width.

A new rule is one row: its family, the layer in words, the key of its rule in the registry, `make(width)`, and the
shape of a point. The last layer, by which the last parameters are, is linear with one output.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architectures import ATTENTION, IDS, OTHERS, RECURRENT
from .networks import (
    Apply,
    ErrorFunction,
    Join,
    behind,
    bilinear,
    blocks,
    branch,
    channels,
    circular,
    dense,
    features,
    functions,
    gate,
    gate_by_a_piece,
    lines,
    of_three,
    padded,
    picture_blocks,
    pictures,
    pointwise,
    positions,
    post_activation,
    pre_activation,
    residual_pictures,
    same,
    separable,
    single,
    solids,
    transposes,
    two_embeddings,
    two_heads,
)

VECTOR, LINE, PICTURE, SOLID, SEQUENCE, WORDS = (3,), (2, 5), (2, 4, 4), (2, 3, 3, 3), (4, 3), (4,)
SMALL_PICTURE, SHORT = (2, 2, 2), (3, 3)
"""For limits that integrate at each pair of positions."""


@dataclass(frozen=True)
class Row:
    """key: of the registry; or, for what has no single one, words in the name that `explain` gives to the rule.

    ids: where points are not numbers but ids, how many there are. readout: which part of the output is the function.
    wider: a factor of all widths, for scores of attention whose mean is off by as much as 10/width.
    """

    family: str
    layer: str
    key: Any
    make: Callable[[int], nn.Module]
    shape: tuple[int, ...] = VECTOR
    ids: int | None = None
    readout: Callable[[Any], Tensor] | None = None
    wider: int = 1


KINKED, SMOOTH, FUSED, BRANCHES, SEVERAL, NORMS, CONVOLUTIONS, TRANSPOSED, POSITIONS, SEQUENCES, ATTENDING = (
    "piecewise linear",
    "smooth",
    "functions written in forward",
    "branches",
    "functions of several values",
    "normalisations",
    "convolutions",
    "transposed and residual convolutions",
    "pooling and shapes",
    "positions and times",
    "attention",
)


ROWS = (
    Row(KINKED, "nn.Linear", nn.Linear, dense(nn.Identity)),
    Row(KINKED, "nn.ReLU", nn.ReLU, dense(nn.ReLU)),
    Row(KINKED, "nn.LeakyReLU(0.3)", nn.LeakyReLU, dense(lambda: nn.LeakyReLU(0.3))),
    Row(KINKED, "torch.abs", torch.abs, pointwise(torch.abs)),
    Row(KINKED, "h + relu(h)", "F.relu → add", pointwise(lambda h: h + F.relu(h))),
    Row(KINKED, "sign", "torch.sign", pointwise(torch.sign)),
    Row(KINKED, "step, h > 0", "gt → to", pointwise(lambda h: (h > 0).to(h))),
    Row(KINKED, "nn.ELU, quadrature", "nn.ELU", dense(nn.ELU)),
    Row(KINKED, "nn.Hardtanh, quadrature", "nn.Hardtanh", dense(nn.Hardtanh)),
    Row(KINKED, "nn.Dropout, in evaluation", nn.Dropout, dense(lambda: nn.Sequential(nn.ReLU(), nn.Dropout()))),
    Row(SMOOTH, "torch.erf", torch.erf, pointwise(torch.erf)),
    Row(SMOOTH, "nn.GELU", nn.GELU, dense(nn.GELU)),
    Row(SMOOTH, "torch.sin", torch.sin, pointwise(torch.sin)),
    Row(SMOOTH, "torch.cos", torch.cos, pointwise(torch.cos)),
    Row(SMOOTH, "nn.Tanh", nn.Tanh, dense(nn.Tanh)),
    Row(SMOOTH, "nn.Sigmoid", nn.Sigmoid, dense(nn.Sigmoid)),
    Row(SMOOTH, "nn.SiLU", nn.SiLU, dense(nn.SiLU)),
    Row(SMOOTH, "nn.Softplus", nn.Softplus, dense(nn.Softplus)),
    Row(SMOOTH, "nn.Mish", nn.Mish, dense(nn.Mish)),
    Row(SMOOTH, "nn.LogSigmoid", nn.LogSigmoid, dense(nn.LogSigmoid)),
    Row(SMOOTH, "nn.Tanhshrink", nn.Tanhshrink, dense(nn.Tanhshrink)),
    Row(FUSED, "exp(0.3 h)", "torch.exp", pointwise(lambda h: torch.exp(0.3 * h))),
    Row(FUSED, "Gaussian, exp(−h²/2)", "torch.exp", pointwise(lambda h: torch.exp(-h * h / 2))),
    Row(FUSED, "random features, √2 sin(0.8 h + π/4)", "torch.sin", pointwise(features)),
    Row(FUSED, "tanh form of GELU, quadrature", nn.GELU, dense(lambda: nn.GELU("tanh"))),
    Row(FUSED, "monomial, h³", "pow", single(lambda h: h**3)),
    Row(FUSED, "rectified monomial, relu(h)²", "F.relu → pow", single(lambda h: F.relu(h) ** 2)),
    Row(FUSED, "polynomial, 0.3 − h + h²/2", "pow", single(lambda h: 0.3 - h + 0.5 * h**2)),
    Row(FUSED, "the user's kernel map", ErrorFunction, dense(ErrorFunction)),
    Row(BRANCHES, "residual sum", torch.add, behind(lambda w: Join(torch.add, branch(w)))),
    Row(BRANCHES, "difference", torch.sub, behind(lambda w: Join(torch.sub, branch(w)))),
    Row(
        BRANCHES,
        "product",
        torch.mul,
        lambda w: nn.Sequential(nn.Linear(3, w), Join(torch.mul, branch(w), branch(w)), nn.Linear(w, 1)),
    ),
    Row(
        BRANCHES,
        "concatenation",
        torch.cat,
        lambda w: nn.Sequential(
            Join(
                lambda a, b: torch.cat([a, b], 1),
                nn.Sequential(nn.Linear(3, w), nn.ReLU()),
                nn.Sequential(nn.Linear(3, 2 * w), nn.Tanh()),
            ),
            nn.Linear(3 * w, 1),
        ),
    ),
    Row(BRANCHES, "a gate by another layer", torch.mul, gate),
    Row(BRANCHES, "chunk, and a gate by a piece", torch.chunk, gate_by_a_piece),
    Row(BRANCHES, "two heads on one trunk", nn.Linear, two_heads, readout=lambda heads: heads[1]),
    Row(BRANCHES, "pre-activation blocks", torch.add, blocks(pre_activation)),
    Row(SEVERAL, "post-activation blocks", "Gaussian values", blocks(post_activation)),
    Row(SEVERAL, "post-activation blocks of convolutions", "Gaussian values", picture_blocks, SMALL_PICTURE),
    Row(
        SEVERAL, "relu(relu(a) + b + d)", "Gaussian values", of_three(lambda a, b, d: torch.relu(torch.relu(a) + b + d))
    ),
    Row(SEVERAL, "tanh(a sigmoid(b) + d)", "Gaussian values", of_three(lambda a, b, d: (a * b.sigmoid() + d).tanh())),
    Row(SEVERAL, "relu(a + b) sigmoid(a)", "Gaussian values", of_three(lambda a, b, d: (a + b).relu() * a.sigmoid())),
    Row(SEVERAL, "max(b, d)", "Gaussian values", of_three(lambda a, b, d: torch.maximum(b, d))),
    Row(NORMS, "nn.LayerNorm", nn.LayerNorm, behind(nn.LayerNorm)),
    Row(NORMS, "nn.RMSNorm", nn.RMSNorm, behind(nn.RMSNorm)),
    Row(NORMS, "nn.BatchNorm1d, fresh", nn.BatchNorm1d, behind(nn.BatchNorm1d)),
    Row(NORMS, "nn.LayerNorm at every position", nn.LayerNorm, positions(nn.LayerNorm), SEQUENCE),
    Row(NORMS, "nn.RMSNorm at every position", nn.RMSNorm, positions(nn.RMSNorm), SEQUENCE),
    Row(
        NORMS,
        "nn.GroupNorm(1)",
        nn.GroupNorm,
        pictures(lambda w: nn.Sequential(same(w), nn.GroupNorm(1, w)), 16),
        PICTURE,
    ),
    Row(CONVOLUTIONS, "nn.Conv1d, same", nn.Conv1d, lines, LINE),
    Row(CONVOLUTIONS, "nn.Conv1d, circular", nn.Conv1d, circular, LINE),
    Row(CONVOLUTIONS, "nn.Conv2d, same", nn.Conv2d, pictures(same, 16), PICTURE),
    Row(CONVOLUTIONS, "nn.Conv2d, valid", nn.Conv2d, pictures(lambda w: nn.Conv2d(w, w, 3), 4), PICTURE),
    Row(
        CONVOLUTIONS,
        "nn.Conv2d, circular",
        nn.Conv2d,
        pictures(lambda w: nn.Conv2d(w, w, 3, padding=1, padding_mode="circular"), 16),
        PICTURE,
    ),
    Row(CONVOLUTIONS, "nn.Conv2d, stride 2", nn.Conv2d, pictures(lambda w: nn.Conv2d(w, w, 2, stride=2), 4), PICTURE),
    Row(
        CONVOLUTIONS,
        "nn.Conv2d, dilation 2",
        nn.Conv2d,
        pictures(lambda w: nn.Conv2d(w, w, 3, dilation=2, padding=2), 16),
        PICTURE,
    ),
    Row(
        CONVOLUTIONS,
        "nn.Conv2d, two groups",
        nn.Conv2d,
        pictures(lambda w: nn.Conv2d(w, w, 3, padding=1, groups=2), 16),
        PICTURE,
    ),
    Row(CONVOLUTIONS, "nn.Conv2d, depthwise and 1×1", nn.Conv2d, pictures(separable, 16), PICTURE),
    Row(CONVOLUTIONS, "nn.Conv3d", nn.Conv3d, solids, SOLID),
    Row(TRANSPOSED, "nn.ConvTranspose1d, stride 2", nn.ConvTranspose1d, OTHERS["transposed convolution"], SEQUENCE),
    Row(
        TRANSPOSED,
        "nn.ConvTranspose2d, stride 2",
        nn.ConvTranspose2d,
        pictures(lambda w: nn.ConvTranspose2d(w, w, 3, stride=2, padding=1), 49),
        PICTURE,
    ),
    Row(TRANSPOSED, "F.conv1d, F.conv_transpose1d, F.avg_pool1d, F.linear", F.conv1d, functions, LINE),
    Row(TRANSPOSED, "residual blocks of convolutions", torch.add, OTHERS["residual convolutions"], SEQUENCE),
    Row(
        TRANSPOSED,
        "residual sum of convolutions",
        torch.add,
        residual_pictures,
        PICTURE,
    ),
    Row(POSITIONS, "nn.Flatten", nn.Flatten, lambda w: nn.Sequential(nn.Flatten(), dense(nn.ReLU)(w)), (1, 3)),
    Row(POSITIONS, "nn.AvgPool2d", nn.AvgPool2d, pictures(same, 4, lambda w: nn.AvgPool2d(2)), PICTURE),
    Row(
        POSITIONS, "global average", nn.AdaptiveAvgPool2d, pictures(same, 1, lambda w: nn.AdaptiveAvgPool2d(1)), PICTURE
    ),
    Row(
        POSITIONS,
        "mean over positions",
        torch.mean,
        pictures(same, 1, lambda w: Apply(lambda x: x.mean((2, 3)))),
        PICTURE,
    ),
    Row(
        POSITIONS, "sum over positions", torch.sum, pictures(same, 1, lambda w: Apply(lambda x: x.sum((2, 3)))), PICTURE
    ),
    Row(POSITIONS, "nn.Upsample", nn.Upsample, pictures(same, 64, lambda w: nn.Upsample(scale_factor=2)), PICTURE),
    Row(
        POSITIONS,
        "slices of positions",
        Tensor.__getitem__,
        pictures(same, 2, lambda w: Apply(lambda x: x[:, :, 1, 1:3])),
        PICTURE,
    ),
    Row(
        POSITIONS,
        "zero padding",
        F.pad,
        pictures(lambda w: nn.Sequential(Apply(lambda x: F.pad(x, (2, 0, 1, 1))), nn.Conv2d(w, w, 3)), 16),
        PICTURE,
    ),
    Row(POSITIONS, "nn.CircularPad2d", nn.CircularPad2d, pictures(padded, 16), PICTURE),
    Row(POSITIONS, "F.interpolate, bilinear", F.interpolate, pictures(same, 36, lambda w: Apply(bilinear)), PICTURE),
    Row(POSITIONS, "concatenation of channels", torch.cat, channels, PICTURE),
    Row(POSITIONS, "transpose, reverse, reshape", torch.transpose, transposes, PICTURE),
    Row(SEQUENCES, "nn.Linear at every position", nn.Linear, OTHERS["at every position"], SEQUENCE),
    Row(SEQUENCES, "graph, a constant matrix", torch.matmul, OTHERS["graph"], SEQUENCE),
    Row(SEQUENCES, "position encodings", torch.add, OTHERS["position encodings"], SEQUENCE),
    Row(SEQUENCES, "nn.Embedding of ids and places", nn.Embedding, OTHERS["embedding"], WORDS, IDS),
    Row(SEQUENCES, "F.embedding", F.embedding, two_embeddings, WORDS, IDS),
    Row(SEQUENCES, "nn.RNN, tanh, last state", nn.RNN, RECURRENT["rnn, last state"], SHORT),
    Row(SEQUENCES, "nn.RNN, two ReLU layers", nn.RNN, RECURRENT["rnn, two relu layers, mean over time"], SEQUENCE),
    Row(SEQUENCES, "nn.RNN, both directions", nn.RNN, RECURRENT["rnn, both directions"], SHORT),
    Row(ATTENDING, "softmax(q qᵀ/d) v", torch.matmul, ATTENTION["softmax attention, 1/d"], SEQUENCE),
    Row(ATTENDING, "relu(q qᵀ/d) v", torch.matmul, ATTENTION["relu attention, 1/d"], SEQUENCE, wider=4),
    Row(ATTENDING, "independent queries and keys", torch.matmul, ATTENTION["independent queries and keys"], SEQUENCE),
    Row(ATTENDING, "four heads", F.scaled_dot_product_attention, lambda w: ATTENTION["four heads"](w // 2), SEQUENCE),
    Row(ATTENDING, "class token", torch.cat, ATTENTION["class token"], SEQUENCE, wider=4),
    Row(ATTENDING, "transformer encoder", torch.matmul, ATTENTION["transformer encoder"], SEQUENCE),
)
