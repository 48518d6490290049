"""Rows of W for any β: multiplicative steps, then projected Newton with a line search, many rows at once in float64.

Févotte & Idier 2011 (multiplicative steps), Bertsekas 1982 (projected Newton). For β outside [1, 2] the Hessian may
be indefinite: where its step does not descend, its eigenvalues are taken by their size (Nocedal & Wright 2006, 3.4),
and the end is a stationary point.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nmfstream.core.divergence_cells import FLOOR, Cell
from nmfstream.core.kernels.newton_least_squares import masked_solve
from nmfstream.core.losses import exponent
from nmfstream.types import Array

PAIR_BYTES = 16 << 20
FEW_ROWS = 6
HALVINGS, WHOLE = 30, 4
DESCENT = 1e-4
NOISE = 1e-14
SMALL = 1e-3
PROXIMAL = 1e-12
LEAST_CURVATURE = 1e-6
"""Of an indefinite Hessian, relative to its largest eigenvalue."""
STALLED = 5


@dataclass
class Rows:
    """Some rows and where they are.

    Attributes
    ----------
    x : ndarray of float64, shape (n_rows, n_cells)
        Scaled to a largest entry of about 1.
    l1, l2 : ndarray of float64, shape (n_rows, n_components)
        Weights of w and of w²/2 in these rows' scale; l1 includes the row sums of H for β = 1.
    w : ndarray of float64, shape (n_rows, n_components)
    """

    x: Array
    l1: Array
    l2: Array
    w: Array

    def take(self, rows: Array) -> Rows:
        """Some of them, copied."""
        return Rows(self.x[rows], self.l1[rows], self.l2[rows], self.w[rows])


class NewtonRows:
    """The objective of rows at a fixed H and steps that lower it.

    Parameters
    ----------
    H : ndarray of float64, shape (n_components, n_cells)
        No column is all zeros.
    function : Cell
    """

    def __init__(self, H: Array, function: Cell) -> None:
        self.H, self.function = H, function
        self.gamma = exponent(function.beta)
        k = len(H)
        self.upper = np.triu_indices(k)
        fits = function.convex and len(self.upper[0]) * H.shape[1] * 8 <= PAIR_BYTES
        self.pairs = np.ascontiguousarray((H[self.upper[0]] * H[self.upper[1]]).T) if fits else None

    def reconstruct(self, w: Array) -> Array:
        """WH, floored."""
        v = self._product(w, self.H)
        return np.asarray(np.maximum(v, FLOOR, out=v))

    def _product(self, rows: Array, matrix: Array) -> Array:
        """Where several stationary points may attract a row, its bits must not depend on its neighbours."""
        if self.function.convex:
            return np.asarray(rows @ matrix)
        return np.asarray((rows[:, np.newaxis, :] @ matrix)[:, 0, :])

    def value(self, rows: Rows, w: Array, v: Array) -> Array:
        """Objective of each row."""
        return np.asarray(self.function.value(rows.x, v) + np.vecdot(w, rows.l1 + 0.5 * rows.l2 * w))

    def gradient(self, rows: Rows, w: Array, v: Array) -> Array:
        """∂ of each row."""
        return np.asarray(self._product(self.function.derivatives(rows.x, v).first, self.H.T) + rows.l1 + rows.l2 * w)

    def hessian(self, cells: Array, l2: Array) -> Array:
        """Σ_j cells_j h_j h_jᵀ + l2·I of each row, shape (n_rows, k, k)."""
        n, k = l2.shape
        P = np.empty((n, k, k))
        if self.pairs is not None and n > FEW_ROWS:
            packed = cells @ self.pairs
            P[:, self.upper[0], self.upper[1]] = packed
            P[:, self.upper[1], self.upper[0]] = packed
        else:
            for i in range(n):
                np.matmul(self.H * cells[i], self.H.T, out=P[i])
        P[:, np.arange(k), np.arange(k)] += l2
        return P

    def multiply(self, rows: Rows, w: Array) -> Array:
        """One multiplicative step from w."""
        numerator, denominator = self.function.terms(rows.x, self.reconstruct(w))
        below = rows.l1 + rows.l2 * w
        if denominator is not None:
            below = below + self._product(denominator, self.H.T)
        above = self._product(numerator, self.H.T)
        ratio = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
        return np.asarray(w * (ratio if self.gamma == 1 else ratio**self.gamma))

    def solve(self, rows: Rows, target: Array, max_iter: int) -> None:
        """Newton until max |min(w, ∂)| is within each row's target, one step beyond, or `max_iter`; w in place.

        Parameters
        ----------
        rows : Rows
        target : ndarray of shape (n_rows, n_components)
        max_iter : int
        """
        at, part = np.arange(len(rows.w)), rows.take(np.arange(len(rows.w)))
        last, stalled = np.zeros(len(at), bool), np.zeros(len(at), np.int64)
        for _ in range(max_iter):
            v = self.reconstruct(part.w)
            g = self.gradient(part, part.w, v)
            done = np.asarray((np.abs(np.minimum(part.w, g)) <= target[at]).all(axis=1))
            keep = ~(last & done) & (stalled < STALLED)
            if not keep.all():
                at, v, g, done, stalled, part = at[keep], v[keep], g[keep], done[keep], stalled[keep], part.take(keep)
            if not len(at):
                return
            moved = self._step(part, v, g)
            stalled = np.where(moved, 0, stalled + 1)
            rows.w[at], last = part.w, done

    def _step(self, rows: Rows, v: Array, g: Array) -> Array:
        """One step of each row in place; whether it moved.

        A step of a Hessian that is singular may be long beyond measure: after `WHOLE` halvings it ends at the
        first bound that it meets.
        """
        d = self._direction(rows, v, g)
        before = self.value(rows, rows.w, v)
        slack = NOISE * (np.abs(before) + rows.x.sum(axis=1))
        waiting, length = np.arange(len(d)), np.ones(len(d))
        w = rows.w.copy()
        for halving in range(HALVINGS):
            if halving == WHOLE:
                length = np.minimum(length, first_bound(rows.w, d))
            part = rows.take(waiting)
            new = np.maximum(part.w + length[waiting, np.newaxis] * d[waiting], 0)
            after = self.value(part, new, self.reconstruct(new))
            slope = np.vecdot(g[waiting], new - part.w)
            good = (after <= before[waiting] + DESCENT * slope + slack[waiting]) & (slope <= 0)
            w[waiting[good]] = new[good]
            waiting = waiting[~good]
            if not len(waiting):
                break
            length *= 0.5
        if len(waiting):
            w[waiting] = self.multiply(rows.take(waiting), rows.w[waiting])
        moved = (np.abs(w - rows.w) > 1e-15 * w).any(axis=1)
        rows.w = w
        return np.asarray(moved)

    def _direction(self, rows: Rows, v: Array, g: Array) -> Array:
        """Newton's; a component that a step has thrown near a bound where it is wanted returns at once by a
        multiplicative step, where Newton would but double it."""
        d = self._newton_direction(rows, v, g)
        lost = (g < 0) & (rows.w <= SMALL * rows.w.max(axis=1, keepdims=True))
        if (some := np.flatnonzero(lost.any(axis=1))).size:
            part = rows.take(some)
            d[some] = np.where(lost[some], np.maximum(d[some], self.multiply(part, part.w) - part.w), d[some])
        return d

    def _newton_direction(self, rows: Rows, v: Array, g: Array) -> Array:
        P = self.hessian(self.function.derivatives(rows.x, v).second, rows.l2)
        d = _newton(P, rows.w, g)
        if self.function.convex:
            return d
        bad = np.flatnonzero(~(np.vecdot(g, d) < -1e-8 * np.sqrt(np.vecdot(g, g) * np.vecdot(d, d))))
        if len(bad):
            d[bad] = _descent(P[bad], rows.w[bad], g[bad])
        return d


def first_bound(w: Array, d: Array) -> Array:
    """The length of d at which the first positive component of each row becomes zero."""
    falls = (d < 0) & (w > 0)
    return np.asarray(np.divide(w, -d, out=np.full_like(w, np.inf), where=falls).min(axis=1))


def _newton(P: Array, w: Array, g: Array) -> Array:
    """−P⁻¹g on the free components; those at a bound that pushes back stay, or go there where they are near."""
    diag = np.einsum("ijj->ij", P)
    flat = diag <= 0
    near = (g > 0) & (w <= SMALL * w.max(axis=1, keepdims=True)) & (w * diag <= g)
    free = ((w > 0) | (g < 0)) & ~near & ~flat
    root = 1.0 / np.sqrt(np.where(flat, 1.0, diag))
    scaled = P * root[:, :, np.newaxis] * root[:, np.newaxis, :]
    d = root * masked_solve(scaled, -g * root, free, PROXIMAL)
    return np.where(free, d, np.where((g > 0), -w, 0.0))


def _descent(P: Array, w: Array, g: Array) -> Array:
    """−|P|⁻¹g on the free components: downhill though P is indefinite, and Newton's step where it is not."""
    size = np.abs(np.einsum("ijj->ij", P))
    size[size <= 0] = 1.0
    near = (g > 0) & (w <= SMALL * w.max(axis=1, keepdims=True)) & (w * size <= g)
    free = ((w > 0) | (g < 0)) & ~near
    root = np.where(free, 1.0 / np.sqrt(size), 0.0)
    scaled = P * root[:, :, np.newaxis] * root[:, np.newaxis, :]
    values, vectors = np.linalg.eigh(scaled)
    values = np.abs(values)
    values = np.maximum(values, LEAST_CURVATURE * values.max(axis=1, keepdims=True))
    along = np.einsum("nji,nj->ni", vectors, -g * root)
    along = np.divide(along, values, out=np.zeros_like(along), where=values > 0)
    d = root * np.einsum("nij,nj->ni", vectors, along)
    return np.where(free, d, np.where(g > 0, -w, 0.0))
