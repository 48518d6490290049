"""Rows of W for β = 2: clipped least squares, coordinate sweeps, and exact Newton where those do not suffice.

Everything runs on rescaled rows of H (norm about 1) and of C (largest entry about 1), by powers of two, so that no
threshold depends on the data's scale and nothing is rounded by it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nmfstream.core.kernels import thin_products
from nmfstream.core.kernels.newton_least_squares import newton_least_squares
from nmfstream.core.kernels.sweeps import COMPILED_WORK, clipped_solution, coordinate_sweeps, ridge_inverse
from nmfstream.core.parameters import Objective
from nmfstream.core.products import times_Ht
from nmfstream.types import CSR, Array, Matrix, cut

CHUNK_ROWS, NEVER = 8192, 1 << 62
TILE_BYTES = 2 << 20
LEAST_ROWS, MOST_ROWS = 8, 512

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


def power_of_two(values: Array) -> Array:
    """The power of two nearest below each positive number; 1 for others. Multiplying by it is exact."""
    good = (values > 0) & np.isfinite(values)
    return np.asarray(np.exp2(np.floor(np.log2(np.where(good, values, 1.0)))))


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
        compiled = 0 if C.size * self.n_components >= COMPILED_WORK else NEVER
        W, residual, solved = np.empty(C.shape, self.dtype), np.empty(len(C)), np.empty(len(C))
        for start in range(0, len(C), MOST_ROWS):
            rows = slice(start, min(start + MOST_ROWS, len(C)))
            W[rows], residual[rows], solved[rows] = self._solve(C[rows], compiled)
        return W, residual, solved

    def _solve(self, products: Array, compiled: int) -> tuple[Array, Array, Array]:
        """Few enough rows for scratch that stays in the second-level cache."""
        C = products - self.l1
        t = power_of_two(np.abs(C).max(axis=1))[:, np.newaxis]
        C /= t
        W = in_tiles(lambda tile: clipped_solution(tile, self.inverse), C, MOST_ROWS)
        coordinate_sweeps(C, self.G, W, self.sweeps, self.sweep_tol, compiled)
        reference = np.abs(C * self.scale).max(axis=1)
        solved = self._finish(C, W, reference)
        unit = t / self.scale
        out = (W * unit).astype(self.dtype)
        if self.dtype == np.float64:
            return out, solved, solved
        rounded = out / unit
        return out, self._residual(rounded, rounded @ self.G - C, reference), solved

    def _products(self, X: Matrix) -> Array:
        if isinstance(X, CSR):
            return times_Ht(X._replace(data=X.data.astype(self.H.dtype, copy=False)), self.H)
        if thin_products.compiled("rows_times", X, self.H, self.n_components):
            return thin_products.rows_times(X, self.H)
        return in_tiles(lambda tile: tile.astype(self.H.dtype, copy=False) @ self.H.T, X, tile_rows(self.H))

    def _finish(self, C: Array, W: Array, reference: Array) -> Array:
        """Newton on the rows whose residual does not vouch for them; the relative residuals of all."""
        gradient = W @ self.G - C
        residual = self._residual(W, gradient, reference)
        off = np.minimum(W, gradient)
        unsure = np.sqrt(np.vecdot(off, off)) > self.enough * W.max(axis=1)
        rows, left = np.flatnonzero(unsure | (residual > 0.5 * self.tol)), self.max_iter - self.sweeps
        if len(rows) and left > 0:
            w, c = W[rows], C[rows]
            newton_least_squares(c, self.G, w, left, EXACT[self.dtype.name])
            W[rows], residual[rows] = w, self._residual(w, w @ self.G - c, reference[rows])
        return residual

    def _residual(self, W: Array, gradient: Array, reference: Array) -> Array:
        """max |min(w, ∂)| / max |∂(0)| in the units of the data (a row's own scale cancels)."""
        worst = np.abs(np.minimum(W / self.scale, gradient * self.scale)).max(axis=1)
        return relative(worst, reference)


def tile_rows(H: Array) -> int:
    """Rows a tile: a power of two, from the number of features and the type alone."""
    fitting = TILE_BYTES // max(1, H.shape[1] * H.itemsize)
    return int(min(MOST_ROWS, max(LEAST_ROWS, 1 << max(0, fitting.bit_length() - 1))))


def in_tiles(product: Callable[[Array], Array], X: Array, height: int) -> Array:
    """A product of rows by tiles of `height` rows, the last padded with zeros."""
    parts = []
    for start in range(0, len(X), height):
        tile = np.ascontiguousarray(cut(X, start, start + height))
        short = height - len(tile)
        if short:
            tile = np.concatenate([tile, np.zeros((short, X.shape[1]), X.dtype)])
        parts.append(product(tile)[: height - short])
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def relative(worst: Array, reference: Array) -> Array:
    """worst / reference, 0 where both are 0."""
    safe = np.where(reference > 0, reference, 1.0)
    return np.where(reference > 0, worst / safe, np.where(worst > 0, np.inf, 0.0))
