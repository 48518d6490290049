"""Rows of W for β = 1: whatever form X has, a row is solved on its nonzeros."""

from __future__ import annotations

import numpy as np

from nmfstream.core.kernels.kl_newton import KLRows, kl_gradient, kl_newton
from nmfstream.core.kernels.least_squares import power_of_two, relative
from nmfstream.core.kernels.sparse_products import positive
from nmfstream.core.rows_divergence import BEYOND, DivergenceRows
from nmfstream.core.rows_least_squares import TILE_BYTES
from nmfstream.types import CSR, Array, Matrix

MOST_ROWS = 4096


class KullbackLeiblerRows(DivergenceRows):
    """Solves rows for one H and β = 1 (see `rowsolve.Rows`)."""

    def chunk_rows(self, sparse: bool) -> int:
        """See `rowsolve.Rows`."""
        return MOST_ROWS if sparse else int(np.clip(TILE_BYTES // (8 * self.H.shape[1]), 16, MOST_ROWS))

    def solve(self, X: Matrix) -> tuple[Array, Array, Array]:
        """W in `dtype`, its relative KKT residuals, and those before rounding."""
        X = X.rebased() if isinstance(X, CSR) else positive(X)
        X = X._replace(data=X.data.astype(np.float64, copy=False))
        filled = np.flatnonzero(np.diff(X.indptr))
        sums, largest = np.zeros(X.shape[0]), np.zeros(X.shape[0])
        if len(filled):
            sums[filled] = np.add.reduceat(X.data, X.indptr[filled])
            largest[filled] = np.maximum.reduceat(X.data, X.indptr[filled])
        return self._solve_rows(X, sums, power_of_two(largest)[:, np.newaxis])

    def _solve_rows(self, X: CSR, sums: Array, t: Array) -> tuple[Array, Array, Array]:
        start, unit, slope = self._start(np.zeros((0, 0)), t, sums if self.total > 0 else 0 * sums)
        W, l2 = np.ascontiguousarray(start.w), np.ascontiguousarray(np.broadcast_to(start.l2, start.w.shape))
        rows = KLRows(X, self.Ht, t[:, 0], np.ascontiguousarray(start.l1[0]), l2)
        reference = (np.abs(kl_gradient(rows, W)) * slope).max(axis=1)
        kl_newton(rows, W, BEYOND * self.tol * reference[:, np.newaxis] / slope, self.max_iter)
        W[~(sums > 0)] = 0
        out = (W * unit).astype(self.dtype)
        residuals = [
            relative(np.abs(np.minimum(w * unit, kl_gradient(rows, w) * slope)).max(axis=1), reference)
            for w in (out / unit, W)
        ]
        return out, residuals[0], residuals[1]
