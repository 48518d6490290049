"""One-variable Newton steps on rows for Kullback-Leibler: the row's columns of the other factor gathered once.

A row's nonzeros are filled up with zeros to whole vectors, so that a row of ten costs no more than its one vector.
"""

from __future__ import annotations

import numpy as np

from nmfstream.core.kernels.compiling import inner, kernel, scratch
from nmfstream.core.kernels.divergence_ccd import AFRESH
from nmfstream.core.kernels.vectors import (
    VECTOR_BYTES,
    add,
    add_product,
    add_products,
    at_least,
    fill,
    lanes_min,
    lanes_sum,
    lesser,
    load,
    multiply,
    quotient,
    store,
    turn,
)
from nmfstream.types import Array

X, V = 0, 1
"""Rows of the scratch: the row's values, and WF there."""


@inner
def _reconstruct(L, w, xv, k, width, lanes, least):  # type: ignore[no-untyped-def]
    for j in range(0, width, lanes):
        even, odd = fill(xv.dtype.type(0)), fill(xv.dtype.type(0))
        for a in range(0, k - 1, 2):
            even = add_product(w[a], load(L, a, j), even)
            odd = add_product(w[a + 1], load(L, a + 1, j), odd)
        if k % 2:
            even = add_product(w[k - 1], load(L, k - 1, j), even)
        store(xv, V, j, at_least(add(even, odd), least))


@inner
def _multiply(L, xv, w, s, k, width, lanes, least):  # type: ignore[no-untyped-def]
    _reconstruct(L, w, xv, k, width, lanes, least)
    for j in range(0, width, lanes):
        store(xv, V, j, quotient(load(xv, X, j), load(xv, V, j)))
    for a in range(k):
        total = fill(xv.dtype.type(0))
        for j in range(0, width, lanes):
            total = add_products(load(xv, V, j), load(L, a, j), total)
        if s[a] > 0:
            w[a] *= lanes_sum(total) / s[a]


@inner
def _from_flat(L, xv, w, s, sum_x, total_s, k, width, lanes, least, steps):  # type: ignore[no-untyped-def]
    for a in range(k):
        w[a] = sum_x / total_s if s[a] > 0 and total_s > 0 else xv.dtype.type(0)
    for _ in range(steps):
        _multiply(L, xv, w, s, k, width, lanes, least)


@inner
def _at_zero(L, a, xv, old, width, lanes, s, least):  # type: ignore[no-untyped-def]
    """A point below the minimum: the Newton point from w = 0, or 0 itself, or a tenth of w where 0 is a pole."""
    real = xv.dtype.type
    g, h, above = fill(real(0)), fill(real(0)), fill(real(1))
    for j in range(0, width, lanes):
        la, v = load(L, a, j), load(xv, V, j)
        rest = add_product(-old, la, v)
        above = lesser(above, add_product(real(-1e-5), v, rest))
        q = quotient(la, at_least(rest, least))
        r = multiply(load(xv, X, j), q)
        g = add(g, r)
        h = add_products(r, q, h)
    if lanes_min(above) <= 0:
        return real(0.1) * old
    slope, bend = s - lanes_sum(g), lanes_sum(h)
    if slope >= 0 or bend <= 0:
        return real(0)
    return max(min(-slope / bend, old), real(0.1) * old)


@inner
def _slope(L, a, xv, before, moved, width, lanes, least):  # type: ignore[no-untyped-def]
    """Σ x q and Σ x q² for q = F_a / WF, once the last step, `moved` of component `before`, is in WF."""
    g, h = fill(xv.dtype.type(0)), fill(xv.dtype.type(0))
    for j in range(0, width, lanes):
        v = at_least(add_product(moved, load(L, before, j), load(xv, V, j)), least)
        store(xv, V, j, v)
        q = quotient(load(L, a, j), v)
        r = multiply(load(xv, X, j), q)
        g = add(g, r)
        h = add_products(r, q, h)
    return lanes_sum(g), lanes_sum(h)


