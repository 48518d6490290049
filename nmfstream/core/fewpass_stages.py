"""The stages of a few-pass solver: the tournament on a sample or on all rows, and what all its passes share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from nmfstream.core import sample, tournament
from nmfstream.core.blocks import block_rows
from nmfstream.core.fewpass_state import FewPassState, record
from nmfstream.core.holdout import learnt, split, split_rows
from nmfstream.core.protocols import Batch, Block, Executor
from nmfstream.core.sample_rows import SampleRows
from nmfstream.core.state import RunState
from nmfstream.types import Array, Matrix, Runs

if TYPE_CHECKING:
    from nmfstream.core.fewpass import FewPass

S = TypeVar("S", bound=FewPassState)


class SampleStage:
    """The tournament as a resident stage: a step is a level."""

    name, resident, carries_W, learns, by_block = "sample", True, False, False, False

    def __init__(self, solver: FewPass[Any], state: RunState) -> None:
        self.solver, self.run = solver, state
        self.own = cast(FewPassState, state.solver)
        self.levels = solver.plan()
        self.rows: Runs | None = self._runs(solver.problem.n_samples or solver.size)
        self.unit = solver.size
        self._sample: SampleRows | None = None

    def _runs(self, n: int) -> Runs:
        return sample.spread_runs(n, self.solver.size, self.own.seed)

    @property
    def done(self) -> bool:
        """All levels are fitted."""
        return self.own.level >= len(self.levels)

    def step(self, batch: Batch, executor: Executor) -> None:
        """Fit one level; after the last, leave the winner's statistics for the first pass."""
        own, solver = self.own, self.solver
        X = self._sample = self._sample or SampleRows(batch.X, learnt(self.rows or ((0, batch.n_rows),), solver.share))
        before = [tournament.Candidate(H, e) for H, e in zip(own.candidates, own.candidate_losses, strict=True)]
        level = self.levels[own.level]
        rows = block_rows(solver.problem, solver.k)  # a batch's blocks may be small: the sample has no batches
        fitter = solver.fitter()
        kept = tournament.play(level, X.level(level.rows), before, fitter, own.seed + own.level, rows, executor)
        done = len(self.levels) if kept[0].enough else own.level + 1
        last = done == len(self.levels)
        kept = [fitter.finish(X.whole(), kept[0], rows, executor)] if last else kept
        changes: dict[str, Any] = {"level": done, "H": kept[0].H}
        changes["candidates"] = [] if last else [c.H for c in kept]
        changes["candidate_losses"] = [] if last else [c.loss for c in kept]
        if last:
            changes |= self.after(X.whole(), kept[0], rows, executor)
        for name, value in changes.items():
            setattr(own, name, value)
        self.run.loss = kept[0].loss

    def after(self, X: Matrix, winner: tournament.Candidate, block_rows: int, executor: Executor) -> dict[str, Any]:
        """Fields of the state that the winner leaves."""
        return self.solver.adopt(self.own, winner.H, X, winner.loss, block_rows, executor)

    def finish(self, executor: Executor) -> None:
        """The sample is behind."""
        self.own.sampled, self._sample = True, None


class WholeStage(SampleStage):
    """The first pass where all rows fit into memory: the tournament's last levels are fitted to all of them."""

    name, learns = "pass 1", True

    def _runs(self, n: int) -> Runs:
        return ((0, n),)

    def after(self, X: Matrix, winner: tournament.Candidate, block_rows: int, executor: Executor) -> dict[str, Any]:
        """See `FewPass.settle`."""
        return self.solver.settle(self.own, winner.H, X, winner.loss, executor)

    def finish(self, executor: Executor) -> None:
        """Close the pass."""
        own, run = self.own, self.run
        assert own.H is not None
        own.sampled, own.rows, self._sample = True, self.solver.size, None
        run.n_steps += 1
        record(own, run, self.name, own.H, run.loss)


class PassStage(Generic[S]):
    """What the first pass and the full passes share: blocks, rows set aside, the pass's record."""

    rows, resident, carries_W, learns = None, False, False, True

    def __init__(self, solver: Any, state: RunState) -> None:
        self.solver, self.run = solver, state
        self.own = cast(S, state.solver)
        self.name = f"pass {state.n_iter + 1}"
        self.unit: int = solver.schedule.batch_size
        self.by_block: bool = solver.by_block

    @property
    def done(self) -> bool:
        """A pass reads all rows."""
        return False

    def parts(self, batch: Batch) -> tuple[list[Block], Matrix | None]:
        """Blocks to learn from and rows to score."""
        return split(batch, self.solver.share)

    def learnt_rows(self, batch: Batch) -> tuple[Matrix, Matrix | None]:
        """The batch's rows to learn from as one matrix, and those to score."""
        return split_rows(batch, self.solver.share)

    def record(self, H: Array, loss: float, *, accepted: bool = True) -> None:
        """Close the pass."""
        record(self.own, self.run, self.name, H, loss, accepted=accepted)
