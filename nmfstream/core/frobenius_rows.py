"""Rows of W for least squares at one H, a block at a time, with the statistics that they add."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from nmfstream.core import frobenius as fro
from nmfstream.core.kernels import hals_block
from nmfstream.core.parameters import Penalties
from nmfstream.core.products import Wt_times, sum_of_squares, times_Ht
from nmfstream.core.protocols import Block
from nmfstream.core.sweeps import ridge_inverse
from nmfstream.types import Array, Matrix


class RowsAt:
    """The problem of rows at one H.

    Parameters
    ----------
    H : ndarray of shape (n_components, n_features)
    penalties : Penalties
    effort : Effort
    """

    def __init__(self, H: Array, penalties: Penalties, effort: fro.Effort) -> None:
        self.H, self.penalties, self.effort = H, penalties, effort
        self.G = fro.gram(H, penalties.l2_W)
        self.inverse = ridge_inverse(self.G)

    def solved(self, X: Matrix) -> tuple[Array, fro.Sums]:
        """W of a block, and its statistics without WᵀX."""
        C = times_Ht(X, self.H)
        W = fro.solve_rows(C, self.G, self.penalties, self.effort, inverse=self.inverse)
        return W, fro.own_sums(W, C, self.G, self.penalties)

    def sums(self, block: Block, *, squares: bool) -> fro.Sums:
        """All statistics of a block, ½‖X‖² where it is asked for."""
        if not hals_block.pays((block.stop - block.start, self.H.shape[1]), len(self.H)):
            with block.reading() as X:
                return self._in_two_visits(X, squares=squares)
        with block.parts() as parts:
            if hals_block.fits(parts, self.H.dtype):
                return self._in_one_visit(parts)
            return self._in_two_visits(parts[0], squares=squares)

    def _in_two_visits(self, X: Matrix, *, squares: bool) -> fro.Sums:
        W, sums = self.solved(X)
        sums.B = Wt_times(W, X)
        sums.square = 0.5 * sum_of_squares(X) if squares else 0.0
        return sums

    def _in_one_visit(self, parts: Sequence[Array]) -> fro.Sums:
        W, WtX, w1, cross, square = self._solver.solve(parts)
        A = fro.gram(W.T)
        return fro.Sums(A, WtX, w1, fro.half_quadratic(A, self.G, self.penalties) - cross, 0.5 * square)

    @cached_property
    def _solver(self) -> hals_block.BlockSolver:
        return hals_block.BlockSolver(self.H, self.G, self.inverse, self.penalties.l1_W, *self.effort)

    def sums_of_residuals(self, block: Block, *, squares: bool) -> fro.Sums:
        """As `sums`, where the loss is so small that its expansion cancels."""
        with block.reading() as X:
            W, WtR, half = fro.solve_exactly(X, self.H, self.penalties)
            own = fro.own_sums(W, np.zeros_like(W), self.G, self.penalties)
            return fro.Sums(own.A, WtR, own.w1, half, 0.5 * sum_of_squares(X) if squares else 0.0)
