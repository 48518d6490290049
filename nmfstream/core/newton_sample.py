"""Fitting a sample in memory for Kullback-Leibler: one-variable Newton on W and on H in turn, H extrapolated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from nmfstream.core import divergence as kl
from nmfstream.core.kernels.sparse_products import transposed
from nmfstream.core.parameters import Objective, Penalties
from nmfstream.core.protocols import Executor
from nmfstream.core.tournament import Candidate, Fitter, Heat, ahead, sample_blocks
from nmfstream.types import CSR, Array, Matrix

STRIPES = 16
SWEEPS_W = kl.Effort(0, 3, 1e-3)
FIRST = kl.Effort(2, 6, 1e-3)
SETTLED = 1e-4
"""Relative decrease of the loss below which another iteration on many rows is worth less than it costs."""
EVERY = 3
"""Iterations from one look at who may still win to the next."""
ENOUGH = 10.0
"""Where twice as many rows give no more than so many times that by their first iteration, no further are fitted."""


def row_stripes(m: int, least: int = 32) -> list[tuple[int, int]]:
    """Fixed stripes of features for solving columns of H: about sixteen, `least` wide or more."""
    width = max(least, -(-m // STRIPES))
    return [(a, min(a + width, m)) for a in range(0, m, width)]


HELD_BYTES = 4 << 20
"""Dense rows up to this size are kept as nonzeros, which take up to twice their size each way."""


@dataclass(frozen=True)
class Columns:
    """Nonzeros by columns: of a large dense X picked out stripe by stripe, again and again."""

    X: Matrix
    Xt: CSR | None

    @classmethod
    def of(cls, X: Matrix, whole: Matrix) -> Columns:
        """Columns of X, whose nonzeros (or itself) `whole` are."""
        return cls(X, transposed(whole) if held(X) and isinstance(whole, CSR) else None)

    def stripe(self, start: int, stop: int) -> CSR:
        """Nonzeros of some features, a row each."""
        if self.Xt is not None:
            return self.Xt.rows(start, stop)
        return kl.nonzeros(np.ascontiguousarray(np.asarray(self.X)[:, start:stop].T))


def held(X: Matrix) -> bool:
    """Whether X is small enough (or sparse) to be kept as nonzeros both ways."""
    return isinstance(X, CSR) or X.nbytes <= HELD_BYTES


@dataclass
class Rows:
    """A sample both ways: blocks of rows, stripes of features.

    Large dense samples stay dense, since all nonzeros both ways would be several times the sample.
    """

    blocks: list[Matrix]
    bounds: list[tuple[int, int]]
    columns: Columns
    stripes: list[tuple[int, int]]

    @classmethod
    def of(cls, X: Matrix, block_rows: int, n_components: int) -> Rows:
        """Cut the rows X."""
        whole = kl.nonzeros(X) if held(X) else X
        blocks = sample_blocks(whole, block_rows, n_components)
        ends = np.cumsum([0] + [b.shape[0] for b in blocks])
        bounds = [(int(a), int(b)) for a, b in pairwise(ends)]
        return cls(blocks, bounds, Columns.of(X, whole), row_stripes(X.shape[1]))

    def block(self, j: int) -> CSR:
        """Nonzeros of a block of rows."""
        return kl.nonzeros(self.blocks[j])

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.bounds[-1][1] if self.bounds else 0


@dataclass
class Run:
    """One start on its way."""

    H: Array
    """The last step's, not extrapolated."""
    Hy: Array
    W: Array
    beta: float = 0.5
    loss: float = np.inf
    best: float = np.inf
    best_H: Array | None = None
    before: float = np.inf
    """See `Racer`."""
    fall: float = np.inf
    """Relative decrease (or increase) of the loss by the last step."""


