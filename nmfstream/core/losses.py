"""The β-divergence D(X | WH) of a block of rows: its value and the terms of multiplicative updates.

The rules know no β: they ask a `Loss`. Frobenius lives on X·Hᵀ and HHᵀ; the others run over cells, in tiles
where X is dense, over the nonzeros (and tiles of WH for the denominators) where it is sparse. No array of the
block's size appears.

References
----------
C. Févotte, J. Idier, "Algorithms for nonnegative matrix factorization with the β-divergence", Neural
Computation 23(9), 2011.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

from nmfstream.core.cells import BetaCells, KullbackLeiblerCells, dot_rows, tiles
from nmfstream.core.dense_cells import kl_statistics
from nmfstream.core.products import Wt_times, times_Ht
from nmfstream.core.sparse_cells import SparseCells, compiled_sums, compiled_times
from nmfstream.types import CSR, Array, Matrix


class Fixed(NamedTuple):
    """What depends on H alone while W is solved.

    Attributes
    ----------
    H : ndarray of shape (n_components, n_features)
    Ht : ndarray of shape (n_features, n_components)
        Its transpose: a contiguous copy where X is sparse, else a view.
    summary : ndarray
        HHᵀ (Frobenius), row sums (Kullback-Leibler), empty (others).
    """

    H: Array
    Ht: Array
    summary: Array


class Statistics(NamedTuple):
    """Sums over the cells of a block (or of some of its columns).

    Attributes
    ----------
    cost : float
        What the cells add to the divergence, `Loss.total_cost` completes it.
    terms : ndarray of shape (n_terms, n_components, columns)
        Numerators of H and, where they are not known from W's summary, denominators.
    """

    cost: float
    terms: Array


class Loss(Protocol):
    """A divergence as update rules see it.

    Attributes
    ----------
    beta, gamma : float
        γ is the exponent that makes multiplicative updates non-increasing.
    n_terms : int
        Arrays of H's shape in `Statistics.terms`.
    steps_at_once : int
        Steps on W of one block that are worth doing between two looks at the stopping rule.
    """

    beta: float
    gamma: float
    n_terms: int
    steps_at_once: int

    def fix(self, H: Array) -> Fixed:
        """Prepare H."""
        ...

    def share(self, X: Matrix, fixed: Fixed) -> Any:
        """What all steps on W of a block share."""
        ...

    def W_terms(self, X: Matrix, W: Array, fixed: Fixed, shared: Any) -> tuple[Array, Array]:
        """Numerator and denominator of W, new arrays; the denominator may broadcast over rows."""
        ...

    def summary(self, W: Array) -> Array:
        """What denominators of H need of W: WᵀW, column sums, or nothing."""
        ...

    def statistics(self, X: Matrix, W: Array, H: Array) -> Statistics:
        """Cost and terms of H; additive over rows and over columns (of X and H together)."""
        ...

    def H_denominator(self, summary: Array, terms: Array, H: Array) -> Array:
        """Denominator of H from the batch's sums, a new array that may broadcast over columns."""
        ...

    def total_cost(self, cost: float, summary: Array, terms: Array, fixed: Fixed) -> float | None:
        """The divergence from the batch's sums; None where cancellation hides it and `value` must be asked."""
        ...

    def value(self, X: Matrix, W: Array, fixed: Fixed) -> float:
        """The divergence of a block, from its residuals where it is small."""
        ...


def exponent(beta: float) -> float:
    """γ(β) of the majorization-minimization update."""
    if beta < 1:
        return 1.0 / (2.0 - beta)
    return 1.0 / (beta - 1.0) if beta > 2 else 1.0


