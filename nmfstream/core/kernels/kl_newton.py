"""Kullback-Leibler rows of W on their nonzeros: gradient, and projected Newton from multiplicative steps, in float64.

``kl_gradient(rows, W)`` and ``kl_newton(rows, W, target, max_iter)`` (W in place); see `core.newton_rows` for the
algorithm, which serves small inputs here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nmfstream.core.divergence_cells import FLOOR, KullbackLeibler
from nmfstream.core.kernels.sparse_products import times_dense
from nmfstream.core.newton_rows import NewtonRows, Rows
from nmfstream.machine_code import Kernel
from nmfstream.types import CSR, Array

_gradients = Kernel("nmfstream.core.kernels.kl_newton_compiled", "gradients")
_newton = Kernel("nmfstream.core.kernels.kl_newton_compiled", "newton")

COMPILED_WORK = 1 << 17
"""Nonzeros times components from which compiled code pays."""
TOGETHER = 16
MULTIPLICATIVE = 10
CELLS_AT_ONCE = 1 << 15


class KLRows(NamedTuple):
    """Rows and the objective of each, in its own scale.

    Attributes
    ----------
    X : CSR, shape (n_rows, n_features)
    Ht : ndarray of float64, shape (n_features, n_components), C-contiguous
    scales : ndarray of float64, shape (n_rows,)
        By which a row of X is divided.
    linear : ndarray of float64, shape (n_components,)
        Row sums of H, plus the L1 weight.
    l2 : ndarray of float64, shape (n_rows, n_components)
    """

    X: CSR
    Ht: Array
    scales: Array
    linear: Array
    l2: Array

    @property
    def compiled(self) -> bool:
        """Whether there is enough to do."""
        return bool(self.X.nnz * self.Ht.shape[1] >= COMPILED_WORK)


def kl_gradient(rows: KLRows, W: Array) -> Array:
    """∂ at W, shape (n_rows, n_components), float64."""
    if not rows.compiled:
        return gradient_numpy(rows, W)
    X, out = rows.X, np.empty(W.shape)
    _gradients(X.indptr, X.indices, X.data, rows.Ht, W, rows.linear, rows.l2, rows.scales, out)
    return out


def kl_newton(rows: KLRows, W: Array, target: Array, max_iter: int) -> None:
    """Multiplicative steps, then Newton until |min(w, ∂)| ≤ target, one step further, or `max_iter` in all.

    Parameters
    ----------
    W : ndarray of float64, shape (n_rows, n_components), C-contiguous
        The start; in place.
    target : ndarray of shape (n_rows, n_components)
    """
    if not rows.compiled:
        return newton_numpy(rows, W, target, max_iter)
    X, first = rows.X, min(MULTIPLICATIVE, max_iter)
    data = (X.indptr, X.indices, X.data, rows.Ht)
    _newton(*data, W, rows.linear, rows.l2, rows.scales, np.ascontiguousarray(target), first, max_iter - first)
    return None


def gradient_numpy(rows: KLRows, W: Array) -> Array:
    """The twin of the compiled gradient."""
    own = rows.X.rebased()
    at = np.repeat(np.arange(len(W)), np.diff(own.indptr))
    ratios = np.empty(len(at))
    for a in range(0, len(at), CELLS_AT_ONCE):
        part = slice(a, a + CELLS_AT_ONCE)
        v = np.vecdot(W[at[part]], rows.Ht[own.indices[part]])
        ratios[part] = own.data[part] / rows.scales[at[part]] / np.maximum(v, FLOOR)
    return np.asarray(rows.linear + rows.l2 * W - times_dense(own._replace(data=ratios), rows.Ht))


def newton_numpy(rows: KLRows, W: Array, target: Array, max_iter: int) -> None:
    """The twin of the compiled iteration: a few rows at a time, on the columns that they touch."""
    for start in range(0, len(W), TOGETHER):
        part = slice(start, min(start + TOGETHER, len(W)))
        own = rows.X.rows(part.start, part.stop).rebased()
        touched, places = np.unique(own.indices, return_inverse=True)
        x = CSR(own.indptr, places.astype(np.int32), own.data.astype(np.float64), len(touched)).toarray()
        linear = np.broadcast_to(rows.linear, W[part].shape)
        some = Rows(x / rows.scales[part, np.newaxis], linear, rows.l2[part], W[part])
        solver = NewtonRows(np.ascontiguousarray(rows.Ht[touched].T), KullbackLeibler())
        first = min(MULTIPLICATIVE, max_iter)
        for _ in range(first):
            some.w = solver.multiply(some, some.w)
        solver.solve(some, target[part], max_iter - first)
        W[part] = some.w
