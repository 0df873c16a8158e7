"""Networks without positions: a stretch of a row of the kernel goes through all layers while it is in the cache."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..deviation import UNEQUAL
from ..start import NEAR
from .bend import BENT, compiled
from .points import Variances
from .program import ON_A_LINE, Instruction, Program, Uncovered

SEGMENT = 512
"""Columns at once: a few arrays of these stay in the innermost cache."""
WHOLE = 32
"""Loops run on to a multiple of it, whole vectors."""
ROWS = 32
"""Rows that one thread takes at a time."""
TILE = 64
"""Columns that are mirrored at once."""
BLOCK = 2**20
"""Entries of one matrix product."""
DENSE, BEND, ADD = range(3)


class Chain(NamedTuple):
    """A program as arrays: codes (operations, 5) of kind, both inputs, output and number of φ (−1: none); slots: how
    many registers are alive at once."""

    codes: Any
    laws: Any
    pieces: Any
    slots: int


def _made(dtype: Any) -> Callable[..., None]:
    bent = BENT[np.dtype(dtype)]
    half, zero, one, unequal = dtype(0.5), dtype(0), dtype(1), dtype(UNEQUAL)

    @compiled()
    def bend_segment(k, g, t, size, r1, r2, start, law, pieces):  # type: ignore[no-untyped-def]
        """A layer's law and φ in one pass, in place."""
        w, bias, cw, cb = law[0], law[1], law[2], law[3]
        mixed, bend, slope, at_zero = pieces[0], pieces[1], pieces[2], pieces[3]
        root = r2[start : start + size]
        if pieces[4] > 0:
            for q in range(size):
                k[q], g[q], t[q] = bent(
                    w * k[q] + bias,
                    w * g[q],
                    w * t[q] + (cw * k[q] + cb),
                    r1,
                    root[q],
                    mixed,
                    bend,
                    slope,
                    at_zero,
                    True,
                )
        else:
            for q in range(size):
                k[q], g[q], t[q] = bent(
                    w * k[q] + bias,
                    w * g[q],
                    w * t[q] + (cw * k[q] + cb),
                    r1,
                    root[q],
                    mixed,
                    bend,
                    slope,
                    at_zero,
                    False,
                )

    @compiled()
    def mirror(matrix, first, last):  # type: ignore[no-untyped-def]
        """Rows first to last from the diagonal on, as columns below it, while they are in the cache."""
        n = matrix.shape[1]
        tile = np.empty((TILE, ROWS), dtype)
        for i in range(first, last):
            for j in range(i + 1, last):
                matrix[j, i] = matrix[i, j]
        for left in range(last, n, TILE):
            size, width = min(TILE, n - left), last - first
            for i in range(width):
                line = matrix[first + i, left : left + size]
                for j in range(size):
                    tile[j, i] = line[j]
            for j in range(size):
                line = matrix[left + j, first:last]
                for i in range(width):
                    line[i] = tile[j, i]

    @compiled()
    def rows(
        first, last, left, nngp, ntk, a, b, v1, v2, roots, gram, near, codes, laws, pieces, slots, act1, act2, lines
    ):  # type: ignore[no-untyped-def]
        """Rows first to last, from column `left`, of a Gram matrix from the diagonal on; nngp holds x·x' before.

        lines: of rows, becomes 1 where a pair is nearly opposite, or nearly parallel with different lengths.
        """
        n, size, root1, root2 = nngp.shape[1], a.shape[1], roots[0], roots[1]
        scale = dtype(1) / dtype(size)
        registers = np.zeros((slots, 3, SEGMENT), dtype)
        for i in range(first, last):
            # From a multiple of what vector instructions take; the mirror then sets what is left of the diagonal.
            begin = max(left, i - i % WHOLE) if gram else left
            edge = near * root1[i]
            for start in range(begin, n, SEGMENT):
                width = min(SEGMENT, n - start)
                k, g, t = registers[0, 0], registers[0, 1], registers[0, 2]
                v, root, line = v2[start : start + width], root2[start : start + width], nngp[i, start : start + width]
                for q in range(width):
                    k[q] = scale * line[q]
                for q in range(width):
                    g[q] = half * (v1[i] + v[q]) - k[q]
                for q in range(width):
                    t[q] = zero
                found = zero
                for q in range(width):
                    found += one if abs(k[q]) > edge * root[q] else zero
                if found > zero:
                    for q in range(width):
                        bound = edge * root[q]
                        if k[q] < -bound or (k[q] > bound and abs(v1[i] - v[q]) > unequal * (v1[i] + v[q])):
                            lines[i] = 1
                        if k[q] > bound:
                            total = zero
                            for c in range(size):
                                difference = a[i, c] - b[start + q, c]
                                total += difference * difference
                            g[q] = half * scale * total
                if gram and start <= i < start + width:
                    k[i - start], g[i - start] = v1[i], zero
                several = (width + WHOLE - 1) // WHOLE * WHOLE
                out = 0
                for step in range(len(codes)):
                    kind, source, two, out, act = (
                        codes[step, 0],
                        codes[step, 1],
                        codes[step, 2],
                        codes[step, 3],
                        codes[step, 4],
                    )
                    k, g, t = registers[out, 0], registers[out, 1], registers[out, 2]
                    k1, g1, t1 = registers[source, 0], registers[source, 1], registers[source, 2]
                    if kind == ADD:
                        k2, g2, t2 = registers[two, 0], registers[two, 1], registers[two, 2]
                        for q in range(several):
                            k[q] = k1[q] + k2[q]
                            g[q] = g1[q] + g2[q]
                            t[q] = t1[q] + t2[q]
                        continue
                    if source != out:
                        for q in range(several):
                            k[q] = k1[q]
                            g[q] = g1[q]
                            t[q] = t1[q]
                    if act >= 0:
                        bend_segment(k, g, t, several, act1[act, i], act2[act], start, laws[step], pieces[step])
                    else:
                        w, bias, cw, cb = laws[step, 0], laws[step, 1], laws[step, 2], laws[step, 3]
                        for q in range(several):
                            t[q] = w * t[q] + (cw * k[q] + cb)
                            k[q] = w * k[q] + bias
                        for q in range(several):
                            g[q] = w * g[q]
                k, t = registers[out, 0], registers[out, 2]
                last_t = ntk[i, start : start + width]
                for q in range(width):
                    line[q] = k[q]
                for q in range(width):
                    last_t[q] = t[q]
        if gram:
            mirror(nngp, first, last)
            mirror(ntk, first, last)

    return rows


