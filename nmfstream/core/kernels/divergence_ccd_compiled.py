"""One-variable Newton steps on rows for Kullback-Leibler: the row's columns of the other factor gathered once."""

from __future__ import annotations

import numpy as np

from nmfstream.core.kernels.compiling import inner, kernel
from nmfstream.core.kernels.divergence_ccd import AFRESH
from nmfstream.types import Array


@inner
def _reconstruct(L, w, v, k, n, least):  # type: ignore[no-untyped-def]
    for j in range(n):
        v[j] = 0
    a = 0
    while a + 4 <= k:
        w0, w1, w2, w3 = w[a], w[a + 1], w[a + 2], w[a + 3]
        for j in range(n):
            v[j] += (w0 * L[a, j] + w1 * L[a + 1, j]) + (w2 * L[a + 2, j] + w3 * L[a + 3, j])
        a += 4
    while a < k:
        for j in range(n):
            v[j] += w[a] * L[a, j]
        a += 1
    for j in range(n):
        v[j] = max(v[j], least)


@inner
def _multiply(L, x, v, w, s, k, n, least):  # type: ignore[no-untyped-def]
    _reconstruct(L, w, v, k, n, least)
    for j in range(n):
        v[j] = x[j] / v[j]
    for a in range(k):
        total = x.dtype.type(0)
        for j in range(n):
            total += v[j] * L[a, j]
        if s[a] > 0:
            w[a] *= total / s[a]


@inner
def _at_zero(La, x, v, old, n, s, least):  # type: ignore[no-untyped-def]
    """A point below the minimum: the Newton point from w = 0, or 0 itself, or a tenth of w where 0 is a pole."""
    g, h = s, x.dtype.type(0)
    for j in range(n):
        rest = v[j] - old * La[j]
        if La[j] > 0 and rest <= x.dtype.type(1e-5) * v[j]:
            return x.dtype.type(0.1) * old
        q = La[j] / max(rest, least)
        g -= x[j] * q
        h += x[j] * q * q
    if g >= 0 or h <= 0:
        return x.dtype.type(0)
    return max(min(-g / h, old), x.dtype.type(0.1) * old)


@inner
def _step(La, x, v, old, n, s, l2, prior, least):  # type: ignore[no-untyped-def]
    g, h = x.dtype.type(0), x.dtype.type(0)
    for j in range(n):
        q = La[j] / v[j]
        r = x[j] * q
        g += r
        h += r * q
    g = s + l2 * old - g
    h += l2
    if prior > 0:
        if old <= 0:
            return prior / s
        g -= prior / old
        h += prior / (old * old)
        return max(x.dtype.type(0.2) * old, old - g / h) if h > 0 else old
    if h <= 0:
        return x.dtype.type(0)
    new = old - g / h
    if new > 0 or old <= 0:
        return max(new, x.dtype.type(0))
    return _at_zero(La, x, v, old, n, s, least)


@kernel
def ccd_rows(
    indptr: Array, indices: Array, data: Array, Ft: Array, s: Array, l2: float, V0: Array, W: Array, V: Array,
    cold: int, sweeps: int, tol: float,
) -> None:  # fmt: skip
    """See `divergence_ccd.ccd`; V0 of no rows means no prior, `cold` multiplicative steps precede from a flat start."""
    k = s.shape[0]
    most = 1
    for i in range(indptr.shape[0] - 1):
        most = max(most, indptr[i + 1] - indptr[i])
    L = np.empty((k, most), data.dtype)
    total_s = data.dtype.type(0)
    for a in range(k):
        total_s += s[a]
    for i in range(indptr.shape[0] - 1):
        low, high = indptr[i], indptr[i + 1]
        n = high - low
        w, x, v = W[i], data[low:high], V[low - indptr[0] : high - indptr[0]]
        for j in range(n):
            for a in range(k):
                L[a, j] = Ft[indices[low + j], a]
        sum_x = data.dtype.type(0)
        for j in range(n):
            sum_x += x[j]
        least = data.dtype.type(1e-12) * sum_x / max(n, 1)
        least = max(least, np.finfo(data.dtype).tiny)
        if cold > 0:
            for a in range(k):
                w[a] = sum_x / total_s if s[a] > 0 and total_s > 0 else data.dtype.type(0)
            for _ in range(cold):
                _multiply(L, x, v, w, s, k, n, least)
        _reconstruct(L, w, v, k, n, least)
        for sweep in range(sweeps):
            if sweep % AFRESH == AFRESH - 1:
                _reconstruct(L, w, v, k, n, least)
            moved, size = data.dtype.type(0), data.dtype.type(0)
            for a in range(k):
                if s[a] <= 0:
                    continue
                old = w[a]
                prior = V0[i, a] if V0.shape[0] else data.dtype.type(0)
                new = _step(L[a], x, v, old, n, s[a], l2, prior, least)
                d = new - old
                if d != 0:
                    w[a] = new
                    for j in range(n):
                        v[j] = max(v[j] + d * L[a, j], least)
                moved = max(moved, abs(d) * s[a])
                size += new * s[a]
            if moved <= tol * size:
                break
        _reconstruct(L, w, v, k, n, least)
