"""Compiled loops for what changes the grid of positions: patch sums with strides, and windows that overlap.

Arrays are (pairs, P), the same position at both points, or (pairs, P, P), all pairs of positions. I and J say which
points a pair has; values of points are (points, P). The interpreter lock is released, so that threads share the work.
"""

from typing import Any, NamedTuple

import numpy as np

from .bend import compiled


class Loops(NamedTuple):
    """The loops of one dtype."""

    patches: Any
    patches_all: Any
    pool_all: Any


def _made(dtype: Any) -> Loops:
    half, zero = dtype(0.5), dtype(0)

    @compiled()
    def _rows_of_block(K, G, T, v1, v2, tk, tg, tt, c1, c2, rows, y, z, width, height, low):  # type: ignore[no-untyped-def]
        """The sum over the kernel's rows, of rows y and z of the output; c1, c2: half the variances, summed."""
        for x in range(width):
            c1[x] = zero
            c2[x] = zero
        kernel = rows.shape[0]
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
    def patches(source, target, width, rows, across):  # type: ignore[no-untyped-def]
        """Means over patches at equal positions, of one array."""
        height, kernel, out_width = source.shape[1] // width, rows.shape[0], across.shape[1]
        scale = dtype(1) / dtype(kernel * across.shape[0])
        line, out = np.zeros(width + 1, dtype), np.empty(out_width, dtype)
        for m in range(len(source)):
            for y in range(rows.shape[1]):
                for x in range(width):
                    line[x] = zero
                for d in range(kernel):
                    if rows[d, y] < height:
                        base = rows[d, y] * width
                        for x in range(width):
                            line[x] += source[m, base + x]
                for x in range(out_width):
                    out[x] = zero
                for d in range(across.shape[0]):
                    for x in range(out_width):
                        out[x] += line[across[d, x]]
                for x in range(out_width):
                    target[m, y * out_width + x] = scale * out[x]

    @compiled()
    def patches_all(K, G, T, K2, G2, T2, width, rows, padded, steps, v1, v2, I, J):  # type: ignore[no-untyped-def] # noqa: E741
        """Means over patches between all pairs of positions: over rows into one block of columns, then along it."""
        kernel, stride, spread, low, out_width = steps[0], steps[1], steps[2], steps[3], steps[4]
        height, size = K.shape[1] // width, len(padded)
        scale = dtype(1) / dtype(kernel * rows.shape[0])
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
                            K2[m, p, base + q] = scale * k
                            G2[m, p, base + q] = scale * g
                            T2[m, p, base + q] = scale * t

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

    return Loops(patches, patches_all, pool_all)


LOOPS = {np.dtype(np.float32): _made(np.float32), np.dtype(np.float64): _made(np.float64)}
