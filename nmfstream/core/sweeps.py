"""Rows of W for least squares as values rather than in place."""

from __future__ import annotations

import numpy as np

from nmfstream.core.kernels.sweeps import clipped_least_squares, coordinate_sweeps, ridge_inverse
from nmfstream.types import Array

COMPILED_WORK = 1 << 10
"""Small, since a fit sweeps some hundred times."""

__all__ = ["clipped_least_squares", "descend", "ridge_inverse"]


def descend(C: Array, G: Array, W: Array, sweeps: int, tol: float) -> Array:
    """Rows of W after coordinate descent from W (see `coordinate_sweeps`), in C's dtype."""
    out = np.array(W, dtype=C.dtype, order="C")
    coordinate_sweeps(np.ascontiguousarray(C), G, out, sweeps, tol, COMPILED_WORK)
    return out
