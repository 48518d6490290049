"""W of rows with H fixed, each from a start that depends on that row and H alone, to its own KKT residual.

The residual of a row is max_j |min(w_j, ∂_j)| / max_j |∂_j(ref)|, ref = 0 for β ≥ 2, the row's start for β < 2; ∂
is the gradient of its objective, penalties on W included. A row is the optimum for 1 ≤ β ≤ 2, else a stationary
point.

``solver = row_solver(H, objective, dtype)``; ``solution = solver(X)`` with ``solution.W``, ``.residual``,
``.converged``.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from nmfstream.core.parameters import Objective
from nmfstream.types import CSR, Array, Matrix, cut

TILE_BYTES = 2 << 20
LEAST_ROWS, MOST_ROWS = 8, 512
TOLERANCES = {"float32": 1e-5, "float64": 1e-9}
MAX_ITER = 500

Solve: TypeAlias = Callable[[Matrix], tuple[Array, Array, Array]]


class RowSolution(NamedTuple):
    """Rows of W and how near to optimal they are.

    Attributes
    ----------
    W : ndarray of shape (n_rows, n_components)
    residual : ndarray of float64, shape (n_rows,)
        Relative KKT residual of W as it is returned.
    converged : ndarray of bool, shape (n_rows,)
        Whether the row was solved to the tolerance, before it was rounded to `W`'s type.
    """

    W: Array
    residual: Array
    converged: Array


class RowSolver:
    """Solves rows of X for one H; reentrant (threads may share it).

    Rows go through the arithmetic in tiles of one fixed height, the last padded with zeros, since BLAS gives a row
    other bits in another shape.
    """

    def __init__(self, solve: Solve, work: np.dtype[Any], dtype: np.dtype[Any], tol: float, shape: tuple[int, int],
                 *, dense_tiles: bool) -> None:
        self.solve, self.work, self.dtype, self.tol = solve, work, dtype, tol
        self.n_components, self.n_features = shape
        self.dense_tiles = dense_tiles

    def tile_rows(self, sparse: bool) -> int:
        """Rows a tile: a power of two, from the number of features and the type alone."""
        if sparse and not self.dense_tiles:
            return MOST_ROWS
        fitting = TILE_BYTES // max(1, self.n_features * self.work.itemsize)
        return int(min(MOST_ROWS, max(LEAST_ROWS, 1 << max(0, fitting.bit_length() - 1))))

    def __call__(self, X: Matrix) -> RowSolution:
        """Solve the rows X.

        Parameters
        ----------
        X : Matrix, shape (n_rows, n_features)
            Non-negative.

        Returns
        -------
        RowSolution
        """
        n = X.shape[0]
        W = np.empty((n, self.n_components), self.dtype)
        residual, solved = np.empty(n), np.empty(n)
        height = self.tile_rows(isinstance(X, CSR))
        for start in range(0, n, height):
            stop = min(start + height, n)
            tile = self.solve(_padded(cut(X, start, stop), height, self.work))
            for whole, part in zip((W, residual, solved), tile, strict=True):
                whole[start:stop] = part[: stop - start]
        return RowSolution(W, residual, np.minimum(residual, solved) <= self.tol)


def row_solver(
    H: Array, objective: Objective, dtype: Any, tol: float | None = None, max_iter: int | None = None
) -> RowSolver:
    """A solver of rows for a fixed H.

    Parameters
    ----------
    H : ndarray of shape (n_components, n_features)
        Non-negative.
    objective : Objective
        β and the penalties on W, scaled as scikit-learn's transform does.
    dtype : dtype
        float32 or float64: of W.
    tol : float, optional
        Relative KKT residual; None: 1e-5 in float32, 1e-9 in float64.
    max_iter : int, optional
        Most iterations a row (sweeps, multiplicative and Newton steps); a row not there keeps its best w.

    Returns
    -------
    RowSolver
    """
    dtype = np.dtype(dtype)
    tol = TOLERANCES[dtype.name] if tol is None else tol
    max_iter = MAX_ITER if max_iter is None else max_iter
    if objective.beta == 2:
        module, name = "nmfstream.core.rows_least_squares", "LeastSquaresRows"
    elif objective.beta == 1:
        module, name = "nmfstream.core.rows_divergence", "KullbackLeiblerRows"
    else:
        module, name = "nmfstream.core.rows_divergence", "DivergenceRows"
    solve = getattr(import_module(module), name)(H, objective, dtype, tol, max_iter)
    return RowSolver(solve, solve.work, dtype, tol, H.shape, dense_tiles=objective.beta not in (1, 2))


def _padded(X: Matrix, height: int, dtype: np.dtype[Any]) -> Matrix:
    """X in `dtype`, with zero rows up to `height`."""
    short = height - X.shape[0]
    if isinstance(X, CSR):
        own = X.rebased()
        indptr = np.concatenate([own.indptr, np.full(short, own.indptr[-1], own.indptr.dtype)])
        return CSR(indptr, own.indices, own.data.astype(dtype, copy=False), X.n_cols)
    if not short:
        return np.ascontiguousarray(X, dtype)
    out = np.zeros((height, X.shape[1]), dtype)
    out[: X.shape[0]] = X
    return out
