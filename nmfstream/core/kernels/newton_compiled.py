"""Projected Newton on least-squares rows, one row after the other, Cholesky on the free components."""

from __future__ import annotations

import numpy as np

from nmfstream.core.kernels.compiling import inner, kernel, scratch
from nmfstream.types import Array

ROUNDING = 1e-15
"""What is left of a component that a step takes to its bound."""


@inner
def _gradient(c, G, w, g):  # type: ignore[no-untyped-def]
    """g = wG − c; the return value is max |min(w, g)|."""
    k = w.shape[0]
    for a in range(k):
        g[a] = -c[a]
    for b in range(k):
        if w[b] != 0:
            for a in range(k):
                g[a] += w[b] * G[b, a]
    worst = 0.0
    for a in range(k):
        worst = max(worst, abs(min(w[a], g[a])))
    return worst


@inner
def _cholesky(G, free, n, proximal, L):  # type: ignore[no-untyped-def]
    """Lower factor of G on the first n numbers of `free`."""
    for i in range(n):
        for j in range(i + 1):
            L[i, j] = G[free[i], free[j]]
    for i in range(n):
        for j in range(i):
            s = L[i, j]
            for p in range(j):
                s -= L[i, p] * L[j, p]
            L[i, j] = s / L[j, j]
        s = L[i, i] + proximal
        for p in range(i):
            s -= L[i, p] * L[i, p]
        L[i, i] = np.sqrt(max(s, proximal))


@inner
def _solve(L, n, y):  # type: ignore[no-untyped-def]
    for i in range(n):
        s = y[i]
        for p in range(i):
            s -= L[i, p] * y[p]
        y[i] = s / L[i, i]
    for i in range(n - 1, -1, -1):
        y[i] /= L[i, i]
        for p in range(i):
            y[p] -= L[i, p] * y[i]


@inner
def _change(G, g, s):  # type: ignore[no-untyped-def]
    """g·s + ½ sGs."""
    total = 0.0
    for a in range(s.shape[0]):
        if s[a] != 0:
            half = 0.0
            for b in range(s.shape[0]):
                half += G[a, b] * s[b]
            total += s[a] * (g[a] + 0.5 * half)
    return total


@inner
def _feasible(G, g, w, d):  # type: ignore[no-untyped-def]
    """Shorten d to the longest descent that meets no bound."""
    slope, curvature, bound = 0.0, 0.0, np.inf
    for a in range(w.shape[0]):
        if w[a] <= 0 and d[a] < 0:
            d[a] = 0
        if d[a] < 0:
            bound = min(bound, w[a] / -d[a])
    for a in range(w.shape[0]):
        if d[a] != 0:
            slope -= g[a] * d[a]
            for b in range(w.shape[0]):
                curvature += d[a] * G[a, b] * d[b]
    length = min(bound, slope / curvature if curvature > 0 else 1.0)
    for a in range(w.shape[0]):
        d[a] *= length


@kernel
def newton_rows(C: Array, G: Array, W: Array, max_iter: int, tol: float, proximal: float, used: Array) -> None:
    """See `newton_least_squares`.

    Parameters
    ----------
    C, W : ndarray of float64, shape (n, k), C-contiguous
    G : ndarray of float64, shape (k, k), C-contiguous
    used : ndarray of int32, shape (n,)
        Iterations of each row, zero at first.
    """
    n, k = C.shape
    g, d, projected, y = scratch(k), scratch(k), scratch(k), scratch(k)
    L = scratch((k, k))
    free = scratch(k, np.int64)
    for i in range(n):
        w = W[i]
        while used[i] < max_iter and _gradient(C[i], G, w, g) > tol:
            used[i] += 1
            m = 0
            for a in range(k):
                d[a] = 0
                if w[a] > 0 or g[a] < 0:
                    free[m] = a
                    y[m] = -g[a]
                    m += 1
            _cholesky(G, free, m, proximal, L)
            _solve(L, m, y)
            clipped = False
            for j in range(m):
                a = free[j]
                d[a] = y[j]
                clipped = clipped or w[a] + y[j] < 0
            for a in range(k):
                projected[a] = max(w[a] + d[a], 0.0) - w[a]
            if clipped:
                _feasible(G, g, w, d)
                if _change(G, g, projected) <= _change(G, g, d):
                    d[:] = projected
            longest, largest = 0.0, 0.0
            for a in range(k):
                longest, largest = max(longest, abs(d[a])), max(largest, w[a])
                moved = w[a] + d[a]
                w[a] = moved if moved > ROUNDING * w[a] else 0.0
            if longest <= 1e-16 * largest:
                break
