"""Rows of W for β ≠ 2: scaling, start, reference gradient and residual around `newton_rows`."""

from __future__ import annotations

from typing import Any

import numpy as np

from nmfstream.core.divergence_cells import cell
from nmfstream.core.kernels.least_squares import power_of_two, relative
from nmfstream.core.newton_rows import NewtonRows, Rows
from nmfstream.core.parameters import Objective
from nmfstream.core.rows_least_squares import tile_rows
from nmfstream.types import CSR, Array, Matrix

START = 0.5
"""The start explains this share of a row's sum: a point where no row's gradient vanishes, as the flat start that
explains all of it does where there is one component or one feature."""
BEYOND = 1e-2
"""Newton goes on to this part of the tolerance (and one step further): it costs a step and makes rows agree."""
STEPS = {True: 5, False: 30}
"""Multiplicative steps before Newton, where the objective is convex and where not."""


class DivergenceRows:
    """Solves rows for one H and any β but 2 (see `rowsolve.Rows`).

    Parameters
    ----------
    H : ndarray of shape (n_components, n_features)
    objective : Objective
    dtype : dtype
        Of W.
    tol : float
    max_iter : int
        Multiplicative and Newton steps together.
    """

    def __init__(self, H: Array, objective: Objective, dtype: np.dtype[Any], tol: float, max_iter: int) -> None:
        self.dtype, self.tol, self.max_iter, self.beta = dtype, tol, max_iter, objective.beta
        self.penalties = objective.penalties(H.shape[1], 1)
        self.n_components, self.function = len(H), cell(objective.beta)
        H64 = np.asarray(H, np.float64)
        self.columns = np.flatnonzero(H64.any(axis=0))
        self.total = float(H64.sum())
        sums = H64.sum(axis=1)
        self.scale, self.live = power_of_two(sums), sums > 0
        self.H = np.ascontiguousarray(H64 / self.scale[:, np.newaxis])
        self.Ht = np.ascontiguousarray(self.H.T)
        self.sums = self.H.sum(axis=1) if self.function.linear else np.zeros(len(H))
        self.newton = NewtonRows(np.ascontiguousarray(self.H[:, self.columns]), self.function)
        self.steps = min(max_iter, STEPS[self.function.convex])

    def chunk_rows(self, sparse: bool) -> int:
        """See `rowsolve.Rows`."""
        return tile_rows(self.H)

    def solve(self, X: Matrix) -> tuple[Array, Array, Array]:
        """W in `dtype`, its relative KKT residuals, and those before rounding."""
        x = (X.toarray() if isinstance(X, CSR) else X).astype(np.float64)
        sums = x.sum(axis=1)
        W, residual, solved = np.zeros((len(x), len(self.H)), self.dtype), np.zeros(len(x)), np.zeros(len(x))
        x = x[:, self.columns] if len(self.columns) < x.shape[1] else x
        filled = np.flatnonzero(x.any(axis=1))
        if len(filled):
            W[filled], residual[filled], solved[filled] = self._solve(x[filled], sums[filled])
        return W, residual, solved

    def _solve(self, x: Array, sums: Array) -> tuple[Array, Array, Array]:
        t = power_of_two(x.max(axis=1))[:, np.newaxis]
        rows, unit, slope = self._start(x / t, t, sums)
        reference = (np.abs(self._gradient(rows, rows.w)) * slope).max(axis=1)
        for _ in range(self.steps):
            rows.w = self.newton.multiply(rows, rows.w)
        target = BEYOND * self.tol * reference[:, np.newaxis] / slope
        self.newton.solve(rows, target, self.max_iter - self.steps)
        W = (rows.w * unit).astype(self.dtype)
        residual, solved = (self._residual(rows, w, unit, slope, reference) for w in (W / unit, rows.w))
        return W, residual, solved

    def _start(self, x: Array, t: Array, sums: Array) -> tuple[Rows, Array, Array]:
        """Rows in their scale; what w, and what its gradient, is to be multiplied by in the data's."""
        unit, slope = t / self.scale, t ** (self.beta - 1.0) * self.scale
        flat = START * (sums / self.total)[:, np.newaxis]
        w = np.where(self.live, flat / unit, 0.0)
        return Rows(x, self.sums + self.penalties.l1_W / slope, self.penalties.l2_W * unit / slope, w), unit, slope

    def _residual(self, rows: Rows, w: Array, unit: Array, slope: Array, reference: Array) -> Array:
        gradient = self._gradient(rows, w) * slope
        return relative(np.abs(np.minimum(w * unit, gradient)).max(axis=1), reference)

    def _gradient(self, rows: Rows, w: Array) -> Array:
        return self.newton.gradient(rows, w, self.newton.reconstruct(w))
