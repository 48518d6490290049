"""X·Hᵀ and WᵀX of a dense X and few components: compiled where that is faster than BLAS, which packs X first.

Which of the two runs follows from shapes, types and layout; both sum in the factor's type.
"""

from __future__ import annotations

import numpy as np

from nmfstream.core.kernels.widths import register_bytes
from nmfstream.machine_code import Kernel
from nmfstream.types import Array

_rows_times = Kernel("nmfstream.core.kernels.thin_products_compiled", "rows_times")
_add_outer = Kernel("nmfstream.core.kernels.thin_products_compiled", "add_outer")

COMPILED_WORK = 1 << 22
"""Rows times features times components from which compiled code pays."""
MOST_COMPONENTS = 64
FEATURES = {"rows_times": (256, 1 << 62), "add_outer": (64, 4096)}
"""Least and most features: sums of short rows cost more than their products, and much of WᵀX leaves the cache."""
F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
TYPES = {"rows_times": {(F32, F32), (F64, F64), (F32, F64)}, "add_outer": {(F32, F32), (F64, F64)}}
"""Types of X and of the factor."""


def pays(kernel: str, shape: tuple[int, ...], n_components: int) -> bool:
    """Whether a kernel is faster than BLAS for an X of this shape."""
    n_rows, n_features = shape
    least, most = FEATURES[kernel]
    fits = least <= n_features <= most and n_components <= MOST_COMPONENTS
    return fits and n_rows * n_features * n_components >= COMPILED_WORK


def rows_times(X: Array, H: Array) -> Array:
    """X·Hᵀ, shape (n_rows, n_components), in the common dtype."""
    if not compiled("rows_times", X, H, len(H)):
        return np.asarray(X @ H.T)
    C = np.empty((len(X), len(H)), H.dtype)
    _rows_times(X, H, C)
    return C


def transposed_times(W: Array, X: Array) -> Array:
    """WᵀX, shape (n_components, n_features), in the common dtype."""
    if not compiled("add_outer", X, W, W.shape[1]):
        return np.asarray(W.T @ X)
    B = np.zeros((W.shape[1], X.shape[1]), X.dtype)
    _add_outer(W, X, register_bytes() // X.itemsize, B)
    return B


def compiled(kernel: str, X: Array, factor: Array, n_components: int) -> bool:
    """Whether a product of these operands is the kernel's; its rows are then the same bits wherever they lie."""
    laid_out = X.flags.c_contiguous and factor.flags.c_contiguous
    return laid_out and (X.dtype, factor.dtype) in TYPES[kernel] and pays(kernel, X.shape, n_components)
