"""What the few-pass solvers share: a sample fit, one pass that updates H on the way, then full passes at fixed H.

Mairal et al. 2010 (online matrix factorization), Neal & Hinton 1998 (incremental EM), with successive halving
of competing starts on nested samples before the first pass.
"""

from __future__ import annotations

from typing import Any, ClassVar, Generic, TypeVar, cast

import numpy as np

from nmfstream.core import sample, tournament
from nmfstream.core.blocks import row_bytes, step_rows
from nmfstream.core.fewpass_stages import SampleStage, WholeStage
from nmfstream.core.fewpass_state import FewPassState, verdict
from nmfstream.core.parameters import Parameters
from nmfstream.core.protocols import Executor, Problem, Stage
from nmfstream.core.state import RunState
from nmfstream.types import Array, Matrix

SHORT = 0.2
"""A sample below this share of the rows is forgotten in the first pass."""

CHEAP_WORK = 1e7
"""Nonzeros times components of which even dear iterations cost next to nothing."""

S = TypeVar("S", bound=FewPassState)


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
    remembers: ClassVar[float] = 0.4
    """Share of the rows seen so far that sums which forget stand for: those of an unready H count for little soon."""
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
        return max(self.remembers * seen, min(seen, 8.0 * self.schedule.batch_size))

    def of_sample(self, A: Array, B: Array, rows: int) -> dict[str, Any]:
        """Fields of the state for the sums of a sample of `rows` rows: a prior for all that is unread, or forgotten."""
        share = rows / max(1.0, self.n)
        fields: dict[str, Any] = {"A": None, "B": None, "A_prior": None, "B_prior": None, "weight": 0.0}
        if share >= SHORT and self.schedule.forget_factor is None:
            return fields | {"A_prior": A / share, "B_prior": B / share}
        return fields | {"A": A, "B": B, "weight": float(rows)}

    def remembered(self, own: S, weight: float, rows: float) -> float:
        """Share that a batch of `rows` rows leaves of sums that forget and stand for `weight` rows (0: of all)."""
        factor = self.schedule.forget_factor
        if factor is not None:
            return float(factor ** (rows / self.n)) if self.n else float(factor)
        return float(np.clip((self.horizon(own, int(rows)) - rows) / weight, 0.0, 1.0)) if weight > 0 else 1.0

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