@inner
def _step(L, a, xv, before, moved, old, width, lanes, s, l2, prior, least):  # type: ignore[no-untyped-def]
    g, h = _slope(L, a, xv, before, moved, width, lanes, least)
    g = s + l2 * old - g
    h += l2
    if prior > 0:
        if old <= 0:
            return prior / s
        g -= prior / old
        h += prior / (old * old)
        return max(xv.dtype.type(0.2) * old, old - g / h) if h > 0 else old
    if h <= 0:
        return xv.dtype.type(0)
    new = old - g / h
    if new > 0 or old <= 0:
        return max(new, xv.dtype.type(0))
    return _at_zero(L, a, xv, old, width, lanes, s, least)


@inner
def _prior_alone(w, prior, s, l2):  # type: ignore[no-untyped-def]
    """The minimum where a row has no nonzeros: the root of l2 w² + s w = prior."""
    for a in range(s.shape[0]):
        if s[a] > 0:
            slope = s[a] if l2 == 0 else (s[a] + np.sqrt(s[a] * s[a] + 4 * l2 * prior[a])) / 2
            w[a] = prior[a] / slope


@inner
def _gather(indices, data, Ft, low, n, width, L, xv):  # type: ignore[no-untyped-def]
    """Four nonzeros and four components at a time, the last four of them perhaps once more."""
    k, total, j = L.shape[0], data.dtype.type(0), 0
    while k >= 4 and j + 4 <= n:
        p = low + j
        for a in range(0, k, 4):
            turn(Ft, indices[p], indices[p + 1], indices[p + 2], indices[p + 3], min(a, k - 4), L, j)
        j += 4
    while j < n:
        i0 = np.uint64(indices[low + j])
        for a in range(k):
            L[a, j] = Ft[i0, a]
        j += 1
    for j in range(n):
        xv[X, j] = data[low + j]
        total += data[low + j]
    for j in range(n, width):
        for a in range(k):
            L[a, j] = 0
        xv[X, j] = 0
    return total


@kernel
def ccd_rows(
    indptr: Array, indices: Array, data: Array, Ft: Array, s: Array, l2: float, V0: Array, W: Array, out: Array,
    cold: int, sweeps: int, tol: float,
) -> None:  # fmt: skip
    """See `divergence_ccd.ccd`; V0 of no rows: no prior; `out` of none: WF is not wanted.

    `cold` multiplicative steps precede from a flat start.
    """
    k, lanes = s.shape[0], VECTOR_BYTES // data.itemsize
    most = 1
    for i in range(indptr.shape[0] - 1):
        most = max(most, indptr[i + 1] - indptr[i])
    room = (most + lanes - 1) // lanes * lanes
    L, xv = scratch((k, room), data.dtype), scratch((2, room), data.dtype)
    zero = data.dtype.type(0)
    total_s = zero
    for a in range(k):
        total_s += s[a]
    for i in range(indptr.shape[0] - 1):
        low, n = indptr[i], indptr[i + 1] - indptr[i]
        width = (n + lanes - 1) // lanes * lanes
        w = W[i]
        if n == 0 and V0.shape[0]:
            _prior_alone(w, V0[i], s, l2)
            continue
        sum_x = _gather(indices, data, Ft, low, n, width, L, xv)
        least = max(data.dtype.type(1e-12) * sum_x / max(n, 1), np.finfo(data.dtype).tiny)
        if cold > 0:
            _from_flat(L, xv, w, s, sum_x, total_s, k, width, lanes, least, cold)
        _reconstruct(L, w, xv, k, width, lanes, least)
        step, before = zero, 0
        for sweep in range(sweeps):
            if sweep % AFRESH == AFRESH - 1:
                _reconstruct(L, w, xv, k, width, lanes, least)
                step = zero
            moved, size = zero, zero
            for a in range(k):
                if s[a] <= 0:
                    continue
                old = w[a]
                prior = V0[i, a] if V0.shape[0] else zero
                w[a] = _step(L, a, xv, before, step, old, width, lanes, s[a], l2, prior, least)
                step, before = w[a] - old, a
                moved = max(moved, abs(step) * s[a])
                size += w[a] * s[a]
            if moved <= tol * size:
                break
        if out.shape[0] == 0:
            continue
        _reconstruct(L, w, xv, k, width, lanes, least)
        for j in range(n):
            out[low - indptr[0] + j] = xv[V, j]
