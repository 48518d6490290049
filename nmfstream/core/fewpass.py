"""What the few-pass solvers share: a sample fit, one pass that updates H on the way, then full passes at fixed H.

Mairal et al. 2010 (online matrix factorization), Neal & Hinton 1998 (incremental EM), with successive halving
of competing starts on nested samples before the first pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar, cast

import numpy as np

from nmfstream.core import sample, tournament
from nmfstream.core.blocks import block_rows, row_bytes, step_rows
from nmfstream.core.holdout import learnt, split, split_rows
from nmfstream.core.parameters import Parameters, Schedule
from nmfstream.core.protocols import Batch, Block, Executor, Problem, Stage
from nmfstream.core.state import PassRecord, RunState, SolverState
from nmfstream.types import Array, Matrix, Runs

SHORT = 0.2
"""A sample below this share of the rows is forgotten in the first pass."""

REMEMBERED = 0.4
"""Share of the rows seen so far that sums which forget stand for: those of an unready H count for little soon."""

CHEAP_WORK = 1e7
"""Nonzeros times components of which even dear iterations cost next to nothing."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(executor: Executor, task: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Results in the order of the items, a few at a time, so that few partial sums are in memory at once."""
    waiting = list(items)
    width = 4 * max(1, executor.n_workers)
    for low in range(0, len(waiting), width):
        yield from executor.map(task, waiting[low : low + width])


@dataclass
class FewPassState(SolverState):
    """What every few-pass solver keeps between two steps (see `SolverState`)."""

    seed: int = 0
    sampled: bool = False
    """The sample fit is behind."""
    level: int = 0
    """Levels of the tournament done."""
    candidates: list[Array] = field(default_factory=list)
    candidate_losses: list[float] = field(default_factory=list)
    rows: int = 0
    """Rows of the running pass that were learnt from."""
    total: float = 0.0
    """Objective of those rows, summed as they were read."""
    held_rows: int = 0
    held_total: float = 0.0
    held_losses: list[float] = field(default_factory=list)
    """Mean objective a row set aside, one a pass."""
    losses: list[float] = field(default_factory=list)
    accepted: list[bool] = field(default_factory=list)
    """Whether each pass's step was taken."""
    revived: int = 0
    """Dead components put back to life."""
    unused: bool = False
    """The last pass found a dead component."""
    worst_loss: Array = field(default_factory=lambda: np.zeros(0))
    worst_rows: Array | None = None
    """Rows of the running pass that are explained worst, where something is dead (see `core.dead.Worst`)."""
    H_before: Array | None = None
    """H at the start of the running pass."""
    seen: int = 0
    reservoir: list[Array] = field(default_factory=list)
    """Rows of a stream that were offered to the reservoir, and those in it (see `core.stream`)."""


S = TypeVar("S", bound=FewPassState)


def verdict(losses: list[float], accepted: list[bool], n_iter: int, schedule: Schedule) -> str | None:
    """Why the run ends after these passes, in words; None while it goes on.

    Stops after `max_no_improvement` passes in a row whose relative decrease of the loss is below `tol`; a pass
    whose step was rejected does not count. Never before one whole pass.
    """
    stalled, patience = 0, schedule.max_no_improvement
    for before, after, taken in zip(losses, losses[1:], accepted[1:], strict=False):
        if taken:
            stalled = stalled + 1 if before == 0 or before - after < schedule.tol * abs(before) else 0
    if patience is not None and schedule.tol > 0 and stalled >= patience:
        return (
            f"converged: the loss fell by less than {schedule.tol:g} of itself in {stalled} passes in a row "
            "(a smaller --tol goes on)"
        )
    if n_iter >= schedule.max_iter:
        done = "1 pass" if n_iter == 1 else f"{n_iter} passes"
        return f"{done} done, as --max-iter asks (a larger --max-iter with --resume goes on)"
    return None


def relative_change(before: Array | None, after: Array) -> float:
    """‖after − before‖ / ‖before‖ (NaN where nothing was before)."""
    if before is None:
        return math.nan
    size = float(np.linalg.norm(before.astype(np.float64)))
    return float(np.linalg.norm(after.astype(np.float64) - before)) / size if size > 0 else math.nan


