"""The data themselves: what the user's model does to them before any random layer, and their moments at the first."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from .deviation import of_points, on_one_line, root
from .moments import Moments, Refused, with_own, with_variances

NEAR = 1e-3
"""Pairs with a cosine above 1 − NEAR get their gap from the difference x − x' itself, those of different lengths and
opposite ones their deviation from the difference of their directions."""
FEW = 64
"""One entry in so many, at most, has the opposite positions that are followed by themselves."""
ENTRIES_AT_ONCE = 2**22


@dataclass(frozen=True, eq=False)
class Data:
    """Values that are functions of the data alone: two sets of points (n1, *shape), (n2, *shape), or one with itself.

    gram: the first points of x2 are x1. pairs: moments are wanted between all pairs of positions.
    same: the other pairs of points that coincide in all inputs of the model, as indices of rows and of columns.
    """

    x1: Tensor
    x2: Tensor | None
    gram: bool = False
    pairs: bool = False
    same: tuple[Tensor, Tensor] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.x1.shape[1:])

    def map(self, function: Callable[..., Any], *others: "Data") -> Any:
        """The function of both sets of points, if it acts on each point by itself; of several data, point by point.

        A tuple of tensors becomes a tuple of data.
        """
        all_data = (self, *others)
        first = self._applied(function, *(data.x1 for data in all_data))
        second = None if self.x2 is None else self._applied(function, *(_second(data) for data in all_data))

        def one(x1: Tensor, x2: Tensor | None) -> Data:
            return dataclasses.replace(self, x1=x1, x2=x2)

        if isinstance(first, Tensor):
            return one(first, second)
        return tuple(one(x1, None if second is None else second[i]) for i, x1 in enumerate(first))

    @staticmethod
    def _applied(function: Callable[..., Any], *x: Tensor) -> Any:
        out, alone = function(*x), function(*(part[:1] for part in x))
        if isinstance(out, (tuple, list)) and all(isinstance(part, Tensor) for part in out):
            return tuple(Data._of_each_point(part, single, len(x[0])) for part, single in zip(out, alone, strict=True))
        if not isinstance(out, Tensor):
            raise Refused("makes no single tensor of the data", "Return one tensor, or use EmpiricalNTK")
        return Data._of_each_point(out, alone, len(x[0]))

    @staticmethod
    def _of_each_point(out: Tensor, alone: Tensor, points: int) -> Tensor:
        if out.shape[:1] != (points,) or alone.shape[1:] != out.shape[1:]:
            raise Refused("mixes the axis of the points with others", "Reshape each point by itself: x.flatten(1)")
        if not out.is_floating_point():
            if not torch.equal(alone[0], out[0]):
                raise Refused("makes of a point something that depends on other points", "Act on each point by itself")
            return out
        if not torch.allclose(alone[0], out[0], rtol=1e-4, atol=1e-6 * float(out.detach().abs().max()), equal_nan=True):
            raise Refused("makes of a point something that depends on the other points", "Act on each point by itself")
        return out

    def own(self, side: int) -> "Data":
        """The points of one side with themselves."""
        return Data(self.x1 if side == 0 or self.x2 is None else self.x2, None, pairs=self.pairs)

    def moments(self, channel: int) -> Moments:
        """K = mean over the channel axis of x x', and Θ = 0."""
        if not self.x1.is_floating_point():
            raise Refused(
                f"computes with {self.x1.dtype} as if its values were sizes", "Give floats, or use nn.Embedding"
            )
        a = self._rows(self.x1, channel)
        if self.x2 is None:
            return self._of_points(a, channel)
        b = self._rows(self.x2, channel)
        k, v1, v2, gap, deviation = _between(a, b, self.pairs and a.ndim == 3, self.gram)
        has_pairs = self.pairs and a.ndim == 3
        m = Moments(
            nngp=k,
            v1=v1,
            v2=v2,
            gap=gap,
            tangent=torch.zeros_like(k),
            shape=self.shape,
            deviation=deviation,
            gram=self.gram,
            same=self.same,
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


def _second(data: Data) -> Tensor:
    return data.x1 if data.x2 is None else data.x2


def data_of(x1: list[Tensor], x2: list[Tensor] | None, gram: bool = False) -> list[Data]:
    """Each input of the model, for the points x1 and x2 (None: each point with itself)."""
    if x2 is None:
        return [Data(a, None) for a in x1]
    same = _coincidences(x1, x2, gram)
    return [Data(a, b, gram, same=same) for a, b in zip(x1, x2, strict=True)]


def _coincidences(x1: list[Tensor], x2: list[Tensor], gram: bool) -> tuple[Tensor, Tensor] | None:
    """The pairs of points that are equal in all inputs, as indices; the diagonal of a Gram matrix is left out."""
    first, second = _bytes(x1), _bytes(x2)
    places: dict[bytes, list[int]] = {}
    for j, row in enumerate(second):
        places.setdefault(row, []).append(j)
    found = [(i, j) for i, row in enumerate(first) for j in places.get(row, []) if not (gram and i == j)]
    if not found:
        return None
    rows, columns = torch.tensor(found, device=x1[0].device).T
    return rows, columns


def _bytes(x: list[Tensor]) -> list[bytes]:
    flat = [part.detach().cpu().contiguous().flatten().view(torch.uint8) for part in x]
    parts = [whole.numpy().reshape(len(part), -1) for whole, part in zip(flat, x, strict=True)]
    return [b"".join(part[i].tobytes() for part in parts) for i in range(len(x[0]))]


def _between(a: Tensor, b: Tensor, pairs: bool, gram: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """K, both variances, the gap and the deviation (None where no pair needs it)."""
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
        line = _where_lines_decide(k, v1, v2, near, opposite, a.ndim > 2, pairs)
    gap = _directly((rows + columns) / 2 - k, near, a, b, lambda p, q: (p - q).square().sum(1) / (2 * size))
    deviation = None
    if line is not None:
        deviation = _directly(root(rows) * root(columns) - k.abs(), line, a, b, of_points)
    return k, v1, v2, gap, deviation


def _where_lines_decide(
    k: Tensor, v1: Tensor, v2: Tensor, near: Tensor, opposite: Tensor, positions: bool, pairs: bool
) -> Tensor | None:
    """Which deviations to compute from the points themselves; None where no pair needs one, or too many positions do.

    Single positions with few channels lie on one line as a rule, which sums over patches end; whole points do not.
    """
    if not positions:
        return (near | opposite) if bool(on_one_line(k, v1, v2, NEAR).any()) else None
    same = k.diagonal(dim1=-2, dim2=-1) if pairs else k
    whole = on_one_line(same.mean(-1), v1.mean(-1), v2.mean(-1), NEAR)
    if bool(whole.any()):
        return (near | opposite) & whole.reshape(*whole.shape, *(1,) * (k.ndim - 2))
    few = 0 < int(opposite.sum()) <= opposite.numel() // FEW
    return opposite if few else None


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