@dataclass(frozen=True)
class NewtonFitter(Fitter):
    """The tournament's `Fitter` for β = 1."""

    objective: Objective
    init: str | None = None
    settled: float = 0.0
    """Iterations end early where no start's loss falls by more than this share of it."""

    @property
    def free(self) -> bool:
        """Rows of H may be scaled: no penalty."""
        return not (self.objective.alpha_W > 0 or self.objective.alpha_H > 0)

    @property
    def n_components(self) -> int:
        """See `Fitter.n_components`."""
        return self.objective.n_components

    def fit_rows(self, X: Matrix, starts: Sequence[Array], heat: Heat, executor: Executor) -> list[Candidate]:
        """See `Fitter.fit_rows`."""
        rows = Rows.of(X, heat.block_rows, self.n_components)
        p = self.objective.penalties(X.shape[1], X.shape[0])
        own = sum(executor.map(lambda j: kl.own_divergence(rows.block(j)), range(len(rows.blocks))))
        runs = [self._begun(rows, start) for start in starts]
        going, alone, at_first = list(runs), len(runs) == 1, np.inf
        for i in range(heat.iterations):
            self._solve_W(rows, going, p, FIRST if i == 0 else SWEEPS_W, own, executor)
            fall = max(run.fall for run in going)
            at_first = fall if i == 1 else at_first
            if i and i % EVERY == 0:
                going = ahead(runs, going, heat.bar * rows.n, (heat.iterations - i) / EVERY)
            if fall <= self.settled or not going:
                break
            self._solve_H(rows, going, p, executor)
        else:
            if alone:
                runs[0].Hy = runs[0].H
                self._solve_W(rows, runs, p, SWEEPS_W, own, executor)
        # A race goes on with the last step of each, which the next level judges before anything else.
        ended = [run.best_H if alone and run.best_H is not None else run.H for run in going]
        enough = alone and at_first <= ENOUGH * self.settled
        return [Candidate(H, run.best / max(1, rows.n), enough) for H, run in zip(ended, going, strict=True)]

    def _begun(self, rows: Rows, start: Array) -> Run:
        H = kl.with_profile(start, map(rows.block, range(len(rows.blocks))))
        H = kl.unit_sums(H)[0] if self.free else H
        return Run(H, H, np.zeros((rows.n, len(H)), H.dtype))

    def _solve_W(
        self, rows: Rows, runs: Sequence[Run], p: Penalties, effort: kl.Effort, own: float, executor: Executor
    ) -> None:
        Hts = [np.ascontiguousarray(r.Hy.T) for r in runs]
        sums = [r.Hy.sum(axis=1, dtype=np.float64) for r in runs]

        def solve(item: tuple[int, int]) -> float:
            i, j = item
            a, b = rows.bounds[j]
            X = rows.block(j)
            W, V = kl.solve_W(X, Hts[i], sums[i], p, effort, runs[i].W[a:b])
            return kl.model_part(X, W, V, sums[i], p)

        n = len(rows.blocks)
        losses = executor.map(solve, [(i, j) for i in range(len(runs)) for j in range(n)])
        for i, run in enumerate(runs):
            judge(run, own + sum(losses[i * n : (i + 1) * n]) + kl.H_penalty(run.Hy, p))

    def _solve_H(self, rows: Rows, runs: Sequence[Run], p: Penalties, executor: Executor) -> None:
        sums = [r.W.sum(axis=0, dtype=np.float64) for r in runs]

        def solve(item: tuple[int, tuple[int, int]]) -> Array:
            i, (a, b) = item
            Ht = np.ascontiguousarray(runs[i].Hy[:, a:b].T)
            kl.solve_columns(rows.columns.stripe(a, b), runs[i].W, sums[i], Ht, p, None, 1, rebuilt=False)
            return Ht

        n = len(rows.stripes)
        parts = executor.map(solve, [(i, s) for i in range(len(runs)) for s in rows.stripes])
        for i, run in enumerate(runs):
            self._extrapolate(run, np.ascontiguousarray(np.concatenate(parts[i * n : (i + 1) * n]).T))

    def _extrapolate(self, run: Run, H: Array) -> None:
        if self.free:
            H, sums = kl.unit_sums(H)
            run.W *= sums.astype(H.dtype)
        run.Hy = np.maximum(0.01 * H, H + H.dtype.type(run.beta) * (H - run.H)).astype(H.dtype)
        if self.free:
            run.Hy, sums = kl.unit_sums(run.Hy)
            run.W *= sums.astype(H.dtype)
        run.H = H


def judge(run: Run, loss: float) -> None:
    """Keep the best H; after a rise go on from the step that was not extrapolated, and extrapolate less."""
    if loss < run.best:
        run.best, run.best_H = loss, run.Hy
    if loss > run.loss * (1 + 1e-7) if run.loss > 0 else loss > run.loss:
        run.beta, run.Hy = 0.5 * run.beta, run.H
    else:
        run.beta = min(1.0, 1.05 * run.beta)
    run.fall = abs(run.loss - loss) / abs(loss) if loss else 0.0
    run.loss = loss