class FewPass(Generic[S]):
    """Base of the few-pass solvers: a `Solver` whose stages follow from the state alone.

    Parameters
    ----------
    problem : Problem
    parameters : Parameters
    """

    name: ClassVar[str] = ""
    state_class: type[S]
    dear: ClassVar[bool] = False
    """Whether an iteration costs so much that all rows, where they are fitted, get four random starts in fewer."""
    raced: ClassVar[bool] = False
    """Whether, where rows are many, the sample is fitted by `sample.race`."""
    sample_effort: ClassVar[float] = 10.0
    """How many times as many iterations the sample gets at most where rows are few."""

    def __init__(self, problem: Problem, parameters: Parameters) -> None:
        self.problem, self.parameters = problem, parameters
        self.objective, self.schedule = parameters.objective, parameters.schedule
        self.k = parameters.objective.n_components
        self.whole = self._is_whole()
        self.size = (problem.n_samples or 0) if self.whole else self._sample_rows()
        self.penalized = self.objective.alpha_W > 0 or self.objective.alpha_H > 0

    @property
    def share(self) -> float:
        """Share of the rows that are only scored."""
        return self.schedule.holdout

    @property
    def n(self) -> float:
        """Rows in all that are learnt from (about)."""
        return (self.problem.n_samples or 0) * (1.0 - self.share)

    def _is_whole(self) -> bool:
        """Whether all rows are few enough to be read once, kept and fitted: that is the first pass then."""
        start, schedule = self.parameters.start, self.schedule
        asked = start.sample_rows is not None or start.init == "custom" or schedule.forget_factor is not None
        return not asked and self.share <= 0 and sample.fits(self.problem, self.k)

    def _sample_rows(self) -> int:
        start = self.parameters.start
        if start.init == "custom" or self.problem.n_samples is None:
            return 0
        return sample.sample_size(self.problem, self.k, start.sample_rows)

    @property
    def by_block(self) -> bool:
        """Whether its passes need a batch's blocks only, each once (see `Stage`)."""
        return False

    def plan(self) -> list[sample.Level]:
        """The levels of the sample fit."""
        start, problem = self.parameters.start, self.problem
        n = problem.n_samples or self.size
        if not self.size:
            return []
        work = float(self.k * (n * problem.n_features if problem.nnz is None else problem.nnz))
        most, n_init, init = self.sample_effort, start.n_init, start.init
        if self.dear:
            most = float(np.clip(CHEAP_WORK / max(1.0, work), 2.0, 6.0 if self.whole else most))
        if self.dear and self.whole:
            init = init or "random"
            n_init = 4 if n_init is None and 2 * work > CHEAP_WORK else n_init
        return sample.levels(n, self.size, self.k, n_init, init=init, raced=self.raced, most=most, work=work)

    def start(self) -> RunState:
        """The state before anything is read."""
        seed = sample.draw_seed(self.parameters.start.generator())
        state = self.state_class(seed=seed)
        if self.parameters.start.init == "custom":
            state.H = np.array(self.parameters.start.H, dtype=self.problem.dtype, order="C")
        return RunState(solver=state)

    def stage(self, state: RunState) -> Stage | None:
        """The stage that the state stands in; sets ``state.stop_reason`` and gives None at the end."""
        own = cast(S, state.solver)
        if not own.sampled and self.size and state.n_iter == 0:
            return cast(Stage, WholeStage(self, state) if self.whole else SampleStage(self, state))
        reason = verdict(own.losses, own.accepted, state.n_iter, self.schedule)
        state.stop_reason = None
        if reason is None:
            return self._pass(state)
        closing = self.closing(state)
        if closing is None:
            state.stop_reason = reason
        return closing

    def _pass(self, state: RunState) -> Stage:
        if state.n_iter:
            return cast(Stage, self.full_pass(state))
        first = self.first_pass(state)
        if self.problem.n_samples is not None:
            return cast(Stage, first)
        from nmfstream.core.stream import StreamStage

        return cast(Stage, StreamStage(self, state, first))

    @property
    def step_rows(self) -> int:
        """Rows a step of a pass at fixed H, W of theirs counted."""
        width = row_bytes(self.problem) + 3 * self.k * self.problem.dtype.itemsize
        return step_rows(self.schedule.batch_size, width)

    def horizon(self, own: S, rows: int) -> float:
        """Rows that sums remember which forget: a share of those seen so far (at first eight batches)."""
        seen = self.size + own.rows + rows
        return max(REMEMBERED * seen, min(seen, 8.0 * self.schedule.batch_size))

    def unit(self, H: Array) -> Array:
        """H as the passes keep it."""
        return H

    def judge(self, X: Matrix, H: Array, block_rows: int, executor: Executor) -> float:
        """Mean objective of the rows X at H, each solved to its optimum."""
        from nmfstream.core.losses import make_loss
        from nmfstream.core.rowsolve import row_solver

        solver, loss = row_solver(H, self.objective, X.dtype), make_loss(self.objective.beta, X.dtype)
        fixed, p = loss.fix(H), self.objective.penalties(H.shape[1], 0)

        def value(rows: Matrix) -> float:
            W = solver(rows).W
            squares = float((W.astype(np.float64) ** 2).sum())
            penalty = p.l1_W * float(W.sum(dtype=np.float64)) + 0.5 * p.l2_W * squares
            return float(loss.value(rows, W, fixed)) + penalty

        blocks = tournament.sample_blocks(X, block_rows, self.k)
        return float(sum(executor.map(value, blocks)) / max(1, X.shape[0]))

    def closing(self, state: RunState) -> Stage | None:
        """What is read once more before the run ends."""
        return None

    def first_pass(self, state: RunState) -> Any:
        """The pass that updates H on the way."""
        raise NotImplementedError

    def full_pass(self, state: RunState) -> Any:
        """A pass at fixed H."""
        raise NotImplementedError

    def fitter(self) -> tournament.Fitter:
        """How the sample is fitted."""
        raise NotImplementedError

    def settle(self, own: S, H: Array, X: Matrix, loss: float, executor: Executor) -> dict[str, Any]:
        """Fields of the state that the winner H of a fit of all rows X leaves for the full passes."""
        H = self.unit(H)
        return {"H": H, "Hy": H}

    def adopt(self, own: S, H: Array, X: Matrix, loss: float, block_rows: int, executor: Executor) -> dict[str, Any]:
        """Fields of the state that the winner H of the sample fit on the rows X leaves for the first pass."""
        raise NotImplementedError


