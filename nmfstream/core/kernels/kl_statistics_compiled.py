"""Kullback-Leibler statistics of CSR rows; see `kl_statistics`."""

from __future__ import annotations

import numpy as np

from nmfstream.core.kernels.compiling import kernel

FLOOR = 1e-12
MOST = 1e30


@kernel
def sparse_statistics(indptr, indices, data, Ht, W, ratios, P, Q):  # type: ignore[no-untyped-def]
    """P += (X/V)ᵀW, Q += (X/V²)ᵀW² (skipped where Q has no rows), ratios = x/v in the order of the nonzeros.

    Parameters
    ----------
    Ht, P, Q : ndarray of shape (n_features, n_components), C-contiguous
    W : ndarray of shape (n_rows, n_components)
    ratios : ndarray of shape (nnz,)
    """
    n, k = W.shape
    w, square = np.zeros(k, W.dtype), np.zeros(k, W.dtype)
    zero, floor, most = W.dtype.type(0), W.dtype.type(FLOOR), W.dtype.type(MOST)
    first = indptr[0]
    for i in range(n):
        for a in range(k):
            w[a] = W[i, a]
            square[a] = w[a] * w[a]
        for p in range(indptr[i], indptr[i + 1]):
            x, j = data[p], indices[p]
            v = zero
            for a in range(k):
                v += w[a] * Ht[j, a]
            v = max(v, floor * x)
            r = x / v if x > 0 else zero
            ratios[p - first] = r
            for a in range(k):
                P[j, a] += r * w[a]
            if Q.shape[0] > 0:
                q = min(r / v, most) if x > 0 else zero
                for a in range(k):
                    Q[j, a] += q * square[a]
