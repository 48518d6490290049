"""What a block of rows says of H under the Kullback-Leibler divergence, with no array of the block's size.

``kl_statistics(X, H, W) -> KLStatistics(P, Q, loss)``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nmfstream.core.kernels.kl_rows import COMPILED_WORK, FLOOR
from nmfstream.types import CSR, Array, Matrix

TILE_CELLS = 1 << 16
TILE_COLUMNS = 2048
MOST = 1e30
"""Cap of x/v², where a cell all but vanishes."""


class KLStatistics(NamedTuple):
    """Sums over the rows of a block at fixed H, V = WH.

    Attributes
    ----------
    P : ndarray of shape (n_components, n_features)
        Wᵀ(X/V): MU's numerator over H, and the negative gradient but for ΣW.
    Q : ndarray of shape (n_components, n_features)
        (W²)ᵀ(X/V²): the diagonal of the Hessian. Empty where not asked for.
    loss : float
        Σ x log(x/v) − x + v, summed in float64.
    """

    P: Array
    Q: Array
    loss: float


def kl_statistics(X: Matrix, H: Array, W: Array, *, second: bool = True) -> KLStatistics:
    """Numerators, curvatures and loss of a block.

    Parameters
    ----------
    X : Matrix, shape (n_rows, n_features)
    H : ndarray of shape (n_components, n_features)
    W : ndarray of shape (n_rows, n_components)
    second : bool
        Whether Q is wanted.
    """
    W = np.ascontiguousarray(W, X.dtype)
    Q = np.zeros(H.shape if second else (0, 0), X.dtype)
    volume = float(W.sum(axis=0, dtype=np.float64) @ H.sum(axis=1, dtype=np.float64))
    if not isinstance(X, CSR):
        P = np.zeros(H.shape, X.dtype)
        return KLStatistics(P, Q, volume + _dense(X, H, W, P, Q))
    if X.nnz * len(H) < COMPILED_WORK:
        P, Q, loss = sparse_numpy(X, H, W, second=second)
        return KLStatistics(P, Q, volume + loss)
    return _compiled(X, H, W, Q, volume)


def _compiled(X: CSR, H: Array, W: Array, Q: Array, volume: float) -> KLStatistics:
    from nmfstream.core.kernels.kl_statistics_compiled import sparse_statistics

    ratios = np.empty(X.nnz, X.dtype)
    Pt, Qt = np.zeros((H.shape[1], len(H)), X.dtype), np.zeros((H.shape[1] if Q.size else 0, len(H)), X.dtype)
    sparse_statistics(X.indptr, X.indices, X.data, np.ascontiguousarray(H.T, X.dtype), W, ratios, Pt, Qt)
    loss = volume + _loss(X.values, ratios)
    return KLStatistics(np.ascontiguousarray(Pt.T), np.ascontiguousarray(Qt.T) if Q.size else Q, loss)


def sparse_numpy(X: CSR, H: Array, W: Array, *, second: bool) -> tuple[Array, Array, float]:
    """The twin of the compiled statistics, through a dense copy (small inputs)."""
    dense = X.toarray()
    P, Q = np.zeros(H.shape, X.dtype), np.zeros(H.shape if second else (0, 0), X.dtype)
    return P, Q, _dense(dense, H, W, P, Q)


def _dense(X: Array, H: Array, W: Array, P: Array, Q: Array) -> float:
    """Add to P and Q tile by tile; returns Σ x log(x/v) − x."""
    loss, (n, m), tiny = 0.0, X.shape, np.finfo(X.dtype).tiny
    squares = W * W if Q.size else W
    width = min(m, TILE_COLUMNS)
    height = max(1, TILE_CELLS // max(1, width))
    for b in range(0, m, width):
        columns = slice(b, b + width)
        h = np.ascontiguousarray(H[:, columns], X.dtype)
        for a in range(0, n, height):
            x, w = X[a : a + height, columns], W[a : a + height]
            v = w @ h
            np.maximum(v, np.maximum(FLOOR * x, tiny), out=v)
            r = x / v
            P[:, columns] += w.T @ r
            loss += _loss(x, r)
            if Q.size:
                q = np.divide(r, v, out=v)
                Q[:, columns] += squares[a : a + height].T @ np.minimum(q, MOST, out=q)
    return loss


def _loss(x: Array, r: Array) -> float:
    """Σ x log r − x over x > 0; a row in its own type, rows in float64."""
    x, r = np.atleast_2d(x), np.atleast_2d(r)
    logs = np.log(np.maximum(r, np.finfo(r.dtype).tiny))
    if len(x) == 1:
        return float(np.einsum("ij,ij->", x, logs, dtype=np.float64)) - float(x.sum(dtype=np.float64))
    return float(np.vecdot(x, logs - 1).sum(dtype=np.float64))
