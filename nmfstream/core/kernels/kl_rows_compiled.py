"""Kullback-Leibler rows: the cells of a row and their columns of H stay in the first-level cache while it is solved.

A sparse row gathers its columns of H once, as components × nonzeros. Between two components v is moved by the last
step in the same loop that sums the next one's derivatives.
"""

from __future__ import annotations

import numpy as np

from nmfstream.core.kernels.compiling import inner, kernel

FLOOR = 1e-12
KEPT = 0.2
LEAST = 1e-30
"""Of v where x is zero, in the scale of the row."""


@inner
def _reconstruct(L, w, n, v):  # type: ignore[no-untyped-def]
    """v = wL; components in fours so that v is read and written seldom."""
    fours = w.shape[0] // 4 * 4
    for p in range(n):
        v[p] = 0
    for a in range(0, fours, 4):
        w0, w1, w2, w3 = w[a], w[a + 1], w[a + 2], w[a + 3]
        for p in range(n):
            v[p] += (w0 * L[a, p] + w1 * L[a + 1, p]) + (w2 * L[a + 2, p] + w3 * L[a + 3, p])
    for a in range(fours, w.shape[0]):
        for p in range(n):
            v[p] += w[a] * L[a, p]


@inner
def _ratios(x, n, floor, v):  # type: ignore[no-untyped-def]
    for p in range(n):
        v[p] = x[p] / max(v[p], floor * x[p]) if x[p] > 0 else x.dtype.type(0)


@inner
def _numerators(r, L, n, out):  # type: ignore[no-untyped-def]
    """Lr, four dot products at once."""
    zero = r.dtype.type(0)
    fours = out.shape[0] // 4 * 4
    for a in range(0, fours, 4):
        s0, s1, s2, s3 = zero, zero, zero, zero
        for p in range(n):
            s0 += r[p] * L[a, p]
            s1 += r[p] * L[a + 1, p]
            s2 += r[p] * L[a + 2, p]
            s3 += r[p] * L[a + 3, p]
        out[a], out[a + 1], out[a + 2], out[a + 3] = s0, s1, s2, s3
    for a in range(fours, out.shape[0]):
        s0 = zero
        for p in range(n):
            s0 += r[p] * L[a, p]
        out[a] = s0


@inner
def _multiply(x, L, n, w, below, l2, scale, V0, floor, v, above):  # type: ignore[no-untyped-def]
    """A multiplicative step (with the prior, an expectation-maximization step)."""
    _reconstruct(L, w, n, v)
    _ratios(x, n, floor, v)
    _numerators(v, L, n, above)
    for a in range(w.shape[0]):
        divisor = below[a] + l2[a] / scale * w[a]
        w[a] = (w[a] * above[a] + V0[a]) / divisor if divisor > 0 else x.dtype.type(0)


@inner
def _derivatives(x, last, d, h, n, floor, v):  # type: ignore[no-untyped-def]
    """Move v by d·last, then sum x h/v and x h²/v²."""
    zero, least = x.dtype.type(0), x.dtype.type(LEAST)
    first, second = zero, zero
    for p in range(n):
        moved = v[p] + d * last[p]
        v[p] = moved
        t = h[p] / max(moved, floor * x[p] + least)
        xt = x[p] * t
        first += xt
        second += xt * t
    return first, second


@inner
def _sweep(x, L, n, w, below, l2, scale, V0, floor, kept, v):  # type: ignore[no-untyped-def]
    """One sweep over the components; returns Σ h d², Σ h w²."""
    zero = x.dtype.type(0)
    moved, size, d = zero, zero, zero
    before = 0
    for a in range(w.shape[0]):
        first, second = _derivatives(x, L[before], d, L[a], n, floor, v)
        old = w[a]
        least = zero
        weight = l2[a] / scale
        slope = below[a] + weight * old - first
        curvature = second + weight
        if V0[a] > 0 and old > 0:
            least = kept * old
            slope -= V0[a] / old
            curvature += V0[a] / old / old
        new = old
        if curvature > 0:
            new = max(least, old - slope / curvature)
        elif slope > 0:
            new = least
        d = new - old
        w[a] = new
        moved += curvature * d * d
        size += curvature * new * new
        before = a
    for p in range(n):
        v[p] += d * L[before, p]
    return moved, size


