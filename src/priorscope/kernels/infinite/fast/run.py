"""Runs a program: decides whether the fast path is taken, shares the pairs among threads, and bounds the memory.

This is the one place that chooses: `attempt` gives matrices, or the reason why the plain path does the work.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ....network.watching import Graph
from ..deviation import on_one_line
from ..law import Law
from ..propagate import Step
from ..start import NEAR, Data
from . import vectors
from .loops import LOOPS, Loops
from .points import Variances
from .program import ON_A_LINE, Instruction, Program, Uncovered, compiled

ENTRIES = 2**17
"""Numbers in one array of one thread, as far as a single pair does not have more."""


class Made(NamedTuple):
    """Both kernels, and what was done."""

    nngp: Tensor
    ntk: Tensor
    steps: tuple[Step, ...]


def attempt(graph: Graph, law: Law, data: Data) -> Made:
    """Both kernels by the fast path.

    Raises:
        Uncovered: with the reason; nothing was computed then.
    """
    given = [data.x1] if data.x2 is None else [data.x1, data.x2]
    dtype = data.x1.dtype
    if any(x.device.type != "cpu" for x in given):
        raise Uncovered("the data are not on the CPU")
    if dtype not in (torch.float32, torch.float64) or any(x.dtype != dtype for x in given):
        raise Uncovered("the data are neither float32 nor float64")
    if not all(bool(torch.isfinite(x).all()) for x in given):
        raise Uncovered("the data are not finite")
    program = compiled(graph, law, Data(data.x1.detach(), given[-1].detach(), data.gram))
    if program.has_positions and program.begins_without_bias and _on_a_line(program.data):
        raise Uncovered(ON_A_LINE)
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        each = _shared(threads)
        maker = _Pairs(program, each).matrices if program.has_positions else lambda: vectors.matrices(program, each)
        nngp, ntk = maker()
    return Made(nngp, ntk, tuple(program.steps))


def _on_a_line(data: Data) -> bool:
    """Whether some whole points are."""
    a = data.x1.flatten(1)
    b = a if data.x2 is None else data.x2.flatten(1)
    v = b.square().sum(1)
    return any(bool(on_one_line(rows @ b.T, rows.square().sum(1), v, NEAR).any()) for rows in a.split(1024))


def _shared(threads: ThreadPoolExecutor) -> Callable[..., None]:
    def each(function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> None:
        # The loops release the interpreter lock; torch's own threads, and their number, are left alone.
        for done in [threads.submit(function, *one) for one in arguments]:
            done.result()

    return each


class _Pairs:
    """A program on pairs of points with positions."""

    def __init__(self, program: Program, each: Callable[..., None]):
        self.program, self.each = program, each
        data = program.data
        self.gram = data.gram
        self.here = threading.local()
        self.a = np.ascontiguousarray(data.x1.numpy())
        self.b = self.a if self.gram or data.x2 is None else np.ascontiguousarray(data.x2.numpy())
        self.dtype = self.a.dtype
        self.loops: Loops = LOOPS[self.dtype]
        self.last = {r: number for number, one in enumerate(program.instructions) for r in one.inputs}
        sizes = [one.positions ** (2 if one.pairs else 1) for one in program.instructions]
        self.at_once = max(1, ENTRIES // max(sizes))

    def matrices(self) -> tuple[Tensor, Tensor]:
        side1, own_nngp, own_ntk = self.own(self.a)
        side2 = side1 if self.gram else self.own(self.b)[0]
        n1, n2 = len(self.a), len(self.b)
        nngp, ntk = np.empty((n1, n2), self.dtype), np.empty((n1, n2), self.dtype)

        def batch(I: Any, J: Any) -> None:  # noqa: E741
            k, t = self.through(I, J, side1, side2)
            for whole, part in ((nngp, k), (ntk, t)):
                whole[I, J] = part
                if self.gram:
                    whole[J, I] = part

        rows, columns = np.triu_indices(n1, 1) if self.gram else (i.ravel() for i in np.indices((n1, n2)))
        cuts = range(0, len(rows), self.at_once)
        self.each(batch, [(rows[i : i + self.at_once], columns[i : i + self.at_once]) for i in cuts])
        if self.gram:
            np.fill_diagonal(nngp, own_nngp)
            np.fill_diagonal(ntk, own_ntk)
        return torch.from_numpy(nngp), torch.from_numpy(ntk)

    def own(self, x: Any) -> tuple[Variances, Any, Any]:
        """The variances of all points, and both kernels of each with itself."""
        cuts = range(0, len(x), self.at_once)
        parts: list[Any] = [None] * len(cuts)

        def part(number: int, points: Any) -> None:
            side = Variances()
            index = np.arange(len(points))
            parts[number] = (side, *self.through(index, index, side, side, points))

        self.each(part, [(number, x[i : i + self.at_once]) for number, i in enumerate(cuts)])
        sides, nngp, ntk = zip(*parts, strict=True)
        whole = Variances()
        for name in ("values", "before", "inner"):
            for key in getattr(sides[0], name):
                getattr(whole, name)[key] = np.concatenate([getattr(side, name)[key] for side in sides])
        return whole, np.concatenate(nngp), np.concatenate(ntk)

    def through(self, I: Any, J: Any, side1: Variances, side2: Variances, own: Any = None) -> tuple[Any, Any]:  # noqa: E741
        """NNGP and NTK of the pairs; own: the points themselves, whose variances are added to side1 on the way."""
        registers: dict[int, Any] = {}
        buffers = self.buffers()
        for number, one in enumerate(self.program.instructions):
            if own is not None and one.kind != "pool":
                side1.step(number, one, (own * own).mean(1) if one.kind == "start" else None)
            values = self.step(number, one, registers, buffers, I, J, side1, side2, own)
            registers[one.output] = values
            if own is not None:
                _set_own(values, side1.values[one.output], one.pairs)
            for register in set(one.inputs):
                if self.last[register] == number and register in registers:
                    before = registers.pop(register)
                    if before is not values:
                        buffers.give(before)
        end = registers.pop(self.program.instructions[-1].output)
        k, _, t = (value.reshape(len(I)).copy() for value in end)
        buffers.give(end)
        return k, t

    def buffers(self) -> "_Buffers":
        if not hasattr(self.here, "buffers"):
            self.here.buffers = _Buffers(self.dtype)
        return self.here.buffers

    def step(
        self,
        number: int,
        one: Instruction,
        registers: dict[int, Any],
        buffers: "_Buffers",
        I: Any,  # noqa: E741
        J: Any,
        side1: Variances,
        side2: Variances,
        own: Any,
    ) -> Any:
        """The arrays K, gap and Θ after one instruction."""
        shape = (len(I), *(one.positions,) * (2 if one.pairs else 1))
        loops, law = self.loops, np.array(one.law, self.dtype)
        if one.kind == "start":
            k, g, t = buffers.take(shape)
            a, b = (own, own) if own is not None else (self.a, self.b)
            (loops.start_all if one.pairs else loops.start)(a, b, I, J, k, g)
            t.fill(0)
            return k, g, t
        values = registers[one.inputs[0]]
        if one.kind == "add":
            other = registers[one.inputs[1]]
            out = buffers.take(shape)
            for left, right, target in zip(values, other, out, strict=True):
                np.add(left, right, out=target)
            return out
        if one.kind == "flat":
            return tuple(value.reshape(len(I), -1).mean(1, keepdims=True) for value in values)
        if one.kind == "same positions":
            return tuple(value.diagonal(axis1=1, axis2=2).copy() for value in values)
        if one.kind == "pool":
            return self.pooled(number, one, values, buffers.take(shape), I, J, side1, side2, own)
        nothing = np.zeros((0, 0), self.dtype)
        bends = [side1.before.get(number, nothing), side2.before.get(number, nothing)]
        pieces = one.pieces
        settings = np.array(
            [] if pieces is None else [pieces.mixed, pieces.bend, pieces.slope, pieces.slope_at_zero], self.dtype
        )
        even = pieces is not None and pieces.even
        if one.kind == "sums":
            patches: Any = one.patches
            out = buffers.take(shape)
            law[[0, 2]] /= patches.index.shape[0]
            ends = (I, J, *bends, settings, even)
            v1, v2 = side1.values[one.inputs[0]], side2.values[one.inputs[0]]
            if patches.near is not None:
                circular = patches.near == "circular"
                if one.pairs:
                    loops.sums_all_near(*values, *out, one.width, circular, law, v1, v2, *ends)
                else:
                    loops.sums_near(*values, *out, one.width, circular, law, *ends)
            elif one.pairs:
                geometry = (one.width, patches.rows, patches.padded, np.array(patches.steps), law, v1, v2)
                loops.sums_all(*values, *out, *geometry, *ends)
            else:
                loops.sums(*values, *out, one.width, patches.rows, patches.across, law, *ends)
            return out
        if self.last[one.inputs[0]] != number:
            out = buffers.take(shape)
            for value, target in zip(values, out, strict=True):
                np.copyto(target, value)
            values = out
        (loops.dense_all if one.pairs else loops.dense)(*values, law, I, J, *bends, settings, even)
        return values

    def pooled(
        self,
        number: int,
        one: Instruction,
        values: Any,
        out: Any,
        I: Any,  # noqa: E741
        J: Any,
        side1: Variances,
        side2: Variances,
        own: Any,
    ) -> Any:
        for value, target in zip(values, out, strict=True):
            self.loops.pool_all(value, one.windows, one.scale, target)
        k, g, _ = out
        if own is not None:
            side1.inner[number] = g.diagonal(axis1=1, axis2=2).copy()
            side1.values[one.output] = k.diagonal(axis1=1, axis2=2).copy()
        inner1, inner2 = side1.inner[number][I], side2.inner[number][J]
        g -= (inner1[:, :, None] + inner2[:, None]) / 2
        np.maximum(g, 0, out=g)
        return out


class _Buffers:
    """Arrays of one thread, used again: fresh memory costs more than the loops."""

    def __init__(self, dtype: Any):
        self.dtype = dtype
        self.free: dict[tuple[int, ...], list[Any]] = {}

    def take(self, shape: tuple[int, ...]) -> Any:
        free = self.free.get(shape)
        return free.pop() if free else tuple(np.empty((3, *shape), self.dtype))

    def give(self, arrays: Any) -> None:
        self.free.setdefault(arrays[0].shape, []).append(arrays)


def _set_own(values: Any, variances: Any, pairs: bool) -> None:
    k, g, _ = values
    if pairs:
        size = k.shape[1]
        k[:, range(size), range(size)] = variances
        g[:, range(size), range(size)] = 0
    else:
        k[...] = variances
        g[...] = 0
