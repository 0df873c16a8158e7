"""Θ = J diag(c) Jᵀ tile by tile: sums over groups of parameters, of products of two tiles of Jacobian rows.

`Tiles` makes the rows that a plan asks for; the functions below say what becomes of them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from ...data.inputs import Inputs, count, take
from ...errors import ModelError
from ...network.snapshot import Snapshot
from .plan import Group, Plan
from .rows import Rows


class Tile(NamedTuple):
    """The rows of some points and some outputs."""

    points: slice
    outputs: slice


@dataclass(frozen=True, eq=False)
class Tiles:
    """The rows of a snapshot's Jacobian, in the tiles of a plan."""

    snapshot: Snapshot
    rows: Rows
    plan: Plan
    progress: bool = False

    def of(self, group: Group, points: int) -> list[Tile]:
        """The tiles to be kept, of so many points."""
        o = self.plan.outputs
        return [
            Tile(slice(i, min(i + group.samples, points)), slice(a, min(a + group.outputs, o)))
            for a in range(0, o, group.outputs)
            for i in range(0, points, group.samples)
        ]

    def pieces(self, group: Group, tile: Tile) -> list[Tile]:
        """A tile in pieces as they are made."""
        start, end = tile.points.start, tile.points.stop
        starts = range(start, end, group.streamed)
        return [Tile(slice(i, min(i + group.streamed, end)), tile.outputs) for i in starts]

    def make(self, group: Group, tile: Tile, x: Inputs) -> list[Tensor]:
        """The rows of one piece."""
        return self.rows(self.snapshot, take(x, tile.points), tile.outputs, group.names)

    def keep(self, group: Group, tile: Tile, x: Inputs) -> list[Tensor]:
        """The rows of a whole tile, made piece by piece."""
        pieces = self.pieces(group, tile)
        if len(pieces) == 1:
            return self.make(group, tile, x)
        start, points = tile.points.start, tile.points.stop - tile.points.start
        kept: list[Tensor] = []
        for piece in pieces:
            made = self.make(group, piece, x)
            kept = kept or [row.new_empty(points, *row.shape[1:]) for row in made]
            for whole, part in zip(kept, made, strict=True):
                whole[piece.points.start - start : piece.points.stop - start] = part
            del made, part  # before the next piece exists
        return kept

    def each(self, x: Inputs) -> Iterator[tuple[Group, Tile, list[Tensor]]]:
        """Every tile of x with its rows, once."""
        todo = [
            (group, piece)
            for group in self.plan.groups
            for tile in self.of(group, count(x))
            for piece in self.pieces(group, tile)
        ]
        for group, tile in tqdm(todo, desc="empirical ntk", disable=not self.progress, leave=False):
            yield group, tile, self.make(group, tile, x)


def blocks(tiles: Tiles, x1: Inputs, x2: Inputs | None, rates: Mapping[str, float]) -> Float[Tensor, "n1 o n2 o"]:
    """Θ between all points and all outputs."""
    o, like = tiles.plan.outputs, next(iter(tiles.snapshot.values.values()))
    result = like.new_zeros(count(x1), o, count(x1 if x2 is None else x2), o, dtype=tiles.snapshot.dtype)
    for first, second, product in _products(tiles, x1, x2, rates, trace=False):
        result[first.points, first.outputs, second.points, second.outputs] += product
        if x2 is None and first != second:
            result[second.points, second.outputs, first.points, first.outputs] += product.permute(2, 3, 0, 1)
    return result


def trace(tiles: Tiles, x1: Inputs, x2: Inputs | None, rates: Mapping[str, float]) -> Float[Tensor, "n1 n2"]:
    """The mean over outputs of Θ's diagonal blocks."""
    like = next(iter(tiles.snapshot.values.values()))
    result = like.new_zeros(count(x1), count(x1 if x2 is None else x2), dtype=tiles.snapshot.dtype)
    for first, second, product in _products(tiles, x1, x2, rates, trace=True):
        result[first.points, second.points] += product
        if x2 is None and first != second:
            result[second.points, first.points] += product.T
    return result.div_(tiles.plan.outputs)


