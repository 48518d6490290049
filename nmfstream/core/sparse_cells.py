"""Cells of a sparse block: numerators and costs on the nonzeros, denominators over all cells in tiles."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from nmfstream.core.cells import Cells, tiles
from nmfstream.core.products import Wt_times, times_Ht
from nmfstream.machine_code import Kernel
from nmfstream.types import CSR, Array

_kl_sums = Kernel("nmfstream.core.kernels.mu_steps", "sparse_kl_sums")
_times = Kernel("nmfstream.core.kernels.mu_steps", "sparse_times")
_sums = Kernel("nmfstream.core.kernels.mu_steps", "sparse_sums")

CHUNK_BYTES = 1 << 20


class CellRules(Protocol):
    """What `cells` offers for a β."""

    def terms(self, x: Array, v: Array) -> Cells:
        """Numerators and denominators; may overwrite v."""
        ...

    def denominators(self, v: Array) -> Array:
        """Denominators of cells where x is zero."""
        ...

    def cost(self, x: Array, v: Array, cells: Cells) -> float:
        """Cost of the cells that x has a part in."""
        ...

    def cost_of_all(self, v: Array) -> float:
        """Cost of every cell whatever its x."""
        ...


class SparseCells:
    """Sums over the cells of CSR rows.

    Parameters
    ----------
    rules : CellRules
    of_sums : bool
        Denominators and the cost of all cells are known from sums alone (Kullback-Leibler).
    compiled : bool
    """

    def __init__(self, rules: CellRules, of_sums: bool, compiled: bool) -> None:
        self.rules, self.of_sums, self.compiled = rules, of_sums, compiled

    def W_terms(self, X: CSR, W: Array, H: Array, Ht: Array) -> tuple[Array, Array]:
        """Numerator and denominator of W; the denominator is zeros where sums give it."""
        cells = self.rules.terms(X.values, WH_at(X, W, Ht))
        numerator = times_Ht(_with_values(X, cells.numerator), H)
        denominator = np.zeros_like(W)
        if not self.of_sums:
            for rows, columns in tiles(X.shape, H.itemsize):
                h = H[:, columns]
                denominator[rows] += self.rules.denominators(W[rows] @ h) @ h.T
        return numerator, denominator

    def statistics(self, X: CSR, W: Array, H: Array) -> tuple[float, Array]:
        """Cost, and terms of shape (1 or 2, n_components, columns)."""
        if self.of_sums and self.compiled:
            return self._compiled_kl(X, W, H)
        v = WH_at(X, W, H.T)
        cells = self.rules.terms(X.values, v)
        cost = self._nonzeros_cost(X, v, cells)
        numerator = Wt_times(W, _with_values(X, cells.numerator))
        if self.of_sums:
            return cost, numerator[np.newaxis]
        denominator = np.zeros_like(numerator)
        for rows, columns in tiles(X.shape, H.itemsize):
            wh = W[rows] @ H[:, columns]
            cost += self.rules.cost_of_all(wh)
            denominator[:, columns] += W[rows].T @ self.rules.denominators(wh)
        return cost, np.stack([numerator, denominator])

    def _compiled_kl(self, X: CSR, W: Array, H: Array) -> tuple[float, Array]:
        own = X.rebased()
        ratios, sums = np.empty(X.nnz, W.dtype), np.zeros((X.shape[1], W.shape[1]), W.dtype)
        Ht = np.ascontiguousarray(H.T)
        _kl_sums(own.indptr, own.indices, own.data, Ht, np.ascontiguousarray(W), ratios, sums)
        return self._nonzeros_cost(X, ratios, Cells(ratios, None)), np.ascontiguousarray(sums.T)[np.newaxis]

    def cost(self, X: CSR, W: Array, H: Array) -> float:
        """What `statistics` says of the cost."""
        v = WH_at(X, W, H.T)
        cost = self._nonzeros_cost(X, v, self.rules.terms(X.values, v))
        if not self.of_sums:
            cost += sum(self.rules.cost_of_all(W[r] @ H[:, c]) for r, c in tiles(X.shape, H.itemsize))
        return cost

    def _nonzeros_cost(self, X: CSR, v: Array, cells: Cells) -> float:
        row = np.newaxis
        denominator = None if cells.denominator is None else cells.denominator[row]
        return self.rules.cost(X.values[row], v[row], Cells(cells.numerator[row], denominator))


def WH_at(X: CSR, W: Array, Ht: Array) -> Array:
    """WH at the nonzeros of X, in their order."""
    lengths = np.diff(X.indptr)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    columns = X.indices[X.indptr[0] : X.indptr[-1]]
    out = np.empty(len(rows), W.dtype)
    chunk = max(1, CHUNK_BYTES // max(1, W.shape[1] * W.itemsize))
    for a in range(0, len(rows), chunk):
        part = slice(a, a + chunk)
        out[part] = np.einsum("ij,ij->i", W[rows[part]], Ht[columns[part]])
    return out


def compiled_times(X: CSR, Ht: Array) -> Array:
    """X·Hᵀ by a compiled kernel."""
    out = np.empty((X.shape[0], Ht.shape[1]), Ht.dtype)
    _times(X.indptr, X.indices, X.data, Ht, out)
    return out


def compiled_sums(X: CSR, W: Array) -> Array:
    """WᵀX by a compiled kernel."""
    sums = np.zeros((X.shape[1], W.shape[1]), W.dtype)
    _sums(X.indptr, X.indices, X.data, np.ascontiguousarray(W), sums)
    return np.ascontiguousarray(sums.T)


def _with_values(X: CSR, values: Array) -> CSR:
    """The pattern of X with other values."""
    own = X.rebased()
    return CSR(own.indptr, own.indices, values, own.n_cols)
