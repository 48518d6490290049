"""Multiplicative steps on rows of W at fixed H, many at once: a row never leaves the first-level cache.

Frobenius works on 32 rows side by side (components x lanes); sparse Kullback-Leibler row by row, on the
columns of H that the row touches, gathered once as components x nonzeros.
"""

from __future__ import annotations

import numpy as np

from nmfstream.core.cells import EPSILON
from nmfstream.core.kernels.compiling import inner, kernel

LANES = 32


@inner
def _load_lanes(C, W, first, n, c, w):  # type: ignore[no-untyped-def]
    for a in range(W.shape[1]):
        for lane in range(n):
            c[a, lane] = C[first + lane, a]
            w[a, lane] = W[first + lane, a]
        for lane in range(n, LANES):
            c[a, lane] = 0
            w[a, lane] = 0


@inner
def _pair_below(G, a, w, below, other):  # type: ignore[no-untyped-def]
    """W·G of components a and a + 1; G is padded to multiples of four."""
    for lane in range(LANES):
        below[lane] = 0
        other[lane] = 0
    for b in range(0, G.shape[0], 4):
        g0, g1, g2, g3 = G[a, b], G[a, b + 1], G[a, b + 2], G[a, b + 3]
        h0, h1, h2, h3 = G[a + 1, b], G[a + 1, b + 1], G[a + 1, b + 2], G[a + 1, b + 3]
        for lane in range(LANES):
            w0, w1, w2, w3 = w[b, lane], w[b + 1, lane], w[b + 2, lane], w[b + 3, lane]
            below[lane] += (g0 * w0 + g1 * w1) + (g2 * w2 + g3 * w3)
            other[lane] += (h0 * w0 + h1 * w1) + (h2 * w2 + h3 * w3)


@inner
def _move(a, c, w, below, l1, l2, tiny, new, moved, size):  # type: ignore[no-untyped-def]
    for lane in range(LANES):
        old = w[a, lane]
        divisor = below[lane] + l1 + l2 * old
        divisor = tiny if divisor == 0 else divisor
        value = old * (c[a, lane] / divisor)
        new[a, lane] = value
        moved[lane] += (value - old) * (value - old)
        size[lane] += value * value


@inner
def _frobenius_step(c, G, w, l1, l2, tiny, new, below, other, moved, size):  # type: ignore[no-untyped-def]
    for lane in range(LANES):
        moved[lane] = 0
        size[lane] = 0
    for a in range(0, G.shape[0], 2):
        _pair_below(G, a, w, below, other)
        _move(a, c, w, below, l1, l2, tiny, new, moved, size)
        _move(a + 1, c, w, other, l1, l2, tiny, new, moved, size)
    for a in range(G.shape[0]):
        for lane in range(LANES):
            w[a, lane] = new[a, lane]


@kernel
def frobenius_steps(C, G, W, l1, l2, n_steps, out, changes, norms):  # type: ignore[no-untyped-def]
    """`n_steps` times W ← W · C / (W·G + l1 + l2·W).

    Parameters
    ----------
    C : ndarray of shape (n_rows, n_components)
        X·Hᵀ.
    G : ndarray of shape (K, K)
        HHᵀ, K = n_components rounded up to a multiple of four, padded with zeros.
    W : ndarray of shape (n_rows, n_components)
    l1, l2 : float
        In W's type.
    out : ndarray like W
    changes, norms : ndarray of float64, shape (n_steps,)
        ‖W - W before‖² and ‖W‖² of each step are added.
    """
    n_rows, k = W.shape
    shape = (G.shape[0], LANES)
    c, w, new = np.zeros(shape, W.dtype), np.zeros(shape, W.dtype), np.zeros(shape, W.dtype)
    below, other = np.zeros(LANES, W.dtype), np.zeros(LANES, W.dtype)
    moved, size = np.zeros(LANES, W.dtype), np.zeros(LANES, W.dtype)
    tiny = W.dtype.type(EPSILON)
    for first in range(0, n_rows, LANES):
        n = min(LANES, n_rows - first)
        _load_lanes(C, W, first, n, c, w)
        for step in range(n_steps):
            _frobenius_step(c, G, w, l1, l2, tiny, new, below, other, moved, size)
            for lane in range(LANES):
                changes[step] += moved[lane]
                norms[step] += size[lane]
        for a in range(k):
            for lane in range(n):
                out[first + lane, a] = w[a, lane]


@inner
def _gather(indices, data, Ht, low, nnz, x, L):  # type: ignore[no-untyped-def]
    for p in range(nnz):
        j = indices[low + p]
        x[p] = data[low + p]
        for a in range(Ht.shape[1]):
            L[a, p] = Ht[j, a]


@inner
def _ratios(x, L, w, nnz, tiny, r):  # type: ignore[no-untyped-def]
    """x / WH of one row; components in fours so that WH is read and written seldom."""
    fours = w.shape[0] // 4 * 4
    for p in range(nnz):
        r[p] = 0
    for a in range(0, fours, 4):
        w0, w1, w2, w3 = w[a], w[a + 1], w[a + 2], w[a + 3]
        for p in range(nnz):
            r[p] += (w0 * L[a, p] + w1 * L[a + 1, p]) + (w2 * L[a + 2, p] + w3 * L[a + 3, p])
    for a in range(fours, w.shape[0]):
        for p in range(nnz):
            r[p] += w[a] * L[a, p]
    for p in range(nnz):
        r[p] = x[p] / max(r[p], tiny)


