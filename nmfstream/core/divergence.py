"""Kullback-Leibler mathematics of the few-pass solver: rows of W, columns of H and sums over the nonzeros alone.

Hsieh & Dhillon 2011 (one-variable Newton), Neal & Hinton 1998 (incremental EM).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from nmfstream.core.kernels.divergence_ccd import ccd
from nmfstream.core.kernels.sparse_products import positive, times_dense, transposed_times
from nmfstream.core.parameters import Penalties
from nmfstream.core.products import total
from nmfstream.types import CSR, Array, Matrix

DAMPING = 1.5
"""Of a Newton step on all entries of H at once: undamped it overshoots, since they act together."""


class Effort(NamedTuple):
    """How hard a row of W is solved: multiplicative steps from a flat start (0: warm), sweeps, tolerance."""

    cold: int
    sweeps: int
    tol: float


COLD = Effort(2, 3, 1e-3)
SHARP = Effort(2, 40, 1e-4)
WARM = Effort(0, 8, 1e-3)


def nonzeros(X: Matrix) -> CSR:
    """The rows as nonzeros alone."""
    return X if isinstance(X, CSR) else positive(X)


def own_divergence(X: CSR) -> float:
    """Σ x log x − x: what the divergence has besides Σ v − x log v, whatever the model."""
    x = X.values
    logs = np.log(np.maximum(x, np.finfo(x.dtype).tiny))
    return float(np.einsum("i,i->", x, logs, dtype=np.float64)) - total(X)


def log_likelihood(X: CSR, V: Array) -> float:
    """Σ x log v."""
    return float(np.einsum("i,i->", X.values, np.log(V), dtype=np.float64))


def solve_W(X: CSR, Ht: Array, s: Array, p: Penalties, effort: Effort, W: Array | None = None) -> tuple[Array, Array]:
    """Rows of W and WH at the nonzeros.

    Parameters
    ----------
    Ht : ndarray of shape (n_features, n_components)
    s : ndarray of shape (n_components,)
        Row sums of H.
    W : ndarray, optional
        Where to start; changed in place.
    """
    W = np.zeros((X.shape[0], len(s)), X.dtype) if W is None else W
    V = ccd(X, Ht, np.where(s > 0, s + p.l1_W, 0), W, effort.sweeps, effort.tol, cold=effort.cold, l2=p.l2_W)
    return W, V


def rows_objective(X: CSR, W: Array, V: Array, s: Array, p: Penalties) -> float:
    """The divergence of some rows and their penalty on W."""
    return model_part(X, W, V, s, p) + own_divergence(X)


def model_part(X: CSR, W: Array, V: Array, s: Array, p: Penalties) -> float:
    """The objective of some rows without their `own_divergence`, which costs as much as a sweep."""
    W64 = W.astype(np.float64, copy=False)
    sums = W64.sum(axis=0)
    value = float(sums @ s) - log_likelihood(X, V) + p.l1_W * float(sums.sum())
    return value + 0.5 * p.l2_W * float((W64**2).sum()) if p.l2_W else value


def H_penalty(H: Array, p: Penalties) -> float:
    """The penalty on H."""
    if not (p.l1_H or p.l2_H):
        return 0.0
    return p.l1_H * float(H.sum(dtype=np.float64)) + 0.5 * p.l2_H * float(np.einsum("ij,ij->", H, H, dtype=np.float64))


def solve_columns(
    Xt: CSR, W: Array, s: Array, Ht: Array, p: Penalties, prior: Array | None, sweeps: int, *, rebuilt: bool
) -> Array:
    """Columns of H (rows of `Ht`, in place) for fixed W; if `rebuilt` WH at the nonzeros of Xᵀ.

    Parameters
    ----------
    Xt : CSR, shape (some features, n_rows)
    s : ndarray of shape (n_components,)
        Sums of W's columns, those of a prior included.
    prior : ndarray of shape (some features, n_components), optional
        Expected counts of rows that are not here.
    """
    linear = np.where(s > 0, s + p.l1_H, 0)
    return ccd(Xt, W, linear, Ht, sweeps, 0.0, l2=p.l2_H, prior=prior, rebuilt=rebuilt)


def ratio(X: CSR, V: Array, power: int = 1) -> CSR:
    """X/V^power at the nonzeros."""
    own = X.rebased()
    values = own.data / V
    for _ in range(power - 1):
        values = values / V
    return CSR(own.indptr, own.indices, values, own.n_cols)


class Sums(NamedTuple):
    """Additive statistics of rows at one H; transposed: features first."""

    Rt: Array
    """(X/V)ᵀW"""
    Qt: Array
    """(X/V²)ᵀW²"""
    s: Array
    """Sums of W's columns."""
    objective: float


def block_sums(X: Matrix, Ht: Array, s: Array, p: Penalties) -> Sums:
    """Solve a block's rows and give what a Newton step of H needs."""
    rows = nonzeros(X)
    W, V = solve_W(rows, Ht, s, p, SHARP)
    Rt, Qt = transposed_times(ratio(rows, V), W), transposed_times(ratio(rows, V, 2), W * W)
    return Sums(Rt, Qt, W.sum(axis=0, dtype=np.float64), rows_objective(rows, W, V, s, p))


def stripe_sums(Xt: CSR, V: Array, W: Array) -> tuple[Array, Array]:
    """Rt and Qt of some features, from the transposed rows."""
    return times_dense(ratio(Xt, V), W), times_dense(ratio(Xt, V, 2), W * W)


def em_step(H: Array, R: Array, s: Array, p: Penalties) -> Array:
    """The minimum of EM's bound on the objective: H·R/s, or with an L2 penalty the root of its quadratic."""
    P, slope = H * R, s[:, np.newaxis] + p.l1_H
    with np.errstate(divide="ignore", invalid="ignore"):
        divisor = 0.5 * (slope + np.sqrt(slope**2 + 4.0 * p.l2_H * P)) if p.l2_H else slope
        out = P / divisor
    return np.where(np.isfinite(out), out, H)


def newton_step(H: Array, R: Array, Q: Array, s: Array, p: Penalties) -> Array:
    """A damped Newton step on every entry at once, within a factor of ten."""
    slope = s[:, np.newaxis] + p.l1_H + p.l2_H * H - R
    with np.errstate(divide="ignore", invalid="ignore"):
        out = np.clip(H - slope / (DAMPING * Q + p.l2_H), 0.1 * H, 10.0 * H)
    return np.where(np.isfinite(out), out, 0.1 * H)


def unit_sums(H: Array) -> tuple[Array, Array]:
    """H with rows of sum 1, and the sums (1 for a zero row)."""
    sums = H.sum(axis=1, dtype=np.float64)
    sums[~((sums > 0) & np.isfinite(sums))] = 1.0
    return (H / sums[:, np.newaxis]).astype(H.dtype), sums


def with_profile(H: Array, blocks: Iterable[CSR]) -> Array:
    """0.99 H + 0.01 of the data's column profile in every row, so that no entry is locked at zero."""
    profile, nnz = np.zeros(H.shape[1]), 0
    for X in blocks:
        profile += np.bincount(X.rebased().indices, X.values, minlength=H.shape[1])
        nnz += X.nnz
    profile += 0.5 * profile.sum() / max(1, nnz)
    if not profile.sum() > 0:
        return H
    share = H.sum(axis=1, dtype=np.float64, keepdims=True) * (profile / profile.sum())
    mixed: Array = 0.99 * H + 0.01 * share
    return mixed.astype(H.dtype, copy=False)
