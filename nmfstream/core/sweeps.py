"""Rows of W for least squares as values rather than in place."""

from __future__ import annotations

import numpy as np

from nmfstream.core.kernels.sweeps import clipped_least_squares, coordinate_sweeps
from nmfstream.types import Array

__all__ = ["clipped_least_squares", "descend"]


def descend(C: Array, G: Array, W: Array, sweeps: int, tol: float) -> Array:
    """Rows of W after coordinate descent from W (see `coordinate_sweeps`), in C's dtype."""
    out = np.array(W, dtype=C.dtype, order="C")
    coordinate_sweeps(np.ascontiguousarray(C), G, out, sweeps, tol)
    return out


def polish(C: Array, G: Array, W: Array) -> Array:
    """One active-set step from W on min ½ wGwᵀ − cwᵀ, w ≥ 0: towards the exact solution on each row's support.

    Where that solution is feasible it is taken, else the row goes until its first component meets zero
    (Lawson & Hanson 1974, inner loop). The objective never rises.

    Parameters
    ----------
    C, W : ndarray of float64, shape (n_rows, n_components)
    G : ndarray of float64, shape (n_components, n_components)
    """
    k, out = len(G), np.array(W, np.float64)
    ridge = 1e-13 * float(np.trace(G)) / k
    if not ridge > 0:
        return out
    height = max(1, POLISH_CELLS // (k * k))
    for a in range(0, len(W), height):
        out[a : a + height] = _towards(C[a : a + height], G, out[a : a + height], ridge)
    return out


POLISH_CELLS = 1 << 19


def _towards(C: Array, G: Array, W: Array, ridge: float) -> Array:
    on = W > 0
    systems = np.where(on[:, :, np.newaxis] & on[:, np.newaxis, :], G, 0.0)
    diagonal = np.arange(len(G))
    systems[:, diagonal, diagonal] = np.where(on, G.diagonal() + ridge, ridge)
    gradient = np.where(on, C - W @ G, 0.0)
    step = np.linalg.solve(systems, gradient[:, :, np.newaxis])[:, :, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        room = np.where(step < 0, -W / step, np.inf).min(axis=1)
    better: Array = np.maximum(W + np.minimum(1.0, room)[:, np.newaxis] * step, 0.0)
    return np.where(np.isfinite(better), better, W)