@inner
def _row(x, L, n, scale, W, i, below, l2, prior, mu_steps, max_sweeps, tol2, used, w, V0, v, above):  # type: ignore[no-untyped-def]
    """Solve row i, scaled so that its largest cell is about 1."""
    floor, kept, tiny = x.dtype.type(FLOOR), x.dtype.type(KEPT), np.finfo(x.dtype).tiny
    for a in range(w.shape[0]):
        w[a] = W[i, a] * scale
        V0[a] = prior[i, a] * scale if prior.shape[0] > 0 else x.dtype.type(0)
    for _ in range(mu_steps):
        _multiply(x, L, n, w, below, l2, scale, V0, floor, v, above)
    done = False
    while not done and used[i] < max_sweeps:
        used[i] += 1
        _reconstruct(L, w, n, v)
        moved, size = _sweep(x, L, n, w, below, l2, scale, V0, floor, kept, v)
        done = moved <= tol2 * size
    if not done and max_sweeps > 0:
        used[i] += 1
    for a in range(w.shape[0]):
        W[i, a] = w[a] / scale if w[a] >= tiny * scale else x.dtype.type(0)


@inner
def _power_of_two(largest):  # type: ignore[no-untyped-def]
    """The power of two that brings `largest` to about 1."""
    return 2.0 ** -np.floor(np.log2(largest))


@kernel
def sparse_rows(  # type: ignore[no-untyped-def]
    indptr, indices, data, Ht, W, below, l2, prior, mu_steps, max_sweeps, tol2, used
):
    """See `kl_rows.kl_rows_ccd`; `prior` has no rows where there is none."""
    k, longest = W.shape[1], 1
    for i in range(W.shape[0]):
        longest = max(longest, indptr[i + 1] - indptr[i])
    L = np.zeros((k, longest), W.dtype)
    x, v = np.zeros(longest, W.dtype), np.zeros(longest, W.dtype)
    w, V0, above = np.zeros(k, W.dtype), np.zeros(k, W.dtype), np.zeros(k, W.dtype)
    for i in range(W.shape[0]):
        low, n = indptr[i], indptr[i + 1] - indptr[i]
        largest = 0.0
        for p in range(n):
            largest = max(largest, data[low + p])
        scale = W.dtype.type(_power_of_two(largest) if largest > 0 else 1.0)
        for p in range(n):
            x[p] = data[low + p] * scale
            j = indices[low + p]
            for a in range(k):
                L[a, p] = Ht[j, a]
        _row(x, L, n, scale, W, i, below, l2, prior, mu_steps, max_sweeps, tol2, used, w, V0, v, above)


@kernel
def dense_rows(X, H, W, below, l2, prior, mu_steps, max_sweeps, tol2, used):  # type: ignore[no-untyped-def]
    """See `kl_rows.kl_rows_ccd`."""
    k, n = H.shape
    x, v = np.zeros(n, W.dtype), np.zeros(n, W.dtype)
    w, V0, above = np.zeros(k, W.dtype), np.zeros(k, W.dtype), np.zeros(k, W.dtype)
    for i in range(W.shape[0]):
        largest = 0.0
        for p in range(n):
            largest = max(largest, X[i, p])
        scale = W.dtype.type(_power_of_two(largest) if largest > 0 else 1.0)
        for p in range(n):
            x[p] = X[i, p] * scale
        _row(x, H, n, scale, W, i, below, l2, prior, mu_steps, max_sweeps, tol2, used, w, V0, v, above)
