"""Compiled loops over pairs of points with positions: the data, patch sums, functions of two pieces, pooling.

Arrays are (pairs, P), the same position at both points, or (pairs, P, P), all pairs of positions. I and J say which
points a pair has; values of points are (points, P). The interpreter lock is released, so that threads share the work.
"""

from typing import Any, NamedTuple

import numpy as np

from .bend import BENT, compiled

# Index arithmetic and arrays only; ruff's and mypy's types end where numba's begin.


class Loops(NamedTuple):
    """The loops of one dtype."""

    start: Any
    start_all: Any
    sums: Any
    sums_all: Any
    sums_near: Any
    sums_all_near: Any
    dense: Any
    dense_all: Any
    pool_all: Any


def _made(dtype: Any) -> Loops:
    bent = BENT[np.dtype(dtype)]
    half, zero, one = dtype(0.5), dtype(0), dtype(1)

    @compiled()
    def start(a, b, I, J, K, G):  # type: ignore[no-untyped-def] # noqa: E741
        """K = mean over channels of x x', and the gap from the difference itself; a, b: (points, channels, P)."""
        channels, size = a.shape[1], a.shape[2]
        scale = one / dtype(channels)
        for m in range(len(I)):
            x, y = a[I[m]], b[J[m]]
            for p in range(size):
                K[m, p] = zero
                G[m, p] = zero
            for c in range(channels):
                for p in range(size):
                    difference = x[c, p] - y[c, p]
                    K[m, p] += scale * (x[c, p] * y[c, p])
                    G[m, p] += half * scale * (difference * difference)

    @compiled()
    def start_all(a, b, I, J, K, G):  # type: ignore[no-untyped-def] # noqa: E741
        channels, size = a.shape[1], a.shape[2]
        scale = one / dtype(channels)
        for m in range(len(I)):
            x, y = a[I[m]], b[J[m]]
            for p in range(size):
                k, g = K[m, p], G[m, p]
                for q in range(size):
                    k[q] = zero
                    g[q] = zero
                for c in range(channels):
                    value = x[c, p]
                    for q in range(size):
                        difference = value - y[c, q]
                        k[q] += scale * (value * y[c, q])
                        g[q] += half * scale * (difference * difference)

    @compiled(inside=True)
    def _dense_row(k, g, t, law):  # type: ignore[no-untyped-def]
        w, b, cw, cb = law[0], law[1], law[2], law[3]
        for q in range(len(k)):
            t[q] = w * t[q] + cw * k[q] + cb
            k[q] = w * k[q] + b
        for q in range(len(k)):
            g[q] = w * g[q]

    @compiled(inside=True)
    def _bent_row(K, G, T, r1, r2, pieces, even):  # type: ignore[no-untyped-def]
        mixed, bend, slope, at_zero = pieces[0], pieces[1], pieces[2], pieces[3]
        if even:
            for q in range(len(K)):
                K[q], G[q], T[q] = bent(K[q], G[q], T[q], r1, r2[q], mixed, bend, slope, at_zero, True)
        else:
            for q in range(len(K)):
                K[q], G[q], T[q] = bent(K[q], G[q], T[q], r1, r2[q], mixed, bend, slope, at_zero, False)

    @compiled()
    def dense(K, G, T, law, I, J, r1, r2, pieces, even):  # type: ignore[no-untyped-def] # noqa: E741
        """σ_w² K + σ_b² at equal positions, then φ, where `pieces` is not empty."""
        for m in range(len(I)):
            i, j = I[m], J[m]
            k, g, t = K[m], G[m], T[m]
            _dense_row(k, g, t, law)
            if len(pieces) > 0:
                x1, x2 = r1[i], r2[j]
                mixed, bend, slope, at_zero = pieces[0], pieces[1], pieces[2], pieces[3]
                if even:
                    for q in range(len(k)):
                        k[q], g[q], t[q] = bent(k[q], g[q], t[q], x1[q], x2[q], mixed, bend, slope, at_zero, True)
                else:
                    for q in range(len(k)):
                        k[q], g[q], t[q] = bent(k[q], g[q], t[q], x1[q], x2[q], mixed, bend, slope, at_zero, False)

    @compiled()
    def dense_all(K, G, T, law, I, J, r1, r2, pieces, even):  # type: ignore[no-untyped-def] # noqa: E741
        for m in range(len(I)):
            i, j = I[m], J[m]
            for p in range(K.shape[1]):
                k, g, t = K[m, p], G[m, p], T[m, p]
                _dense_row(k, g, t, law)
                if len(pieces) > 0:
                    _bent_row(k, g, t, r1[i, p], r2[j], pieces, even)

    @compiled()
    def _rows_of_block(K, G, T, v1, v2, tk, tg, tt, c1, c2, rows, y, z, width, height, low):  # type: ignore[no-untyped-def]
        """The sum over the kernel's rows, of rows y and z of the output; c1, c2: half the variances, summed."""
        for x in range(width):
            c1[x] = zero
            c2[x] = zero
        kernel = rows.shape[0]
        if kernel == 3 and max(rows[0, y], rows[1, y], rows[2, y], rows[0, z], rows[1, z], rows[2, z]) < height:
            a, b, c = rows[0, y] * width, rows[1, y] * width, rows[2, y] * width
            d, e, f = rows[0, z] * width, rows[1, z] * width, rows[2, z] * width
            for x in range(width):
                c1[x] = half * (v1[a + x] + v1[b + x] + v1[c + x])
                c2[x] = half * (v2[d + x] + v2[e + x] + v2[f + x])
                tk_x, tg_x, tt_x = tk[low + x, low:], tg[low + x, low:], tt[low + x, low:]
                ka, kb, kc = K[a + x, d : d + width], K[b + x, e : e + width], K[c + x, f : f + width]
                ga, gb, gc = G[a + x, d : d + width], G[b + x, e : e + width], G[c + x, f : f + width]
                ta, tb, tc = T[a + x, d : d + width], T[b + x, e : e + width], T[c + x, f : f + width]
                for q in range(width):
                    tk_x[q] = ka[q] + kb[q] + kc[q]
                    tg_x[q] = ga[q] + gb[q] + gc[q]
                    tt_x[q] = ta[q] + tb[q] + tc[q]
            return
        for x in range(width):
            for q in range(width):
                tk[low + x, low + q] = zero
                tg[low + x, low + q] = zero
                tt[low + x, low + q] = zero
        for n in range(kernel):
            a, d = rows[n, y] * width, rows[n, z] * width
            inside1, inside2 = rows[n, y] < height, rows[n, z] < height
            for x in range(width):
                if inside1:
                    c1[x] += half * v1[a + x]
                if inside2:
                    c2[x] += half * v2[d + x]
            # Between 0, outside of the image, and a value the gap is half of the value's variance.
            for x in range(width):
                if inside1 and inside2:
                    for q in range(width):
                        tk[low + x, low + q] += K[a + x, d + q]
                        tg[low + x, low + q] += G[a + x, d + q]
                        tt[low + x, low + q] += T[a + x, d + q]
                elif inside1:
                    for q in range(width):
                        tg[low + x, low + q] += half * v1[a + x]
                elif inside2:
                    for q in range(width):
                        tg[low + x, low + q] += half * v2[d + q]

    @compiled()
    def _pads_of_block(tk, tg, tt, c1, c2, padded, width, low):  # type: ignore[no-untyped-def]
        """The columns around the image: copies of columns inside, or zeros (number `width`)."""
        size = len(padded)
        for x in range(size):
            in1 = low <= x < low + width
            for q in range(size):
                if in1 and low <= q < low + width:
                    continue
                at, to = padded[x], padded[q]
                if at < width and to < width:
                    tk[x, q] = tk[low + at, low + to]
                    tg[x, q] = tg[low + at, low + to]
                    tt[x, q] = tt[low + at, low + to]
                else:
                    tk[x, q] = zero
                    tt[x, q] = zero
                    tg[x, q] = c1[at] if at < width else (c2[to] if to < width else zero)

    @compiled()
    def sums(K, G, T, K2, G2, T2, width, rows, across, law, I, J, r1, r2, pieces, even):  # type: ignore[no-untyped-def] # noqa: E741
        """Patch sums at equal positions, times σ_w²/|kernel|, plus σ_b²; then φ, where `pieces` is not empty."""
        height, out_width = K.shape[1] // width, across.shape[1]
        tk, tg, tt = np.empty(width + 1, dtype), np.empty(width + 1, dtype), np.empty(width + 1, dtype)
        uk, ug, ut = np.empty(out_width, dtype), np.empty(out_width, dtype), np.empty(out_width, dtype)
        for m in range(len(I)):
            for y in range(rows.shape[1]):
                for x in range(width + 1):
                    tk[x] = zero
                    tg[x] = zero
                    tt[x] = zero
                for d in range(rows.shape[0]):
                    at = rows[d, y]
                    if at < height:
                        base = at * width
                        for x in range(width):
                            tk[x] += K[m, base + x]
                            tg[x] += G[m, base + x]
                            tt[x] += T[m, base + x]
                for x in range(out_width):
                    uk[x] = zero
                    ug[x] = zero
                    ut[x] = zero
                for d in range(across.shape[0]):
                    for x in range(out_width):
                        at = across[d, x]
                        uk[x] += tk[at]
                        ug[x] += tg[at]
                        ut[x] += tt[at]
                base = y * out_width
                for x in range(out_width):
                    K2[m, base + x] = uk[x]
                    G2[m, base + x] = ug[x]
                    T2[m, base + x] = ut[x]
        dense(K2, G2, T2, law, I, J, r1, r2, pieces, even)

    @compiled()
    def sums_all(K, G, T, K2, G2, T2, width, rows, padded, steps, law, v1, v2, I, J, r1, r2, pieces, even):  # type: ignore[no-untyped-def] # noqa: E741
        """Patch sums between all pairs of positions: over rows into one block of columns, then along it."""
        w, b, cw, cb = law[0], law[1], law[2], law[3]
        kernel, stride, spread, low, out_width = steps[0], steps[1], steps[2], steps[3], steps[4]
        height, size = K.shape[1] // width, len(padded)
        tk, tg, tt = np.empty((size, size), dtype), np.empty((size, size), dtype), np.empty((size, size), dtype)
        c1, c2 = np.empty(width, dtype), np.empty(width, dtype)
        for m in range(len(I)):
            i, j = I[m], J[m]
            for y in range(rows.shape[1]):
                for z in range(rows.shape[1]):
                    _rows_of_block(K[m], G[m], T[m], v1[i], v2[j], tk, tg, tt, c1, c2, rows, y, z, width, height, low)
                    _pads_of_block(tk, tg, tt, c1, c2, padded, width, low)
                    for x in range(out_width):
                        p, base = y * out_width + x, z * out_width
                        for q in range(out_width):
                            k, g, t = zero, zero, zero
                            for d in range(kernel):
                                u, v = x * stride + d * spread, q * stride + d * spread
                                k += tk[u, v]
                                g += tg[u, v]
                                t += tt[u, v]
                            K2[m, p, base + q] = w * k + b
                            G2[m, p, base + q] = w * g
                            T2[m, p, base + q] = w * t + cw * k + cb
                if len(pieces) > 0:
                    # Here the rows of this y are still in the cache, and long.
                    for x in range(out_width):
                        p = y * out_width + x
                        _bent_row(K2[m, p], G2[m, p], T2[m, p], r1[i, p], r2[j], pieces, even)

    @compiled(inside=True)
    def _three(source, row, a, b, c, inside_a, inside_c, left, right, target, slot):  # type: ignore[no-untyped-def]
        """target = the sum of three stretches of one row that are inside of the image."""
        # Slices, because an index that might be negative keeps a loop from vectorising.
        line, out = source[row], target[slot, left:right]
        middle = line[b + left : b + right]
        if inside_a and inside_c:
            first, last = line[a + left : a + right], line[c + left : c + right]
            for q in range(right - left):
                out[q] = first[q] + middle[q] + last[q]
        elif inside_a or inside_c:
            at = a if inside_a else c
            other = line[at + left : at + right]
            for q in range(right - left):
                out[q] = middle[q] + other[q]
        else:
            for q in range(right - left):
                out[q] = middle[q]

    @compiled(inside=True)
    def _same_row(source, row, width, height, circular, target, slot):  # type: ignore[no-untyped-def]
        """Sums over three rows of the image, at equal positions; the arrays hold one image flat."""
        size = width * height
        _three(source, row, -width, 0, width, True, True, width, size - width, target, slot)
        top, bottom = circular or height == 0, circular
        _three(source, row, size - width, 0, width % size, top, height > 1 or circular, 0, width, target, slot)
        last = size - width
        if height > 1:
            _three(source, row, -width, 0, -last, True, bottom, last, size, target, slot)

    @compiled(inside=True)
    def _along(target, up, at, down, width, height, circular, out, row):  # type: ignore[no-untyped-def]
        """out[p] = up[p − 1] + at[p] + down[p + 1], rows of `target`; the columns at the edges by themselves."""
        size = width * height
        inner, first, middle, after = out[row, 1 : size - 1], target[up], target[at, 1 : size - 1], target[down, 2:]
        for q in range(size - 2):
            inner[q] = first[q] + middle[q] + after[q]
        for z in range(height):
            p, last = z * width, z * width + width - 1
            before = target[up, last] if circular else zero
            behind = target[down, p] if circular else zero
            if width == 1:
                out[row, p] = before + target[at, p] + behind
            else:
                out[row, p] = before + target[at, p] + target[down, p + 1]
                out[row, last] = target[up, last - 1] + target[at, last] + behind

    @compiled(inside=True)
    def _edges_of_gap(tg, up, at, down, v1, width, height, y, x, out, row):  # type: ignore[no-untyped-def]
        """Columns of the other image beyond its edges: the gap there is half of the first point's variance."""
        left, right = zero, zero
        for d in range(-1, 2):
            if 0 <= y + d < height:
                base = (y + d) * width + x
                left += half * v1[base - 1] if x > 0 else zero
                right += half * v1[base + 1] if x < width - 1 else zero
        for z in range(height):
            out[row, z * width] += left
            out[row, z * width + width - 1] += right

    @compiled(inside=True)
    def _three_rows(source, a, b, c, width, end, target, slot):  # type: ignore[no-untyped-def]
        """The sum of three rows, shifted by a row of the other image each."""
        first, middle, last = source[a, : end - width], source[b, width:end], source[c, 2 * width :]
        out = target[slot, width:end]
        for q in range(end - width):
            out[q] = first[q] + middle[q] + last[q]

    @compiled()
    def _all_row(K, G, T, v1, halves, width, height, circular, y, x, tk, tg, tt, slot):  # type: ignore[no-untyped-def]
        """The sum over three rows of the image at column x, against every row of the other image."""
        size = width * height
        if 0 < y < height - 1:
            a, b, c = (y - 1) * width + x, y * width + x, (y + 1) * width + x
            end = size - width
            _three_rows(K, a, b, c, width, end, tk, slot)
            _three_rows(G, a, b, c, width, end, tg, slot)
            _three_rows(T, a, b, c, width, end, tt, slot)
            for q in range(width):
                tk[slot, q] = K[b, q] + K[c, q + width] + (K[a, q + end] if circular else zero)
                tg[slot, q] = G[b, q] + G[c, q + width] + (G[a, q + end] if circular else half * v1[a])
                tt[slot, q] = T[b, q] + T[c, q + width] + (T[a, q + end] if circular else zero)
            for q in range(end, size):
                tk[slot, q] = K[b, q] + K[a, q - width] + (K[c, q - end] if circular else zero)
                tg[slot, q] = G[b, q] + G[a, q - width] + (G[c, q - end] if circular else half * v1[c])
                tt[slot, q] = T[b, q] + T[a, q - width] + (T[c, q - end] if circular else zero)
            return
        for q in range(size):
            tk[slot, q] = zero
            tg[slot, q] = zero
            tt[slot, q] = zero
        for d in range(-1, 2):
            at = y + d
            inside = 0 <= at < height
            row = (at % height) * width + x
            shift = d * width
            if inside or circular:
                left, right = max(0, -shift), min(size, size - shift)
                for q in range(left, right):
                    tk[slot, q] += K[row, q + shift]
                for q in range(left, right):
                    tg[slot, q] += G[row, q + shift]
                for q in range(left, right):
                    tt[slot, q] += T[row, q + shift]
                first, last, wrap = (0, left, size) if d < 0 else (right, size, -size)
                for q in range(first, last):
                    if circular:
                        tk[slot, q] += K[row, q + shift + wrap]
                        tg[slot, q] += G[row, q + shift + wrap]
                        tt[slot, q] += T[row, q + shift + wrap]
                    else:
                        tg[slot, q] += half * v1[row]
            else:
                for q in range(max(0, -shift), min(size, size - shift)):
                    tg[slot, q] += halves[0, q + shift]

    @compiled()
    def sums_near(K, G, T, K2, G2, T2, width, circular, law, I, J, r1, r2, pieces, even):  # type: ignore[no-untyped-def] # noqa: E741
        """As `sums`, for the common 3 × 3 patches that keep the positions: in long stretches."""
        height = K.shape[1] // width
        rows = np.empty((1, K.shape[1]), dtype)
        for m in range(len(I)):
            _same_row(K, m, width, height, circular, rows, 0)
            _along(rows, 0, 0, 0, width, height, circular, K2, m)
            _same_row(G, m, width, height, circular, rows, 0)
            _along(rows, 0, 0, 0, width, height, circular, G2, m)
            _same_row(T, m, width, height, circular, rows, 0)
            _along(rows, 0, 0, 0, width, height, circular, T2, m)
        dense(K2, G2, T2, law, I, J, r1, r2, pieces, even)

    @compiled()
    def sums_all_near(K, G, T, K2, G2, T2, width, circular, law, v1, v2, I, J, r1, r2, pieces, even):  # type: ignore[no-untyped-def] # noqa: E741
        """As `sums_all`, for the common 3 × 3 patches that keep the positions: in long stretches."""
        size = K.shape[1]
        height = size // width
        tk, tg, tt = np.empty((3, size), dtype), np.empty((3, size), dtype), np.empty((3, size), dtype)
        # Half of the second point's variances, summed over three rows: what a row outside of the image meets.
        halves, summed = np.empty((1, size), dtype), np.empty((1, size), dtype)
        for m in range(len(I)):
            i, j = I[m], J[m]
            for q in range(size):
                halves[0, q] = half * v2[j, q]
            _same_row(halves, 0, width, height, circular, summed, 0)
            for y in range(height):
                for x in range(-1, width + 1):
                    slot = (x + 1) % 3
                    if 0 <= x < width or circular:
                        _all_row(
                            K[m], G[m], T[m], v1[i], halves, width, height, circular, y, x % width, tk, tg, tt, slot
                        )
                    else:
                        for q in range(size):
                            tk[slot, q] = zero
                            tt[slot, q] = zero
                            tg[slot, q] = summed[0, q]
                    if x < 1:
                        continue
                    p, up, at, down = y * width + x - 1, (x - 1) % 3, x % 3, slot
                    _along(tk, up, at, down, width, height, circular, K2[m], p)
                    _along(tt, up, at, down, width, height, circular, T2[m], p)
                    _along(tg, up, at, down, width, height, circular, G2[m], p)
                    if not circular:
                        _edges_of_gap(tg, up, at, down, v1[i], width, height, y, x - 1, G2[m], p)
                    _dense_row(K2[m, p], G2[m, p], T2[m, p], law)
                    if len(pieces) > 0:
                        _bent_row(K2[m, p], G2[m, p], T2[m, p], r1[i, p], r2[j], pieces, even)

    @compiled()
    def pool_all(K, windows, scale, K2):  # type: ignore[no-untyped-def]
        """M K Mᵀ, where each row of M has `scale` at the positions of a window."""
        size = K.shape[2]
        line = np.empty(size, np.float64)
        for m in range(len(K)):
            for a in range(len(windows)):
                for q in range(size):
                    line[q] = 0.0
                for n in range(windows.shape[1]):
                    row = K[m, windows[a, n]]
                    for q in range(size):
                        line[q] += row[q]
                for b in range(len(windows)):
                    total = 0.0
                    for n in range(windows.shape[1]):
                        total += line[windows[b, n]]
                    K2[m, a, b] = scale * (scale * total)

    return Loops(start, start_all, sums, sums_all, sums_near, sums_all_near, dense, dense_all, pool_all)


LOOPS = {np.dtype(np.float32): _made(np.float32), np.dtype(np.float64): _made(np.float64)}
