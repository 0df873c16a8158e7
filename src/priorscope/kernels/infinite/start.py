"""The moments of the data themselves: what enters the first layer."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from .moments import Moments, root, with_diagonal

NEAR = 1e-3
"""Pairs with a cosine above 1 − NEAR get their gap from the difference x − x' itself; opposite ones from the sum."""
ENTRIES_AT_ONCE = 2**22


def data_moments(x1: Tensor, x2: Tensor, gram: bool) -> Moments:
    """K = x·x'/fan_in and Θ = 0 between all pairs.

    Args:
        x1, x2: (n1, *shape), (n2, *shape).
        gram: the first n1 points of x2 are x1.
    """
    a, b = x1.flatten(1), x2.flatten(1)
    size = a.shape[1]
    v1, v2 = (rows.square().sum(1) / size for rows in (a, b))
    k = a @ b.T / size
    middle = (v1[:, None] + v2[None]) / 2
    with torch.no_grad():
        bound = (1 - NEAR) * v1.sqrt()[:, None] * v2.sqrt()[None]
        near, opposite = k > bound, k < -bound
        if gram:
            near.fill_diagonal_(False)
    gap = _directly(middle - k, near, a, b, lambda p, q: (p - q).square().sum(1) / (2 * size))
    opposition = None
    if bool(opposite.any()):
        lengths = root(v1)[:, None] * root(v2)[None]
        opposition = _directly(lengths + k, opposite, a, b, _sum_of_directions)
    if gram:
        k, gap = with_diagonal(k, v1), with_diagonal(gap, torch.zeros_like(v1))
    return Moments(k, v1, v2, gap, torch.zeros_like(k), tuple(x1.shape[1:]), opposition, gram)


def self_moments(x: Tensor) -> Moments:
    """The same of each point with itself, (n,)."""
    rows = x.flatten(1)
    v = rows.square().sum(1) / rows.shape[1]
    return Moments(v, v, v, torch.zeros_like(v), torch.zeros_like(v), tuple(x.shape[1:]))


def _sum_of_directions(p: Float[Tensor, "m d"], q: Float[Tensor, "m d"]) -> Float[Tensor, " m"]:
    """(‖p‖‖q‖ + p·q)/d of nearly opposite points, from the sum of their directions, which is small itself."""
    lengths, others = p.norm(dim=1, keepdim=True), q.norm(dim=1, keepdim=True)
    return (lengths * others)[:, 0] * (p / lengths + q / others).square().sum(1) / (2 * p.shape[1])


def _directly(
    matrix: Float[Tensor, "n1 n2"],
    pairs: Tensor,
    a: Float[Tensor, "n1 d"],
    b: Float[Tensor, "n2 d"],
    exact: Callable[[Tensor, Tensor], Tensor],
) -> Float[Tensor, "n1 n2"]:
    """The matrix, with exact(a_i, b_j) at the given pairs."""
    rows, columns = pairs.nonzero(as_tuple=True)
    if not len(rows):
        return matrix
    step = max(1, ENTRIES_AT_ONCE // a.shape[1])
    values = [exact(a[i], b[j]) for i, j in zip(rows.split(step), columns.split(step), strict=True)]
    return matrix.index_put((rows, columns), torch.cat(values))