class SampleStage:
    """The tournament as a resident stage: a step is a level."""

    name, resident, carries_W, learns, by_block = "sample", True, False, False, False

    def __init__(self, solver: FewPass[Any], state: RunState) -> None:
        self.solver, self.run = solver, state
        self.own = cast(FewPassState, state.solver)
        self.levels = solver.plan()
        self.rows: Runs | None = self._runs(solver.problem.n_samples or solver.size)
        self.unit = solver.size

    def _runs(self, n: int) -> Runs:
        return sample.spread_runs(n, self.solver.size, self.own.seed)

    @property
    def done(self) -> bool:
        """All levels are fitted."""
        return self.own.level >= len(self.levels)

    def step(self, batch: Batch, executor: Executor) -> None:
        """Fit one level; after the last, leave the winner's statistics for the first pass."""
        own, solver = self.own, self.solver
        X = learnt(batch.X, self.rows or ((0, batch.n_rows),), solver.share)
        before = [tournament.Candidate(H, e) for H, e in zip(own.candidates, own.candidate_losses, strict=True)]
        level = self.levels[own.level]
        rows = block_rows(solver.problem, solver.k)  # a batch's blocks may be small: the sample has no batches
        fitter = solver.fitter()
        kept = tournament.play(level, X, before, fitter, own.seed + own.level, rows, executor)
        done = len(self.levels) if kept[0].enough else own.level + 1
        last = done == len(self.levels)
        kept = [fitter.finish(X, kept[0], rows, executor)] if last else kept
        changes: dict[str, Any] = {"level": done, "H": kept[0].H}
        changes["candidates"] = [] if last else [c.H for c in kept]
        changes["candidate_losses"] = [] if last else [c.loss for c in kept]
        if last:
            changes |= self.after(X, kept[0], rows, executor)
        for name, value in changes.items():
            setattr(own, name, value)
        self.run.loss = kept[0].loss

    def after(self, X: Matrix, winner: tournament.Candidate, block_rows: int, executor: Executor) -> dict[str, Any]:
        """Fields of the state that the winner leaves."""
        return self.solver.adopt(self.own, winner.H, X, winner.loss, block_rows, executor)

    def finish(self, executor: Executor) -> None:
        """The sample is behind."""
        self.own.sampled = True


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
        own.sampled, own.rows = True, self.solver.size
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


def record(own: FewPassState, run: RunState, name: str, H: Array, loss: float, *, accepted: bool = True) -> None:
    """Close a pass: history, counters, what the stopping rule looks at."""
    held = own.held_total / own.held_rows if own.held_rows else None
    rows, loss = own.rows + own.held_rows, float(loss)
    run.history.append(PassRecord(name, rows, 0.0, loss, relative_change(own.H_before, H)))
    own.losses.append(loss)
    own.accepted.append(accepted)
    if held is not None:
        own.held_losses.append(held)
    own.H, own.H_before = H, None
    own.rows = own.held_rows = 0
    own.total = own.held_total = 0.0
    run.loss = loss
    run.n_iter += 1
