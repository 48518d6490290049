"""Rows of W for β = 2: clipped least squares, coordinate sweeps, and exact Newton where those do not suffice.

Everything runs on rescaled rows of H (norm about 1) and of C (largest entry about 1), by powers of two, so that no
threshold depends on the data's scale and nothing is rounded by it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nmfstream.core.kernels.newton_least_squares import newton_least_squares
from nmfstream.core.kernels.sweeps import clipped_solution, coordinate_sweeps, ridge_inverse
from nmfstream.core.parameters import Objective
from nmfstream.core.products import times_Ht
from nmfstream.types import CSR, Array, Matrix, cut

CHUNK_ROWS = 8192
TILE_BYTES = 2 << 20
LEAST_ROWS, MOST_ROWS = 8, 512

DOUBLE_BELOW = 2e-6
"""Tolerances that sums in float32 cannot promise: float64 is used throughout."""
ACCURACY = {"float32": 2e-5, "float64": 2e-10}
"""Wanted error of w, relative to its largest entry (law of the rows: five times this)."""
EXACT = {"float32": 1e-9, "float64": 2e-14}
SWEEPS = {"float32": 30, "float64": 60}
SINGLE_NOISE = {"float32": 2e-6, "float64": 4e-15}


def power_of_two(values: Array) -> Array:
    """The power of two nearest below each positive number; 1 for others. Multiplying by it is exact."""
    good = (values > 0) & np.isfinite(values)
    return np.asarray(np.exp2(np.floor(np.log2(np.where(good, values, 1.0)))))


class LeastSquaresRows:
    """Solves rows for one H (see `rowsolve.Rows`).

    Products run in tiles of one fixed height, the last padded with zeros, since BLAS gives a row other bits in
    another shape; all else works on each row by itself. BLAS rounds a row by its place in a tile, too: where H is
    so ill-conditioned that this would show in a row of W, X·Hᵀ is formed in float64.

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
        self.work = np.dtype(np.float64) if tol < DOUBLE_BELOW else dtype
        self.dtype, self.tol, self.max_iter = dtype, tol, max_iter
        p = objective.penalties(H.shape[1], 1)
        H64 = np.ascontiguousarray(H, np.float64)
        self.scale = power_of_two(np.sqrt(np.einsum("ij,ij->i", H64, H64) + p.l2_W))
        self.H = np.ascontiguousarray(H64 / self.scale[:, np.newaxis], self.work)
        exact = self.H.astype(np.float64)
        self.G = exact @ exact.T + np.diag(p.l2_W / self.scale**2)
        self.l1 = p.l1_W / self.scale
        self.inverse = ridge_inverse(self.G)
        self.n_components = len(H)
        self._limits()
        self.factor = self.H if self.within_reach else exact

    def _limits(self) -> None:
        """How small a residual vouches for the wanted accuracy (Pang 1987), and how long sweeps are worth it."""
        name = self.work.name
        live = self.G[np.ix_(*2 * [np.flatnonzero(self.G.diagonal() > 0)])]
        eigenvalues = np.linalg.eigvalsh(live) if len(live) else np.ones(1)
        surety = max(float(eigenvalues[0]), 0.0) / (1.0 + float(eigenvalues[-1]))
        self.enough = ACCURACY[name] * surety
        self.within_reach = self.enough >= SINGLE_NOISE[name] * 0.1
        self.sweep_tol = float(np.clip(self.enough, SINGLE_NOISE[name], 1e-4)) if self.within_reach else 1e-3
        self.sweeps = min(self.max_iter, SWEEPS[name] if self.within_reach else 6)

    def chunk_rows(self, sparse: bool) -> int:
        """See `rowsolve.Rows`."""
        return CHUNK_ROWS

    def solve(self, X: Matrix) -> tuple[Array, Array, Array]:
        """W in `dtype`, its relative KKT residuals, and those before rounding."""
        C = self._products(X).astype(np.float64, copy=False) - self.l1
        t = power_of_two(np.abs(C).max(axis=1, initial=0.0))[:, np.newaxis]
        C /= t
        W = self._swept(C)
        self._finish(C, W)
        unit = t / self.scale
        out = (W * unit).astype(self.dtype)
        residual = self._residual(C, out / unit, t)
        return out, residual, residual if self.dtype == np.float64 else self._residual(C, W, t)

    def _products(self, X: Matrix) -> Array:
        H = self.factor
        if isinstance(X, CSR):
            return times_Ht(X._replace(data=X.data.astype(self.work, copy=False)), H)
        return in_tiles(lambda tile: times_Ht(tile.astype(H.dtype, copy=False), H), X, tile_rows(H))

    def _swept(self, C: Array) -> Array:
        c = C.astype(self.work, copy=False)
        W = in_tiles(lambda tile: clipped_solution(tile, self.inverse), c, MOST_ROWS)
        coordinate_sweeps(c, self.G, W, self.sweeps, self.sweep_tol)
        return W.astype(np.float64, copy=False)

    def _finish(self, C: Array, W: Array) -> None:
        """Newton on the rows whose residual does not vouch for them."""
        off = np.abs(np.minimum(W, W @ self.G - C))
        unsure = np.sqrt(np.einsum("ij,ij->i", off, off)) > self.enough * W.max(axis=1)
        unsure |= self._residual(C, W, np.ones((len(C), 1))) > 0.5 * self.tol
        rows, left = np.flatnonzero(unsure), self.max_iter - self.sweeps
        if len(rows) and left > 0:
            w = W[rows]
            newton_least_squares(C[rows], self.G, w, left, EXACT[self.work.name])
            W[rows] = w

    def _residual(self, C: Array, W: Array, t: Array) -> Array:
        """max |min(w, ∂)| / max |∂(0)| in the units of the data."""
        gradient = (W @ self.G - C) * (t * self.scale)
        worst = np.abs(np.minimum(W * (t / self.scale), gradient)).max(axis=1)
        return relative(worst, (np.abs(C) * (t * self.scale)).max(axis=1))


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
    return np.concatenate(parts)


def relative(worst: Array, reference: Array) -> Array:
    """worst / reference, 0 where both are 0."""
    safe = np.where(reference > 0, reference, 1.0)
    return np.where(reference > 0, worst / safe, np.where(worst > 0, np.inf, 0.0))
