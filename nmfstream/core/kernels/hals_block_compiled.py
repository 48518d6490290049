"""A block of least squares in one visit: X is taken a tile at a time, and stays in the cache until it is done with."""

from __future__ import annotations

import numpy as np

from nmfstream.core.kernels.compiling import inner, kernel, scratch
from nmfstream.core.kernels.squares_compiled import squares
from nmfstream.core.kernels.sweeps_compiled import start, sweeps
from nmfstream.core.kernels.thin_products_compiled import add_outer, rows_times
from nmfstream.types import Array


@inner
def _less(C, l1):  # type: ignore[no-untyped-def]
    for i in range(C.shape[0]):
        for a in range(C.shape[1]):
            C[i, a] -= l1


@inner
def _add_rows(x, w, c, l1, sums):  # type: ignore[no-untyped-def]
    """Row by row, so that it does not matter where a tile ends."""
    for i in range(w.shape[0]):
        total, cross = 0.0, 0.0
        for a in range(w.shape[1]):
            total += np.float64(w[i, a])
            cross += np.float64(w[i, a]) * (np.float64(c[i, a]) + np.float64(l1))
        sums[0] += total
        sums[1] += cross
        sums[2] += squares(x[i])


@kernel
def solve_block(
    X: Array,
    H: Array,
    G: Array,
    steps: Array,
    inverse: Array,
    l1: float,
    max_sweeps: int,
    tol2: float,
    height: int,
    lanes: int,
    W: Array,
    B: Array,
    sums: Array,
) -> None:
    """Rows of W from their clipped start by sweeps, and what they add.

    Parameters
    ----------
    X : ndarray of shape (n, m), C-contiguous
    H : ndarray of shape (k, m), C-contiguous
    G, inverse : ndarray of shape (K, K), K = k rounded up to a multiple of four, padded with zeros
    steps : ndarray of shape (k,)
        See `sweeps_compiled.sweeps`.
    l1, tol2 : float
        Of X's dtype.
    height : int
        Rows of a tile.
    lanes : int
        Numbers in a register.
    W : ndarray of shape (n, k)
        Written.
    B : ndarray of shape (k, m)
        WᵀX is added.
    sums : ndarray of float64, shape (3,)
        ΣW, ⟨W, XHᵀ⟩ and ‖X‖² are added.
    """
    n = X.shape[0]
    C, used = scratch((height, H.shape[0]), X.dtype), scratch(height, np.int32)
    for first in range(0, n, height):
        stop = min(first + height, n)
        x, w, c, u = X[first:stop], W[first:stop], C[: stop - first], used[: stop - first]
        rows_times(x, H, c)
        if l1 > 0:
            _less(c, l1)
        start(c, inverse, G, w)
        u[:] = 0
        sweeps(c, G, steps, w, max_sweeps, tol2, u)
        _add_rows(x, w, c, l1, sums)
        add_outer(w, x, lanes, B)
