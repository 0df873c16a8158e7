"""Θ = J diag(c) Jᵀ tile by tile: sums over parameters of products of two tiles of their parts.

`Tiles` makes the parts that a plan asks for; the functions below say what becomes of them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations_with_replacement
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ...data.inputs import Inputs, count, take
from ...errors import ModelError
from ...network.snapshot import Snapshot
from .factors import Dense, Factor, Form, Ids, Outer
from .plan import Group, Plan, bands
from .tapping import Account, Lookup, Pass, Passes
from .workload import Way


class Tile(NamedTuple):
    """Some points and some outputs."""

    points: slice
    outputs: slice


Parts = dict[str, Factor]


@dataclass(frozen=True, eq=False)
class Tiles:
    """The parts of a snapshot's Jacobian, in the tiles of a plan.

    seen: called once for every piece, with its pass and its points. step: called with the number of points of every
    piece that is made, which add up to the plan's `made`.
    """

    snapshot: Snapshot
    account: Account
    passes: Passes
    plan: Plan
    names: tuple[str, ...]
    dtype: torch.dtype
    seen: Callable[[Pass, Inputs], None] | None = None
    step: Callable[[int], object] = lambda points: None
    _done: set[tuple[int, int, int]] = field(default_factory=set)

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

    def make(self, group: Group, piece: Tile, x: Inputs) -> Parts:
        """The parts of one piece."""
        points = self.snapshot.cast(take(x, piece.points))
        m, o = piece.points.stop - piece.points.start, self.plan.outputs
        like = next(iter(self.snapshot.values.values()))
        units = torch.eye(o, dtype=self.snapshot.dtype, device=like.device)[piece.outputs]
        run = self.run(points, units[:, None].expand(-1, m, -1))
        key = (id(x), piece.points.start, piece.points.stop)
        if self.seen is not None and key not in self._done:
            self.seen(run, points)
            self._done.add(key)
        self.step(m)
        return self.parts(run, group.way_of)

    def run(self, points: Inputs, cotangents: Float[Tensor, "k m o"]) -> Pass:
        """One pass of points that are the snapshot's own, for these combinations of their outputs."""
        return self.passes(self.snapshot, self.account, self.names, points, cotangents, self.plan.backward)

    def parts(self, run: Pass, ways: Mapping[str, Way]) -> Parts:
        """The parts that a pass gives, of the parameters in `ways`."""
        made: Parts = {}
        for name, way in ways.items():
            factor = _part(self.account, run, name, way, self.snapshot.values[name].numel())
            if factor is not None:
                made[name] = factor.like([_accumulated(t, self.dtype) for t in factor.tensors()])
        for name, factor in made.items():
            _finite(factor.tensors()[-1], name)
        return made

    def keep(self, group: Group, tile: Tile, x: Inputs) -> Parts:
        """The parts of a whole tile, made piece by piece."""
        pieces = self.pieces(group, tile)
        if len(pieces) == 1:
            return self.make(group, tile, x)
        start, points = tile.points.start, tile.points.stop - tile.points.start
        kept: Parts = {}
        for piece in pieces:
            made = self.make(group, piece, x)
            kept = kept or {
                name: part.like([t.new_empty(points, *t.shape[1:]) for t in part.tensors()])
                for name, part in made.items()
            }
            for name, part in made.items():
                for whole, t in zip(kept[name].tensors(), part.tensors(), strict=True):
                    whole[piece.points.start - start : piece.points.stop - start] = t
            del made, part  # before the next piece exists
        return kept

    def each(self, x: Inputs) -> Iterator[tuple[Group, Tile, Parts]]:
        """Every tile of x with its parts, once."""
        for group in self.plan.groups:
            for tile in self.of(group, count(x)):
                for piece in self.pieces(group, tile):
                    yield group, piece, self.make(group, piece, x)


