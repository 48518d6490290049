"""W of rows with H fixed, each from a start that depends on that row and H alone, to its own KKT residual.

The residual of a row is max_j |min(w_j, ∂_j)| / max_j |∂_j(ref)|; ∂ is the gradient of its objective, penalties on W
included. ref = 0 for β = 2, and for other β the row's start: half of Σx / ΣH in every component (for β > 2 the
gradient at 0 vanishes whatever the row, and would measure nothing). A row is the optimum for 1 ≤ β ≤ 2, else a
stationary point.

``solver = row_solver(H, objective, dtype)``; ``solution = solver(X)`` with ``solution.W``, ``.residual``,
``.converged``.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple, Protocol

import numpy as np

from nmfstream.core.parameters import Objective
from nmfstream.types import CSR, Array, Matrix, cut

TOLERANCES = {"float32": 1e-5, "float64": 1e-9}
MAX_ITER = 500


class Rows(Protocol):
    """One divergence at one H.

    Attributes
    ----------
    n_components : int
    """

    n_components: int

    def chunk_rows(self, sparse: bool) -> int:
        """Rows that are solved at once, from shapes alone: what bounds the scratch memory."""
        ...

    def solve(self, X: Matrix) -> tuple[Array, Array, Array]:
        """W, its relative residuals, and those before it was rounded to its type."""
        ...


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
    """Solves rows of X for one H; reentrant (threads may share it)."""

    def __init__(self, rows: Rows, dtype: np.dtype[Any], tol: float) -> None:
        self.rows, self.dtype, self.tol = rows, dtype, tol

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
        n, step = X.shape[0], self.rows.chunk_rows(isinstance(X, CSR))
        W = np.empty((n, self.rows.n_components), self.dtype)
        residual, solved = np.empty(n), np.empty(n)
        for start in range(0, n, step):
            stop = min(start + step, n)
            W[start:stop], residual[start:stop], solved[start:stop] = self.rows.solve(cut(X, start, stop))
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
        module, name = "nmfstream.core.rows_kl", "KullbackLeiblerRows"
    else:
        module, name = "nmfstream.core.rows_divergence", "DivergenceRows"
    rows = getattr(import_module(module), name)(np.asarray(H), objective, dtype, tol, max_iter)
    return RowSolver(rows, dtype, tol)