class Frobenius:
    """½‖X - WH‖²."""

    beta, gamma, n_terms, steps_at_once = 2.0, 1.0, 1, 32

    def __init__(self, dtype: np.dtype[Any], compiled: bool = False) -> None:
        self.compiled = compiled
        self.cancelled = 1e-4 if dtype == np.float64 else 1e-2

    def fix(self, H: Array) -> Fixed:
        """See `Loss.fix`."""
        return Fixed(H, np.ascontiguousarray(H.T) if self.compiled else H.T, H @ H.T)

    def share(self, X: Matrix, fixed: Fixed) -> Array:
        """X·Hᵀ."""
        return compiled_times(X, fixed.Ht) if self.compiled and isinstance(X, CSR) else times_Ht(X, fixed.H)

    def W_terms(self, X: Matrix, W: Array, fixed: Fixed, shared: Array) -> tuple[Array, Array]:
        """X·Hᵀ over W·HHᵀ."""
        return shared.copy(), W @ fixed.summary

    def summary(self, W: Array) -> Array:
        """WᵀW."""
        return W.T @ W

    def statistics(self, X: Matrix, W: Array, H: Array) -> Statistics:
        """‖X‖² and WᵀX."""
        values = X.values[np.newaxis] if isinstance(X, CSR) else X
        WtX = compiled_sums(X, W) if self.compiled and isinstance(X, CSR) else Wt_times(W, X)
        return Statistics(dot_rows(values, values), WtX[np.newaxis])

    def H_denominator(self, summary: Array, terms: Array, H: Array) -> Array:
        """WᵀWH."""
        denominator: Array = summary.astype(H.dtype) @ H
        return denominator

    def total_cost(self, cost: float, summary: Array, terms: Array, fixed: Fixed) -> float | None:
        """½(‖X‖² - 2⟨WᵀX, H⟩ + ⟨WᵀW, HHᵀ⟩)."""
        cross = float(sum(np.dot(row, h.astype(np.float64)) for row, h in zip(terms[0], fixed.H, strict=True)))
        squares = cost - 2.0 * cross + float(np.vdot(summary, fixed.summary.astype(np.float64)))
        return squares / 2.0 if squares > self.cancelled * cost else None

    def value(self, X: Matrix, W: Array, fixed: Fixed) -> float:
        """Sum of squared residuals; by expansion where X is sparse, unless that cancels."""
        if isinstance(X, CSR):
            expanded = self._expanded(X, W, fixed)
            if expanded is not None:
                return expanded
        total = 0.0
        for rows, columns in tiles(X.shape, fixed.H.itemsize):
            part = X.rows(rows.start, rows.stop).toarray() if isinstance(X, CSR) else X[rows]
            residual = part[:, columns] - W[rows] @ fixed.H[:, columns]
            total += dot_rows(residual, residual)
        return total / 2.0

    def _expanded(self, X: CSR, W: Array, fixed: Fixed) -> float | None:
        squares = dot_rows(X.values[np.newaxis], X.values[np.newaxis])
        cross = dot_rows(self.share(X, fixed), W)
        rest = squares - 2.0 * cross + float(np.vdot((W.T @ W).astype(np.float64), fixed.summary))
        return rest / 2.0 if rest > self.cancelled * squares else None