def _part(
    account: Account,
    run: Pass,
    name: str,
    way: Way,
    entries: int,
) -> Factor | None:
    """One parameter's part, from all its uses; None where it has none."""
    if name in account.left:
        return Dense(run.gradients[account.left.index(name)])
    factors: list[Factor] = []
    for i in account.of(name):
        rule, rows = account.uses[i].rule, account.uses[i].rule.signals(run.signals[i])
        activations = rule.activations(run.inputs[i])
        if isinstance(rule, Lookup):
            if rule.padding is not None:
                rows = rows * (activations != rule.padding)[:, None, None, :, None]
            factors.append(Ids(activations, rows))
        else:
            factors.append(Outer(activations, rows, rule.flipped))
    biases = [account.uses[i].rule.bias(run.signals[i]) for i in account.biases(name)]
    if way == "jacobian":
        dense = [factor.dense(entries) for factor in _merged(factors)] + biases
        return Dense(sum(dense[1:], dense[0])) if dense else None
    if not factors:
        return None
    (factor,) = _merged(factors)
    return factor


def _merged(factors: Sequence[Factor]) -> list[Factor]:
    """Uses of one kind as one, their positions side by side: this is where their cross-terms come from."""
    kinds: dict[object, list[Factor]] = {}
    for factor in factors:
        shapes = tuple(t.shape[1:2] + t.shape[-1:] for t in factor.tensors()) if isinstance(factor, Outer) else ()
        flipped = factor.flipped if isinstance(factor, Outer) else None
        kinds.setdefault((flipped, shapes), []).append(factor)
    merged = []
    for same in kinds.values():
        first, *others = same
        if others:
            columns = zip(*(factor.tensors() for factor in same), strict=True)
            axes = (1, 3) if isinstance(first, Ids) else (2, 3)
            first = first.like([torch.cat(parts, axis) for axis, parts in zip(axes, columns, strict=True)])
        merged.append(first)
    return merged


def _accumulated(values: Tensor, dtype: torch.dtype) -> Tensor:
    return values.to(dtype) if values.is_floating_point() else values


def blocks(tiles: Tiles, x1: Inputs, x2: Inputs | None, rates: Mapping[str, float]) -> Float[Tensor, "n1 o n2 o"]:
    """Θ between all points and all outputs."""
    o = tiles.plan.outputs
    result = _zeros(tiles, count(x1), o, count(x1 if x2 is None else x2), o)
    for first, second, _, product in _products(tiles, x1, x2, rates, "blocks"):
        result[first.points, first.outputs, second.points, second.outputs] += product
        if x2 is None and first != second:
            result[second.points, second.outputs, first.points, first.outputs] += product.permute(2, 3, 0, 1)
    return result


def per_output(tiles: Tiles, x1: Inputs, x2: Inputs | None, rates: Mapping[str, float]) -> Float[Tensor, "o n1 n2"]:
    """Θ's diagonal blocks, one kernel for each output."""
    result = _zeros(tiles, tiles.plan.outputs, count(x1), count(x1 if x2 is None else x2))
    for first, second, _, product in _products(tiles, x1, x2, rates, "per output"):
        result[first.outputs, first.points, second.points] += product
        if x2 is None and first != second:
            result[first.outputs, second.points, first.points] += product.mT
    return result


def traces(
    tiles: Tiles, x1: Inputs, x2: Inputs | None, rates: Mapping[str, float], layers: Mapping[str, str]
) -> dict[str, Float[Tensor, "n1 n2"]]:
    """The means over outputs of Θ's diagonal blocks, one for each layer; `layers` is {parameter: its layer}."""
    shape = count(x1), count(x1 if x2 is None else x2)
    result = {layer: _zeros(tiles, *shape) for layer in dict.fromkeys(layers.values())}
    for first, second, layer, product in _products(tiles, x1, x2, rates, "trace", layers):
        result[layer][first.points, second.points] += product
        if x2 is None and first != second:
            result[layer][second.points, first.points] += product.T
    return {layer: total.div_(tiles.plan.outputs) for layer, total in result.items()}


def diagonal(tiles: Tiles, x: Inputs, rates: Mapping[str, float]) -> Float[Tensor, " n"]:
    """The diagonal of the trace form without the rest of it."""
    result = _zeros(tiles, count(x))
    for group, tile, parts in tiles.each(x):
        for name, part in parts.items():
            ones = rates[group.riders[name]] / rates[name] if name in group.riders else 0.0
            result[tile.points] += rates[name] * _finite(part.squares(ones), name)
    return result.div_(tiles.plan.outputs)


