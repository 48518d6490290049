"""Kullback-Leibler multiplicative terms of dense cells, WH, X/WH and its products in one visit.

Both sides are one piece of work: rows that hold `lanes` numbers of X side by side, coefficients A a row, and a
factor of `lanes` columns. For W a vector holds rows of X (transposed once for all steps), A is Hᵀ; for H it holds
columns, A is W. Eight vectors of WH are summed in registers, a panel of ratios stays in the first-level cache.
"""

from __future__ import annotations

from nmfstream.core.cells import EPSILON
from nmfstream.core.kernels.compiling import inner, kernel, scratch
from nmfstream.core.kernels.vectors import add, add_product, at_least, fill, load, quotient, store
from nmfstream.core.kernels.widths import PANEL


@inner
def _reconstruct(A, first, count, f, zero, v):  # type: ignore[no-untyped-def]
    """v = A·f of `count` rows of A."""
    eights = count // 8 * 8
    for q in range(0, eights, 8):
        v0, v1, v2, v3 = fill(zero), fill(zero), fill(zero), fill(zero)
        v4, v5, v6, v7 = fill(zero), fill(zero), fill(zero), fill(zero)
        j = first + q
        for c in range(f.shape[0]):
            part = load(f, c, 0)
            v0 = add_product(A[j, c], part, v0)
            v1 = add_product(A[j + 1, c], part, v1)
            v2 = add_product(A[j + 2, c], part, v2)
            v3 = add_product(A[j + 3, c], part, v3)
            v4 = add_product(A[j + 4, c], part, v4)
            v5 = add_product(A[j + 5, c], part, v5)
            v6 = add_product(A[j + 6, c], part, v6)
            v7 = add_product(A[j + 7, c], part, v7)
        store(v, q, 0, v0)
        store(v, q + 1, 0, v1)
        store(v, q + 2, 0, v2)
        store(v, q + 3, 0, v3)
        store(v, q + 4, 0, v4)
        store(v, q + 5, 0, v5)
        store(v, q + 6, 0, v6)
        store(v, q + 7, 0, v7)
    for q in range(eights, count):
        v0 = fill(zero)
        for c in range(f.shape[0]):
            v0 = add_product(A[first + q, c], load(f, c, 0), v0)
        store(v, q, 0, v0)


@inner
def _ratios(x, at, count, floor, v):  # type: ignore[no-untyped-def]
    """v becomes x / v, rows of x from `at`."""
    for q in range(count):
        store(v, q, 0, quotient(load(x, at + q, 0), at_least(load(v, q, 0), floor)))


@inner
def _products(r, A, first, count, zero, sums):  # type: ignore[no-untyped-def]
    """sums += Aᵀr of `count` rows."""
    fours = sums.shape[0] // 4 * 4
    for c in range(0, fours, 4):
        s0, s1, s2, s3 = fill(zero), fill(zero), fill(zero), fill(zero)
        for q in range(count):
            part = load(r, q, 0)
            s0 = add_product(A[first + q, c], part, s0)
            s1 = add_product(A[first + q, c + 1], part, s1)
            s2 = add_product(A[first + q, c + 2], part, s2)
            s3 = add_product(A[first + q, c + 3], part, s3)
        store(sums, c, 0, add(load(sums, c, 0), s0))
        store(sums, c + 1, 0, add(load(sums, c + 1, 0), s1))
        store(sums, c + 2, 0, add(load(sums, c + 2, 0), s2))
        store(sums, c + 3, 0, add(load(sums, c + 3, 0), s3))
    for c in range(fours, sums.shape[0]):
        s0 = fill(zero)
        for q in range(count):
            s0 = add_product(A[first + q, c], load(r, q, 0), s0)
        store(sums, c, 0, add(load(sums, c, 0), s0))


@inner
def _transpose(X, first, count, x):  # type: ignore[no-untyped-def]
    """x[j, lane] = X[first + lane, j]; lanes from `count` on keep their zeros."""
    for j in range(X.shape[1]):
        for lane in range(count):
            x[j, lane] = X[first + lane, j]


