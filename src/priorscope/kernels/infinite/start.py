"""The data themselves: what the user's model does to them before any random layer, and their moments at the first."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .moments import Moments, Refused, root, with_own, with_variances

NEAR = 1e-3
"""Pairs with a cosine above 1 − NEAR get their gap from the difference x − x' itself; opposite ones from the sum."""
ENTRIES_AT_ONCE = 2**22


@dataclass(frozen=True, eq=False)
class Data:
    """Values that are functions of the data alone: two sets of points (n1, *shape), (n2, *shape), or one with itself.

    gram: the first points of x2 are x1. pairs: moments are wanted between all pairs of positions.
    """

    x1: Tensor
    x2: Tensor | None
    gram: bool = False
    pairs: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.x1.shape[1:])

    def map(self, function: Callable[[Tensor], Any]) -> "Data":
        """The function of both sets of points, if it acts on each point by itself."""
        x1 = self._applied(function, self.x1)
        return dataclasses.replace(self, x1=x1, x2=None if self.x2 is None else self._applied(function, self.x2))

    @staticmethod
    def _applied(function: Callable[[Tensor], Any], x: Tensor) -> Tensor:
        out = function(x)
        if not isinstance(out, Tensor):
            raise Refused("makes no single tensor of the data", "Return one tensor, or use EmpiricalNTK")
        alone = function(x[:1])
        if out.shape[:1] != x.shape[:1] or alone.shape[1:] != out.shape[1:]:
            raise Refused("mixes the axis of the points with others", "Reshape each point by itself: x.flatten(1)")
        if not torch.allclose(alone[0], out[0], rtol=1e-4, atol=1e-6 * float(out.detach().abs().max()), equal_nan=True):
            raise Refused("makes of a point something that depends on the other points", "Act on each point by itself")
        return out

    def own(self, side: int) -> "Data":
        """The points of one side with themselves."""
        return Data(self.x1 if side == 0 or self.x2 is None else self.x2, None, pairs=self.pairs)

    def moments(self, channel: int) -> Moments:
        """K = mean over the channel axis of x x', and Θ = 0."""
        a = self._rows(self.x1, channel)
        if self.x2 is None:
            return self._of_points(a, channel)
        b = self._rows(self.x2, channel)
        k, v1, v2, gap, opposition = _between(a, b, self.pairs and a.ndim == 3, self.gram)
        has_pairs = self.pairs and a.ndim == 3
        m = Moments(
            nngp=k,
            v1=v1,
            v2=v2,
            gap=gap,
            tangent=torch.zeros_like(k),
            shape=self.shape,
            opposition=opposition,
            gram=self.gram,
            same=_coincidences(a, b, self.gram),
            channel=channel,
            pairs=has_pairs,
        )
        m = m.replace(nngp=with_variances(k, v1, m), gap=with_variances(gap, torch.zeros_like(v1), m))
        if not has_pairs:
            return m
        return with_own(m.replace(own=(self.own(0).moments(channel), self.own(1).moments(channel))))

    def _rows(self, x: Tensor, channel: int) -> Tensor:
        """(n, c), or (n, P, c) with positions."""
        if x.ndim == 2:
            return x
        rows = x.movedim(channel + 1, -1)
        return rows.reshape(len(x), prod(rows.shape[1:-1]), rows.shape[-1])

    def _of_points(self, a: Tensor, channel: int) -> Moments:
        has_pairs = self.pairs and a.ndim == 3
        v = a.square().mean(-1)
        k, gap = v, torch.zeros_like(v)
        if has_pairs:
            k = a @ a.mT / a.shape[-1]
            # Few entries, so that every gap comes from the difference itself.
            gap = torch.cdist(a, a, compute_mode="donot_use_mm_for_euclid_dist").square() / (2 * a.shape[-1])
        m = Moments(k, v, v, gap, torch.zeros_like(k), self.shape, channel=channel, between=False, pairs=has_pairs)
        return m.replace(nngp=with_variances(k, v, m), gap=with_variances(gap, torch.zeros_like(v), m))


def _coincidences(a: Tensor, b: Tensor, gram: bool) -> tuple[Tensor, Tensor] | None:
    """The pairs of equal points, as indices; those on the diagonal of a Gram matrix are left out."""
    first, second = (x.detach().flatten(1).cpu().contiguous().numpy() for x in (a, b))
    places: dict[bytes, list[int]] = {}
    for j, row in enumerate(second):
        places.setdefault(row.tobytes(), []).append(j)
    found = [(i, j) for i, row in enumerate(first) for j in places.get(row.tobytes(), []) if not (gram and i == j)]
    if not found:
        return None
    rows, columns = torch.tensor(found, device=a.device).T
    return rows, columns


def _between(a: Tensor, b: Tensor, pairs: bool, gram: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """K, both variances, the gap and the opposition (None where no pair is nearly opposite)."""
    size = a.shape[-1]
    v1, v2 = a.square().mean(-1), b.square().mean(-1)
    if a.ndim == 2:
        k = a @ b.T / size
        rows, columns = v1[:, None], v2[None]
    elif pairs:
        k = torch.einsum("ipc,jqc->ijpq", a, b) / size
        rows, columns = v1[:, None, :, None], v2[None, :, None, :]
    else:
        k = torch.einsum("ipc,jpc->ijp", a, b) / size
        rows, columns = v1[:, None], v2[None]
    with torch.no_grad():
        bound = (1 - NEAR) * rows.sqrt() * columns.sqrt()
        near, opposite = (k > bound) & (bound > 0), (k < -bound) & (bound > 0)
    gap = _directly((rows + columns) / 2 - k, near, a, b, lambda p, q: (p - q).square().sum(1) / (2 * size))
    opposition = None
    if bool(opposite.any()):
        opposition = _directly(root(rows) * root(columns) + k, opposite, a, b, _sum_of_directions)
    return k, v1, v2, gap, opposition


def _sum_of_directions(p: Float[Tensor, "m d"], q: Float[Tensor, "m d"]) -> Float[Tensor, " m"]:
    """(‖p‖‖q‖ + p·q)/d of nearly opposite points, from the sum of their directions, which is small itself."""
    lengths, others = p.norm(dim=1, keepdim=True), q.norm(dim=1, keepdim=True)
    return (lengths * others)[:, 0] * (p / lengths + q / others).square().sum(1) / (2 * p.shape[1])


def _directly(
    values: Tensor, chosen: Tensor, a: Tensor, b: Tensor, exact: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """The values, with exact(a_i, b_j) at the chosen pairs of points and positions."""
    index = chosen.nonzero(as_tuple=True)
    if not len(index[0]):
        return values
    step = max(1, ENTRIES_AT_ONCE // a.shape[-1])
    found = []
    for part in zip(*(axis.split(step) for axis in index), strict=True):
        i, j, *positions = part
        first = (i, *positions[:1])
        second = (j, *positions[-1:])
        found.append(exact(a[first], b[second]))
    return values.index_put(index, torch.cat(found))
