"""Kullback-Leibler rows of W by one-variable Newton steps, dense and sparse.

``used = kl_rows_ccd(X, H, W, below, max_sweeps, tol, l2=0, V0=None, mu_steps=0)`` moves W in place;
``W = kl_flat_start(X, H)``. The same call solves columns of H: X transposed, Wᵀ in H's place, prior V0 and s0.

Hsieh & Dhillon 2011 (cyclic coordinate descent); Neal & Hinton 1998 (the prior of rows that are not seen now).
"""

from __future__ import annotations

import numpy as np

from nmfstream.types import CSR, Array, Matrix

COMPILED_WORK = 1 << 17
"""Cells (nonzeros) times components from which compiled code pays."""
FLOOR = 1e-12
"""Of v, relative to x: no cell's ratio exceeds its inverse."""
KEPT = 0.2
"""Share of a component that a step leaves at least, where a prior has a part in it."""


def kl_flat_start(X: Matrix, H: Array) -> Array:
    """Rows of one value each, which explain a row's sum: Σx / ΣH; components with no weight get zero.

    Returns
    -------
    ndarray of shape (n_rows, n_components), in X's dtype
    """
    H_sums = H.sum(axis=1, dtype=np.float64)
    total = float(H_sums.sum())
    flat = row_sums(X) / total if total > 0 else np.zeros(X.shape[0])
    return np.asarray(np.outer(flat, H_sums > 0), X.dtype)


def row_sums(X: Matrix) -> Array:
    """Σ_j x_ij in float64."""
    if not isinstance(X, CSR):
        return np.asarray(X.sum(axis=1, dtype=np.float64))
    out, filled = np.zeros(X.shape[0]), np.flatnonzero(np.diff(X.indptr))
    if len(filled):
        out[filled] = np.add.reduceat(X.values, X.indptr[filled] - X.indptr[0], dtype=np.float64)
    return out


def kl_rows_ccd(
    X: Matrix, H: Array, W: Array, below: Array, max_sweeps: int, tol: float, *,
    l2: Array | float = 0.0, V0: Array | None = None, mu_steps: int = 0,
) -> Array:
    """Minimise Σ_j v_j − x_j log v_j (v = wH), with penalties or a prior, over each row w; W in place.

    One sweep sets, component after component, w_k to max(0, w_k − g/h) with
    g = below_k + l2·w_k − Σ_j x_j H_kj/v_j − V0_k/w_k and h = Σ_j x_j H_kj²/v_j² + V0_k/w_k² + l2; where V0_k > 0,
    at least a fifth of w_k stays. A row stops when Σ h d² ≤ tol² Σ h w² for the changes d of a sweep.

    Parameters
    ----------
    X : Matrix, shape (n_rows, n_features)
    H : ndarray of shape (n_components, n_features)
    W : ndarray of shape (n_rows, n_components), C-contiguous, X's dtype
        In place. A zero stays zero in multiplicative steps only.
    below : ndarray of shape (n_components,)
        Row sums of H, plus the L1 weight or a prior's s0.
    max_sweeps : int
    tol : float
    l2 : float or ndarray of shape (n_components,)
        Weight of w²/2.
    V0 : ndarray of shape (n_rows, n_components), optional
        Numerators of a prior.
    mu_steps : int
        Multiplicative steps before the sweeps.

    Returns
    -------
    ndarray of int32, shape (n_rows,)
        Sweeps used; ``max_sweeps + 1`` where a row was not done.
    """
    dtype = W.dtype
    prior = np.zeros((0, W.shape[1]), dtype) if V0 is None else np.ascontiguousarray(V0, dtype)
    below = np.ascontiguousarray(below, dtype)
    weights = np.full(W.shape[1], l2, dtype)
    cells = X.nnz if isinstance(X, CSR) else X.size
    if cells * W.shape[1] < COMPILED_WORK:
        return ccd_numpy(X, H, W, below, max_sweeps, tol, weights, prior, mu_steps)
    from nmfstream.core.kernels import kl_rows_compiled as compiled

    used = np.zeros(X.shape[0], np.int32)
    rest = (W, below, weights, prior, mu_steps, max_sweeps, dtype.type(tol * tol), used)
    if isinstance(X, CSR):
        compiled.sparse_rows(X.indptr, X.indices, X.data, np.ascontiguousarray(H.T, dtype), *rest)
    else:
        compiled.dense_rows(np.ascontiguousarray(X), np.ascontiguousarray(H, dtype), *rest)
    return used