@inner
def _move(w, sums, below, l2, tiny, moved, size):  # type: ignore[no-untyped-def]
    zero = w.dtype.type(0)
    for lane in range(w.shape[1]):
        moved[lane] = zero
        size[lane] = zero
    for c in range(w.shape[0]):
        for lane in range(w.shape[1]):
            old = w[c, lane]
            divisor = below[c] + l2 * old
            divisor = tiny if divisor == 0 else divisor
            value = old * (sums[c, lane] / divisor)
            w[c, lane] = value
            sums[c, lane] = zero
            moved[lane] += (value - old) * (value - old)
            size[lane] += value * value


@kernel
def dense_kl_steps(X, Ht, W, below, l2, lanes, n_steps, out, changes, norms):  # type: ignore[no-untyped-def]
    """`n_steps` times W ← W · ((X / WH)·Hᵀ) / (below + l2·W).

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_features)
    Ht : ndarray of shape (n_features, n_components), C-contiguous
    W : ndarray of shape (n_rows, n_components)
    below : ndarray of shape (n_components,)
        Row sums of H and the L1 weight.
    l2 : float
    lanes : int
        See `widths.lanes`.
    out : ndarray like W
    changes, norms : ndarray of float64, shape (n_steps,)
        ‖W - W before‖² and ‖W‖² of each step are added.
    """
    n, m = X.shape
    k = W.shape[1]
    dtype = W.dtype
    zero, tiny = dtype.type(0), dtype.type(EPSILON)
    x, r = scratch((m, lanes), dtype), scratch((PANEL, lanes), dtype)
    w, sums = scratch((k, lanes), dtype), scratch((k, lanes), dtype)
    moved, size = scratch(lanes, dtype), scratch(lanes, dtype)
    for first in range(0, n, lanes):
        count = min(lanes, n - first)
        if count < lanes:
            x[:] = zero
            w[:] = zero
        _transpose(X, first, count, x)
        for c in range(k):
            for lane in range(count):
                w[c, lane] = W[first + lane, c]
        for step in range(n_steps):
            for j in range(0, m, PANEL):
                width = min(PANEL, m - j)
                _reconstruct(Ht, j, width, w, zero, r)
                _ratios(x, j, width, tiny, r)
                _products(r, Ht, j, width, zero, sums)
            _move(w, sums, below, l2, tiny, moved, size)
            for lane in range(lanes):
                changes[step] += moved[lane]
                norms[step] += size[lane]
        for c in range(k):
            for lane in range(count):
                out[first + lane, c] = w[c, lane]


@inner
def _copy_in(whole, first, count, j, width, part):  # type: ignore[no-untyped-def]
    """part = whole[first:, j:], lanes from `width` on are zero."""
    if width == part.shape[1]:
        for q in range(count):
            store(part, q, 0, load(whole, first + q, j))
    else:
        part[:] = 0
        for q in range(count):
            for lane in range(width):
                part[q, lane] = whole[first + q, j + lane]


@inner
def _copy_out(part, count, j, width, whole, first):  # type: ignore[no-untyped-def]
    if width == part.shape[1]:
        for q in range(count):
            store(whole, first + q, j, load(part, q, 0))
    else:
        for q in range(count):
            for lane in range(width):
                whole[first + q, j + lane] = part[q, lane]


@kernel
def dense_kl_sums(X, W, H, lanes, ratios, sums):  # type: ignore[no-untyped-def]
    """sums += Wᵀ(X / WH), ratios = X / WH.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_features)
    W : ndarray of shape (n_rows, n_components)
    H : ndarray of shape (n_components, n_features)
    lanes : int
        See `widths.lanes`.
    ratios : ndarray like X
    sums : ndarray like H
    """
    n, m = X.shape
    k = W.shape[1]
    dtype = W.dtype
    zero, tiny = dtype.type(0), dtype.type(EPSILON)
    x, r = scratch((PANEL, lanes), dtype), scratch((PANEL, lanes), dtype)
    h, part = scratch((k, lanes), dtype), scratch((k, lanes), dtype)
    for first in range(0, n, PANEL):
        height = min(PANEL, n - first)
        for j in range(0, m, lanes):
            width = min(lanes, m - j)
            _copy_in(X, first, height, j, width, x)
            _copy_in(H, 0, k, j, width, h)
            _copy_in(sums, 0, k, j, width, part)
            _reconstruct(W, first, height, h, zero, r)
            _ratios(x, 0, height, tiny, r)
            _products(r, W, first, height, zero, part)
            _copy_out(r, height, j, width, ratios, first)
            _copy_out(part, k, j, width, sums, 0)