LOOPS = {np.dtype(np.float32): _made(np.float32), np.dtype(np.float64): _made(np.float64)}


def matrices(program: Program, each: Callable[..., None]) -> tuple[Tensor, Tensor]:
    """NNGP and NTK of a program without positions.

    Args:
        each: calls a function with each of several argument tuples, in threads.
    """
    x1, x2, gram = program.data.x1, program.data.x2, program.data.gram
    a, b = x1.contiguous(), (x1 if x2 is None else x2).contiguous()
    side1 = Variances.of_vectors(program, a.numpy())
    side2 = side1 if gram else Variances.of_vectors(program, b.numpy())
    # numpy asks for large pages, which are made in a fraction of the time.
    nngp, ntk = (torch.from_numpy(np.empty((len(a), len(b)), a.numpy().dtype)) for _ in range(2))
    chain = _chain(program.instructions, a.numpy().dtype)
    act1, act2 = side1.stacked(), np.pad(side2.stacked(), ((0, 0), (0, WHOLE)))
    lines = np.zeros(len(a), np.int64)
    dtype = a.numpy().dtype.type
    roots = np.sqrt(side1.first), np.sqrt(side2.first)
    rows = LOOPS[a.numpy().dtype]
    step = max(ROWS, BLOCK // len(b) // ROWS * ROWS)
    for first in range(0, len(a), step):
        last, left = min(first + step, len(a)), first if gram else 0
        torch.mm(a[first:last], b[left:].T, out=nngp[first:last, left:])
        matrices = nngp.numpy(), ntk.numpy(), a.numpy(), b.numpy()
        shared = (left, *matrices, side1.first, side2.first, roots, gram, dtype(1 - NEAR), *chain, act1, act2, lines)
        each(rows, [(i, min(i + ROWS, last), *shared) for i in range(first, last, ROWS)])
        if program.begins_without_bias and lines.any():
            raise Uncovered(ON_A_LINE)
    return nngp, ntk


def _chain(instructions: list[Instruction], dtype: Any) -> Chain:
    last = {register: step for step, one in enumerate(instructions) for register in one.inputs}
    slots: dict[int, int] = {instructions[0].output: 0}
    free: list[int] = []
    count, acts = 1, 0
    codes, laws, pieces = [], [], []
    for step, one in enumerate(instructions[1:], 1):
        given = [slots[register] for register in one.inputs]
        free += sorted({slots[register] for register in one.inputs if last[register] == step})
        if free:
            slots[one.output] = free.pop()
        else:
            slots[one.output], count = count, count + 1
        act = -1
        if one.pieces is not None:
            act, acts = acts, acts + 1
        codes.append((ADD if one.kind == "add" else DENSE, given[0], given[-1], slots[one.output], act))
        laws.append(one.law)
        bend = one.pieces
        pieces.append((0.0,) * 5 if bend is None else (*bend[:2], *bend[3:], float(bend.even)))
    return Chain(np.array(codes), np.array(laws, dtype), np.array(pieces, dtype), count)
