"""Exact least-squares rows: projected Newton steps in float64 on the free components of each row.

For rows that coordinate sweeps leave unfinished (ill-conditioned or singular G). Bertsekas 1982 (projected Newton).
``newton_least_squares(C, G, W, max_iter, tol)``: W in place, returns the iterations used.
"""

from __future__ import annotations

import numpy as np

from nmfstream.machine_code import Kernel
from nmfstream.types import Array

_newton_rows = Kernel("nmfstream.core.kernels.newton_compiled", "newton_rows")

COMPILED_WORK = 1 << 17
"""Rows times components cubed from which compiled code pays."""
PROXIMAL = 1e-12
"""Added to the diagonal relative to its largest entry: a step towards the proximal point, exact in the limit, that
singular G (equal rows of H, more components than features) cannot break."""
ROUNDING = 1e-15
"""What is left of a component that a step takes to its bound."""


def newton_least_squares(C: Array, G: Array, W: Array, max_iter: int, tol: float) -> Array:
    """Minimise ½ wGwᵀ − c·w, w ≥ 0, for each row.

    Parameters
    ----------
    C, W : ndarray of float64, shape (n_rows, n_components), C-contiguous
        Of a scale where max |c| and the diagonal of G are about 1. W in place.
    G : ndarray of float64, shape (n_components, n_components)
        Symmetric, not negative.
    max_iter : int
    tol : float
        A row is done when max |min(w, wG − c)| is at most this.

    Returns
    -------
    ndarray of int32, shape (n_rows,)
        Iterations used.
    """
    n, k = C.shape
    proximal = PROXIMAL * float(G.diagonal().max(initial=0.0))
    if n * k * k * k < COMPILED_WORK:
        return newton_numpy(C, G, W, max_iter, tol, proximal)
    used = np.zeros(n, np.int32)
    _newton_rows(C, np.ascontiguousarray(G), W, max_iter, tol, proximal, used)
    return used


def newton_numpy(C: Array, G: Array, W: Array, max_iter: int, tol: float, proximal: float) -> Array:
    """The twin of the compiled iteration: all unfinished rows at once."""
    used = np.zeros(len(C), np.int32)
    rows = np.arange(len(C))
    for _ in range(max_iter):
        w = W[rows]
        g = w @ G - C[rows]
        going = np.abs(np.minimum(w, g)).max(axis=1) > tol
        rows, w, g = rows[going], w[going], g[going]
        if not len(rows):
            break
        step = _step(G, w, g, proximal)
        moved = w + step
        W[rows] = np.where(moved > ROUNDING * w, moved, 0)
        used[rows] += 1
        rows = rows[np.abs(step).max(axis=1) > 1e-16 * w.max(axis=1)]
    return used


def _step(G: Array, w: Array, g: Array, proximal: float) -> Array:
    """The better of the projected Newton step and the longest descent along its feasible part."""
    free = (w > 0) | (g < 0)
    d = masked_solve(np.broadcast_to(G, (len(w), *G.shape)), -g, free, proximal)
    projected = np.maximum(w + d, 0) - w
    d[(w <= 0) & (d < 0)] = 0
    curvature = np.einsum("ij,ij->i", d @ G, d)
    best = np.divide(-np.einsum("ij,ij->i", g, d), curvature, out=np.ones(len(w)), where=curvature > 0)
    bound = np.divide(w, -d, out=np.full_like(w, np.inf), where=d < 0).min(axis=1)
    feasible: Array = np.minimum(best, bound)[:, np.newaxis] * d
    better = _change(G, g, projected) <= _change(G, g, feasible)
    return np.asarray(np.where(better[:, np.newaxis], projected, feasible))


def _change(G: Array, g: Array, step: Array) -> Array:
    return np.asarray(np.einsum("ij,ij->i", g + 0.5 * (step @ G), step))


def masked_solve(P: Array, b: Array, free: Array, proximal: float | Array) -> Array:
    """Solve P_FF d_F = b_F for each row; d is zero off the free set F.

    Parameters
    ----------
    P : ndarray of float64, shape (n_rows, k, k)
    b : ndarray of float64, shape (n_rows, k)
    free : ndarray of bool, shape (n_rows, k)
    proximal : float or ndarray of shape (n_rows,)
        Added to the diagonal.
    """
    k = b.shape[1]
    system = np.where(free[:, :, np.newaxis] & free[:, np.newaxis, :], P, 0.0)
    diagonal = np.where(free, np.reshape(proximal, (-1, 1)), 1.0)
    system[:, np.arange(k), np.arange(k)] += diagonal
    return np.asarray(np.linalg.solve(system, np.where(free, b, 0.0)[:, :, np.newaxis])[:, :, 0])
