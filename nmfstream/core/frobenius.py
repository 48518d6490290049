"""Frobenius mathematics of the few-pass solver: rows of W by coordinate descent, H by HALS, loss from sums.

Cichocki & Phan 2009 (HALS), Ang & Gillis 2019 (extrapolation with restarts).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nmfstream.core.parameters import Objective, Penalties
from nmfstream.core.products import sum_of_squares
from nmfstream.core.protocols import Executor
from nmfstream.core.rowsolve import row_solver
from nmfstream.core.sweeps import clipped_least_squares, descend
from nmfstream.types import CSR, Array, Matrix, cut

PRECISE_BELOW = {"float32": 1e-2, "float64": 1e-4}
STRIPE_COLUMNS, STRIPE_CELLS = 1024, 1 << 15
"""Columns of H that are stepped together at least, and cells of theirs where components are few."""
TILE_CELLS = 1 << 18


class Effort(NamedTuple):
    """How hard a row of W is solved."""

    sweeps: int
    tol: float


COLD = Effort(20, 1e-3)
SHARP = Effort(100, 1e-4)
WARM = Effort(4, 1e-3)
REFINE = Effort(5, 1e-8)


@dataclass
class Sums:
    """Additive statistics of rows whose W was solved at one H (or at several, before each update).

    Attributes
    ----------
    A : ndarray of float64, shape (n_components, n_components)
        WᵀW.
    B : ndarray of float64, shape (n_components, n_features)
        WᵀX; where `precise`, Wᵀ(X − WH).
    w1 : float
        Sum of W.
    half_square : float
        ½‖X − WH‖² where `precise`, else ½‖X‖² − ⟨W, XHᵀ⟩ + ½⟨WᵀW, HHᵀ⟩ without the first term.
    square : float
        ½‖X‖², where it was asked for.
    """

    A: Array
    B: Array
    w1: float = 0.0
    half_square: float = 0.0
    square: float = 0.0

    @classmethod
    def zero(cls, k: int, m: int) -> Sums:
        """Sums over no rows."""
        return cls(np.zeros((k, k)), np.zeros((k, m)))

    def add(self, other: Sums) -> None:
        """Add the sums of further rows."""
        self.A += other.A
        if other.B.size:
            self.B += other.B
        self.w1 += other.w1
        self.half_square += other.half_square
        self.square += other.square


def gram(H: Array, l2: float = 0.0) -> Array:
    """HHᵀ + l2·I in float64."""
    H = H.astype(np.float64, copy=False)
    G: Array = H @ H.T
    G[np.diag_indices_from(G)] += l2
    return G


def solve_rows(
    C: Array, G: Array, p: Penalties, effort: Effort, W: Array | None = None, inverse: Array | None = None
) -> Array:
    """Rows of W for C = XHᵀ and G = HHᵀ + l2·I, from W or from the clipped least-squares start."""
    linear = C - C.dtype.type(p.l1_W) if p.l1_W else C
    start = clipped_least_squares(linear, G, inverse) if W is None else W
    return descend(linear, G, start, effort.sweeps, effort.tol)


def refine(X: Matrix, W: Array, H: Array, G: Array, p: Penalties) -> tuple[Array, Array, float]:
    """Rows swept on from their residuals in float64, where the expansion of the loss cancels.

    Returns
    -------
    W : ndarray
    WtR : ndarray of float64
        Wᵀ(X − WH).
    half_square : float
        ½‖X − WH‖².
    """

    def sweep(x: Array, w: Array) -> Array:
        w64 = w.astype(np.float64)
        gradient = ((x - w @ H) @ H.T).astype(np.float64)
        linear = w64 @ G + gradient - p.l1_W - p.l2_W * w64
        return descend(linear, G, w64, REFINE.sweeps, REFINE.tol)

    return residual_sums(X, H, [sweep(x, W[a:b]) for a, b, x in tiles(X)])


def solve_exactly(X: Matrix, H: Array, p: Penalties) -> tuple[Array, Array, float]:
    """As `refine`, each row to its optimum from nothing: sweeps alone would come nowhere near where H is singular."""
    weight, m = p.l1_W + p.l2_W, H.shape[1]
    objective = Objective(len(H), alpha_W=weight / m, l1_ratio=p.l1_W / weight if weight > 0 else 0.0)
    solver = row_solver(H.astype(np.float64), objective, np.dtype(np.float64))
    return residual_sums(X, H, [solver(x.astype(np.float64)).W for _, _, x in tiles(X)])


def tiles(X: Matrix) -> Iterator[tuple[int, int, Array]]:
    """Rows of X a few at a time, dense, with their bounds."""
    height = max(1, TILE_CELLS // max(1, X.shape[1]))
    for a in range(0, X.shape[0], height):
        b = min(a + height, X.shape[0])
        x = cut(X, a, b)
        yield a, b, x.toarray() if isinstance(x, CSR) else x


def residual_sums(X: Matrix, H: Array, W: Sequence[Array]) -> tuple[Array, Array, float]:
    """W (given tile by tile) in X's type, Wᵀ(X − WH) and ½‖X − WH‖²."""
    out = np.concatenate([*W, np.zeros((0, len(H)))]).astype(X.dtype)
    WtR, half = np.zeros(H.shape), 0.0
    for a, b, x in tiles(X):
        R = x - out[a:b] @ H
        WtR += out[a:b].T @ R
        half += 0.5 * sum_of_squares(R)
    return out, WtR, half


