"""Softmax attention whose scores stay random in the limit: expectations over Gaussian score matrices, by sampling.

Scores q k/√d of one head are Gaussian in the limit, Cov(G_pr, G'_p'r') = K(p, p') K(r, r') for queries and keys of one
law, and independent of the values. So a head's output has E[ζ K ζ'ᵀ], ζ = softmax(G) row by row, and infinitely many
heads have nothing else. There is no closed form: G = S Z Sᵀ is sampled, S Sᵀ = K, for each pair of points.

Samples come as ± the rows of random orthogonal matrices with Gaussian lengths: odd terms cancel, quadratic ones nearly
do. Every pair takes the same ones, so that what a pair of points gets depends on these two points alone. The first
point's scores are those that it has with itself, so that nearly equal points get nearly equal values; both orders of a
pair are averaged.
"""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

REPETITIONS = 6
"""Independent sets of samples: the spread of their means says how exact the mean of all is."""
ROWS = 256
"""Samples of a set, and as many of the opposite sign; fewer where score matrices are large."""
NUMBERS = 2**18
FEWEST = 16
AT_ONCE = 2**16
"""Weights of attention that are kept at once, of one pair of points."""
DEVIATIONS = 4
"""The error that is stated, in standard errors of the mean over sets."""


class Attended(NamedTuple):
    """E[ζ K ζ'ᵀ], the gap to the powers of both points, Θ, and a bound of the relative error."""

    nngp: Tensor
    gap: Tensor
    tangent: Tensor
    error: float


class _Estimate(NamedTuple):
    """Means over sets, and the largest standard error of any entry: of K and of Θ."""

    nngp: Tensor
    power: Tensor
    tangent: Tensor
    errors: tuple[float, float]


def of_points(k: Float[Tensor, "n P P"], tangent: Float[Tensor, "n P P"], mask: Tensor | None) -> Attended:
    """Moments of heads' outputs of each point with itself.

    Args:
        k, tangent: K and Θ of queries, of keys and of values, which have one law. mask: added to the scores, (P, P).
    """
    found = [
        _estimate(_Pair(_weights(_root(one), mask), None, one, change, one, mask))
        for one, change in zip(k.double(), tangent.double(), strict=True)
    ]
    nngp, change = (torch.stack([getattr(one, name) for one in found]).to(k) for name in ("nngp", "tangent"))
    v = nngp.diagonal(dim1=-2, dim2=-1)
    gap = ((v[..., None] + v[..., None, :]) / 2 - nngp).clamp_min(0)
    return Attended(nngp, gap, change, _relative(found, nngp, change))


def between(
    k: Float[Tensor, "n m P P"],
    tangent: Float[Tensor, "n m P P"],
    own1: Float[Tensor, "n P P"],
    own2: Float[Tensor, "m P P"],
    after1: Attended,
    after2: Attended,
    mask: Tensor | None,
    one_set: bool,
) -> Attended:
    """The same between two sets of points.

    Args:
        own1, own2: K of the points of each set with themselves. after1, after2: what `of_points` gives for these.
        one_set: whether the second set is the first.
    """
    v1, v2 = (one.nngp.diagonal(dim1=-2, dim2=-1).double() for one in (after1, after2))
    first, one = _directed(k, tangent, own1, own2, mask)
    second, other = first, one
    if not one_set:
        second, other = _directed(k.transpose(0, 1).mT, tangent.transpose(0, 1).mT, own2, own1, mask)
    # A correlation of the same samples keeps |K| ≤ √(v1 v2), and 0 where it is 0.
    there, back = (part[0] * _ratio(v[None], part[1])[:, :, None] for part, v in ((first, v2), (second, v1)))
    nngp = (there + back.transpose(0, 1).mT) / 2
    gap = ((v1[:, None, :, None] + v2[None, :, None, :]) / 2 - nngp).clamp_min(0)
    change = (first[2] + second[2].transpose(0, 1).mT) / 2
    sizes = (torch.cat([after1.nngp, after2.nngp]), torch.cat([after1.tangent, after2.tangent]))
    error = max(_relative([*one, *other], *sizes), after1.error, after2.error)
    return Attended(nngp.to(k), gap.to(k), change.to(k), error)


def _ratio(v: Tensor, sampled: Tensor) -> Tensor:
    """√(v/sampled), and 1 where both are 0."""
    there = sampled > 0
    return torch.where(there, v / torch.where(there, sampled, 1.0), 1.0).sqrt()


class _Pair(NamedTuple):
    """One pair of points: ζ of the first; the factor of the second's covariance (P, 2P), None for the first itself; K
    and Θ between them; K of the second with itself."""

    weights: list[Tensor]
    second: Tensor | None
    k: Tensor
    tangent: Tensor
    own: Tensor
    mask: Tensor | None


def _directed(
    k: Tensor, tangent: Tensor, own1: Tensor, own2: Tensor, mask: Tensor | None
) -> tuple[tuple[Tensor, Tensor, Tensor], list[_Estimate]]:
    """K, power of the second point and Θ for all pairs, where the first point's scores are those of it alone."""
    smallest = len(own1[0]) * torch.finfo(k.dtype).eps
    k, tangent, own1, own2 = (part.double() for part in (k, tangent, own1, own2))
    shape = k.shape
    nngp, power, change = k.new_zeros(shape), k.new_zeros(shape[:-1]), k.new_zeros(shape)
    found = []
    for i in range(shape[0]):
        inverse, weights = _inverse_root(own1[i], smallest), _weights(_root(own1[i]), mask)
        for j in range(shape[1]):
            known = k[i, j].mT @ inverse
            second = torch.cat([known, _root(own2[j] - known @ known.mT)], 1)
            one = _estimate(_Pair(weights, second, k[i, j], tangent[i, j], own2[j], mask))
            nngp[i, j], power[i, j], change[i, j] = one.nngp, one.power, one.tangent
            found.append(one)
    return (nngp, power, change), found