def features(tiles: Tiles, x: Inputs) -> Float[Tensor, "no p"]:
    """J itself, columns in the order of the parameters."""
    starts, total = {}, 0
    for name in tiles.names:
        starts[name], total = total, total + tiles.snapshot.values[name].numel()
    result = _zeros(tiles, count(x), tiles.plan.outputs, total)
    for _, tile, parts in tiles.each(x):
        for name, part in parts.items():
            entries = tiles.snapshot.values[name].numel()
            columns = slice(starts[name], starts[name] + entries)
            result[tile.points, tile.outputs, columns] = _finite(part.dense(entries), name)
    return result.flatten(0, 1)


def _products(
    tiles: Tiles,
    x1: Inputs,
    x2: Inputs | None,
    rates: Mapping[str, float],
    form: Form,
    layers: Mapping[str, str] | None = None,
) -> Iterator[tuple[Tile, Tile, str, Tensor]]:
    """Every pair of tiles with their products, by layer; of a symmetric matrix, only one of each two."""
    todo = [(group, first) for group in tiles.plan.groups for first in tiles.of(group, count(x1))]
    for group, first in todo:
        left = tiles.keep(group, first, x1)
        if x2 is None:
            # Rounding of a product of a matrix with itself need not be symmetric.
            for row, column in combinations_with_replacement(bands(first.points.stop - first.points.start), 2):
                a = {name: part.take(row) for name, part in left.items()}
                b = {name: part.take(column) for name, part in left.items()}
                for layer, product in layer_products(a, b, group.riders, rates, form, layers):
                    both = product if row != column else _symmetric(product, form)
                    yield _within(first, row), _within(first, column), layer, both
            others = tiles.of(group, count(x1))
            others = others[others.index(first) + 1 :]
        else:
            others = tiles.of(group, count(x2))
        for other in others:
            if form != "blocks" and other.outputs != first.outputs:
                continue
            for second in tiles.pieces(group, other):
                right = tiles.make(group, second, x1 if x2 is None else x2)
                for layer, product in layer_products(left, right, group.riders, rates, form, layers):
                    yield first, second, layer, product
                del right  # before the next one exists
        del left


def _within(tile: Tile, points: slice) -> Tile:
    return Tile(slice(tile.points.start + points.start, tile.points.start + points.stop), tile.outputs)


def layer_products(
    left: Parts,
    right: Parts,
    riders: Mapping[str, str],
    rates: Mapping[str, float],
    form: Form,
    layers: Mapping[str, str] | None,
) -> Iterator[tuple[str, Tensor]]:
    """Σ over a layer's parameters of c · left · rightᵀ, for each layer (one in all, where none are named)."""
    totals: dict[str, Tensor] = {}
    for name, part in left.items():
        layer = "" if layers is None else layers[name]
        ones = rates[riders[name]] / rates[name] if name in riders else 0.0
        product = part.product(right[name], form, ones).mul_(rates[name])
        totals[layer] = totals[layer].add_(_finite(product, name)) if layer in totals else _finite(product, name)
    yield from totals.items()


def _symmetric(product: Tensor, form: Form) -> Tensor:
    if form == "blocks":
        flat = product.flatten(2).flatten(0, 1)
        return ((flat + flat.T) / 2).view(product.shape)
    return (product + product.mT) / 2


def _zeros(tiles: Tiles, *shape: int) -> Tensor:
    like = next(iter(tiles.snapshot.values.values()))
    return torch.zeros(shape, dtype=tiles.dtype, device=like.device)


def _finite(values: Tensor, name: str) -> Tensor:
    # The sum is much faster, and may itself overflow.
    if not bool(torch.isfinite(values.sum())) and not bool(torch.isfinite(values).all()):
        raise ModelError(
            f"`{name}`",
            "has gradients that are NaN or infinite, or too large for the dtype",
            "Look for a root, a logarithm or a division at 0 in the model, or use float64",
        )
    return values