@inner
def _numerators(r, L, nnz, zero, new):  # type: ignore[no-untyped-def]
    """Four dot products at once."""
    fours = new.shape[0] // 4 * 4
    for a in range(0, fours, 4):
        s0, s1, s2, s3 = zero, zero, zero, zero
        for p in range(nnz):
            ratio = r[p]
            s0 += ratio * L[a, p]
            s1 += ratio * L[a + 1, p]
            s2 += ratio * L[a + 2, p]
            s3 += ratio * L[a + 3, p]
        new[a], new[a + 1], new[a + 2], new[a + 3] = s0, s1, s2, s3
    for a in range(fours, new.shape[0]):
        s0 = zero
        for p in range(nnz):
            s0 += r[p] * L[a, p]
        new[a] = s0


@kernel
def sparse_kl_steps(  # type: ignore[no-untyped-def]
    indptr, indices, data, Ht, W, below, l2, n_steps, out, changes, norms
):
    """`n_steps` times W ← W · ((X / WH)·Hᵀ) / (below + l2·W), on the nonzeros of X.

    Parameters
    ----------
    indptr, indices, data
        Rows of X in CSR form.
    Ht : ndarray of shape (n_features, n_components), C-contiguous
    W : ndarray of shape (n_rows, n_components)
    below : ndarray of shape (n_components,)
        Row sums of H and the L1 weight.
    l2 : float
    out, changes, norms
        As in `frobenius_steps`.
    """
    n_rows, k = W.shape
    zero, tiny = W.dtype.type(0), W.dtype.type(EPSILON)
    longest = 0
    for i in range(n_rows):
        longest = max(longest, indptr[i + 1] - indptr[i])
    L = np.zeros((k, longest), W.dtype)
    x, r = np.zeros(longest, W.dtype), np.zeros(longest, W.dtype)
    w, new = np.zeros(k, W.dtype), np.zeros(k, W.dtype)
    for i in range(n_rows):
        nnz = indptr[i + 1] - indptr[i]
        _gather(indices, data, Ht, indptr[i], nnz, x, L)
        for a in range(k):
            w[a] = W[i, a]
        for step in range(n_steps):
            _ratios(x, L, w, nnz, tiny, r)
            _numerators(r, L, nnz, zero, new)
            change, norm = zero, zero
            for a in range(k):
                old = w[a]
                divisor = below[a] + l2 * old
                divisor = tiny if divisor == 0 else divisor
                value = old * (new[a] / divisor)
                change += (value - old) * (value - old)
                norm += value * value
                w[a] = value
            changes[step] += change
            norms[step] += norm
        for a in range(k):
            out[i, a] = w[a]


@kernel
def sparse_kl_sums(indptr, indices, data, Ht, W, ratios, sums):  # type: ignore[no-untyped-def]
    """Numerators of H: sums[j] += Σᵢ xᵢⱼ / (WH)ᵢⱼ · wᵢ, and the ratios x / WH in the order of the nonzeros.

    Parameters
    ----------
    indptr, indices, data
        Rows of X in CSR form, ``indptr[0] == 0``.
    Ht : ndarray of shape (n_features, n_components), C-contiguous
    W : ndarray of shape (n_rows, n_components)
    ratios : ndarray of shape (nnz,)
    sums : ndarray of shape (n_features, n_components)
    """
    n_rows, k = W.shape
    zero, tiny = W.dtype.type(0), W.dtype.type(EPSILON)
    w = np.zeros(k, W.dtype)
    for i in range(n_rows):
        for a in range(k):
            w[a] = W[i, a]
        for p in range(indptr[i], indptr[i + 1]):
            j = indices[p]
            v = zero
            for a in range(k):
                v += w[a] * Ht[j, a]
            ratio = data[p] / max(v, tiny)
            ratios[p] = ratio
            for a in range(k):
                sums[j, a] += ratio * w[a]


@kernel
def sparse_times(indptr, indices, data, Ht, out):  # type: ignore[no-untyped-def]
    """out = X·Hᵀ for rows of X in CSR form."""
    k = Ht.shape[1]
    acc = np.zeros(k, Ht.dtype)
    for i in range(out.shape[0]):
        for a in range(k):
            acc[a] = 0
        for p in range(indptr[i], indptr[i + 1]):
            x, j = data[p], indices[p]
            for a in range(k):
                acc[a] += x * Ht[j, a]
        for a in range(k):
            out[i, a] = acc[a]


@kernel
def sparse_sums(indptr, indices, data, W, sums):  # type: ignore[no-untyped-def]
    """sums += XᵀW for rows of X in CSR form."""
    k = W.shape[1]
    w = np.zeros(k, W.dtype)
    for i in range(W.shape[0]):
        for a in range(k):
            w[a] = W[i, a]
        for p in range(indptr[i], indptr[i + 1]):
            x, j = data[p], indices[p]
            for a in range(k):
                sums[j, a] += x * w[a]
