"""CSR rows: made of dense ones, times thin dense matrices, cut, transposed; see `sparse_products` for their meaning."""

from __future__ import annotations

import numpy as np

from nmfstream.core.kernels.compiling import kernel, scratch


@kernel
def times(indptr, indices, data, Ht, out):  # type: ignore[no-untyped-def]
    """out = X·Hᵀ, four nonzeros at a time, in float64."""
    k = Ht.shape[1]
    acc = scratch(k)
    for i in range(out.shape[0]):
        p, last = indptr[i], indptr[i + 1]
        for a in range(k):
            acc[a] = 0
        while p + 4 <= last:
            x0, x1 = np.float64(data[p]), np.float64(data[p + 1])
            x2, x3 = np.float64(data[p + 2]), np.float64(data[p + 3])
            j0, j1, j2, j3 = indices[p], indices[p + 1], indices[p + 2], indices[p + 3]
            for a in range(k):
                acc[a] += (x0 * Ht[j0, a] + x1 * Ht[j1, a]) + (x2 * Ht[j2, a] + x3 * Ht[j3, a])
            p += 4
        for q in range(p, last):
            x, j = np.float64(data[q]), indices[q]
            for a in range(k):
                acc[a] += x * Ht[j, a]
        for a in range(k):
            out[i, a] = acc[a]


@kernel
def transposed_times(indptr, indices, data, W, out):  # type: ignore[no-untyped-def]
    """out += XᵀW."""
    k = W.shape[1]
    for i in range(W.shape[0]):
        w = W[i]
        for p in range(indptr[i], indptr[i + 1]):
            x, row = data[p], out[indices[p]]
            for a in range(k):
                row[a] += x * w[a]


@kernel
def find_ranges(indptr, indices, start, stop, low, counts):  # type: ignore[no-untyped-def]
    """Where each row's columns start:stop begin, and as ``counts[i + 1]`` how many all rows up to i have."""
    for i in range(len(low)):
        first, last = indptr[i], indptr[i + 1]
        low[i] = first + np.searchsorted(indices[first:last], start)
        high = first + np.searchsorted(indices[first:last], stop)
        counts[i + 1] = counts[i] + high - low[i]


@kernel
def copy_ranges(indices, data, start, low, indptr, out_indices, out_data):  # type: ignore[no-untyped-def]
    """Copy the ranges found."""
    for i in range(len(low)):
        shift = low[i] - indptr[i]
        for p in range(indptr[i], indptr[i + 1]):
            out_indices[p] = indices[p + shift] - start
            out_data[p] = data[p + shift]


@kernel
def transpose(indptr, indices, data, out_indptr, out_indices, out_data):  # type: ignore[no-untyped-def]
    """Counting sort by column; `out_indptr` is zero at first."""
    n, m = len(indptr) - 1, len(out_indptr) - 1
    for p in range(indptr[0], indptr[n]):
        out_indptr[indices[p] + 1] += 1
    for j in range(m):
        out_indptr[j + 1] += out_indptr[j]
    following = out_indptr[:m].copy()
    for i in range(n):
        for p in range(indptr[i], indptr[i + 1]):
            q = following[indices[p]]
            following[indices[p]] = q + 1
            out_indices[q] = i
            out_data[q] = data[p]


@kernel
def count_positive(X, indptr):  # type: ignore[no-untyped-def]
    """Bounds of the rows: how many positive cells are in all rows up to each."""
    for i in range(X.shape[0]):
        n = 0
        for j in range(X.shape[1]):
            n += X[i, j] > 0
        indptr[i + 1] = indptr[i] + n


@kernel
def copy_positive(X, indices, data):  # type: ignore[no-untyped-def]
    """The positive cells; every cell is written where the next of them belongs, one place more than they are."""
    p = 0
    for i in range(X.shape[0]):
        for j in range(X.shape[1]):
            x = X[i, j]
            indices[p] = j
            data[p] = x
            p += x > 0
