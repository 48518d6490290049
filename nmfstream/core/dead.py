"""Dead components: found by their weight, put back to life as what the worst-explained rows lack."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nmfstream.types import CSR, Array, Matrix

TINY = 1e-12
MOST_A_BLOCK = 4


class Worst(NamedTuple):
    """Rows with the largest loss: positive parts of their residuals, largest first."""

    loss: Array
    """ndarray of float64, shape (n,)"""
    residual: Array
    """ndarray, shape (n, n_features)"""


def dead_components(H: Array, usage: Array) -> Array:
    """Numbers of components whose row of H or usage is below 1e-12 of the largest.

    Parameters
    ----------
    H : ndarray of shape (n_components, n_features)
    usage : ndarray of shape (n_components,)
        Diagonal of WᵀW, or column sums of W.
    """
    norms = np.sqrt(np.einsum("ij,ij->i", H, H, dtype=np.float64))
    return np.flatnonzero((norms <= TINY * norms.max(initial=0.0)) | (usage <= TINY * usage.max(initial=0.0)))


def worst_rows(X: Matrix, W: Array, H: Array, count: int = MOST_A_BLOCK) -> Worst:
    """The rows that WH explains worst by squared error, at most `count`."""
    loss = _row_losses(X, W, H)
    order = np.argsort(-loss, kind="stable")[: min(count, MOST_A_BLOCK)]
    rows = np.stack([_row(X, int(i)) for i in order]) if len(order) else np.zeros((0, X.shape[1]), X.dtype)
    return Worst(loss[order], np.maximum(rows - W[order] @ H, 0))


def merge(first: Worst | None, second: Worst, count: int) -> Worst:
    """The worst of both."""
    if first is None:
        return Worst(second.loss[:count], second.residual[:count])
    loss = np.concatenate([first.loss, second.loss])
    order = np.argsort(-loss, kind="stable")[:count]
    return Worst(loss[order], np.concatenate([first.residual, second.residual])[order])


def revive(H: Array, dead: Array, worst: Worst, *, total: bool = False) -> tuple[Array, Array]:
    """H with dead rows replaced by residuals of the worst rows, and the numbers of those replaced.

    A residual that is mere rounding (below 1e-6 in float32, 1e-14 in float64, of the largest entry) revives nothing.

    Parameters
    ----------
    total : bool
        Rows are scaled to sum 1 rather than to norm 1.
    """
    H, done = H.copy(), []
    for a, row in zip(dead, worst.residual, strict=False):
        size = float(row.sum(dtype=np.float64)) if total else float(np.sqrt((row.astype(np.float64) ** 2).sum()))
        if size > 0 and np.isfinite(size):
            H[a] = row / size
            done.append(int(a))
    return H, np.array(done, dtype=np.int64)


def _row_losses(X: Matrix, W: Array, H: Array) -> Array:
    from nmfstream.core.products import times_Ht

    G = H @ H.T
    if isinstance(X, CSR):
        squares = np.concatenate([[0.0], np.cumsum(X.values.astype(np.float64) ** 2)])
        square = np.diff(squares[X.indptr - X.indptr[0]])
    else:
        square = np.einsum("ij,ij->i", X, X).astype(np.float64)
    return np.asarray(square - 2 * (W * times_Ht(X, H)).sum(axis=1) + ((W @ G) * W).sum(axis=1), np.float64)


def _row(X: Matrix, i: int) -> Array:
    row: Array = X.rows(i, i + 1).toarray()[0] if isinstance(X, CSR) else X[i]
    return row
