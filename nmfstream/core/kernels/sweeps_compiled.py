"""Coordinate sweeps across rows: 32 rows at a time as a contiguous k × 32 array, so that every step is a vector.

A finished lane takes the next row at once, so that no lane idles; lanes never mix, so a row's bits do not depend
on its neighbours.
"""

from __future__ import annotations

import numpy as np

from nmfstream.core.kernels.compiling import inner, kernel, scratch
from nmfstream.types import Array

LANES = 32


@inner
def _load(C, W, row, lane, c, w, inverse):  # type: ignore[no-untyped-def]
    for a in range(C.shape[1]):
        c[a, lane] = C[row, a]
        w[a, lane] = W[row, a] if inverse[a] > 0 else 0


@inner
def _sweep(c, w, G, inverse, acc, moved, size, tiny):  # type: ignore[no-untyped-def]
    for lane in range(LANES):
        moved[lane] = 0
        size[lane] = 0
    for a in range(inverse.shape[0]):
        step, diag = inverse[a], G[a, a]
        if step == 0:
            continue
        for lane in range(LANES):
            acc[lane] = c[a, lane]
        for b in range(0, G.shape[0], 4):
            g0, g1, g2, g3 = G[a, b], G[a, b + 1], G[a, b + 2], G[a, b + 3]
            for lane in range(LANES):
                acc[lane] -= (g0 * w[b, lane] + g1 * w[b + 1, lane]) + (g2 * w[b + 2, lane] + g3 * w[b + 3, lane])
        for lane in range(LANES):
            old = w[a, lane]
            new = old + step * acc[lane]
            new = new if new >= tiny else acc.dtype.type(0)
            d = new - old
            w[a, lane] = new
            moved[lane] += diag * d * d
            size[lane] += diag * new * new


@inner
def _product(M, x, out):  # type: ignore[no-untyped-def]
    """M·x of every lane."""
    for a in range(M.shape[0]):
        for lane in range(LANES):
            out[a, lane] = 0
        for b in range(0, M.shape[0], 4):
            m0, m1, m2, m3 = M[a, b], M[a, b + 1], M[a, b + 2], M[a, b + 3]
            for lane in range(LANES):
                out[a, lane] += (m0 * x[b, lane] + m1 * x[b + 1, lane]) + (m2 * x[b + 2, lane] + m3 * x[b + 3, lane])


@kernel
def start(C: Array, inverse: Array, G: Array, W: Array) -> None:
    """W = max(0, C·inverse), each row scaled to its best multiple.

    Parameters
    ----------
    C, W : ndarray of shape (n, k), C-contiguous
    inverse, G : ndarray of shape (K, K), K = k rounded up to a multiple of four, padded with zeros
    """
    n, k = C.shape
    zero, shape = C.dtype.type(0), (G.shape[0], LANES)
    c, w, g = scratch(shape, C.dtype), scratch(shape, C.dtype), scratch(shape, C.dtype)
    along, length = scratch(LANES, C.dtype), scratch(LANES, C.dtype)
    for first in range(0, n, LANES):
        count = min(LANES, n - first)
        for lane in range(count):
            for a in range(k):
                c[a, lane] = C[first + lane, a]
        _product(inverse, c, w)
        for a in range(k):
            for lane in range(LANES):
                w[a, lane] = max(w[a, lane], zero)
        _product(G, w, g)
        for lane in range(LANES):
            along[lane] = 0
            length[lane] = 0
        for a in range(k):
            for lane in range(LANES):
                along[lane] += w[a, lane] * c[a, lane]
                length[lane] += w[a, lane] * g[a, lane]
        for lane in range(LANES):
            along[lane] = max(along[lane], zero) / length[lane] if length[lane] > 0 else zero
        for lane in range(count):
            for a in range(k):
                W[first + lane, a] = w[a, lane] * along[lane]


@kernel
def sweeps(C: Array, G: Array, inverse: Array, W: Array, max_sweeps: int, tol2: float, used: Array) -> None:
    """Sweep all rows of W in place.

    Parameters
    ----------
    C, W : ndarray of shape (n, k), C-contiguous
    G : ndarray of shape (K, K), K = k rounded up to a multiple of four, padded with zeros
    inverse : ndarray of shape (k,)
        1/G_aa; 0 where G_aa = 0.
    tol2 : float
        Squared tolerance, of C's dtype.
    used : ndarray of int32, shape (n,)
        Sweeps of each row, zero at first.
    """
    n, k = C.shape
    c, w = scratch((G.shape[0], LANES), C.dtype), scratch((G.shape[0], LANES), C.dtype)
    acc, moved, size = scratch(LANES, C.dtype), scratch(LANES, C.dtype), scratch(LANES, C.dtype)
    tiny = np.finfo(C.dtype).tiny
    at = np.full(LANES, -1, np.int64)
    following = 0
    while following < n and following < LANES:
        at[following] = following
        _load(C, W, following, following, c, w, inverse)
        following += 1
    busy = following
    while busy > 0 and max_sweeps > 0:
        _sweep(c, w, G, inverse, acc, moved, size, tiny)
        for lane in range(LANES):
            row = at[lane]
            if row < 0:
                continue
            used[row] += 1
            done = moved[lane] <= tol2 * size[lane]
            if not done and used[row] < max_sweeps:
                continue
            if not done:
                used[row] += 1
            for a in range(k):
                W[row, a] = w[a, lane]
            at[lane] = -1
            if following < n:
                at[lane] = following
                _load(C, W, following, lane, c, w, inverse)
                following += 1
            else:
                busy -= 1
                for a in range(k):
                    c[a, lane] = 0
                    w[a, lane] = 0
