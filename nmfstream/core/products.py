"""The two products of X that every solver lives on, dense and sparse, one block at a time.

A block's product is the same bits wherever it is computed: contiguous operands, one BLAS thread (which the
caller provides for).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nmfstream.types import CSR, Array, Matrix


def times_Ht(X: Matrix, H: Array) -> Array:
    """X·Hᵀ, shape (n_rows, n_components), in the common dtype of X and H."""
    if isinstance(X, CSR):
        return np.asarray(_scipy(X) @ np.ascontiguousarray(H.T))
    return X @ H.T


def Wt_times(W: Array, X: Matrix) -> Array:
    """Wᵀ·X, shape (n_components, n_features)."""
    if isinstance(X, CSR):
        return np.ascontiguousarray((_scipy(X).T @ W).T)
    return W.T @ X


def sum_of_squares(X: Matrix) -> float:
    """‖X‖² summed in float64."""
    values = X.values if isinstance(X, CSR) else X.ravel()
    return float(np.einsum("i,i->", values, values, dtype=np.float64))


def total(X: Matrix) -> float:
    """Sum of X in float64."""
    return float((X.values if isinstance(X, CSR) else X).sum(dtype=np.float64))


def _scipy(X: CSR) -> Any:
    from scipy import sparse

    a = X.rebased()
    return sparse.csr_array((a.data, a.indices, a.indptr), shape=X.shape)
