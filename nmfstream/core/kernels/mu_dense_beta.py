"""Multiplicative steps on W of dense cells for divergences whose powers are products and roots.

As `mu_dense`, with a denominator for each cell besides.
"""

from __future__ import annotations

import numpy as np

from nmfstream.core.cells import EPSILON
from nmfstream.core.kernels.compiling import inner, kernel, scratch
from nmfstream.core.kernels.mu_dense import _products, _reconstruct, _transpose
from nmfstream.core.kernels.vectors import at_least, divide, fill, load, multiply, root, store
from nmfstream.core.kernels.widths import PANEL


@inner
def _power(v, halves, one):  # type: ignore[no-untyped-def]
    """v^(halves / 2)."""
    p = v
    if halves == -4:
        p = divide(one, multiply(v, v))
    elif halves == -3:
        p = divide(one, multiply(v, root(v)))
    elif halves == -1:
        p = divide(one, root(v))
    elif halves == 1:
        p = root(v)
    elif halves == 4:
        p = multiply(v, v)
    return p


@inner
def _cells(x, at, count, halves, floor, r, d):  # type: ignore[no-untyped-def]
    """r = x · v^(β-2), d = v^(β-1), of v in r; floors as in `cells.BetaCells`."""
    one = fill(x.dtype.type(1))
    for q in range(count):
        v = load(r, q, 0)
        floored = at_least(v, floor) if halves < 0 else v
        p = _power(floored, halves, one)
        store(r, q, 0, multiply(load(x, at + q, 0), p))
        store(d, q, 0, root(v) if halves == -1 else multiply(p, floored))


@inner
def _move(w, above, below, l1, l2, gamma, tiny, moved, size):  # type: ignore[no-untyped-def]
    moved[:] = 0
    size[:] = 0
    for c in range(w.shape[0]):
        for lane in range(w.shape[1]):
            old = w[c, lane]
            divisor = below[c, lane] + l1 + l2 * old
            factor = above[c, lane] / (tiny if divisor == 0 else divisor)
            if gamma == 0.5:
                factor = np.sqrt(factor)
            elif gamma != 1:
                factor = factor**gamma
            value = old * factor
            w[c, lane] = value
            moved[lane] += (value - old) * (value - old)
            size[lane] += value * value


@kernel
def dense_beta_steps(  # type: ignore[no-untyped-def]
    X, Ht, W, l1, l2, halves, gamma, lanes, n_steps, out, changes, norms
):
    """`n_steps` times W ← W · (Σ x·v^(β-2)·h / (Σ v^(β-1)·h + l1 + l2·W))^γ.

    Parameters
    ----------
    X, Ht, W, l2, lanes, n_steps, out, changes, norms
        As in `mu_dense.dense_kl_steps`.
    l1, gamma : float
        In W's type.
    halves : int
        2(β - 2): -4, -3, -1, 1, 2 or 4.
    """
    n, m = X.shape
    k, dtype = W.shape[1], W.dtype
    zero, tiny = dtype.type(0), dtype.type(EPSILON)
    x = scratch((m, lanes), dtype)
    r, d = scratch((PANEL, lanes), dtype), scratch((PANEL, lanes), dtype)
    w, above, below = scratch((k, lanes), dtype), scratch((k, lanes), dtype), scratch((k, lanes), dtype)
    moved, size = scratch(lanes, dtype), scratch(lanes, dtype)
    for first in range(0, n, lanes):
        count = min(lanes, n - first)
        _transpose(X, first, count, x)
        for c in range(k):
            for lane in range(count):
                w[c, lane] = W[first + lane, c]
            for lane in range(count, lanes):
                w[c, lane] = zero
        for step in range(n_steps):
            above[:] = zero
            below[:] = zero
            for j in range(0, m, PANEL):
                width = min(PANEL, m - j)
                _reconstruct(Ht, j, width, w, zero, r)
                _cells(x, j, width, halves, tiny, r, d)
                _products(r, Ht, j, width, zero, above)
                _products(d, Ht, j, width, zero, below)
            _move(w, above, below, l1, l2, gamma, tiny, moved, size)
            for lane in range(count):
                changes[step] += moved[lane]
                norms[step] += size[lane]
        for c in range(k):
            for lane in range(count):
                out[first + lane, c] = w[c, lane]
