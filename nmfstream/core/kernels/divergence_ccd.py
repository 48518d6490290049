"""Kullback-Leibler rows by cyclic one-variable Newton steps (Hsieh & Dhillon 2011), perhaps with an EM prior.

Rows of W for fixed H and, with the transposed data, columns of H for fixed W. Compiled where there are many
nonzeros, numpy below.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nmfstream.machine_code import Kernel
from nmfstream.types import CSR, Array

_ccd_rows = Kernel("nmfstream.core.kernels.divergence_ccd_compiled", "ccd_rows")

COMPILED_WORK = 1 << 12
"""Nonzeros and rows, times components, from which compiled code pays: such steps are taken some hundred times."""
AFRESH = 4
"""Sweeps after which WF is computed anew: rounding adds up where it is updated."""
NONE = np.zeros((0, 0))


def ccd(
    X: CSR, Ft: Array, s: Array, W: Array, sweeps: int, tol: float,
    *, cold: int = 0, l2: float = 0.0, prior: Array | None = None, rebuilt: bool = True,
) -> Array:  # fmt: skip
    """Minimise Σ_a s_a w_a − Σ_j x_j log(wF)_j − Σ_a prior_a log w_a + ½ l2 ‖w‖² over each row w ≥ 0; W in place.

    A row without nonzeros goes to its minimum. Elsewhere a Newton step of one variable never oversteps where it
    starts below the minimum; from above it is held by 0 (by a fifth of w where there is a prior), and at 0 the sign
    of the slope decides. A row stops when no s_a |change of w_a| of a sweep exceeds ``tol`` Σ s_a w_a.

    Parameters
    ----------
    X : CSR, shape (n_rows, n_columns)
    Ft : ndarray of shape (n_columns, n_components), C-contiguous
        The other factor.
    s : ndarray of shape (n_components,)
        Its sums, plus the L1 weight and what a prior adds. A component with s = 0 stays.
    W : ndarray of shape (n_rows, n_components), C-contiguous, in X's dtype
    sweeps : int
    tol : float
    cold : int
        Multiplicative steps from a flat start before; 0: start from W as it is.
    l2 : float
    prior : ndarray of shape (n_rows, n_components), optional
    rebuilt : bool
        Whether WF is wanted.

    Returns
    -------
    ndarray of shape (nnz,), or of none
        WF at the nonzeros, floored by 1e-12 of the row's mean entry.
    """
    t = X.dtype.type
    V0 = (NONE if prior is None else prior).astype(X.dtype, copy=False)
    args = (np.ascontiguousarray(Ft, X.dtype), s.astype(X.dtype), t(l2), V0, W)
    if (X.nnz + len(W)) * len(s) < COMPILED_WORK:
        return ccd_numpy(X, *args, cold, sweeps, tol)
    V = np.empty(X.nnz if rebuilt else 0, X.dtype)
    _ccd_rows(X.indptr, X.indices, X.data, *args, V, cold, sweeps, t(tol))
    return V


class _Rows:
    """Sums over the nonzeros of each row."""

    def __init__(self, X: CSR, Ft: Array) -> None:
        own = X.rebased()
        self.x, self.n = own.data, X.shape[0]
        self.row = np.repeat(np.arange(self.n), np.diff(own.indptr))
        self.L = np.ascontiguousarray(Ft[own.indices].T)
        counts = np.maximum(np.diff(own.indptr), 1)
        self.sums = self.sum(self.x)
        self.least = np.maximum(1e-12 * self.sums / counts, np.finfo(X.dtype).tiny).astype(X.dtype)[self.row]

    def sum(self, values: Array) -> Array:
        sums: Array = np.bincount(self.row, values, self.n)
        return sums.astype(self.x.dtype, copy=False)

    def reconstruct(self, W: Array) -> Array:
        v: Array = np.maximum(np.einsum("ja,aj->j", W[self.row], self.L), self.least)
        return v


def ccd_numpy(X: CSR, Ft: Array, s: Array, l2: float, V0: Array, W: Array, cold: int, sweeps: int, tol: float) -> Array:
    """The twin of the compiled steps, all rows side by side."""
    rows = _Rows(X, Ft)
    live = np.flatnonzero(s > 0)
    if cold:
        flat = rows.sums / s.sum() if s.sum() > 0 else np.zeros_like(rows.sums)
        W[:] = np.where(s > 0, flat[:, np.newaxis], 0)
        for _ in range(cold):
            ratio = rows.x / rows.reconstruct(W)
            W[:, live] *= np.stack([rows.sum(ratio * rows.L[a]) for a in live], axis=1) / s[live]
    v, going = rows.reconstruct(W), np.ones(rows.n, bool)
    for sweep in range(sweeps):
        v = rows.reconstruct(W) if sweep % AFRESH == AFRESH - 1 else v
        moved, size = np.zeros(rows.n), np.zeros(rows.n)
        for a in live:
            old = W[:, a].copy()
            new = np.where(going, _newton(rows, a, v, old, s[a], l2, V0[:, a] if len(V0) else None), old)
            W[:, a] = new
            v = np.maximum(v + (W[:, a] - old)[rows.row] * rows.L[a], rows.least)
            moved, size = np.maximum(moved, np.abs(W[:, a] - old) * s[a]), size + W[:, a] * s[a]
        going = going & (moved > tol * size)
        if not going.any():
            break
    if len(V0):
        alone = np.ix_(np.diff(X.indptr) == 0, s > 0)
        P, slope = V0[alone], s[live]
        W[alone] = 2 * P / (slope + np.sqrt(slope**2 + 4 * l2 * P))
    return rows.reconstruct(W)


def _newton(rows: _Rows, a: Any, v: Array, old: Array, s: float, l2: float, prior: Array | None) -> Array:
    L = rows.L[a]
    q = L / v
    g, h = s + l2 * old - rows.sum(rows.x * q), rows.sum(rows.x * q * q) + l2
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if prior is not None:
            has = (prior > 0) & (old > 0)
            g, h = np.where(has, g - prior / old, g), np.where(has, h + prior / old**2, h)
            held = np.where(h > 0, np.maximum(0.2 * old, old - g / h), old)
            free = np.maximum(np.where(h > 0, old - g / h, 0), 0)
            return np.where(has, held, np.where(prior > 0, prior / s, free))
        new = np.where(h > 0, old - g / h, 0)
        over = (new <= 0) & (old > 0) & (h > 0)
        if over.any():
            new = np.where(over, _from_zero(rows, L, v, old, s), new)
    return np.maximum(new, 0)


def _from_zero(rows: _Rows, L: Array, v: Array, old: Array, s: float) -> Array:
    """A point below the minimum: the Newton point from w = 0, or 0 itself, or a tenth of w where 0 is a pole."""
    rest = v - old[rows.row] * L
    pole = rows.sum(((L > 0) & (rest <= 1e-5 * v)).astype(L.dtype)) > 0
    q = L / np.maximum(rest, rows.least)
    g, h = s - rows.sum(rows.x * q), rows.sum(rows.x * q * q)
    below = np.where(pole, 0.1 * old, np.clip(-g / h, 0.1 * old, old))
    return np.where(~pole & ((g >= 0) | (h <= 0)), 0, below)
