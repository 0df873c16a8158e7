"""Compiled loops for a stretch of a network that keeps its positions: from the data, or a stage before, to the next.

A patch sum that keeps the positions connects the pair of positions (p, q) with (p + d, q + d) alone. So all pairs of
rows (y, y + s) of two images, for one shift s, go through all layers by themselves, while they are in the cache: a
diagonal. It is a list of blocks, one for each y: of all pairs of columns (x, w), flat, with a border of `reach` columns
around them; the neighbour at d = (i, j) is i blocks and j·(width + 2 reach + 1) numbers away, so that every sum is one
of long stretches. Between equal positions only, a block is one row of both images, and the neighbour is j numbers away.

Beyond the edges of an image its values are 0: K and Θ vanish there, and the gap is half of the other one's variance.
"""

from typing import Any

import numpy as np

from .bend import BENT, compiled

START, LOAD, DENSE, SUMS, ADD, SAVE, POOL = range(7)
"""Kinds of operations. POOL: sums over windows, which end the stretch; SAVE and LOAD: to and from a stage's arrays."""
AT_ONCE = 2048
"""Numbers of one array that are worked on at once, as far as one block has no more: a few of these stay in the
innermost cache."""
MARGIN = 64
"""Behind every array, so that loops may run on to a multiple of what vector instructions take."""


