"""Sparse Kullback-Leibler rows to the end: projected Newton in float64 on the nonzeros of each row.

The algorithm of `core.newton_rows` for one row at a time; see there for sources and reasons.
"""

from __future__ import annotations

import numpy as np

from nmfstream.core.kernels.compiling import inner, kernel

FLOOR, HALVINGS, DESCENT, NOISE, SMALL, PROXIMAL, STALLED = 1e-30, 30, 1e-4, 1e-14, 1e-3, 1e-12, 5


@inner
def _reconstruct(L, w, n, v):  # type: ignore[no-untyped-def]
    for p in range(n):
        v[p] = 0
    for a in range(w.shape[0]):
        if w[a] != 0:
            for p in range(n):
                v[p] += w[a] * L[a, p]
    for p in range(n):
        v[p] = max(v[p], FLOOR)


@inner
def _value(x, v, n, w, lin, l2):  # type: ignore[no-untyped-def]
    total = 0.0
    for p in range(n):
        total -= x[p] * np.log(v[p])
    for a in range(w.shape[0]):
        total += w[a] * (lin[a] + 0.5 * l2[a] * w[a])
    return total


@inner
def _derivatives(x, L, n, v, w, lin, l2, r, above, g, P):  # type: ignore[no-untyped-def]
    """Numerators of a multiplicative step, gradient and lower half of the Hessian."""
    k = w.shape[0]
    for p in range(n):
        r[p] = x[p] / v[p]
    for a in range(k):
        s = 0.0
        for p in range(n):
            s += r[p] * L[a, p]
        above[a] = s
        g[a] = lin[a] + l2[a] * w[a] - s
    for p in range(n):
        r[p] /= v[p]
    for a in range(k):
        for b in range(a + 1):
            s = 0.0
            for p in range(n):
                s += r[p] * L[a, p] * L[b, p]
            P[a, b] = s
        P[a, a] += l2[a]


@inner
def _factor(P, free, n, root, F):  # type: ignore[no-untyped-def]
    """Cholesky of P on `free`, scaled to a diagonal of ones."""
    for i in range(n):
        for j in range(i + 1):
            a, b = free[i], free[j]
            s = P[a, b] * root[a] * root[b] if a >= b else P[b, a] * root[a] * root[b]
            for p in range(j):
                s -= F[i, p] * F[j, p]
            if i == j:
                F[i, i] = np.sqrt(max(s + PROXIMAL, PROXIMAL))
            else:
                F[i, j] = s / F[j, j]


@inner
def _solve(F, n, y):  # type: ignore[no-untyped-def]
    for i in range(n):
        s = y[i]
        for p in range(i):
            s -= F[i, p] * y[p]
        y[i] = s / F[i, i]
    for i in range(n - 1, -1, -1):
        y[i] /= F[i, i]
        for p in range(i):
            y[p] -= F[i, p] * y[i]


@inner
def _direction(w, g, P, lin, l2, above, free, root, y, F, d):  # type: ignore[no-untyped-def]
    k, n, largest = w.shape[0], 0, 0.0
    for a in range(k):
        largest = max(largest, w[a])
    for a in range(k):
        flat = P[a, a] <= 0
        near = g[a] > 0 and w[a] <= SMALL * largest and w[a] * P[a, a] <= g[a]
        root[a] = 1.0 if flat else 1.0 / np.sqrt(P[a, a])
        d[a] = -w[a] if g[a] > 0 else 0.0
        if not flat and not near and (w[a] > 0 or g[a] < 0):
            free[n] = a
            y[n] = -g[a] * root[a]
            n += 1
    _factor(P, free, n, root, F)
    _solve(F, n, y)
    for i in range(n):
        d[free[i]] = y[i] * root[free[i]]
    for a in range(k):
        below = lin[a] + l2[a] * w[a]
        if g[a] < 0 and w[a] <= SMALL * largest and below > 0:
            d[a] = max(d[a], w[a] * (above[a] / below - 1.0))


@inner
def _search(x, L, n, total, w, lin, l2, g, d, above, v, new):  # type: ignore[no-untyped-def]
    """Move w along the projected arc, or by a multiplicative step where no length serves; whether it moved."""
    before = _value(x, v, n, w, lin, l2)
    slack, length, accepted = NOISE * (abs(before) + total), 1.0, False
    for _ in range(HALVINGS):
        slope = 0.0
        for a in range(w.shape[0]):
            new[a] = max(w[a] + length * d[a], 0.0)
            slope += g[a] * (new[a] - w[a])
        _reconstruct(L, new, n, v)
        accepted = slope <= 0 and _value(x, v, n, new, lin, l2) <= before + DESCENT * slope + slack
        if accepted:
            break
        length *= 0.5
    moved = False
    for a in range(w.shape[0]):
        if not accepted:
            below = lin[a] + l2[a] * w[a]
            new[a] = w[a] * above[a] / below if below > 0 else 0.0
        moved = moved or abs(new[a] - w[a]) > 1e-15 * new[a]
        w[a] = new[a]
    return moved


@kernel
def sparse_newton(indptr, indices, data, Ht, W, lin, l2, scales, target, max_iter, used):  # type: ignore[no-untyped-def]
    """Solve rows of W in place.

    Parameters
    ----------
    indptr, indices, data
        Rows of X in CSR form.
    Ht : ndarray of float64, shape (n_features, n_components), C-contiguous
    W, lin, l2, target : ndarray of float64, shape (n, n_components)
        In the scale of each row; `lin` includes the row sums of H, `target` bounds |min(w, ∂)|.
    scales : ndarray of float64, shape (n,)
        By which a row of X is divided.
    used : ndarray of int32, shape (n,)
        Iterations, zero at first.
    """
    n_rows, k = W.shape
    longest = 1
    for i in range(n_rows):
        longest = max(longest, indptr[i + 1] - indptr[i])
    L, P, F = np.zeros((k, longest)), np.zeros((k, k)), np.zeros((k, k))
    x, v, r = np.zeros(longest), np.zeros(longest), np.zeros(longest)
    g, d, y, root, above, new = np.zeros(k), np.zeros(k), np.zeros(k), np.zeros(k), np.zeros(k), np.zeros(k)
    free = np.zeros(k, np.int64)
    for i in range(n_rows):
        low, n, total = indptr[i], indptr[i + 1] - indptr[i], 0.0
        for p in range(n):
            x[p] = data[low + p] / scales[i]
            total += x[p]
            j = indices[low + p]
            for a in range(k):
                L[a, p] = Ht[j, a]
        w, last, stalled = W[i], False, 0
        while used[i] < max_iter and stalled < STALLED:
            _reconstruct(L, w, n, v)
            _derivatives(x, L, n, v, w, lin[i], l2[i], r, above, g, P)
            done = True
            for a in range(k):
                done = done and abs(min(w[a], g[a])) <= target[i, a]
            if done and last:
                break
            last = done
            used[i] += 1
            _direction(w, g, P, lin[i], l2[i], above, free, root, y, F, d)
            moved = _search(x, L, n, total, w, lin[i], l2[i], g, d, above, v, new)
            stalled = 0 if moved else stalled + 1
