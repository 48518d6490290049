"""The last look at a few rows: which of two H is returned."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from nmfstream.core import sample
from nmfstream.core.fewpass_state import FewPassState
from nmfstream.core.holdout import learnt
from nmfstream.core.protocols import Batch, Executor
from nmfstream.core.sample_rows import SampleRows
from nmfstream.core.state import RunState
from nmfstream.types import Runs


class ClosingStage:
    """Judges ``state.candidates`` on a fixed sample and keeps the better; the first where they are equal.

    The rows are drawn apart from those that were fitted, on which older H look better than they are.

    Parameters
    ----------
    solver : FewPass
        With ``judge(X, H, block_rows, executor) -> float``.
    state : RunState
    """

    name, resident, carries_W, learns, by_block = "choice of H", True, False, False, False

    def __init__(self, solver: Any, state: RunState) -> None:
        self.solver, self.own = solver, cast(FewPassState, state.solver)
        n = solver.problem.n_samples
        self.unit = min(n, sample.first_level(solver.k), max(1, solver.size))
        self.rows: Runs | None = sample.spread_runs(n, self.unit, self.own.seed + 1)

    @property
    def done(self) -> bool:
        """One step is all."""
        return not self.own.candidates

    def step(self, batch: Batch, executor: Executor) -> None:
        """Judge and choose."""
        X = SampleRows(batch.X, learnt(self.rows or (), self.solver.share)).whole()
        losses = [self.solver.judge(X, H, batch.block_rows, executor) for H in self.own.candidates]
        best = self.own.candidates[int(np.argmin([e if np.isfinite(e) else np.inf for e in losses]))]
        self.own.H, self.own.candidates = best, []

    def finish(self, executor: Executor) -> None:
        """Nothing is left to do."""