def _made(dtype: Any) -> Any:
    bent = BENT[np.dtype(dtype)]
    half, zero, one = dtype(0.5), dtype(0), dtype(1)

    @compiled()
    def total(out, source, at, apart, taps, factor, shift, size):  # type: ignore[no-untyped-def]
        """out[q] = factor·(source[at + q] + source[at + apart + q] + ...) + shift."""
        if taps == 3:
            a, b, c = source[at:], source[at + apart :], source[at + 2 * apart :]
            for q in range(size):
                out[q] = factor * (a[q] + b[q] + c[q]) + shift
        else:
            for q in range(size):
                out[q] = shift
            for d in range(taps):
                a = source[at + d * apart :]
                for q in range(size):
                    out[q] += factor * a[q]

    @compiled()
    def total_of_both(out, t, k, at, apart, taps, law, size):  # type: ignore[no-untyped-def]
        """out[q] = σ_w²·(sum of t, as in `total`) + c_w·(the same of k) + c_b."""
        w, cw, cb = law[0], law[2], law[3]
        if taps == 3:
            a, b, c = t[at:], t[at + apart :], t[at + 2 * apart :]
            d, e, f = k[at:], k[at + apart :], k[at + 2 * apart :]
            for q in range(size):
                out[q] = w * (a[q] + b[q] + c[q]) + (cw * (d[q] + e[q] + f[q]) + cb)
        else:
            for q in range(size):
                out[q] = cb
            for d in range(taps):
                a, b = t[at + d * apart :], k[at + d * apart :]
                for q in range(size):
                    out[q] += w * a[q] + cw * b[q]

    @compiled()
    def affine(k, g, t, k1, g1, t1, law, size):  # type: ignore[no-untyped-def]
        w, b, cw, cb = law[0], law[1], law[2], law[3]
        for q in range(size):
            t[q] = w * t1[q] + cw * k1[q] + cb
        for q in range(size):
            k[q] = w * k1[q] + b
        for q in range(size):
            g[q] = w * g1[q]

    @compiled()
    def added(out, a, b, size):  # type: ignore[no-untyped-def]
        for q in range(size):
            out[q] = a[q] + b[q]

    @compiled()
    def bend(k, g, t, r1, r2, pieces, size):  # type: ignore[no-untyped-def]
        mixed, jump, slope, at_zero = pieces[0], pieces[1], pieces[2], pieces[3]
        if pieces[4] > 0:
            for q in range(size):
                k[q], g[q], t[q] = bent(k[q], g[q], t[q], r1[q], r2[q], mixed, jump, slope, at_zero, True)
        else:
            for q in range(size):
                k[q], g[q], t[q] = bent(k[q], g[q], t[q], r1[q], r2[q], mixed, jump, slope, at_zero, False)

    @compiled()
    def begin_same(k, g, a, b, at, size):  # type: ignore[no-untyped-def]
        """The data's own moments at equal positions: K = mean over channels of x x', the gap from the difference."""
        channels = a.shape[0]
        scale = one / dtype(channels)
        row, other = k[at : at + size], g[at : at + size]
        if channels == 3:
            a0, a1, a2 = a[0, at : at + size], a[1, at : at + size], a[2, at : at + size]
            b0, b1, b2 = b[0, at : at + size], b[1, at : at + size], b[2, at : at + size]
            for q in range(size):
                row[q] = scale * (a0[q] * b0[q] + a1[q] * b1[q] + a2[q] * b2[q])
            for q in range(size):
                d0, d1, d2 = a0[q] - b0[q], a1[q] - b1[q], a2[q] - b2[q]
                other[q] = half * scale * (d0 * d0 + d1 * d1 + d2 * d2)
            return
        for q in range(size):
            row[q] = zero
            other[q] = zero
        for c in range(channels):
            values, line = a[c, at : at + size], b[c, at : at + size]
            for q in range(size):
                row[q] += scale * (values[q] * line[q])
            for q in range(size):
                difference = values[q] - line[q]
                other[q] += half * scale * (difference * difference)

    @compiled()
    def begin_all(k, g, a, b, y, z, width, inner):  # type: ignore[no-untyped-def]
        """As `begin_same`, one block of all pairs of columns."""
        channels, reach = a.shape[0], (inner - width) // 2
        scale = one / dtype(channels)
        for x in range(width):
            at, p = (reach + x) * inner + reach, y * width + x
            row, other = k[at : at + width], g[at : at + width]
            if channels == 3:
                v0, v1, v2 = a[0, p], a[1, p], a[2, p]
                b0, b1 = b[0, z * width : (z + 1) * width], b[1, z * width : (z + 1) * width]
                b2 = b[2, z * width : (z + 1) * width]
                for q in range(width):
                    row[q] = scale * (v0 * b0[q] + v1 * b1[q] + v2 * b2[q])
                for q in range(width):
                    d0, d1, d2 = v0 - b0[q], v1 - b1[q], v2 - b2[q]
                    other[q] = half * scale * (d0 * d0 + d1 * d1 + d2 * d2)
                continue
            for q in range(width):
                row[q] = zero
                other[q] = zero
            for c in range(channels):
                value, line = a[c, p], b[c, z * width : (z + 1) * width]
                for q in range(width):
                    row[q] += scale * (value * line[q])
                for q in range(width):
                    difference = value - line[q]
                    other[q] += half * scale * (difference * difference)

    @compiled()
    def load(target, source, y, z, width, positions, inner, pairs):  # type: ignore[no-untyped-def]
        reach = (inner - width) // 2
        for x in range(width if pairs else 1):
            at = (reach + x) * inner + reach if pairs else reach
            base = (y * width + x) * positions + z * width if pairs else y * width
            row, line = target[at : at + width], source[base : base + width]
            for q in range(width):
                row[q] = line[q]

    @compiled()
    def save(source, target, y, z, width, positions, inner, pairs, mirrored):  # type: ignore[no-untyped-def]
        reach = (inner - width) // 2
        for x in range(width if pairs else 1):
            at = (reach + x) * inner + reach if pairs else reach
            base = (y * width + x) * positions + z * width if pairs else y * width
            row, line = source[at : at + width], target[base : base + width]
            for q in range(width):
                line[q] = row[q]
            if mirrored:
                for q in range(width):
                    target[(z * width + q) * positions + y * width + x] = row[q]

    @compiled()
    def whole_sum(source, line, rows, width, inner):  # type: ignore[no-untyped-def]
        """The sum over rows of an image."""
        reach = (inner - width) // 2
        for q in range(width):
            line[q] = 0.0
        for r in range(rows):
            row = source[r * inner + reach : r * inner + reach + width]
            for q in range(width):
                line[q] += row[q]
        found = 0.0
        for q in range(width):
            found += line[q]
        return found

    @compiled()
    def pool(source, lines, into, y, z, width, inner, rows, columns, many, size, by_two, mirrored):  # type: ignore[no-untyped-def]
        """Adds a block to its windows; rows, columns: the window of each (−1: none); many: windows along a row, size:
        in all; by_two: every window is two columns."""
        reach, a, b = (inner - width) // 2, rows[y], rows[z]
        if a < 0 or b < 0:
            return
        for n in range(many):
            for q in range(width):
                lines[n, q] = 0.0
        for x in range(width):
            at = (reach + x) * inner + reach
            n = columns[x]
            if n >= 0:
                row, line = source[at : at + width], lines[n]
                for q in range(width):
                    line[q] += row[q]
        for n in range(many):
            p, line = a * many + n, lines[n]
            out = into[p * size + b * many : p * size + (b + 1) * many]
            if by_two:
                for q in range(many):
                    out[q] += line[2 * q] + line[2 * q + 1]
            elif many == 1:
                sum0, sum1 = 0.0, 0.0
                for q in range(0, width - 1, 2):
                    sum0 += line[q] if columns[q] >= 0 else 0.0
                    sum1 += line[q + 1] if columns[q + 1] >= 0 else 0.0
                if width % 2 == 1:
                    sum0 += line[width - 1] if columns[width - 1] >= 0 else 0.0
                out[0] += sum0 + sum1
            else:
                for q in range(width):
                    if columns[q] >= 0:
                        out[columns[q]] += line[q]
            if mirrored:
                for q in range(width):
                    if columns[q] >= 0:
                        into[(b * many + columns[q]) * size + p] += line[q]

    @compiled()
    def edges(k, g, t, v1, v2, y, z, height, width, inner, pairs, circular, inside):  # type: ignore[no-untyped-def]
        """The border of a block; of a block that is outside of one of the images (not inside), all of it."""
        reach = (inner - width) // 2
        if not pairs:
            for q in range(reach):
                right, from_left, from_right = reach + width + q, reach + (q - reach) % width, reach + q % width
                k[q], g[q], t[q] = k[from_left], g[from_left], t[from_left]
                k[right], g[right], t[right] = k[from_right], g[from_right], t[from_right]
            return
        in1, in2 = 0 <= y < height, 0 <= z < height
        for x in range(-reach, width + reach):
            row = (x + reach) * inner
            here = in1 and 0 <= x < width
            if inside and 0 <= x < width:
                value = half * v1[y * width + x]
                for q in range(reach):
                    left, right = row + q, row + reach + width + q
                    if circular:
                        from_left, from_right = row + reach + (q - reach) % width, row + reach + q % width
                        k[left], g[left], t[left] = k[from_left], g[from_left], t[from_left]
                        k[right], g[right], t[right] = k[from_right], g[from_right], t[from_right]
                    else:
                        k[left], g[left], t[left] = zero, value, zero
                        k[right], g[right], t[right] = zero, value, zero
            elif not circular:
                value = half * v1[y * width + x] if here else zero
                for q in range(inner):
                    k[row + q] = zero
                    t[row + q] = zero
                    g[row + q] = value
                if in2:
                    for q in range(width):
                        g[row + reach + q] += half * v2[z * width + q]
        if inside and circular:
            for n in range(2 * reach):
                x = n - reach if n < reach else width + n - reach
                row, source = (x + reach) * inner, (x % width + reach) * inner
                for q in range(inner):
                    k[row + q] = k[source + q]
                    g[row + q] = g[source + q]
                    t[row + q] = t[source + q]

    @compiled()
    def frame(k, g, t, rows, tall, block, reach):  # type: ignore[no-untyped-def]
        """Zeros around an image, at equal positions."""
        for q in range(tall * block):
            k[q], g[q], t[q] = zero, zero, zero
        end = (tall + rows) * block
        for q in range(end, end + tall * block):
            k[q], g[q], t[q] = zero, zero, zero
        for r in range(tall, tall + rows):
            for q in range(r * block, r * block + reach):
                k[q], g[q], t[q] = zero, zero, zero
            for q in range((r + 1) * block - reach, (r + 1) * block):
                k[q], g[q], t[q] = zero, zero, zero

    @compiled()
    def roots(r1, r2, s1, s2, y, z, width, inner):  # type: ignore[no-untyped-def]
        """√v of the block's first and second positions; 0 at its border stays."""
        reach = (inner - width) // 2
        line = s2[z * width : (z + 1) * width]
        for x in range(width):
            at = (reach + x) * inner + reach
            first, second, value = r1[at : at + width], r2[at : at + width], s1[y * width + x]
            for q in range(width):
                first[q] = value
            for q in range(width):
                second[q] = line[q]

    @compiled()
    def run(I, J, a, b, store, scratch, sums, codes, laws, pieces, before1, before2, around1, around2, form, windows):  # type: ignore[no-untyped-def] # noqa: E741
        """All pairs of points (I, J). form: height, width, reach (rows, columns), pairs, circular, own (each point with
        itself: a diagonal and its mirror image are one), slots, many (windows along a row), windows in all, whether
        each is two columns. Where only equal positions count, a, b, before1 and before2 have borders as blocks do."""
        height, width, tall, reach = form[0], form[1], form[2], form[3]
        pairs, circular, own, slots, many = form[4] > 0, form[5] > 0, form[6] > 0, form[7], form[8]
        positions, inner = height * width, width + 2 * reach
        block, aside = (inner * inner, inner + 1) if pairs else (inner, 1)
        whole = positions * positions if pairs else positions
        length = (height + 2 * tall) * block + MARGIN
        registers = scratch[: 3 * slots * length].reshape((3 * slots, length))
        at_once = max(1, AT_ONCE // block)
        long = at_once * block + MARGIN
        sk, sg, st = np.zeros(long, dtype), np.zeros(long, dtype), np.zeros(long, dtype)
        r1, r2 = np.zeros(long, dtype), np.zeros(long, dtype)
        lines = np.zeros((max(many, 1), width), np.float64)
        count, pooled = len(I), form[9] * form[9]  # of windows: one, where only equal positions count
        first, last = (0, 0) if not pairs else ((0, height - 1) if circular else (1 - height, height - 1))
        if own and pairs:
            first, last = 0, height // 2 if circular else height - 1
        for m in range(count):
            i, j = I[m], J[m]
            for q in range(3 * pooled):
                sums[q] = 0.0
            for shift in range(first, last + 1):
                low = 0 if circular else max(0, -shift)
                rows = height if circular else height - abs(shift)
                mirrored = own and shift > 0 and not (circular and 2 * shift == height)
                for step in range(len(codes)):
                    kind, one_, two, out, act = (
                        codes[step, 0],
                        codes[step, 1],
                        codes[step, 2],
                        codes[step, 3],
                        codes[step, 4],
                    )
                    offset, around = codes[step, 5], codes[step, 6]
                    k, g, t = registers[3 * out], registers[3 * out + 1], registers[3 * out + 2]
                    for n in range(0, rows, at_once):
                        many_blocks = min(at_once, rows - n)
                        at, size = (tall + n) * block, many_blocks * block
                        # Whole vectors: what is behind a stretch is written afterwards, or never read.
                        even_size = (size + 31) // 32 * 32
                        if kind == SUMS:
                            k1, g1, t1 = registers[3 * one_], registers[3 * one_ + 1], registers[3 * one_ + 2]
                            up, high, taps = codes[step, 7] * block, codes[step, 8] * block, codes[step, 9]
                            left, wide, steps = codes[step, 10], codes[step, 11] * aside, codes[step, 12]
                            total(sk, k1, at + up, high, taps, one, zero, even_size)
                            total(sg, g1, at + up, high, taps, one, zero, even_size)
                            total(st, t1, at + up, high, taps, one, zero, even_size)
                            start, to = (reach + left) * aside, at + reach * aside
                            w, bias = laws[step, 0], laws[step, 1]
                            some = min((size - 2 * reach * aside + 31) // 32 * 32, long - 2 * reach * aside)
                            total(k[to:], sk, start, wide, steps, w, bias, some)
                            total(g[to:], sg, start, wide, steps, w, zero, some)
                            total_of_both(t[to:], st, sk, start, wide, steps, laws[step], some)
                        elif kind == DENSE:
                            k1, g1, t1 = registers[3 * one_], registers[3 * one_ + 1], registers[3 * one_ + 2]
                            affine(k[at:], g[at:], t[at:], k1[at:], g1[at:], t1[at:], laws[step], size)
                        elif kind == ADD:
                            for c in range(3):
                                added(
                                    registers[3 * out + c, at:],
                                    registers[3 * one_ + c, at:],
                                    registers[3 * two + c, at:],
                                    size,
                                )
                        elif kind == START and not pairs:
                            begin_same(k, g, a[i], b[j], at, size)
                            for q in range(at, at + size):
                                t[q] = zero
                        elif kind == POOL and not pairs:
                            for c in range(3):
                                sums[c] += whole_sum(registers[3 * one_ + c, at:], lines[0], many_blocks, width, inner)
                        else:
                            for r in range(n, n + many_blocks):
                                y, cell = low + r, (tall + r) * block
                                z = y + shift
                                z = z - height if z >= height else z
                                if kind == START:
                                    begin_all(k[cell:], g[cell:], a[i], b[j], y, z, width, inner)
                                    for q in range(cell, cell + block):
                                        t[q] = zero
                                elif kind == POOL:
                                    for c in range(3):
                                        pool(
                                            registers[3 * one_ + c, cell:],
                                            lines,
                                            sums[c * pooled : (c + 1) * pooled],
                                            y,
                                            z,
                                            width,
                                            inner,
                                            windows[0],
                                            windows[1],
                                            many,
                                            form[9],
                                            form[10] > 0,
                                            mirrored,
                                        )
                                else:
                                    for c in range(3):
                                        place = offset * count + (c * count + m) * whole
                                        part = store[place : place + whole]
                                        if kind == LOAD:
                                            load(
                                                registers[3 * out + c, cell:],
                                                part,
                                                y,
                                                z,
                                                width,
                                                positions,
                                                inner,
                                                pairs,
                                            )
                                        else:
                                            save(
                                                registers[3 * one_ + c, cell:],
                                                part,
                                                y,
                                                z,
                                                width,
                                                positions,
                                                inner,
                                                pairs,
                                                mirrored,
                                            )
                        if act < 0:
                            continue
                        # Sums never overwrite what they read, the others do.
                        several = even_size if kind == SUMS else size
                        if pairs:
                            for r in range(many_blocks):
                                y = low + n + r
                                z = y + shift
                                z = z - height if z >= height else z
                                first1, second2 = r1[r * block :], r2[r * block :]
                                roots(first1, second2, before1[act, i], before2[act, j], y, z, width, inner)
                            bend(k[at:], g[at:], t[at:], r1, r2, pieces[step], several)
                        else:
                            s1, s2 = before1[act, i, at:], before2[act, j, at:]
                            bend(k[at:], g[at:], t[at:], s1, s2, pieces[step], several)
                    if around < 0:
                        continue
                    if not pairs and not circular:
                        frame(k, g, t, rows, tall, block, reach)
                        continue
                    v1, v2 = around1[around, i], around2[around, j]
                    for r in range(-tall, rows + tall):
                        y, cell, inside = low + r, (tall + r) * block, 0 <= r < rows
                        z = (y + shift) % height if circular else y + shift
                        if circular and not inside:
                            continue
                        kr, gr, tr = k[cell:], g[cell:], t[cell:]
                        edges(kr, gr, tr, v1, v2, y, z, height, width, inner, pairs, circular, inside)
                    if circular:
                        for n in range(2 * tall):
                            r = n - tall if n < tall else rows + n - tall
                            to, source = (tall + r) * block, (tall + r % rows) * block
                            for q in range(block):
                                k[to + q] = k[source + q]
                                g[to + q] = g[source + q]
                                t[to + q] = t[source + q]
            step = len(codes) - 1
            if codes[step, 0] == POOL:
                factor, offset = np.float64(laws[step, 0]), codes[step, 5]
                for c in range(3):
                    place = offset * count + (c * count + m) * pooled
                    for q in range(pooled):
                        store[place + q] = dtype(factor * sums[c * pooled + q])

    return run


RUN = {np.dtype(np.float32): _made(np.float32), np.dtype(np.float64): _made(np.float64)}
