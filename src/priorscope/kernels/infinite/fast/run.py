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
from ..start import NEAR, Data, data_of
from . import vectors
from .loops import LOOPS
from .points import Variances
from .program import ON_A_LINE, Program, Uncovered, compiled
from .stages import Between, Stretch, stages
from .stretches import RUN

ENTRIES = 2**18
"""Numbers that one thread keeps between stages, as far as a single pair does not have more."""
AT_ONCE = 512
"""Pairs of points in one call, at most."""


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
    given = [data.x1] if data.x2 is None or data.gram else [data.x1, data.x2]
    dtype = data.x1.dtype
    if any(x.device.type != "cpu" for x in given):
        raise Uncovered("the data are not on the CPU")
    if dtype not in (torch.float32, torch.float64) or any(x.dtype != dtype for x in given):
        raise Uncovered("the data are neither float32 nor float64")
    # A finite sum is finite in all its terms, and takes one pass.
    if not all(bool(torch.isfinite(x.sum())) or bool(torch.isfinite(x).all()) for x in given):
        raise Uncovered("the data are not finite")
    program = compiled(graph, law, Data(data.x1.detach(), given[-1].detach(), data.gram))
    if program.has_positions and program.begins_without_bias and _on_a_line(program.data):
        raise Uncovered(ON_A_LINE)
    count = torch.get_num_threads()
    with ThreadPoolExecutor(count) as threads:
        each = _shared(threads)
        if program.has_positions:
            nngp, ntk = _Pairs(program, each, count).matrices()
        else:
            nngp, ntk = vectors.matrices(program, each)
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

    def __init__(self, program: Program, each: Callable[..., None], threads: int):
        self.program, self.each, self.threads = program, each, threads
        self.plan = stages(program)
        data = program.data
        self.gram = data.gram
        self.here = threading.local()
        self.a = np.ascontiguousarray(data.x1.numpy())
        self.b = self.a if self.gram or data.x2 is None else np.ascontiguousarray(data.x2.numpy())
        self.dtype = self.a.dtype
        same = data_of([data.x1], [data.x1 if data.x2 is None else data.x2], self.gram)[0].same
        self.same = None if same is None else (same[0].numpy(), same[1].numpy())
        stretches = [stage for stage in self.plan.stages if isinstance(stage, Stretch)]
        self.scratch = max(stage.scratch for stage in stretches), max(stage.sums for stage in stretches)
        self.at_once = max(1, min(AT_ONCE, ENTRIES // self.plan.size))

    def matrices(self) -> tuple[Tensor, Tensor]:
        if self.gram or self.needs_own():
            side1, *own = self.own(self.a)
            side2 = side1 if self.gram else self.own(self.b)[0]
        else:
            own = []
            side1, side2 = (Variances.of_images(self.program, x) for x in (self.a, self.b))
        n1, n2 = len(self.a), len(self.b)
        nngp, ntk = np.empty((n1, n2), self.dtype), np.empty((n1, n2), self.dtype)
        first = [_Side(stage, side1, self.a) for stage in self.plan.stages]
        second = first if self.gram else [_Side(stage, side2, self.b) for stage in self.plan.stages]
        sides = list(zip(first, second, strict=True))

        def batch(I: Any, J: Any) -> None:  # noqa: E741
            k, t = self.through(I, J, side1, side2, sides)
            for whole, part in ((nngp, k), (ntk, t)):
                whole[I, J] = part
                if self.gram:
                    whole[J, I] = part

        rows, columns = np.triu_indices(n1, 1) if self.gram else (i.ravel() for i in np.indices((n1, n2)))
        self.each(batch, [(rows[cut], columns[cut]) for cut in self.cuts(len(rows))])
        for whole, values in zip((nngp, ntk), own, strict=False):
            if self.gram:
                np.fill_diagonal(whole, values)
            if self.same is not None:
                # Averages of gaps cancel between points that coincide: what is left there is rounding.
                whole[self.same] = values[self.same[0]]
        return torch.from_numpy(nngp), torch.from_numpy(ntk)

    def needs_own(self) -> bool:
        """Whether the moments of points with themselves decide variances in front of a φ: behind a pooling they do."""
        kinds = [one.kind == "pool" for one in self.program.instructions]
        behind = self.program.instructions[kinds.index(True) :] if any(kinds) else []
        return any(one.pieces is not None or (one.kind == "sums" and one.positions > 1) for one in behind)

    def cuts(self, size: int) -> list[slice]:
        step = max(1, min(self.at_once, size // (4 * self.threads)))
        return [slice(i, i + step) for i in range(0, size, step)]

    def own(self, x: Any) -> tuple[Variances, Any, Any]:
        """The variances of all points, and both kernels of each with itself."""
        cuts = self.cuts(len(x))
        parts: list[Any] = [None] * len(cuts)

        def part(number: int, points: Any) -> None:
            side = Variances()
            index = np.arange(len(points))
            parts[number] = (side, *self.through(index, index, side, side, None, points))

        self.each(part, [(number, x[cut]) for number, cut in enumerate(cuts)])
        sides, nngp, ntk = zip(*parts, strict=True)
        return Variances.joined(sides), np.concatenate(nngp), np.concatenate(ntk)

    def through(
        self,
        I: Any,  # noqa: E741
        J: Any,
        side1: Variances,
        side2: Variances,
        sides: Any,
        own: Any = None,
    ) -> tuple[Any, Any]:
        """NNGP and NTK of the pairs; own: the points themselves, whose variances are added to side1 on the way."""
        store, scratch, sums = self.arrays(len(I))
        count, instructions = len(I), self.program.instructions
        for number, stage in enumerate(self.plan.stages):
            if own is not None:
                for index in stage.numbers if isinstance(stage, Stretch) else (stage.number,):
                    if instructions[index].kind != "pool":
                        side1.step(index, instructions[index], (own * own).mean(1))
            if isinstance(stage, Stretch):
                first, second = (_Side(stage, side1, own),) * 2 if own is not None else sides[number]
                form = np.array(stage.form)
                form[6] = own is not None
                fixed = stage.codes, stage.laws.astype(self.dtype), stage.pieces.astype(self.dtype)
                of_points = first.before, second.before, first.around, second.around
                RUN[self.dtype](
                    I, J, first.data, second.data, store, scratch, sums, *fixed, *of_points, form, stage.windows
                )
                made = stage.saved
                if stage.pooled is not None and instructions[stage.pooled].kind == "pool":
                    one = instructions[stage.pooled]
                    self.pooled(stage.pooled, self.plan.kept[one.output].of(store, count), I, J, side1, side2, own)
            else:
                self.between(stage, store, I, J, side1, side2, own)
                made = [stage.output] if instructions[stage.number].kind == "same positions" else []
            if own is not None:
                for register in made:
                    _set_own(self.plan.kept[register].of(store, count), side1.values[register])
        k, _, t = self.plan.kept[instructions[-1].output].of(store, count)
        k, t = k.reshape(count).copy(), t.reshape(count).copy()
        if own is not None and instructions[-1].output in side1.values:
            k = side1.values[instructions[-1].output].reshape(count)
        return k, t

    def arrays(self, count: int) -> tuple[Any, Any, Any]:
        """This thread's own, used again: fresh memory costs more than the loops."""
        if not hasattr(self.here, "scratch"):
            self.here.scratch = np.zeros(self.scratch[0], self.dtype), np.zeros(self.scratch[1])
            self.here.store = np.empty(0, self.dtype)
        if len(self.here.store) < self.plan.size * count:
            self.here.store = np.empty(self.plan.size * count, self.dtype)
        return self.here.store, *self.here.scratch

    def between(
        self,
        stage: Between,
        store: Any,
        I: Any,  # noqa: E741
        J: Any,
        side1: Variances,
        side2: Variances,
        own: Any,
    ) -> None:
        one, loops = self.program.instructions[stage.number], LOOPS[self.dtype]
        values, out = (self.plan.kept[register].of(store, len(I)) for register in (one.inputs[0], stage.output))
        if one.kind == "same positions":
            for value, target in zip(values, out, strict=True):
                np.copyto(target, value.diagonal(axis1=1, axis2=2))
        elif one.kind == "pool":
            for value, target in zip(values, out, strict=True):
                loops.pool_all(value, one.windows, one.scale, target)
            self.pooled(stage.number, out, I, J, side1, side2, own)
        elif one.kind == "sums":
            patches: Any = one.patches
            if one.pairs:
                v1, v2 = side1.values[one.inputs[0]], side2.values[one.inputs[0]]
                geometry = patches.width, patches.rows, patches.padded, np.array(patches.steps)
                loops.patches_all(*values, *out, *geometry, v1, v2, I, J)
            else:
                for value, target in zip(values, out, strict=True):
                    loops.patches(value, target, patches.width, patches.rows, patches.across)
        else:
            raise TypeError(one.kind)

    def pooled(
        self,
        number: int,
        values: Any,
        I: Any,  # noqa: E741
        J: Any,
        side1: Variances,
        side2: Variances,
        own: Any,
    ) -> None:
        """Takes from pooled gaps those inside of the windows, where something behind needs gaps."""
        k, g, _ = values
        if own is not None:
            side1.inner[number] = g.diagonal(axis1=1, axis2=2).copy()
            side1.values[self.program.instructions[number].output] = k.diagonal(axis1=1, axis2=2).copy()
        if number not in side1.inner:
            return
        inner1, inner2 = side1.inner[number][I], side2.inner[number][J]
        g -= (inner1[:, :, None] + inner2[:, None]) / 2
        np.maximum(g, 0, out=g)


class _Side:
    """What a stretch needs of the points of one side: the data, √v in front of each φ, the variances around its sums;
    where only equal positions count, with borders as its blocks have them."""

    def __init__(self, stage: Stretch | Between, side: Variances, x: Any):
        if isinstance(stage, Stretch):
            self.data = x if stage.pairs else stage.bordered(x)
            before = _stacked([side.before[number] for number in stage.acts], x.dtype)
            self.before = before if stage.pairs or not stage.acts else stage.bordered(before)
            self.around = _stacked([side.values[register] for register in stage.around], x.dtype)


def _stacked(values: list[Any], dtype: Any) -> Any:
    return np.stack(values) if values else np.zeros((0, 0, 0), dtype)


def _set_own(values: Any, variances: Any) -> None:
    """The exact variances, and gaps of 0, where a position meets itself."""
    k, g, _ = values
    if k.ndim == 3:
        at = np.arange(k.shape[1])
        k[:, at, at], g[:, at, at] = variances, 0
    else:
        k[...], g[...] = variances, 0
