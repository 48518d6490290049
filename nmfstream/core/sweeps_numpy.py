"""Least-squares rows of W by coordinate descent, in numpy: vectorised over rows, one component after the other.

The reference for the compiled sweeps, and what serves small inputs, where compiling would cost more than it saves.
"""

from __future__ import annotations

import numpy as np

from nmfstream.types import Array


def clipped_least_squares(C: Array, G: Array) -> Array:
    """max(0, C (G + εI)⁻¹), the start of a cold solve, each row scaled to its best multiple.

    Parameters
    ----------
    C : ndarray of shape (n_rows, n_components)
        X·Hᵀ, less the L1 weight.
    G : ndarray of float64, shape (n_components, n_components)
        H·Hᵀ, plus the L2 weight on its diagonal.
    """
    k = len(G)
    ridge = 1e-6 * np.trace(G) / k
    if not ridge > 0:
        return np.zeros_like(C)
    inverse = np.linalg.inv(G / ridge + np.eye(k)) / ridge
    W = np.maximum(C @ inverse.astype(C.dtype), 0)
    WG = W @ G.astype(C.dtype)
    along, length = np.einsum("ij,ij->i", W, C), np.einsum("ij,ij->i", W, WG)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.where(length > 0, np.maximum(along, 0) / length, 0)
    scaled: Array = W * scale[:, None].astype(C.dtype)
    return scaled


def descend(C: Array, G: Array, W: Array, sweeps: int, tol: float) -> Array:
    """Cyclic coordinate descent on min ½ wGwᵀ − cwᵀ, w ≥ 0 (HALS; Cichocki & Phan 2009), row by row.

    A row stops when Σ G_aa d_a² ≤ tol² Σ G_aa w_a² for the changes d of a sweep; components with G_aa = 0 get 0.

    Parameters
    ----------
    C, W : ndarray of shape (n_rows, n_components)
    G : ndarray of shape (n_components, n_components)

    Returns
    -------
    ndarray of shape (n_rows, n_components)
    """
    G = np.ascontiguousarray(G, dtype=C.dtype)
    diag = G.diagonal()
    live = np.flatnonzero(diag > 0)
    out = np.where(diag > 0, W, 0).astype(C.dtype, copy=False)
    at, c, w = np.arange(len(C)), np.ascontiguousarray(C.T), np.ascontiguousarray(out.T)
    for _ in range(sweeps):
        moved = np.zeros(len(at), C.dtype)
        for a in live:
            new = np.maximum(w[a] + (c[a] - G[a] @ w) / diag[a], 0)
            step = new - w[a]
            moved += diag[a] * step * step
            w[a] = new
        going = moved > tol * tol * (diag[:, None] * w * w).sum(axis=0)
        if going.all():
            continue
        out[at[~going]] = w[:, ~going].T
        at, c, w = at[going], np.ascontiguousarray(c[:, going]), np.ascontiguousarray(w[:, going])
        if not len(at):
            break
    out[at] = w.T
    return out