def diagonal(tiles: Tiles, x: Inputs, rates: Mapping[str, float]) -> Float[Tensor, " n"]:
    """The diagonal of `trace` without the rest of it."""
    like = next(iter(tiles.snapshot.values.values()))
    result = like.new_zeros(count(x), dtype=tiles.snapshot.dtype)
    for group, tile, rows in tiles.each(x):
        for name, row in zip(group.names, rows, strict=True):
            squares = torch.einsum("ip,ip->i", row.flatten(1), row.flatten(1))
            result[tile.points] += rates[name] * _finite(squares, name)
    return result.div_(tiles.plan.outputs)


def features(tiles: Tiles, x: Inputs) -> Float[Tensor, "no p"]:
    """J itself, columns in the order of the parameters."""
    sizes = {name: tiles.snapshot.values[name].numel() for group in tiles.plan.groups for name in group.names}
    starts, total = {}, 0
    for name, size in sizes.items():
        starts[name], total = total, total + size
    like = next(iter(tiles.snapshot.values.values()))
    result = like.new_zeros(count(x), tiles.plan.outputs, total, dtype=tiles.snapshot.dtype)
    for group, tile, rows in tiles.each(x):
        for name, row in zip(group.names, rows, strict=True):
            columns = slice(starts[name], starts[name] + sizes[name])
            result[tile.points, tile.outputs, columns] = _finite(row, name)
    return result.flatten(0, 1)


def pull_back(tiles: Tiles, x: Inputs, cotangents: Float[Tensor, "n o"]) -> dict[str, Tensor]:
    """{parameter: its entries of Jᵀu, (entries,)}."""
    result: dict[str, Tensor] = {}
    for group, tile, rows in tiles.each(x):
        weights = cotangents[tile.points, tile.outputs].reshape(-1)
        for name, row in zip(group.names, rows, strict=True):
            part = weights.to(row.dtype) @ row.flatten(0, 1)
            result[name] = result[name] + part if name in result else part
    return result


def _products(
    tiles: Tiles, x1: Inputs, x2: Inputs | None, rates: Mapping[str, float], trace: bool
) -> Iterator[tuple[Tile, Tile, Tensor]]:
    """Every pair of tiles with the product of their rows; of a symmetric matrix, only one of each two."""
    todo = [(group, first) for group in tiles.plan.groups for first in tiles.of(group, count(x1))]
    for group, first in tqdm(todo, desc="empirical ntk", disable=not tiles.progress, leave=False):
        left = tiles.keep(group, first, x1)
        if x2 is None:
            # Rounding of a product of a matrix with itself need not be symmetric.
            yield first, first, _symmetric(_product(group, left, left, rates, trace))
            others = tiles.of(group, count(x1))
            others = others[others.index(first) + 1 :]
        else:
            others = tiles.of(group, count(x2))
        for other in others:
            if trace and other.outputs != first.outputs:
                continue
            for second in tiles.pieces(group, other):
                right = tiles.make(group, second, x1 if x2 is None else x2)
                yield first, second, _product(group, left, right, rates, trace)
                del right  # before the next one exists
        del left


def _product(group: Group, left: list[Tensor], right: list[Tensor], rates: Mapping[str, float], trace: bool) -> Tensor:
    """Σ over parameters of c · left · rightᵀ: (s, t) summed over outputs, or (s, k, t, m)."""
    (s, k, _), (t, m, _) = left[0].shape, right[0].shape
    flat = (s, t) if trace else (s * k, t * m)
    total = left[0].new_zeros(flat)
    for name, a, b in zip(group.names, left, right, strict=True):
        total.addmm_(a.view(flat[0], -1), b.view(flat[1], -1).T, alpha=rates[name])
        _finite(total, name)
    return total if trace else total.view(s, k, t, m)


def _symmetric(product: Tensor) -> Tensor:
    flat = product if product.ndim == 2 else product.flatten(2).flatten(0, 1)
    return ((flat + flat.T) / 2).view(product.shape)


def _finite(values: Tensor, name: str) -> Tensor:
    if not bool(torch.isfinite(values).all()):
        raise ModelError(
            f"`{name}`",
            "has gradients that are NaN or infinite, or too large for the dtype",
            "Look for a root, a logarithm or a division at 0 in the model, or use float64",
        )
    return values
