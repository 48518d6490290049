"""Rows of W for least squares: the clipped start and coordinate sweeps, each row stopped by itself.

``W = clipped_least_squares(C, G)`` then ``used = coordinate_sweeps(C, G, W, max_sweeps, tol)`` (W in place).
C = X·Hᵀ less the L1 weight, G = HHᵀ plus the L2 weight on its diagonal (Cichocki & Phan 2009, HALS).
"""

from __future__ import annotations

import numpy as np

from nmfstream.machine_code import Kernel
from nmfstream.types import Array

_sweeps = Kernel("nmfstream.core.kernels.sweeps_compiled", "sweeps")

COMPILED_WORK = 1 << 16
"""Rows times components squared from which compiled code pays."""


def clipped_least_squares(C: Array, G: Array, inverse: Array | None = None) -> Array:
    """max(0, C (G + εI)⁻¹), each row scaled to its best multiple: the start of a cold solve.

    Parameters
    ----------
    C : ndarray of shape (n_rows, n_components)
    G : ndarray of shape (n_components, n_components)
    inverse : ndarray of shape (n_components, n_components), optional
        `ridge_inverse` of G, where it is at hand.

    Returns
    -------
    ndarray of shape (n_rows, n_components), in C's dtype
    """
    return _scaled(C, G.astype(C.dtype), clipped_solution(C, ridge_inverse(G) if inverse is None else inverse))


def ridge_inverse(G: Array) -> Array:
    """(G + εI)⁻¹ in float64, ε = 1e-6 of the mean diagonal; zeros for G = 0."""
    G = G.astype(np.float64, copy=False)
    ridge = 1e-6 * float(np.trace(G)) / len(G)
    if not ridge > 0:
        return np.zeros_like(G)
    return np.asarray(np.linalg.inv(G / ridge + np.eye(len(G))) / ridge)


def clipped_solution(C: Array, inverse: Array) -> Array:
    """max(0, C·inverse) in C's dtype."""
    W = C @ inverse.astype(C.dtype)
    return np.asarray(np.maximum(W, 0, out=W))


def _scaled(C: Array, G: Array, W: Array) -> Array:
    along, length = np.einsum("ij,ij->i", W, C), np.einsum("ij,ij->i", W, W @ G)
    scale = np.divide(np.maximum(along, 0), length, out=np.zeros_like(along), where=length > 0)
    W *= scale[:, np.newaxis]
    return W


def coordinate_sweeps(
    C: Array, G: Array, W: Array, max_sweeps: int, tol: float, compiled_work: int = COMPILED_WORK
) -> Array:
    """Cyclic coordinate descent on min ½ wGwᵀ − c·w, w ≥ 0, for each row; W in place.

    A row stops when Σ G_aa d_a² ≤ tol² Σ G_aa w_a² for the changes d of a sweep. Components with G_aa = 0 get 0,
    as does what would be denormal. A row's bits depend on that row, G and on which of the two codes runs.

    Parameters
    ----------
    C, W : ndarray of float32 or float64, shape (n_rows, n_components), C-contiguous, of one dtype
    G : ndarray of shape (n_components, n_components)
    max_sweeps : int
    tol : float
    compiled_work : int
        Rows times components squared from which compiled code is used.

    Returns
    -------
    ndarray of int32, shape (n_rows,)
        Sweeps used; ``max_sweeps + 1`` where a row was not done.
    """
    n, k = C.shape
    G = np.ascontiguousarray(G, dtype=C.dtype)
    if n * k * k < compiled_work:
        return sweeps_numpy(C, G, W, max_sweeps, tol)
    used = np.zeros(n, np.int32)
    _sweeps(np.ascontiguousarray(C), padded(G), steps_of(G), W, max_sweeps, C.dtype.type(tol * tol), used)
    return used


def sweeps_numpy(C: Array, G: Array, W: Array, max_sweeps: int, tol: float) -> Array:
    """The twin of the compiled sweeps: vectorised over rows, one component after the other."""
    diag, tiny = G.diagonal(), np.finfo(C.dtype).tiny
    live = np.flatnonzero(diag > 0)
    W[:, diag <= 0] = 0
    used = np.full(len(C), max_sweeps + 1, np.int32)
    at, c, w = np.arange(len(C)), np.ascontiguousarray(C.T), np.ascontiguousarray(W.T)
    for sweep in range(1, max_sweeps + 1):
        moved = np.zeros(len(at), C.dtype)
        for a in live:
            new = w[a] + (c[a] - G[a] @ w) / diag[a]
            new[new < tiny] = 0
            step = new - w[a]
            moved += diag[a] * step * step
            w[a] = new
        going = moved > C.dtype.type(tol * tol) * (diag[:, np.newaxis] * w * w).sum(axis=0)
        if going.all():
            continue
        W[at[~going]], used[at[~going]] = w[:, ~going].T, sweep
        at, c, w = at[going], np.ascontiguousarray(c[:, going]), np.ascontiguousarray(w[:, going])
    W[at] = w.T
    return used


def padded(G: Array) -> Array:
    """G with zero rows and columns up to a multiple of four."""
    k = len(G)
    width = -(-k // 4) * 4
    wide = np.zeros((width, width), G.dtype)
    wide[:k, :k] = G
    return wide


def steps_of(G: Array) -> Array:
    """1/diagonal (0 where there is none)."""
    diag = G.diagonal()
    return np.divide(1, diag, out=np.zeros_like(diag), where=diag > 0)
