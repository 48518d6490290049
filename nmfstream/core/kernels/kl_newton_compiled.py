"""Sparse Kullback-Leibler rows to the end: projected Newton in float64 on the nonzeros of each row.

The algorithm of `core.newton_rows` for one row at a time; see there for sources and reasons.
"""

from __future__ import annotations

import numpy as np

from nmfstream.core.kernels.compiling import inner, kernel, scratch

FLOOR, HALVINGS, WHOLE, DESCENT, NOISE, SMALL, PROXIMAL, STALLED = 1e-30, 30, 4, 1e-4, 1e-14, 1e-3, 1e-12, 5


@inner
def _gather(indices, data, Ht, low, n, scale, x, L):  # type: ignore[no-untyped-def]
    """A row's cells and their columns of H as components × nonzeros; the sum of the cells."""
    total = 0.0
    for p in range(n):
        x[p] = data[low + p] / scale
        total += x[p]
        j = indices[low + p]
        for a in range(L.shape[0]):
            L[a, p] = Ht[j, a]
    return total


@inner
def _reconstruct(L, w, n, v):  # type: ignore[no-untyped-def]
    """v = wL, floored; components in fours so that v is read and written seldom."""
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
    for p in range(n):
        v[p] = max(v[p], FLOOR)


@inner
def _dots(r, L, n, count, out):  # type: ignore[no-untyped-def]
    """r · L_b for the first `count` rows of L, four at once."""
    fours = count // 4 * 4
    for b in range(0, fours, 4):
        s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
        for p in range(n):
            s0 += r[p] * L[b, p]
            s1 += r[p] * L[b + 1, p]
            s2 += r[p] * L[b + 2, p]
            s3 += r[p] * L[b + 3, p]
        out[b], out[b + 1], out[b + 2], out[b + 3] = s0, s1, s2, s3
    for b in range(fours, count):
        s0 = 0.0
        for p in range(n):
            s0 += r[p] * L[b, p]
        out[b] = s0


@inner
def _value(x, v, n, w, lin, l2):  # type: ignore[no-untyped-def]
    total = 0.0
    for p in range(n):
        total -= x[p] * np.log(v[p])
    for a in range(w.shape[0]):
        total += w[a] * (lin[a] + 0.5 * l2[a] * w[a])
    return total


@inner
def _first(x, L, n, v, w, lin, l2, r, above, g):  # type: ignore[no-untyped-def]
    """Ratios, numerators of a multiplicative step, and the gradient."""
    for p in range(n):
        r[p] = x[p] / v[p]
    _dots(r, L, n, w.shape[0], above)
    for a in range(w.shape[0]):
        g[a] = lin[a] + l2[a] * w[a] - above[a]


@inner
def _second(L, n, v, l2, r, z, P):  # type: ignore[no-untyped-def]
    """Lower half of the Hessian, from the ratios."""
    for a in range(P.shape[0]):
        for p in range(n):
            z[p] = r[p] / v[p] * L[a, p]
        _dots(z, L, n, a + 1, P[a])
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
    """Move w, and v with it, along the projected arc, or by a multiplicative step where no length serves.

    Returns whether it moved.
    """
    before = _value(x, v, n, w, lin, l2)
    slack, length, accepted = NOISE * (abs(before) + total), 1.0, False
    for halving in range(HALVINGS):
        if halving == WHOLE:
            for a in range(w.shape[0]):
                if d[a] < 0 and w[a] > 0:
                    length = min(length, w[a] / -d[a])
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
    if not accepted:
        _reconstruct(L, w, n, v)
    return moved


@inner
def _longest(indptr, n_rows):  # type: ignore[no-untyped-def]
    longest = 1
    for i in range(n_rows):
        longest = max(longest, indptr[i + 1] - indptr[i])
    return longest


@kernel
def gradients(indptr, indices, data, Ht, W, lin, l2, scales, out):  # type: ignore[no-untyped-def]
    """∂ of each row; shapes as in `newton`."""
    n_rows, k = W.shape
    longest = _longest(indptr, n_rows)
    L, x, v, r, above = scratch((k, longest)), scratch(longest), scratch(longest), scratch(longest), scratch(k)
    for i in range(n_rows):
        n = indptr[i + 1] - indptr[i]
        _gather(indices, data, Ht, indptr[i], n, scales[i], x, L)
        _reconstruct(L, W[i], n, v)
        _first(x, L, n, v, W[i], lin, l2[i], r, above, out[i])


@kernel
def newton(  # type: ignore[no-untyped-def]
    indptr, indices, data, Ht, W, lin, l2, scales, target, multiplicative, max_iter
):
    """Solve rows of W in place.

    Parameters
    ----------
    indptr, indices, data
        Rows of X in CSR form.
    Ht : ndarray of float64, shape (n_features, n_components), C-contiguous
    W, l2, target : ndarray of float64, shape (n, n_components)
        In the scale of each row; `target` bounds |min(w, ∂)|.
    lin : ndarray of float64, shape (n_components,)
        Row sums of H, plus the L1 weight.
    scales : ndarray of float64, shape (n,)
        By which a row of X is divided.
    """
    n_rows, k = W.shape
    longest = _longest(indptr, n_rows)
    L, P, F = scratch((k, longest)), scratch((k, k)), scratch((k, k))
    x, v, r, z = scratch(longest), scratch(longest), scratch(longest), scratch(longest)
    g, d, y, root, above, new = scratch(k), scratch(k), scratch(k), scratch(k), scratch(k), scratch(k)
    free = scratch(k, np.int64)
    for i in range(n_rows):
        n, w, last, stalled = indptr[i + 1] - indptr[i], W[i], False, 0
        total = _gather(indices, data, Ht, indptr[i], n, scales[i], x, L)
        _reconstruct(L, w, n, v)
        for _ in range(multiplicative):
            _first(x, L, n, v, w, lin, l2[i], r, above, g)
            for a in range(k):
                below = lin[a] + l2[i, a] * w[a]
                w[a] = w[a] * above[a] / below if below > 0 else 0.0
            _reconstruct(L, w, n, v)
        for _ in range(max_iter):
            _first(x, L, n, v, w, lin, l2[i], r, above, g)
            done = True
            for a in range(k):
                done = done and abs(min(w[a], g[a])) <= target[i, a]
            if (done and last) or stalled >= STALLED:
                break
            last = done
            _second(L, n, v, l2[i], r, z, P)
            _direction(w, g, P, lin, l2[i], above, free, root, y, F, d)
            stalled = 0 if _search(x, L, n, total, w, lin, l2[i], g, d, above, v, new) else stalled + 1