class CellLoss:
    """Any β but 2, over cells.

    Parameters
    ----------
    beta : float
    compiled : bool
        Cells by compiled kernels: sparse ones, and dense ones for Kullback-Leibler.
    """

    def __init__(self, beta: float, compiled: bool = False) -> None:
        self.beta, self.gamma = beta, exponent(beta)
        self.of_sums = beta == 1
        self.n_terms = 1 if self.of_sums else 2
        self.cells = KullbackLeiblerCells() if self.of_sums else BetaCells(beta)
        self.sparse = SparseCells(self.cells, self.of_sums, compiled)
        self.compiled = compiled
        self.steps_at_once = 10 if compiled and self.of_sums else 4 if compiled or self.of_sums else 1

    def fix(self, H: Array) -> Fixed:
        """See `Loss.fix`."""
        Ht = np.ascontiguousarray(H.T) if self.compiled else H.T
        sums = H.sum(axis=1, dtype=np.float64).astype(H.dtype) if self.of_sums else np.empty(0, H.dtype)
        return Fixed(H, Ht, sums)

    def share(self, X: Matrix, fixed: Fixed) -> None:
        """Nothing."""
        return

    def W_terms(self, X: Matrix, W: Array, fixed: Fixed, shared: Any) -> tuple[Array, Array]:
        """Σⱼ xᵢⱼ vᵢⱼ^(β-2) hⱼ over Σⱼ vᵢⱼ^(β-1) hⱼ."""
        if isinstance(X, CSR):
            numerator, denominator = self.sparse.W_terms(X, W, fixed.H, fixed.Ht)
        else:
            numerator, denominator = self._dense_W_terms(X, W, fixed.H)
        return numerator, fixed.summary[np.newaxis].copy() if self.of_sums else denominator

    def _dense_W_terms(self, X: Array, W: Array, H: Array) -> tuple[Array, Array]:
        sums = np.zeros((2, *W.shape), W.dtype)
        for rows, columns in tiles(X.shape, H.itemsize):
            h = H[:, columns]
            cells = self.cells.terms(X[rows, columns], W[rows] @ h)
            sums[0, rows] += cells.numerator @ h.T
            if cells.denominator is not None:
                sums[1, rows] += cells.denominator @ h.T
        return sums[0], sums[1]

    def summary(self, W: Array) -> Array:
        """Column sums for Kullback-Leibler, else nothing."""
        return np.asarray(W.sum(axis=0, dtype=np.float64)) if self.of_sums else np.empty(0)

    def statistics(self, X: Matrix, W: Array, H: Array) -> Statistics:
        """See `Loss.statistics`."""
        if isinstance(X, CSR):
            return Statistics(*self.sparse.statistics(X, W, H))
        if self.compiled and isinstance(self.cells, KullbackLeiblerCells):
            return Statistics(*kl_statistics(X, W, H, self.cells))
        cost, terms = 0.0, np.zeros((self.n_terms, *H.shape), W.dtype)
        for rows, columns in tiles(X.shape, H.itemsize):
            x, v, w = X[rows, columns], W[rows] @ H[:, columns], W[rows].T
            cost += self.cells.cost_of_all(v)
            cells = self.cells.terms(x, v)
            cost += self.cells.cost(x, v, cells)
            terms[0, :, columns] += w @ cells.numerator
            if cells.denominator is not None:
                terms[1, :, columns] += w @ cells.denominator
        return Statistics(cost, terms)

    def H_denominator(self, summary: Array, terms: Array, H: Array) -> Array:
        """ΣW as a column for Kullback-Leibler (one where it is zero), else what the cells gave."""
        if not self.of_sums:
            return np.asarray(terms[1], H.dtype)
        return np.where(summary == 0, 1.0, summary).astype(H.dtype)[:, np.newaxis]

    def total_cost(self, cost: float, summary: Array, terms: Array, fixed: Fixed) -> float | None:
        """The cells' cost, for Kullback-Leibler with ΣWH = ⟨ΣW, ΣH⟩."""
        return cost + float(summary @ fixed.summary.astype(np.float64)) if self.of_sums else cost

    def value(self, X: Matrix, W: Array, fixed: Fixed) -> float:
        """See `Loss.value`."""
        summary = self.summary(W)
        total = self.total_cost(self.cost(X, W, fixed.H), summary, summary, fixed)
        assert total is not None
        return total

    def cost(self, X: Matrix, W: Array, H: Array) -> float:
        """What `statistics` says of the cost, without the terms."""
        if isinstance(X, CSR):
            return self.sparse.cost(X, W, H)
        cost = 0.0
        for rows, columns in tiles(X.shape, H.itemsize):
            x, v = X[rows, columns], W[rows] @ H[:, columns]
            cost += self.cells.cost_of_all(v)
            cost += self.cells.cost(x, v, self.cells.terms(x, v))
        return cost


def make_loss(beta: float, dtype: np.dtype[Any], compiled: bool = False) -> Loss:
    """The loss for β.

    Parameters
    ----------
    beta : float
    dtype : dtype
        float32 or float64, of X.
    compiled : bool
        Use compiled kernels where there are any: Frobenius, Kullback-Leibler, sparse cells of the others.
    """
    return Frobenius(np.dtype(dtype), compiled) if beta == 2 else CellLoss(float(beta), compiled)