class _Cells:
    """Positive cells of some rows, one after the other, with their columns of H."""

    def __init__(self, X: Matrix, H: Array, n_rows: int) -> None:
        if isinstance(X, CSR):
            columns: Array = X.rebased().indices
            self.row, self.x = np.repeat(np.arange(n_rows), np.diff(X.indptr)), X.values
        else:
            self.row, columns = np.nonzero(X)
            self.x = X[self.row, columns]
        self.n, self.L = n_rows, np.ascontiguousarray(H[:, columns], self.x.dtype)
        self.floor = np.maximum(FLOOR * self.x, np.finfo(self.x.dtype).tiny)

    def sum(self, values: Array) -> Array:
        """Of each row."""
        return np.bincount(self.row, values, self.n).astype(self.x.dtype)

    def reconstruct(self, W: Array) -> Array:
        """WH at the cells."""
        return np.asarray(np.einsum("pa,ap->p", W[self.row], self.L))


def ccd_numpy(
    X: Matrix, H: Array, W: Array, below: Array, max_sweeps: int, tol: float, l2: Array, prior: Array, mu_steps: int
) -> Array:
    """The twin of the compiled rows: all rows at once, one component after the other."""
    used, going = np.full(len(W), max_sweeps + 1, np.int32), np.ones(len(W), bool)
    V0, cells = prior if len(prior) else np.zeros_like(W), _Cells(X, H, len(W))
    for _ in range(mu_steps):
        ratio = cells.x / np.maximum(cells.reconstruct(W), cells.floor)
        above = W * np.stack([cells.sum(ratio * h) for h in cells.L], axis=1) + V0
        W[:] = np.divide(above, below + l2 * W, out=np.zeros_like(W), where=below + l2 * W > 0)
    for sweep in range(1, max_sweeps + 1):
        moved, size = np.zeros(len(W)), np.zeros(len(W))
        v = cells.reconstruct(W)
        for a in range(W.shape[1]):
            d, curvature = _coordinate(cells, cells.L[a], v, W[:, a], below[a], l2[a], V0[:, a])
            d = np.where(going, d, 0).astype(W.dtype)
            W[:, a] += d
            v += d[cells.row] * cells.L[a]
            moved += curvature * d * d
            size += curvature * W[:, a] * W[:, a]
        done = going & (moved <= tol * tol * size)
        used[done] = sweep
        going &= ~done
        if not going.any():
            break
    return used


def _coordinate(
    cells: _Cells, h: Array, v: Array, w: Array, below: float, l2: float, V0: Array
) -> tuple[Array, Array]:
    """The step of one component in every row, and its second derivative."""
    t = h / np.maximum(v, cells.floor)
    xt = cells.x * t
    own = np.divide(V0, w, out=np.zeros_like(w), where=(V0 > 0) & (w > 0))
    slope = below + l2 * w - cells.sum(xt) - own
    curvature = cells.sum(xt * t) + np.divide(own, w, out=np.zeros_like(w), where=w > 0) + l2
    least = np.where(V0 > 0, KEPT * w, 0)
    step = np.divide(slope, curvature, out=np.zeros_like(w), where=curvature > 0)
    new = np.where(curvature > 0, np.maximum(w - step, least), np.where(slope > 0, least, w))
    return new - w, curvature
