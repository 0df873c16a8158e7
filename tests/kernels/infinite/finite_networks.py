"""Many small networks at once, by hand: outputs' covariance and tangent kernel of each, and controls of known mean."""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

AT_ONCE = 1000


class Activation(NamedTuple):
    """φ, φ' and, of the pair's G (s, 3), E[φφ] and E[φ'φ'] in closed form (None: unknown)."""

    module: type[nn.Module]
    value: object
    slope: object
    pair: object = None


class Erf(nn.Module):
    def forward(self, x):
        return torch.erf(x)


def erf_pair(g):
    a, k, b = g.unbind(1)

    def both(v1, k, v2):
        d = (1 + 2 * v1) * (1 + 2 * v2)
        return 2 / math.pi * torch.asin(2 * k / d.sqrt()), 4 / math.pi / (d - 4 * k**2).sqrt()

    return [torch.stack(part, 1) for part in zip(both(a, a, a), both(a, k, b), both(b, b, b), strict=True)]


def relu_pair(g):
    """Cho and Saul 2009."""
    a, k, b = g.unbind(1)
    scale = (a * b).sqrt()
    angle = torch.acos((k / scale).clamp(-1, 1))
    value = scale * (angle.sin() + (math.pi - angle) * angle.cos()) / (2 * math.pi)
    half = torch.full_like(a, 0.5)
    return torch.stack([a / 2, value, b / 2], 1), torch.stack([half, (math.pi - angle) / (2 * math.pi), half], 1)


ACTIVATIONS = {
    "linear": Activation(nn.Identity, lambda z: z, torch.ones_like, lambda g: (g, torch.ones_like(g))),
    "erf": Activation(Erf, torch.erf, lambda z: 2 / math.pi**0.5 * torch.exp(-z.square()), erf_pair),
    "relu": Activation(nn.ReLU, torch.relu, lambda z: (z > 0).double(), relu_pair),
    "tanh": Activation(nn.Tanh, torch.tanh, lambda z: 1 - torch.tanh(z).square()),
    "gelu": Activation(
        nn.GELU,
        nn.functional.gelu,
        lambda z: torch.special.ndtr(z) + z * torch.exp(-z.square() / 2) / (2 * math.pi) ** 0.5,
    ),
}


def network(*widths: int, activation: str, bias: bool = True) -> nn.Sequential:
    """widths: inputs, hidden layers, outputs."""
    parts: list[nn.Module] = []
    for below, above in pairwise(widths):
        parts += [nn.Linear(below, above, bias=bias), ACTIVATIONS[activation].module()]
    return nn.Sequential(*parts[:-1])


class Sampled(NamedTuple):
    """Of s networks at the pair's entries (11, 12, 22): covariance of an output given the layer below, tangent kernel
    (mean over outputs), its mean over the last weights, and, with a closed form, quantities of mean 0."""

    nngp: Tensor
    ntk: Tensor
    ntk_over_last: Tensor | None
    controls: Tensor | None


def sampled(model, init, x, activation: str, networks: int, seed: int = 0, over_last: bool = False) -> Sampled:
    """Networks drawn anew from init, of the model's widths, at two points x."""
    kind = ACTIVATIONS[activation]
    parts = [_some(model, init, x, kind, AT_ONCE, seed + i, over_last) for i in range(networks // AT_ONCE)]
    return Sampled(*(None if one[0] is None else torch.cat(one) for one in zip(*parts, strict=True)))


def entries(matrices: Tensor) -> Tensor:
    return torch.stack([matrices[..., 0, 0], matrices[..., 0, 1], matrices[..., 1, 1]], -1)


def _some(model, init, x, phi: Activation, networks: int, seed: int, over_last: bool) -> Sampled:
    generator = torch.Generator().manual_seed(seed)
    layers = [(name, one) for name, one in model.named_modules() if isinstance(one, nn.Linear)]
    rates, laws = init.rates(model), [init.variances(layer) for _, layer in layers]

    def normal(*shape):
        return torch.randn(networks, *shape, generator=generator, dtype=torch.float64)

    h, below, before, weights = x.expand(networks, *x.shape), [], [], []
    for (_, layer), law in zip(layers, laws, strict=True):
        weights.append(normal(*layer.weight.shape) * (law.weight / layer.in_features) ** 0.5)
        below.append(h)
        before.append(h @ weights[-1].mT + normal(1, layer.out_features) * law.bias**0.5)
        h = phi.value(before[-1])
    covariances = [
        law.weight / layer.in_features * one @ one.mT + law.bias
        for one, (_, layer), law in zip(below, layers, laws, strict=True)
    ]
    scales = [
        rates[f"{name}.weight"] * one @ one.mT + rates.get(f"{name}.bias", 0.0)
        for (name, _), one in zip(layers, below, strict=True)
    ]

    def tangent(layer: int, unit: int) -> Tensor:
        """Of one unit of a layer."""
        signal = torch.zeros_like(before[layer])
        signal[..., unit] = 1.0
        total = 0.0
        for i in reversed(range(layer + 1)):
            total = total + scales[i] * (signal @ signal.mT)
            if i:
                signal = (signal @ weights[i]) * phi.slope(before[i - 1])
        return total

    last, (_, layer), (variance, _) = len(layers) - 1, layers[-1], laws[-1]
    own = sum(tangent(last, k) for k in range(layer.out_features)) / layer.out_features
    over = None
    if over_last:
        slopes = phi.slope(before[-2])
        products = slopes[:, :, None] * slopes[:, None]
        units = sum(products[..., i] * tangent(last - 1, i) for i in range(layer.in_features))
        over = entries(scales[-1] + variance / layer.in_features * units)
    controls = None
    if phi.pair is not None:
        controls = torch.cat([_centred(phi, entries(g), z) for g, z in zip(covariances, before[:-1], strict=False)], 1)
    return Sampled(entries(covariances[-1]), entries(own), over, controls)


def _centred(phi: Activation, covariance: Tensor, z: Tensor) -> Tensor:
    """Means over a layer's units of φφ and φ'φ', less their expectations given the layer below."""
    found = []
    for function, expected in zip((phi.value, phi.slope), phi.pair(covariance), strict=True):
        h = function(z)
        found.append(entries(h @ h.mT) / z.shape[-1] - expected)
    return torch.cat(found, 1)


def controlled(values: Tensor, controls: Tensor | None) -> Tensor:
    """The values less what controls of mean 0 explain of them."""
    if controls is None:
        return values
    keep = controls.std(0) > 1e-12
    controls = controls[:, keep]
    slopes = torch.linalg.lstsq(controls - controls.mean(0), values - values.mean(0), driver="gelsd").solution
    return values - controls @ slopes
