"""Rows of W for β = 2: clipped least squares, coordinate sweeps, and exact Newton where those do not suffice.

Everything runs on rescaled rows of H (norm about 1) and of C (largest entry about 1), by powers of two, so that no
threshold depends on the data's scale and nothing is rounded by it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nmfstream.core.kernels import least_squares as steps
from nmfstream.core.kernels import thin_products
from nmfstream.core.kernels.least_squares import TILE, in_tiles, power_of_two
from nmfstream.core.kernels.newton_least_squares import newton_least_squares
from nmfstream.core.kernels.sweeps import COMPILED_WORK, coordinate_sweeps, ridge_inverse
from nmfstream.core.parameters import Objective
from nmfstream.core.products import times_Ht
from nmfstream.types import CSR, Array, Matrix

CHUNK_ROWS, NEVER = 8192, 1 << 62
TILE_BYTES = 2 << 20
LEAST_ROWS, MOST_ROWS = 8, 512
CACHED_BYTES = 512 << 10
"""X·Hᵀ of rows that are solved together: it is looked at again and again."""

DOUBLE_BELOW = 2e-6
"""Tolerances that sums in float32 cannot promise: X·Hᵀ is formed in float64."""
ACCURACY = {"float32": 2e-5, "float64": 2e-10}
"""Wanted error of w, relative to its largest entry (law of the rows: five times this)."""
EXACT = {"float32": 1e-9, "float64": 2e-14}
SINGLE_NOISE = 2e-7
"""Residuals below this, relative to X·Hᵀ, are lost where that is formed in float32."""
SWEEPS = {True: 60, False: 6}
"""Where H is conditioned well and where not: there sweeps creep and Newton does not."""
WELL = 1e-3


class LeastSquaresRows:
    """Solves rows for one H (see `rowsolve.Rows`).

    BLAS multiplies tiles of one fixed height, the last padded with zeros, since it gives a row other bits in another
    shape; all else works on each row by itself. BLAS rounds a row by its place in a tile, too, and otherwise than a
    compiled kernel: where H is so ill-conditioned that this would show in a row of W, X·Hᵀ is formed in float64.

    Parameters
    ----------
    H : ndarray of shape (n_components, n_features)
    objective : Objective
    dtype : dtype
        Of W.
    tol : float
        Relative KKT residual.
    max_iter : int
        Sweeps and Newton steps together.
    """

    def __init__(self, H: Array, objective: Objective, dtype: np.dtype[Any], tol: float, max_iter: int) -> None:
        self.dtype, self.tol, self.max_iter = dtype, tol, max_iter
        p = objective.penalties(H.shape[1], 1)
        H64 = np.ascontiguousarray(H, np.float64)
        self.scale = power_of_two(np.sqrt(np.einsum("ij,ij->i", H64, H64) + p.l2_W))
        scaled = (H64 / self.scale[:, np.newaxis]).astype(dtype).astype(np.float64)
        self.G = scaled @ scaled.T + np.diag(p.l2_W / self.scale**2)
        self.l1 = p.l1_W / self.scale
        self.inverse = ridge_inverse(self.G)
        self.n_components = len(H)
        self._limits(scaled)

    def _limits(self, H: Array) -> None:
        """How small a residual vouches for the wanted accuracy (Pang 1987), and how long sweeps are worth it."""
        live = self.G[np.ix_(*2 * [np.flatnonzero(self.G.diagonal() > 0)])]
        eigenvalues = np.linalg.eigvalsh(live) if len(live) else np.ones(1)
        surety = max(float(eigenvalues[0]), 0.0) / (1.0 + float(eigenvalues[-1]))
        self.enough = ACCURACY[self.dtype.name] * surety
        well = surety >= WELL
        self.sweep_tol = 0.25 * self.enough if well else 1e-3
        self.sweeps = min(self.max_iter, SWEEPS[well])
        single = self.dtype == np.float32 and self.tol >= DOUBLE_BELOW and self.enough >= SINGLE_NOISE
        self.H = np.ascontiguousarray(H, np.float32 if single else np.float64)

    def chunk_rows(self, sparse: bool) -> int:
        """See `rowsolve.Rows`."""
        return CHUNK_ROWS

    def solve(self, X: Matrix) -> tuple[Array, Array, Array]:
        """W in `dtype`, its relative KKT residuals, and those before rounding."""
        C = self._products(X)
        compiled = C.size * self.n_components >= COMPILED_WORK
        W, residual, solved = np.empty(C.shape, self.dtype), np.empty(len(C)), np.empty(len(C))
        step = max(TILE, CACHED_BYTES // (8 * self.n_components)) if compiled else TILE
        for start in range(0, len(C), step):
            rows = slice(start, min(start + step, len(C)))
            W[rows], residual[rows], solved[rows] = self._solve(C[rows], compiled)
        return W, residual, solved

    def _solve(self, products: Array, compiled: bool) -> tuple[Array, Array, Array]:
        """Few enough rows for what they need to stay in the second-level cache."""
        C = products - self.l1
        W, unit, reference = steps.begin(C, self.scale, self.inverse, compiled=compiled)
        coordinate_sweeps(C, self.G, W, self.sweeps, self.sweep_tol, 0 if compiled else NEVER)
        solved = self._finish(C, W, reference, compiled)
        if self.dtype == np.float64:
            return W * (unit[:, np.newaxis] / self.scale), solved, solved
        out, residual = steps.rounded(C, self.G, W, self.scale, reference, unit, compiled=compiled)
        return out, residual, solved

    def _products(self, X: Matrix) -> Array:
        if isinstance(X, CSR):
            return times_Ht(X._replace(data=X.data.astype(self.H.dtype, copy=False)), self.H)
        if thin_products.compiled("rows_times", X, self.H, self.n_components):
            return thin_products.rows_times(X, self.H)
        return in_tiles(lambda tile: tile.astype(self.H.dtype, copy=False) @ self.H.T, X, tile_rows(self.H))

    def _finish(self, C: Array, W: Array, reference: Array, compiled: bool) -> Array:
        """Newton on the rows whose residual does not vouch for them; the relative residuals of all."""
        residual, unsure = steps.judge(C, self.G, W, self.scale, reference, self.enough, compiled=compiled)
        rows, left = np.flatnonzero(unsure | (residual > 0.5 * self.tol)), self.max_iter - self.sweeps
        if len(rows) and left > 0:
            w, c = W[rows], C[rows]
            newton_least_squares(c, self.G, w, left, EXACT[self.dtype.name])
            W[rows] = w
            residual[rows], _ = steps.judge(c, self.G, w, self.scale, reference[rows], 0.0, compiled=compiled)
        return residual


def tile_rows(H: Array) -> int:
    """Rows a tile: a power of two, from the number of features and the type alone."""
    fitting = TILE_BYTES // max(1, H.shape[1] * H.itemsize)
    return int(min(MOST_ROWS, max(LEAST_ROWS, 1 << max(0, fitting.bit_length() - 1))))