def _estimate(pair: _Pair) -> _Estimate:
    """E[ζ K ζ'ᵀ], diag E[ζ' K' ζ'ᵀ], and Θ = E[ζ Θ ζ'ᵀ] + E[Σ K(q, q') ∂ζ_q/∂G_r ∂ζ'_q'/∂G'_r' Cov(∂G_r, ∂G'_r')].

    With ∂ζ_q/∂G_r = ζ_q (δ_qr − ζ_r), the last for B in place of the covariance is ζ(K∘B)ζ' − Σ_q ζ_q (Kζ')_q (Bζ')_q
    − Σ_q (ζK)_q (ζB)_q ζ'_q + (ζKζ')(ζBζ'); Cov(∂G_r, ∂G'_r') = Θ(p, p') K(r, r') + K(p, p') Θ(r, r').
    """
    k, t = pair.k, pair.tangent
    sets = []
    for z, a in zip(_sets(len(k), str(k.device)), pair.weights, strict=True):
        b = a if pair.second is None else _softmax(pair.second @ z @ pair.second.mT, pair.mask)
        ak, at, bk, bt = a @ k, a @ t, b @ k.mT, b @ t.mT
        both, changed = (left.transpose(1, 2) @ b.permute(0, 2, 3, 1) for left in (ak, at))
        nngp, moved = both.mean(1), changed.mean(1)
        power = ((b @ pair.own) * b).sum(-1).mean(-1)
        parts = []
        for middle, left, right, product in ((k, ak, bk, both), (t, at, bt, changed)):
            cross = _mean(a @ (k * middle), b) - _mean(a, bk * right) - _mean(ak * left, b)
            parts.append(cross + (both * product).mean(1))
        sets.append((nngp, power, moved + t * parts[0] + k * parts[1]))
    nngp, power, tangent = (torch.cat(part) for part in zip(*sets, strict=True))
    errors = tuple(float(part.std(0).max()) / math.sqrt(REPETITIONS) for part in (nngp, tangent))
    return _Estimate(nngp.mean(0), power.mean(0), tangent.mean(0), (errors[0], errors[1]))


def _mean(a: Tensor, b: Tensor) -> Tensor:
    """The mean over samples of a bᵀ, as one product."""
    return a.flatten(2) @ b.flatten(2).mT / a.shape[2]


def _weights(factor: Tensor, mask: Tensor | None) -> list[Tensor]:
    """ζ of one point, (sets, positions, samples, positions), some sets at once."""
    size = len(factor)
    return [_softmax(factor @ z[..., :size, :size] @ factor.mT, mask) for z in _sets(size, str(factor.device))]


def _softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Of ± the scores; torch's own softmax is slow on short rows."""
    both = torch.cat([scores, -scores], 1).transpose(1, 2).contiguous()
    both = both if mask is None else both + mask[:, None]
    weights = (both - both.amax(-1, keepdim=True)).exp_()
    return weights.div_(weights.sum(-1, keepdim=True))


def _sets(positions: int, device: str) -> Iterator[Tensor]:
    first = _normals(positions, 0)
    at_once = max(1, AT_ONCE // (first.numel() // 2))
    for start in range(0, REPETITIONS, at_once):
        chosen = range(start, min(start + at_once, REPETITIONS))
        yield torch.stack([_normals(positions, repetition) for repetition in chosen]).to(device)


@lru_cache(2 * REPETITIONS)
def _normals(positions: int, seed: int) -> Tensor:
    """(rows, 2P, 2P) standard normal values, orthogonal to each other as far as there are as many dimensions.

    Source: Yu et al. 2016 (1610.09072), orthogonal random features."""
    generator = torch.Generator().manual_seed(seed)
    size = 4 * positions**2
    wanted = min(ROWS, max(FEWEST, NUMBERS // positions**2))
    rows: list[Tensor] = []
    for start in range(0, wanted, size):
        count = min(size, wanted - start)
        normal = torch.randn(size, count, generator=generator, dtype=torch.float64)
        factor, triangle = torch.linalg.qr(normal)
        # The signs make the rows uniformly distributed, whatever convention the factorisation has.
        directions = (factor * triangle.diagonal().sign()).mT
        lengths = torch.randn(count, size, generator=generator, dtype=torch.float64).norm(dim=1, keepdim=True)
        rows.append(lengths * directions)
    return torch.cat(rows).reshape(wanted, 2 * positions, 2 * positions)


def _root(k: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(k)
    return vectors * values.clamp_min(0).sqrt() @ vectors.mT


def _inverse_root(k: Tensor, smallest: float) -> Tensor:
    """K^(−1/2) on the directions that K has: with eigenvalues above `smallest` times the largest."""
    values, vectors = torch.linalg.eigh(k)
    there = values > smallest * values[-1].clamp_min(0)
    inverse = torch.where(there, torch.where(there, values, 1.0).rsqrt(), 0.0)
    return vectors * inverse @ vectors.mT


def _relative(found: list[_Estimate], nngp: Tensor, tangent: Tensor) -> float:
    """The stated error, relative to the largest entries of K and Θ."""
    sizes = [float(part.abs().max()) for part in (nngp, tangent)]
    spreads = [max((one.errors[i] for one in found), default=0.0) for i in range(2)]
    return max((DEVIATIONS * s / size for s, size in zip(spreads, sizes, strict=True) if size > 0), default=0.0)
