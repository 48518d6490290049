"""The two products of X that every solver lives on, dense and sparse, one block at a time.

``times_Ht(X, H)`` = X·Hᵀ (n × k); ``Wt_times(W, X)`` = WᵀX (k × m); ``sum_of_squares(X)``, ``total(X)`` in float64.

A block's product is the same bits wherever it is computed: contiguous operands, one BLAS thread (which the
caller provides for).
"""

from __future__ import annotations

import numpy as np

from nmfstream.core.kernels import thin_products
from nmfstream.core.kernels.sparse_products import times_dense, transposed_times
from nmfstream.machine_code import Kernel
from nmfstream.types import CSR, Array, Matrix

_squares = Kernel("nmfstream.core.kernels.squares_compiled", "squares")

COMPILED_SIZE = 1 << 17
"""Values from which compiled code pays."""


def times_Ht(X: Matrix, H: Array) -> Array:
    """X·Hᵀ, shape (n_rows, n_components), in the common dtype of X and H."""
    if isinstance(X, CSR):
        return times_dense(X, np.ascontiguousarray(H.T))
    return thin_products.rows_times(X, H)


def Wt_times(W: Array, X: Matrix) -> Array:
    """Wᵀ·X, shape (n_components, n_features)."""
    if isinstance(X, CSR):
        return np.ascontiguousarray(transposed_times(X, W).T)
    return thin_products.transposed_times(W, X)


def sum_of_squares(X: Matrix) -> float:
    """‖X‖² summed in float64."""
    values = X.values if isinstance(X, CSR) else X.reshape(-1)
    if values.size < COMPILED_SIZE:
        return float(np.einsum("i,i->", values, values, dtype=np.float64))
    return float(_squares(values))


def total(X: Matrix) -> float:
    """Sum of X in float64."""
    return float((X.values if isinstance(X, CSR) else X).sum(dtype=np.float64))
