"""Several multiplicative steps on a block's rows at fixed H, in the form that suits loss and layout.

All forms give `Solved` for the same arguments; the plain one is the oracle of the others.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from nmfstream.core.cells import EPSILON
from nmfstream.core.kernels.widths import lanes
from nmfstream.core.losses import CellLoss, Fixed, Frobenius, Loss
from nmfstream.core.parameters import Penalties
from nmfstream.core.penalties import penalized
from nmfstream.machine_code import Kernel
from nmfstream.types import CSR, Array, Matrix

frobenius_steps = Kernel("nmfstream.core.kernels.mu_steps", "frobenius_steps")
sparse_kl_steps = Kernel("nmfstream.core.kernels.mu_steps", "sparse_kl_steps")
dense_kl_steps = Kernel("nmfstream.core.kernels.mu_dense", "dense_kl_steps")
dense_beta_steps = Kernel("nmfstream.core.kernels.mu_dense_beta", "dense_beta_steps")
HALVES = (-4, -3, -1, 1, 2, 4)
"""2(β - 2) of the powers that `dense_beta_steps` knows."""
CACHED_BYTES = 512 << 10


class Solved(NamedTuple):
    """Rows of W after some steps.

    Attributes
    ----------
    W : ndarray of shape (n_rows, n_components)
    changes, norms : ndarray of float64, shape (n_steps,)
        ‖W - W before‖² and ‖W‖² of each step.
    """

    W: Array
    changes: Array
    norms: Array


def step(loss: Loss, X: Matrix, W: Array, fixed: Fixed, shared: Any, p: Penalties) -> Array:
    """One step; W itself stays."""
    numerator, denominator = loss.W_terms(X, W, fixed, shared)
    numerator /= penalized(denominator, W, p.l1_W, p.l2_W)
    if loss.gamma != 1:
        numerator **= loss.gamma
    numerator *= W
    return numerator


def plain(loss: Loss, X: Matrix, W: Array, fixed: Fixed, shared: Any, p: Penalties, n_steps: int) -> Solved:
    """Step after step on the whole block."""
    changes, norms = np.zeros(n_steps), np.zeros(n_steps)
    for i in range(n_steps):
        before, W = W, step(loss, X, W, fixed, shared, p)
        changes[i], norms[i] = _squares(W - before), _squares(W)
    return Solved(W, changes, norms)


def tiled_kl(loss: Loss, X: Matrix, W: Array, fixed: Fixed, shared: Any, p: Penalties, n_steps: int) -> Solved:
    """Dense Kullback-Leibler: all steps on some rows whose X and WH stay in the second-level cache."""
    assert not isinstance(X, CSR)
    height = max(8, CACHED_BYTES // (X.shape[1] * X.itemsize))
    buffer = np.empty((min(height, len(X)), X.shape[1]), X.dtype)
    changes, norms, out = np.zeros(n_steps), np.zeros(n_steps), W.copy()
    for a in range(0, len(X), height):
        rows = slice(a, a + height)
        x, w, v = X[rows], out[rows], buffer[: len(X[rows])]
        for i in range(n_steps):
            before = w
            w = _kl_step(x, w, v, fixed, p)
            changes[i] += _squares(w - before)
            norms[i] += _squares(w)
        out[rows] = w
    return Solved(out, changes, norms)


def _kl_step(x: Array, w: Array, v: Array, fixed: Fixed, p: Penalties) -> Array:
    np.matmul(w, fixed.H, out=v)
    if v.min() < EPSILON:
        np.maximum(v, EPSILON, out=v)
    np.divide(x, v, out=v)
    new: Array = v @ fixed.Ht
    new /= penalized(fixed.summary[np.newaxis].copy(), w, p.l1_W, p.l2_W)
    new *= w
    return new


def compiled_frobenius(
    loss: Loss, X: Matrix, W: Array, fixed: Fixed, shared: Any, p: Penalties, n_steps: int
) -> Solved:
    """Frobenius: X·Hᵀ and HHᵀ are all it needs."""
    out, changes, norms = np.empty_like(W), np.zeros(n_steps), np.zeros(n_steps)
    real, G, width = W.dtype.type, _padded(fixed.summary), lanes(W.dtype)
    frobenius_steps(shared, G, W, real(p.l1_W), real(p.l2_W), width, n_steps, out, changes, norms)
    return Solved(out, changes, norms)


def _padded(G: Array) -> Array:
    """Rows and columns of zeros up to a multiple of four."""
    missing = -len(G) % 4
    return np.ascontiguousarray(np.pad(G, (0, missing)) if missing else G)


def compiled_sparse_kl(
    loss: Loss, X: Matrix, W: Array, fixed: Fixed, shared: Any, p: Penalties, n_steps: int
) -> Solved:
    """Sparse Kullback-Leibler, row by row."""
    assert isinstance(X, CSR)
    out, changes, norms = np.empty_like(W), np.zeros(n_steps), np.zeros(n_steps)
    real = W.dtype.type
    below = fixed.summary + real(p.l1_W)
    sparse_kl_steps(
        X.indptr,
        X.indices,
        X.data,
        fixed.Ht,
        np.ascontiguousarray(W),
        below,
        real(p.l2_W),
        n_steps,
        out,
        changes,
        norms,
    )
    return Solved(out, changes, norms)


def compiled_dense_kl(loss: Loss, X: Matrix, W: Array, fixed: Fixed, shared: Any, p: Penalties, n_steps: int) -> Solved:
    """Dense Kullback-Leibler, a vector of rows at a time."""
    out, changes, norms = np.empty_like(W), np.zeros(n_steps), np.zeros(n_steps)
    real = W.dtype.type
    below = fixed.summary + real(p.l1_W)
    W, width = np.ascontiguousarray(W), lanes(W.dtype)
    dense_kl_steps(X, fixed.Ht, W, below, real(p.l2_W), width, n_steps, out, changes, norms)
    return Solved(out, changes, norms)


def compiled_dense_beta(
    loss: Loss, X: Matrix, W: Array, fixed: Fixed, shared: Any, p: Penalties, n_steps: int
) -> Solved:
    """Dense X, β of which powers are products and roots; else the plain form."""
    halves = 2 * (loss.beta - 2)
    if halves not in HALVES:
        return plain(loss, X, W, fixed, shared, p, n_steps)
    out, changes, norms = np.empty_like(W), np.zeros(n_steps), np.zeros(n_steps)
    l1, l2, gamma = (W.dtype.type(value) for value in (p.l1_W, p.l2_W, loss.gamma))
    W, width = np.ascontiguousarray(W), lanes(W.dtype)
    dense_beta_steps(X, fixed.Ht, W, l1, l2, int(halves), gamma, width, n_steps, out, changes, norms)
    return Solved(out, changes, norms)


def several(loss: Loss, X: Matrix, W: Array, fixed: Fixed, shared: Any, p: Penalties, n_steps: int) -> Solved:
    """`n_steps` steps in the best form for this loss and X."""
    solved: Solved = _form(loss, X)(loss, X, W, fixed, shared, p, n_steps)
    return solved


def _form(loss: Loss, X: Matrix) -> Any:
    if isinstance(loss, Frobenius):
        return compiled_frobenius if loss.compiled else plain
    if not isinstance(loss, CellLoss):
        return plain
    if not loss.of_sums:
        return compiled_dense_beta if loss.compiled and not isinstance(X, CSR) else plain
    if isinstance(X, CSR):
        return compiled_sparse_kl if loss.compiled else plain
    return compiled_dense_kl if loss.compiled else tiled_kl


def _squares(a: Array) -> float:
    flat = a.ravel()
    return float(np.dot(flat, flat))