def own_sums(W: Array, C: Array, G: Array, p: Penalties) -> Sums:
    """What rows add besides WᵀX (B is left empty)."""
    W64 = W.astype(np.float64, copy=False)
    A = W64.T @ W64
    cross = float(np.einsum("ij,ij->", W, C, dtype=np.float64))
    return Sums(A, np.zeros((0, 0)), float(W64.sum()), half_quadratic(A, G, p) - cross)


def half_quadratic(A: Array, G: Array, p: Penalties) -> float:
    """½⟨WᵀW, HHᵀ⟩ from A = WᵀW and G = HHᵀ + l2·I."""
    return 0.5 * float((A * G).sum() - p.l2_W * np.trace(A))


def row_penalty(sums: Sums, p: Penalties) -> float:
    """The penalty on W of the rows summed."""
    return p.l1_W * sums.w1 + 0.5 * p.l2_W * float(np.trace(sums.A))


def H_penalty(H: Array, p: Penalties) -> float:
    """The penalty on H."""
    if not (p.l1_H or p.l2_H):
        return 0.0
    return p.l1_H * float(H.sum(dtype=np.float64)) + 0.5 * p.l2_H * float(np.einsum("ij,ij->", H, H, dtype=np.float64))


def fit_term(A: Array, B: Array, H: Array) -> float:
    """½⟨A, HHᵀ⟩ − ⟨B, H⟩: the loss of the rows summed, without ½‖X‖²."""
    return 0.5 * float((A * gram(H)).sum()) - float(np.einsum("ij,ij->", B, H))


def moved_objective(at_Hy: float, A: Array, B: Array, Hy: Array, H: Array, p: Penalties) -> float:
    """The objective at H from that at Hy, for the same W: no cancellation where the loss is small."""
    D = H.astype(np.float64) - Hy
    slope = float(np.einsum("ij,ij->", A @ Hy.astype(np.float64) - B, D))
    return at_Hy + slope + 0.5 * float((A * (D @ D.T)).sum()) + H_penalty(H, p) - H_penalty(Hy, p)


def hals_stripe(A: Array, B: Array, H: Array, p: Penalties, sweeps: int = 2) -> Array:
    """H after some sweeps of exact minimisation over one row after the other.

    Parameters
    ----------
    A : ndarray of float64, shape (n_components, n_components)
    B, H : ndarray, shape (n_components, some columns)
    """
    diag = A.diagonal() + p.l2_H
    linear = B - p.l1_H
    live = np.flatnonzero(A.diagonal() > 1e-14 * A.diagonal().max(initial=0.0))
    if len(live) == len(A):  # for one column of H, the same descent as for one row of W
        return np.ascontiguousarray(descend(linear.T, A + np.diag(diag - A.diagonal()), H.T, sweeps, 0.0).T, H.dtype)
    h = H.astype(np.float64)
    for _ in range(sweeps):
        for a in live:
            np.maximum(h[a] + (linear[a] - A[a] @ h - p.l2_H * h[a]) / diag[a], 0, out=h[a])
    return h.astype(H.dtype)


class HStep(NamedTuple):
    """An update of H that is wanted: statistics and where to start."""

    A: Array
    B: Array
    H: Array
    penalties: Penalties


def update_H(steps: Sequence[HStep], executor: Executor) -> list[Array]:
    """HALS for several H at once, over fixed feature stripes."""
    m = steps[0].H.shape[1]
    width = max(STRIPE_COLUMNS, STRIPE_CELLS // len(steps[0].H))
    columns = [(a, min(a + width, m)) for a in range(0, m, width)]

    def stripe(item: tuple[HStep, tuple[int, int]]) -> Array:
        s, (a, b) = item
        return hals_stripe(s.A, s.B[:, a:b], s.H[:, a:b], s.penalties)

    parts = executor.map(stripe, [(s, c) for s in steps for c in columns])
    n = len(columns)
    return [np.ascontiguousarray(np.concatenate(parts[i * n : (i + 1) * n], axis=1)) for i in range(len(steps))]


def unit_rows(H: Array) -> tuple[Array, Array]:
    """H with rows of norm 1, and the norms (1 for a zero row)."""
    norms = np.sqrt(np.einsum("ij,ij->i", H, H, dtype=np.float64))
    norms[~((norms > 0) & np.isfinite(norms))] = 1.0
    return (H / norms[:, None]).astype(H.dtype), norms
