"""Multiplicative steps on rows of W at fixed H, many at once: a row never leaves the first-level cache.

Frobenius works on a vector of rows (components x lanes); sparse Kullback-Leibler row by row, on the
columns of H that the row touches, gathered once as components x nonzeros.
"""

from __future__ import annotations

from nmfstream.core.cells import EPSILON
from nmfstream.core.kernels.compiling import inner, kernel, scratch
from nmfstream.core.kernels.vectors import add, add_product, divide, fill, load, multiply, store, subtract, unless_zero


@inner
def _load_lanes(C, W, first, n, c, w):  # type: ignore[no-untyped-def]
    for a in range(W.shape[1]):
        for lane in range(n):
            c[a, lane] = C[first + lane, a]
            w[a, lane] = W[first + lane, a]
        for lane in range(n, w.shape[1]):
            c[a, lane] = 0
            w[a, lane] = 0


@inner
def _move(a, c, w, below, l1, l2, tiny, new, sums):  # type: ignore[no-untyped-def]
    """Component a of W; sums of its squares before and after go to `sums`."""
    old = load(w, a, 0)
    divisor = unless_zero(add_product(l2, old, add(below, l1)), tiny)
    value = multiply(old, divide(load(c, a, 0), divisor))
    moved = subtract(value, old)
    store(new, a, 0, value)
    store(sums, 0, 0, add(load(sums, 0, 0), multiply(moved, moved)))
    store(sums, 1, 0, add(load(sums, 1, 0), multiply(value, value)))


@inner
def _frobenius_step(c, G, w, l1, l2, tiny, new, sums):  # type: ignore[no-untyped-def]
    """W·G of four components at once, in registers; G is padded to multiples of four."""
    nothing = fill(sums.dtype.type(0))
    store(sums, 0, 0, nothing)
    store(sums, 1, 0, nothing)
    for a in range(0, G.shape[0], 4):
        v0, v1, v2, v3 = nothing, nothing, nothing, nothing
        for b in range(G.shape[0]):
            part = load(w, b, 0)
            v0 = add_product(G[a, b], part, v0)
            v1 = add_product(G[a + 1, b], part, v1)
            v2 = add_product(G[a + 2, b], part, v2)
            v3 = add_product(G[a + 3, b], part, v3)
        _move(a, c, w, v0, l1, l2, tiny, new, sums)
        _move(a + 1, c, w, v1, l1, l2, tiny, new, sums)
        _move(a + 2, c, w, v2, l1, l2, tiny, new, sums)
        _move(a + 3, c, w, v3, l1, l2, tiny, new, sums)


@kernel
def frobenius_steps(C, G, W, l1, l2, lanes, n_steps, out, changes, norms):  # type: ignore[no-untyped-def]
    """`n_steps` times W ← W · C / (W·G + l1 + l2·W).

    Parameters
    ----------
    C : ndarray of shape (n_rows, n_components)
        X·Hᵀ.
    G : ndarray of shape (K, K)
        HHᵀ, K = n_components rounded up to a multiple of four, padded with zeros.
    W : ndarray of shape (n_rows, n_components)
    l1, l2 : float
        In W's type.
    lanes : int
        See `widths.lanes`.
    out : ndarray like W
    changes, norms : ndarray of float64, shape (n_steps,)
        ‖W - W before‖² and ‖W‖² of each step are added.
    """
    n_rows, k = W.shape
    shape = (G.shape[0], lanes)
    c, w, new = scratch(shape, W.dtype), scratch(shape, W.dtype), scratch(shape, W.dtype)
    sums, tiny, sparsity = scratch((2, lanes), W.dtype), W.dtype.type(EPSILON), fill(l1)
    for first in range(0, n_rows, lanes):
        n = min(lanes, n_rows - first)
        _load_lanes(C, W, first, n, c, w)
        for step in range(n_steps):
            _frobenius_step(c, G, w, sparsity, l2, tiny, new, sums)
            w, new = new, w
            for lane in range(lanes):
                changes[step] += sums[0, lane]
                norms[step] += sums[1, lane]
        for a in range(k):
            for lane in range(n):
                out[first + lane, a] = w[a, lane]


@inner
def _gather(indices, data, Ht, low, nnz, x, L):  # type: ignore[no-untyped-def]
    for p in range(nnz):
        j = indices[low + p]
        x[p] = data[low + p]
        for a in range(Ht.shape[1]):
            L[a, p] = Ht[j, a]


@inner
def _ratios(x, L, w, nnz, tiny, r):  # type: ignore[no-untyped-def]
    """x / WH of one row; components in fours so that WH is read and written seldom."""
    fours = w.shape[0] // 4 * 4
    for p in range(nnz):
        r[p] = 0
    for a in range(0, fours, 4):
        w0, w1, w2, w3 = w[a], w[a + 1], w[a + 2], w[a + 3]
        for p in range(nnz):
            r[p] += (w0 * L[a, p] + w1 * L[a + 1, p]) + (w2 * L[a + 2, p] + w3 * L[a + 3, p])
    for a in range(fours, w.shape[0]):
        for p in range(nnz):
            r[p] += w[a] * L[a, p]
    for p in range(nnz):
        r[p] = x[p] / max(r[p], tiny)


