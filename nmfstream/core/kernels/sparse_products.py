"""Products, column cuts and transposition of CSR rows, and CSR rows of dense ones.

``positive(X)``, ``times_dense(X, Ht) -> X·Hᵀ (n × k)``, ``transposed_times(X, W) -> XᵀW (m × k)``,
``column_range(X, start, stop)``, ``transposed(X)``. Compiled where there are many nonzeros; numpy below, which the
same inputs' shapes decide.
"""

from __future__ import annotations

import numpy as np

from nmfstream.machine_code import Kernel
from nmfstream.types import CSR, Array

_times = Kernel("nmfstream.core.kernels.sparse_products_compiled", "times")
_transposed_times = Kernel("nmfstream.core.kernels.sparse_products_compiled", "transposed_times")
_find_ranges = Kernel("nmfstream.core.kernels.sparse_products_compiled", "find_ranges")
_copy_ranges = Kernel("nmfstream.core.kernels.sparse_products_compiled", "copy_ranges")
_transpose = Kernel("nmfstream.core.kernels.sparse_products_compiled", "transpose")
_count_positive = Kernel("nmfstream.core.kernels.sparse_products_compiled", "count_positive")
_copy_positive = Kernel("nmfstream.core.kernels.sparse_products_compiled", "copy_positive")

COMPILED_WORK = 1 << 18
"""Nonzeros times components from which compiled code pays."""
COMPILED_NONZEROS = 1 << 15


def positive(X: Array) -> CSR:
    """The cells of a dense X that are larger than zero.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_features)
    """
    if X.size < COMPILED_NONZEROS:
        return positive_numpy(X)
    X, indptr = np.ascontiguousarray(X), np.zeros(X.shape[0] + 1, np.int64)
    _count_positive(X, indptr)
    n = int(indptr[-1])
    indices, data = np.empty(n + 1, np.int32), np.empty(n + 1, X.dtype)
    _copy_positive(X, indices, data)
    return CSR(indptr, indices[:n], data[:n], X.shape[1])


def positive_numpy(X: Array) -> CSR:
    """The twin of `positive`."""
    mask = X > 0
    indptr = np.concatenate([[0], np.cumsum(mask.sum(axis=1))]).astype(np.int64)
    columns = np.broadcast_to(np.arange(X.shape[1], dtype=np.int32), X.shape)[mask]
    return CSR(indptr, columns, X[mask], X.shape[1])


def times_dense(X: CSR, Ht: Array) -> Array:
    """X·Hᵀ: each entry summed in float64 in the order of the nonzeros.

    Parameters
    ----------
    X : CSR, shape (n_rows, n_features)
    Ht : ndarray of shape (n_features, n_components), C-contiguous

    Returns
    -------
    ndarray of shape (n_rows, n_components), in the common type of both
    """
    out = np.zeros((X.shape[0], Ht.shape[1]), np.result_type(X.dtype, Ht.dtype))
    if X.nnz * Ht.shape[1] < COMPILED_WORK:
        return times_numpy(X, Ht, out)
    _times(X.indptr, X.indices, X.data, Ht, out)
    return out


def times_numpy(X: CSR, Ht: Array, out: Array) -> Array:
    """The twin of `times_dense`."""
    own = X.rebased()
    filled = np.flatnonzero(np.diff(own.indptr))
    if len(filled):
        products = own.data[:, np.newaxis].astype(np.float64) * Ht[own.indices]
        out[filled] = np.add.reduceat(products, own.indptr[filled], axis=0)
    return out


def transposed_times(X: CSR, W: Array) -> Array:
    """XᵀW, summed in the order of the rows.

    Parameters
    ----------
    X : CSR, shape (n_rows, n_features)
    W : ndarray of shape (n_rows, n_components)

    Returns
    -------
    ndarray of shape (n_features, n_components), in the common type of both
    """
    dtype = np.result_type(X.dtype, W.dtype)
    if X.nnz * W.shape[1] < COMPILED_WORK:
        return transposed_times_numpy(X, W).astype(dtype)
    out = np.zeros((X.shape[1], W.shape[1]), dtype)
    _transposed_times(X.indptr, X.indices, X.data, np.ascontiguousarray(W), out)
    return out


def transposed_times_numpy(X: CSR, W: Array) -> Array:
    """The twin of `transposed_times`, in float64."""
    own = X.rebased()
    rows = np.repeat(np.arange(len(W)), np.diff(own.indptr))
    columns = [np.bincount(own.indices, own.data * w[rows], minlength=X.n_cols) for w in W.T.astype(np.float64)]
    return np.stack(columns, axis=1) if columns else np.zeros((X.n_cols, 0))


def column_range(X: CSR, start: int, stop: int) -> CSR:
    """Columns ``start:stop``, copied; the cost is that of the rows and of what is kept."""
    if X.nnz < COMPILED_NONZEROS:
        return column_range_numpy(X, start, stop)
    low, indptr = np.empty(X.shape[0], np.int64), np.zeros(X.shape[0] + 1, np.int64)
    _find_ranges(X.indptr, X.indices, start, stop, low, indptr)
    indices, data = np.empty(indptr[-1], X.indices.dtype), np.empty(indptr[-1], X.dtype)
    _copy_ranges(X.indices, X.data, start, low, indptr, indices, data)
    return CSR(indptr, indices, data, stop - start)


def column_range_numpy(X: CSR, start: int, stop: int) -> CSR:
    """The twin of `column_range`."""
    own = X.rebased()
    keep = (own.indices >= start) & (own.indices < stop)
    running = np.concatenate([[0], np.cumsum(keep, dtype=np.int64)])
    return CSR(running[own.indptr], own.indices[keep] - own.indices.dtype.type(start), own.data[keep], stop - start)


def transposed(X: CSR) -> CSR:
    """Xᵀ as CSR rows (columns of X), canonical."""
    if X.nnz < COMPILED_NONZEROS:
        return transposed_numpy(X)
    indptr = np.zeros(X.shape[1] + 1, np.int64)
    indices, data = np.empty(X.nnz, np.int32), np.empty(X.nnz, X.dtype)
    _transpose(X.indptr, X.indices, X.data, indptr, indices, data)
    return CSR(indptr, indices, data, X.shape[0])


def transposed_numpy(X: CSR) -> CSR:
    """The twin of `transposed`."""
    own = X.rebased()
    order = np.argsort(own.indices, kind="stable")
    rows = np.repeat(np.arange(X.shape[0], dtype=np.int32), np.diff(own.indptr))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(own.indices, minlength=X.n_cols))]).astype(np.int64)
    return CSR(indptr, rows[order], own.data[order], X.shape[0])
