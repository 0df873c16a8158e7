"""The expansion at all pairs of n points: which pairs there are, and how they make matrices."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ....linalg.products import Pairs
from ..moments import Moments
from .chain import Link
from .functions import products_of
from .recursion import Expansion


@dataclass(frozen=True)
class Expanded:
    """Matrices (n, n) of the last layer, of G and of Θ."""

    nngp: Tensor
    ntk: Tensor
    nngp_correction: Tensor
    ntk_correction: Tensor
    nngp_variance: Tensor
    ntk_mean_variance: Tensor
    ntk_own_variance: Tensor


def expand(first: Moments, links: tuple[Link, ...]) -> Expanded:
    """The expansion through all layers, at every pair of points."""
    n = len(first.nngp)
    rows, columns = torch.triu_indices(n, n, 1)
    twins = _coinciding(first)
    apart = ~twins[rows, columns]
    rows, columns = rows[apart], columns[apart]
    # A point alone is one of a pair with an imaginary other, at a right angle, which nothing of it hangs on.
    points = torch.arange(n)
    left, right = torch.cat([points, rows]), torch.cat([points, columns])
    state = Expansion.at_first(_limits(first, n, rows, columns))
    for link in links:
        state = state.after(link.layer, products_of(link, _pairs(state, n, left, right)))
    return _matrices(state, n, rows, columns, twins)


def _limits(first: Moments, n: int, rows: Tensor, columns: Tensor) -> Float[Tensor, "p 6"]:
    k, theta = first.nngp.cpu(), first.tangent.cpu()
    v, t, nothing = k.diagonal(), theta.diagonal(), torch.zeros(n, dtype=torch.float64)
    alone = torch.stack([v, nothing, v, t, nothing, t], 1)
    pairs = [m[i, j] for m in (k, theta) for i, j in ((rows, rows), (rows, columns), (columns, columns))]
    return torch.cat([alone, torch.stack(pairs, 1)])


def _pairs(state: Expansion, n: int, left: Tensor, right: Tensor) -> Pairs:
    """Every point's variance once; the imaginary others, after them, have their own."""
    v1, k, v2 = state.limit[:, :3].T
    right = torch.cat([torch.arange(n, 2 * n), right[n:]])
    scale = (v1 * v2).sqrt()
    correlations = torch.where(scale > 0, k / torch.where(scale > 0, scale, 1.0), 0.0).clamp(-1, 1)
    correlations[:n] = 0  # in every layer: a mean E[φ]² in K12 would bring the imaginary other nearer and nearer
    return Pairs(torch.cat([v1[:n], v2[:n]]), left, right, correlations)


def _coinciding(first: Moments) -> Tensor:
    """Points that are the same, as (n, n) booleans: their gap is 0."""
    return first.gap.cpu() <= 1e-15 * first.nngp.cpu().diagonal().abs().max()


def _matrices(state: Expansion, n: int, rows: Tensor, columns: Tensor, twins: Tensor) -> Expanded:
    same = twins.to(torch.int8).argmax(1)  # the first point that each one equals

    def matrix(entries: Tensor) -> Tensor:
        out = torch.zeros(n, n, dtype=torch.float64)
        out[rows, columns] = out[columns, rows] = entries[n:, 1]
        out.diagonal().copy_(entries[:n, 0])
        return torch.where(twins, out.diagonal()[same][:, None], out)

    variances = state.covariance.diagonal(dim1=1, dim2=2)
    parts = (state.limit[:, :3], state.limit[:, 3:], state.shift[:, :3], state.shift[:, 3:])
    spread = (variances[:, :3], variances[:, 3:], state.shared.sum(2))
    return Expanded(*map(matrix, (*parts, *spread)))