@inner
def _numerators(r, L, nnz, zero, new):  # type: ignore[no-untyped-def]
    """Four dot products at once."""
    fours = new.shape[0] // 4 * 4
    for a in range(0, fours, 4):
        s0, s1, s2, s3 = zero, zero, zero, zero
        for p in range(nnz):
            ratio = r[p]
            s0 += ratio * L[a, p]
            s1 += ratio * L[a + 1, p]
            s2 += ratio * L[a + 2, p]
            s3 += ratio * L[a + 3, p]
        new[a], new[a + 1], new[a + 2], new[a + 3] = s0, s1, s2, s3
    for a in range(fours, new.shape[0]):
        s0 = zero
        for p in range(nnz):
            s0 += r[p] * L[a, p]
        new[a] = s0


@kernel
def sparse_kl_steps(  # type: ignore[no-untyped-def]
    indptr, indices, data, Ht, W, below, l2, n_steps, out, changes, norms
):
    """`n_steps` times W ← W · ((X / WH)·Hᵀ) / (below + l2·W), on the nonzeros of X.

    Parameters
    ----------
    indptr, indices, data
        Rows of X in CSR form.
    Ht : ndarray of shape (n_features, n_components), C-contiguous
    W : ndarray of shape (n_rows, n_components)
    below : ndarray of shape (n_components,)
        Row sums of H and the L1 weight.
    l2 : float
    out, changes, norms
        As in `frobenius_steps`.
    """
    n_rows, k = W.shape
    zero, tiny = W.dtype.type(0), W.dtype.type(EPSILON)
    longest = 0
    for i in range(n_rows):
        longest = max(longest, indptr[i + 1] - indptr[i])
    L = scratch((k, longest), W.dtype)
    x, r = scratch(longest, W.dtype), scratch(longest, W.dtype)
    w, new = scratch(k, W.dtype), scratch(k, W.dtype)
    for i in range(n_rows):
        nnz = indptr[i + 1] - indptr[i]
        _gather(indices, data, Ht, indptr[i], nnz, x, L)
        for a in range(k):
            w[a] = W[i, a]
        for step in range(n_steps):
            _ratios(x, L, w, nnz, tiny, r)
            _numerators(r, L, nnz, zero, new)
            change, norm = zero, zero
            for a in range(k):
                old = w[a]
                divisor = below[a] + l2 * old
                divisor = tiny if divisor == 0 else divisor
                value = old * (new[a] / divisor)
                change += (value - old) * (value - old)
                norm += value * value
                w[a] = value
            changes[step] += change
            norms[step] += norm
        for a in range(k):
            out[i, a] = w[a]


@kernel
def sparse_kl_sums(indptr, indices, data, Ht, W, ratios, sums):  # type: ignore[no-untyped-def]
    """Numerators of H: sums[j] += Σᵢ xᵢⱼ / (WH)ᵢⱼ · wᵢ, and the ratios x / WH in the order of the nonzeros.

    Parameters
    ----------
    indptr, indices, data
        Rows of X in CSR form, ``indptr[0] == 0``.
    Ht : ndarray of shape (n_features, n_components), C-contiguous
    W : ndarray of shape (n_rows, n_components)
    ratios : ndarray of shape (nnz,)
    sums : ndarray of shape (n_features, n_components)
    """
    n_rows, k = W.shape
    zero, tiny = W.dtype.type(0), W.dtype.type(EPSILON)
    w = scratch(k, W.dtype)
    for i in range(n_rows):
        for a in range(k):
            w[a] = W[i, a]
        for p in range(indptr[i], indptr[i + 1]):
            j = indices[p]
            v = zero
            for a in range(k):
                v += w[a] * Ht[j, a]
            ratio = data[p] / max(v, tiny)
            ratios[p] = ratio
            for a in range(k):
                sums[j, a] += ratio * w[a]


@kernel
def sparse_times(indptr, indices, data, Ht, out):  # type: ignore[no-untyped-def]
    """out = X·Hᵀ for rows of X in CSR form."""
    k = Ht.shape[1]
    acc = scratch(k, Ht.dtype)
    for i in range(out.shape[0]):
        for a in range(k):
            acc[a] = 0
        for p in range(indptr[i], indptr[i + 1]):
            x, j = data[p], indices[p]
            for a in range(k):
                acc[a] += x * Ht[j, a]
        for a in range(k):
            out[i, a] = acc[a]


@kernel
def sparse_sums(indptr, indices, data, W, sums):  # type: ignore[no-untyped-def]
    """sums += XᵀW for rows of X in CSR form."""
    k = W.shape[1]
    w = scratch(k, W.dtype)
    for i in range(W.shape[0]):
        for a in range(k):
            w[a] = W[i, a]
        for p in range(indptr[i], indptr[i + 1]):
            x, j = data[p], indices[p]
            for a in range(k):
                sums[j, a] += x * w[a]
