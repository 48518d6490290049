"""Rows of W for β = 1: one-variable Newton sweeps in the model's type, then Newton; a sparse row on its nonzeros."""

from __future__ import annotations

from typing import Any

import numpy as np

from nmfstream.core.divergence_cells import KullbackLeibler
from nmfstream.core.kernels.kl_rows import COMPILED_WORK, kl_rows_ccd, row_sums
from nmfstream.core.kernels.sparse_products import times_dense
from nmfstream.core.newton_rows import NewtonRows, Rows
from nmfstream.core.parameters import Objective
from nmfstream.core.rows_divergence import BEYOND, DivergenceRows
from nmfstream.core.rows_least_squares import power_of_two, relative
from nmfstream.types import CSR, Array, Matrix

SWEEPS = 30
SWEEP_TOL = {"float32": 1e-4, "float64": 1e-5}
MULTIPLICATIVE = 2
SPARSE_ROWS = 4096
FLOOR = 1e-30
TOGETHER = 16


class KullbackLeiblerRows(DivergenceRows):
    """Solves rows for one H and β = 1 (see `rowsolve.Rows`)."""

    def __init__(self, H: Array, objective: Objective, dtype: np.dtype[Any], tol: float, max_iter: int) -> None:
        super().__init__(H, objective, dtype, tol, max_iter)
        self.Ht = np.ascontiguousarray(self.H.T)
        self.cut_H = np.ascontiguousarray(self.newton.H, dtype)
        self.whole_H = np.ascontiguousarray(self.H, dtype)
        self.below = self.sums + self.penalties.l1_W / self.scale
        self.l2 = self.penalties.l2_W / self.scale**2
        self.multiplicative = min(max_iter, MULTIPLICATIVE)
        self.sweeps = min(max_iter - self.multiplicative, SWEEPS)

    def chunk_rows(self, sparse: bool) -> int:
        """See `rowsolve.Rows`."""
        return SPARSE_ROWS if sparse else super().chunk_rows(sparse)

    def solve(self, X: Matrix) -> tuple[Array, Array, Array]:
        """W in `dtype`, its relative KKT residuals, and those before rounding."""
        return self._solve_sparse(X.rebased()) if isinstance(X, CSR) else super().solve(X)

    def _approach(self, rows: Rows) -> int:
        x, w = rows.x.astype(self.dtype), rows.w.astype(self.dtype)
        self._sweep(x, self.cut_H, w, rows.l1[0], rows.l2[0])
        rows.w = w.astype(np.float64)
        return self.multiplicative + self.sweeps

    def _sweep(self, x: Matrix, H: Array, w: Array, below: Array, l2: Array) -> None:
        kl_rows_ccd(x, H, w, below, self.sweeps, SWEEP_TOL[self.dtype.name], l2=l2, mu_steps=self.multiplicative)

    def _solve_sparse(self, X: CSR) -> tuple[Array, Array, Array]:
        sums = row_sums(X)
        t = power_of_two(_row_maxima(X))[:, np.newaxis]
        rows, unit, slope = self._start(np.zeros((0, 0)), t, sums)
        rows.l1, rows.l2 = np.broadcast_to(rows.l1, rows.w.shape), np.broadcast_to(rows.l2, rows.w.shape)
        reference = (np.abs(self._sparse_gradient(X, rows, t, rows.w)) * slope).max(axis=1)
        w = (rows.w * t).astype(self.dtype)
        data = X.data.astype(self.dtype, copy=False)
        self._sweep(X._replace(data=data), self.whole_H, w, self.below, self.l2)
        rows.w = w.astype(np.float64) / t
        rows.w[~(sums > 0)] = 0
        self._newton_sparse(X, rows, t[:, 0], BEYOND * self.tol * reference[:, np.newaxis] / slope)
        W = (rows.w * unit).astype(self.dtype)
        residuals = []
        for solution in (W / unit, rows.w):
            gradient = self._sparse_gradient(X, rows, t, solution) * slope
            residuals.append(relative(np.abs(np.minimum(solution * unit, gradient)).max(axis=1), reference))
        return W, residuals[0], residuals[1]

    def _sparse_gradient(self, X: CSR, rows: Rows, t: Array, w: Array) -> Array:
        """∂ in each row's scale."""
        lengths = np.diff(X.indptr)
        at = np.repeat(np.arange(len(lengths)), lengths)
        v = np.maximum(_at_nonzeros(w, self.Ht, at, X.indices), FLOOR)
        ratios = X._replace(data=X.data / t[at, 0] / v)
        return np.asarray(rows.l1 + rows.l2 * w - times_dense(ratios, self.Ht))

    def _newton_sparse(self, X: CSR, rows: Rows, t: Array, target: Array) -> None:
        left = self.max_iter - self.multiplicative - self.sweeps
        if X.nnz * self.n_components < COMPILED_WORK:
            return self._newton_numpy(X, rows, t, target, left)
        from nmfstream.core.kernels.kl_newton_compiled import sparse_newton

        used, l1, l2 = np.zeros(len(t), np.int32), np.ascontiguousarray(rows.l1), np.ascontiguousarray(rows.l2)
        sparse_newton(X.indptr, X.indices, X.data, self.Ht, rows.w, l1, l2, t, target, left, used)
        return None

    def _newton_numpy(self, X: CSR, rows: Rows, t: Array, target: Array, left: int) -> None:
        """A few rows at a time on the columns that they touch."""
        for start in range(0, len(t), TOGETHER):
            part = slice(start, min(start + TOGETHER, len(t)))
            own = X.rows(part.start, part.stop).rebased()
            touched, places = np.unique(own.indices, return_inverse=True)
            x = CSR(own.indptr, places.astype(np.int32), own.data, len(touched)).toarray() / t[part, np.newaxis]
            some = Rows(x, rows.l1[part], rows.l2[part], rows.w[part].copy())
            NewtonRows(np.ascontiguousarray(self.H[:, touched]), KullbackLeibler()).solve(some, target[part], left)
            rows.w[part] = some.w


def _row_maxima(X: CSR) -> Array:
    out, filled = np.zeros(X.shape[0]), np.flatnonzero(np.diff(X.indptr))
    if len(filled):
        out[filled] = np.maximum.reduceat(X.values, X.indptr[filled] - X.indptr[0])
    return out


def _at_nonzeros(W: Array, Ht: Array, rows: Array, columns: Array) -> Array:
    """WH at some cells, a few at a time."""
    out, step = np.empty(len(rows)), 1 << 15
    for a in range(0, len(rows), step):
        part = slice(a, a + step)
        out[part] = np.vecdot(W[rows[part]], Ht[columns[part]])
    return out
