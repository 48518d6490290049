"""The one pass over a stream: H from its first rows, then the first pass's rule, then a look back at a reservoir.

A bounded sample of all rows is kept (Vitter 1985, algorithm R). After the last row a part of it is fitted, from
the stream's H and from fresh starts, and of these H the one is returned that explains the other part best.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from nmfstream.core import sample, tournament
from nmfstream.core.fewpass_state import FewPassState
from nmfstream.core.protocols import Batch, Executor, Problem
from nmfstream.core.state import RunState
from nmfstream.types import CSR, Array, Matrix, cut

RESERVOIR_BYTES = 128 << 20
JUDGES = 5
"""One row in so many of the reservoir judges what the others fitted."""
POLISHING = 10


def capacity(problem: Problem, n_components: int) -> int:
    """Rows of the reservoir: max(1024, 50 k) to fit and a quarter as many to judge, at most 128 MiB if dense."""
    rows = sample.first_level(n_components) * JUDGES // (JUDGES - 1)
    return max(1, min(rows, RESERVOIR_BYTES // max(1, problem.n_features * problem.dtype.itemsize)))


def levels(solver: Any, n_rows: int) -> tuple[int, list[sample.Level]]:
    """How many of some rows are fitted as a sample, and the levels of that."""
    start = solver.parameters.start
    size = min(n_rows, start.sample_rows or n_rows)
    effort = solver.sample_effort
    return size, sample.levels(n_rows, size, solver.k, start.n_init, init=start.init, raced=False, most=effort)


class StreamStage:
    """The first pass of a few-pass solver over rows that come once and whose number nobody knows.

    Parameters
    ----------
    solver : FewPass
    state : RunState
    inner : PassStage
        The solver's own first pass.
    """

    rows, resident, carries_W, learns, by_block = None, False, False, True, False

    def __init__(self, solver: Any, state: RunState, inner: Any) -> None:
        self.solver, self.run, self.inner = solver, state, inner
        self.own = cast(FewPassState, state.solver)
        self.name: str = inner.name
        self.unit: int = inner.unit
        self.capacity = capacity(solver.problem, solver.k)

    @property
    def done(self) -> bool:
        """A stream ends by itself."""
        return False

    def step(self, batch: Batch, executor: Executor) -> None:
        """Fit the first rows as a sample, then every batch by the first pass's rule."""
        if self.own.H is None and self.solver.parameters.start.sample_rows != 0:
            self.own.H = self._fitted(self.inner.learnt_rows(batch)[0], batch.block_rows, executor)
        learnt, _ = self.inner.learnt_rows(batch)
        self.inner.step(batch, executor)
        self._keep(learnt, batch.start, batch.block_rows)

    def _fitted(self, X: Matrix, block_rows: int, executor: Executor) -> Array:
        """H of the tournament on the rows X."""
        size, plan = levels(self.solver, X.shape[0])
        rows, kept, fitter = sample.level_rows(X, size), cast(list[tournament.Candidate], []), self.solver.fitter()
        for i, level in enumerate(plan):
            chosen = sample.level_rows(rows, level.rows)
            kept = tournament.play(level, chosen, kept, fitter, self.own.seed + i, block_rows, executor)
        return cast(Array, self.solver.unit(fitter.finish(rows, kept[0], block_rows, executor).H))

    def _keep(self, X: Matrix, start: int, block_rows: int) -> None:
        """Let rows into the reservoir, each with the chance that makes all rows seen alike likely to be there."""
        own, n = self.own, X.shape[0]
        seen = own.seen
        numbers = np.arange(seen, seen + n)
        places = np.random.RandomState([own.seed, start % (1 << 32)]).randint(0, numbers + 1)
        places = np.where(numbers < self.capacity, numbers, places)
        taken: dict[int, int] = {int(p): i for i, p in enumerate(places) if p < self.capacity}
        old, held = reservoir(own), min(seen, self.capacity)
        source = np.arange(min(seen + n, self.capacity))
        for place, i in taken.items():
            source[place] = held + i
        whole = sample.stack([X] if old is None else [old, X])
        own.reservoir = pack(sample.take(whole, source))
        own.seen = seen + n

    def finish(self, executor: Executor) -> None:
        """Close the pass; take the better of the stream's H and of what the reservoir alone gives."""
        own = self.own
        X = reservoir(own)
        best = own.H
        if X is not None and own.H is not None and self.solver.parameters.start.sample_rows != 0:
            best = self._looked_back(X, own.H, executor)
        self.inner.finish(executor)
        own.H, own.reservoir = best, []

    def _looked_back(self, X: Matrix, H: Array, executor: Executor) -> Array:
        whole = self.own.seen <= self.capacity
        judged = np.arange(X.shape[0]) % JUDGES == JUDGES - 1
        fit, judge = (X, X) if whole or not judged.any() else (sample.take(X, ~judged), sample.take(X, judged))
        block_rows = max(64, fit.shape[0] // 8)
        polished = self.solver.fitter().fit_rows(fit, [H], tournament.Heat(POLISHING, block_rows), executor)[0].H
        others = [polished, self._fitted(fit, block_rows, executor)]
        candidates = [H, *(self.solver.unit(other) for other in others)]
        losses = [self.solver.judge(judge, h, block_rows, executor) for h in candidates]
        return cast(Array, candidates[int(np.argmin([e if np.isfinite(e) else np.inf for e in losses]))])


def pack(X: Matrix) -> list[Array]:
    """A matrix as a list of arrays, which a state can hold."""
    return [X.indptr, X.indices, X.data, np.array([X.n_cols])] if isinstance(X, CSR) else [X]


def reservoir(own: FewPassState) -> Matrix | None:
    """The rows kept so far."""
    return unpack(own.reservoir)


def unpack(arrays: Sequence[Array]) -> Matrix | None:
    """The inverse of `pack`."""
    if not arrays:
        return None
    if len(arrays) == 1:
        return arrays[0]
    indptr, indices, data, n_cols = arrays
    return cut(CSR(indptr, indices, data, int(n_cols[0])), 0, len(indptr) - 1)
