"""A program with positions as stages: stretches that go through their layers in the cache, and steps between them."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .program import Instruction, Program
from .stretches import ADD, DENSE, LOAD, MARGIN, POOL, SAVE, START, SUMS

KINDS = {"start": START, "dense": DENSE, "bend": DENSE, "sums": SUMS, "add": ADD}


@dataclass(frozen=True, eq=False)
class Kept:
    """Moments that are kept between stages: where they start in the store, for each pair of points, and their size."""

    offset: int
    positions: int
    pairs: bool

    @property
    def size(self) -> int:
        return self.positions ** (2 if self.pairs else 1)

    def of(self, store: Any, count: int) -> Any:
        """(3, pairs of points, P) or (3, pairs of points, P, P): K, the gap and Θ."""
        part = store[self.offset * count : (self.offset + 3 * self.size) * count]
        return part.reshape(3, count, *(self.positions,) * (2 if self.pairs else 1))


@dataclass(eq=False)
class Operation:
    """One line of a stretch; number: its instruction (None: of a register that is loaded or saved)."""

    kind: int
    inputs: tuple[int, ...]
    output: int
    number: int | None = None


@dataclass(eq=False)
class Stretch:
    """Instructions on one grid of positions, as `stretches.run` takes them. acts: the instructions whose φ's variances
    it needs, around: the registers whose variances it needs, saved: the registers that later stages read."""

    grid: tuple[int, int]
    pairs: bool
    circular: bool | None = None
    operations: list[Operation] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    acts: list[int] = field(default_factory=list)
    around: list[int] = field(default_factory=list)
    saved: list[int] = field(default_factory=list)
    pooled: int | None = None
    codes: Any = None
    laws: Any = None
    pieces: Any = None
    windows: Any = None
    form: tuple[int, ...] = ()
    scratch: int = 0
    sums: int = 0

    def bordered(self, values: Any) -> Any:
        """Values (..., P) of one image, flat, with zeros around it; anything, where this stretch does not read it."""
        height, width = self.grid
        if values.shape[-1] != height * width:
            return values
        tall, wide = self.form[2:4]
        grid = values.reshape(*values.shape[:-1], height, width)
        around = [(0, 0)] * (values.ndim - 1)
        flat = np.pad(grid, [*around, (tall, tall), (wide, wide)]).reshape(*values.shape[:-1], -1)
        return np.pad(flat, [*around, (0, MARGIN)])


@dataclass(frozen=True, eq=False)
class Between:
    """One instruction from arrays to arrays; of patch sums, the means alone, into `output`."""

    number: int
    output: int


@dataclass(frozen=True, eq=False)
class Stages:
    """size: numbers that the store has for each pair of points."""

    stages: list[Stretch | Between]
    kept: dict[int, Kept]
    size: int


def stages(program: Program) -> Stages:
    return _Planner(program).planned()


class _Planner:
    def __init__(self, program: Program):
        self.program = program
        self.instructions = program.instructions
        self.last = {r: number for number, one in enumerate(self.instructions) for r in one.inputs}
        self.last[self.instructions[-1].output] = len(self.instructions)
        self.made = {one.output: one for one in self.instructions}
        self.stages: list[Stretch | Between] = []
        self.open: Stretch | None = None
        self.kept: dict[int, Kept] = {}
        self.size = 0

    def planned(self) -> Stages:
        for number, one in enumerate(self.instructions):
            if one.kind in ("pool", "flat") and one.windows_of_rows is not None:
                stretch = self.at(self.made[one.inputs[0]])
                self.read(one.inputs)
                stretch.operations.append(Operation(POOL, one.inputs, one.output, number))
                stretch.numbers.append(number)
                stretch.pooled = number
                self.close(number)
            elif one.kind == "sums" and (one.patches is None or one.patches.taps is None):
                # A number below zero stands for the means in front of the layer's law and φ.
                self.between(number, -one.output)
                self.put(number, one, DENSE, (-one.output,))
            elif one.kind in KINDS:
                self.put(number, one, KINDS[one.kind], one.inputs)
            else:
                self.between(number, one.output)
        self.close(len(self.instructions) - 1)
        return Stages(self.stages, self.kept, self.size)

    def between(self, number: int, output: int) -> None:
        self.close(number - 1)
        one = self.instructions[number]
        self.keep(output, one)
        self.stages.append(Between(number, output))

    def at(self, one: Instruction, circular: bool | None = None) -> Stretch:
        """The open stretch, if it has the grid and the edges; else a new one."""
        now = self.open
        same = now is not None and (now.grid, now.pairs) == (one.grid, one.pairs)
        if now is None or not same or (circular is not None and now.circular not in (None, circular)):
            if now is not None:
                self.close(now.numbers[-1])
            self.open = now = Stretch(one.grid, one.pairs)
        if circular is not None:
            now.circular = circular
        return now

    def put(self, number: int, one: Instruction, kind: int, inputs: tuple[int, ...]) -> None:
        patches = one.patches if kind == SUMS else None
        stretch = self.at(one, None if patches is None or patches.taps is None else patches.taps.circular)
        self.read(inputs)
        stretch.operations.append(Operation(kind, inputs, one.output, number))
        stretch.numbers.append(number)

    def read(self, registers: tuple[int, ...]) -> None:
        assert self.open is not None
        there = {one.output for one in self.open.operations}
        for register in sorted(set(registers) - there):
            self.open.operations.append(Operation(LOAD, (), register))

    def keep(self, register: int, one: Instruction) -> None:
        self.kept[register] = Kept(self.size, one.positions, one.pairs)
        self.size += 3 * self.kept[register].size

    def close(self, number: int) -> None:
        """Ends the open stretch after this instruction."""
        stretch, self.open = self.open, None
        if stretch is None:
            return
        operations: list[Operation] = []
        for one in stretch.operations:
            operations.append(one)
            if one.number is None or self.last.get(one.output, -1) <= number:
                continue
            self.keep(one.output, self.made[one.output])
            if one.kind != POOL:
                stretch.saved.append(one.output)
                operations.append(Operation(SAVE, (one.output,), one.output))
        stretch.operations = sorted(operations, key=lambda one: one.kind == POOL)
        self.encode(stretch)
        self.stages.append(stretch)

    def encode(self, stretch: Stretch) -> None:
        operations = stretch.operations
        summed = {r for one in operations if one.kind == SUMS for r in one.inputs}
        last = {r: step for step, one in enumerate(operations) for r in one.inputs}
        slots: dict[int, int] = {}
        free: list[int] = []
        tall = wide = count = 0
        codes, laws, pieces = [], [], []
        for step, one in enumerate(operations):
            taps = (0,) * 6
            instruction = None if one.number is None else self.instructions[one.number]
            law, bend = (0.0,) * 4, None
            gone = sorted({slots[r] for r in one.inputs if last[r] == step})
            if one.kind == SUMS and instruction is not None and instruction.patches is not None:
                near = instruction.patches.taps
                assert near is not None
                taps = (*near.rows, *near.columns)
                tall, wide = max(tall, _reach(near.rows)), max(wide, _reach(near.columns))
            else:
                free += gone
            first = slots[one.inputs[0]] if one.inputs else 0
            second = slots[one.inputs[-1]] if one.inputs else 0
            if one.kind not in (SAVE, POOL):
                if not free:
                    free, count = [count], count + 1
                slots[one.output] = free.pop()
            if one.kind == SUMS:
                free += gone
            act = around = -1
            if instruction is not None:
                law, bend = instruction.law, instruction.pieces
                if one.kind == SUMS:
                    parts = taps[2] * taps[5]
                    law = (law[0] / parts, law[1], law[2] / parts, law[3])
                if one.kind == POOL:
                    law = (instruction.scale**2 if instruction.kind == "pool" else instruction.scale, 0.0, 0.0, 0.0)
                if bend is not None:
                    act = len(stretch.acts)
                    stretch.acts.append(one.number)  # type: ignore[arg-type]
            if one.output in summed and one.kind not in (SAVE, POOL):
                around = len(stretch.around)
                stretch.around.append(one.output)
            target = slots.get(one.output, 0)
            kept = self.kept[one.output].offset if one.kind in (LOAD, SAVE, POOL) else 0
            codes.append((one.kind, first, second, target, act, kept, around, *taps))
            laws.append(law)
            pieces.append((0.0,) * 5 if bend is None else (*bend[:2], *bend[3:], float(bend.even)))
        stretch.codes, stretch.laws, stretch.pieces = np.array(codes), np.array(laws), np.array(pieces)
        height, width = stretch.grid
        many = windows = 0
        stretch.windows = np.zeros((2, max(height, width)), np.int64)
        if stretch.pooled is not None:
            pool = self.instructions[stretch.pooled]
            stretch.windows[0, :height], stretch.windows[1, :width] = pool.windows_of_rows, pool.windows_of_columns
            many, windows = int(stretch.windows[1].max()) + 1, pool.positions
        by_two = many > 0 and width == 2 * many and bool((stretch.windows[1, :width] == np.arange(width) // 2).all())
        inner = width + 2 * wide
        block = inner * inner if stretch.pairs else inner
        stretch.scratch = 3 * count * ((height + 2 * tall) * block + MARGIN)
        stretch.sums = 3 * windows * windows
        flags = int(stretch.pairs), int(bool(stretch.circular))
        stretch.form = (height, width, tall, wide, *flags, 0, count, many, windows, int(by_two))


def _reach(taps: tuple[int, int, int]) -> int:
    first, apart, count = taps
    return max(-first, first + apart * (count - 1), 0)
