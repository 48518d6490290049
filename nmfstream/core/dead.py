"""Dead components: found by their weight, put back to life as what the worst-explained rows lack."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nmfstream.types import CSR, Array, Matrix

TINY = 1e-12
MOST_A_BLOCK = 4
ROUNDING = {"float32": 1e-6, "float64": 1e-14}
"""Residuals below this share of their row's largest entry say nothing."""


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
    residual = rows - W[order] @ H
    rounding = ROUNDING[residual.dtype.name] * np.abs(rows).max(axis=1, keepdims=True, initial=0)
    return Worst(loss[order], np.where(residual > rounding, residual, 0))


def merge(first: Worst | None, second: Worst, count: int) -> Worst:
    """The worst of both."""
    if first is None:
        return Worst(second.loss[:count], second.residual[:count])
    loss = np.concatenate([first.loss, second.loss])
    order = np.argsort(-loss, kind="stable")[:count]
    return Worst(loss[order], np.concatenate([first.residual, second.residual])[order])


def revive(H: Array, dead: Array, worst: Worst, *, lift: float = 0.0) -> tuple[Array, Array]:
    """H with dead rows replaced by residuals of the worst rows, and the numbers of those replaced.

    They get the mean norm of the others. A residual that is mere rounding revives nothing.

    Parameters
    ----------
    lift : float
        Share of a new row's mean that is added to all of it.
    """
    H, done = H.copy(), []
    norms = np.sqrt(np.einsum("ij,ij->i", H, H, dtype=np.float64))
    alive = np.delete(norms, dead)
    scale = float(alive.mean()) if len(alive) and np.isfinite(alive.mean()) else 1.0
    for a, residual in zip(dead, worst.residual, strict=False):
        row = residual.astype(np.float64)
        row += lift * row.mean()
        size = float(np.sqrt((row**2).sum()))
        if size > 0 and np.isfinite(size):
            H[a] = scale / size * row
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
