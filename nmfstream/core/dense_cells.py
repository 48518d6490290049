"""Cells of dense X by compiled kernels, for divergences whose terms they know."""

from __future__ import annotations

import numpy as np

from nmfstream.core.cells import TILE_BYTES, Cells, KullbackLeiblerCells
from nmfstream.core.kernels.widths import PANEL, lanes
from nmfstream.machine_code import Kernel
from nmfstream.types import Array

_kl_sums = Kernel("nmfstream.core.kernels.mu_dense", "dense_kl_sums")


def kl_statistics(X: Array, W: Array, H: Array, cells: KullbackLeiblerCells) -> tuple[float, Array]:
    """Cost and numerators of H, shape (1, n_components, n_features); `Loss.statistics` for β = 1.

    Some rows at a time, so that the logarithms find their ratios in the second-level cache.
    """
    X, H, W = with_unit_stride(X), np.ascontiguousarray(H), np.ascontiguousarray(W)
    height = max(PANEL, TILE_BYTES // (X.shape[1] * X.itemsize) // PANEL * PANEL)
    cost, sums = 0.0, np.zeros_like(H)
    buffer = np.empty((min(height, len(X)), X.shape[1]), X.dtype)
    for a in range(0, len(X), height):
        x, w = X[a : a + height], W[a : a + height]
        ratios = buffer[: len(x)]
        _kl_sums(x, w, H, lanes(X.dtype), ratios, sums)
        cost += cells.cost(x, ratios, Cells(ratios, None))
    return cost, sums[np.newaxis]


def with_unit_stride(X: Array) -> Array:
    """X with its rows contiguous, a copy where they are not."""
    return X if X.strides[1] == X.itemsize else np.ascontiguousarray(X)
