"""How much a model explains: the divergence from the column means, from sums of one pass."""

from __future__ import annotations

import numpy as np

from nmfstream.types import CSR, Array, Matrix


def power_sum(X: Matrix, beta: float) -> float:
    """The part of D(X|Y) that Y does not touch: Σφ(x), in float64.

    φ is x²/2 for β = 2, x·log x - x for β = 1, -log x - 1 for β = 0, else x^β / (β(β-1)); zeros add nothing for
    β > 0.
    """
    values = X.values if isinstance(X, CSR) else X.ravel()
    pieces = (values[a : a + PIECE].astype(np.float64, copy=False) for a in range(0, len(values), PIECE))
    return sum(_power_sum(piece, beta) for piece in pieces)


PIECE = 1 << 16
"""Values that are worked on at a time, in the second-level cache."""


def _power_sum(x: Array, beta: float) -> float:
    if beta == 2:
        return float(x @ x) / 2
    if beta == 1:
        x = x[x > 0]
        return float((x * np.log(x) - x).sum())
    if beta == 0:
        return float((-np.log(x) - 1).sum())
    return float((x[x > 0] ** beta if beta > 0 else x**beta).sum()) / (beta * (beta - 1))


def column_sums(X: Matrix) -> Array:
    """Sums of the columns in float64, shape (n_features,)."""
    if isinstance(X, CSR):
        low, high = int(X.indptr[0]), int(X.indptr[-1])
        return np.bincount(X.indices[low:high], weights=X.values, minlength=X.n_cols)
    return np.asarray(X.sum(axis=0, dtype=np.float64))


def null_divergence(phi: float, sums: Array, n_rows: int, beta: float) -> float:
    """D(X | each row the column means).

    Parameters
    ----------
    phi : float
        `power_sum` of all of X.
    sums : ndarray of float64, shape (n_features,)
        `column_sums` of all of X.
    n_rows : int
    beta : float

    Notes
    -----
    With y the mean of its column, D(x|y) = φ(x) + y^β/β - x·y^(β-1)/(β-1); summed over a column of mean y the last
    two terms are n·y^β·(1/β - 1/(β-1)).
    """
    mean = sums[sums > 0] / n_rows
    if beta == 1:
        return phi - float((sums[sums > 0] * (np.log(mean) - 1)).sum())
    if beta == 0:
        return phi + n_rows * float((np.log(mean) + 1).sum())
    return phi - n_rows * float((mean**beta).sum()) / (beta * (beta - 1))
