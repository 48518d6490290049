"""The ``mu`` solver: mini-batch NMF by multiplicative updates, with the numbers of scikit-learn's MiniBatchNMF.

References
----------
A. Lefèvre, F. Bach, C. Févotte, "Online algorithms for nonnegative matrix factorization with the Itakura-Saito
divergence", WASPAA 2011; C. Févotte, J. Idier, Neural Computation 23(9), 2011.
"""

from __future__ import annotations

from typing import Any

from nmfstream.core.convergence import MAX_ITER, StoppingRule, relative_change
from nmfstream.core.initialization import Initialization
from nmfstream.core.losses import Fixed
from nmfstream.core.mu_model import MuModel, MuState, begin_updates, forgetting, is_compiled
from nmfstream.core.parameters import Parameters, Schedule
from nmfstream.core.protocols import Batch, Block, Executor, Problem, Stage
from nmfstream.core.state import PassRecord, RunState
from nmfstream.types import Array, Runs


class MiniBatchMU:
    """scikit-learn's MiniBatchNMF as stages: initialisation, then passes of mini-batches.

    Parameters
    ----------
    problem : Problem
    parameters : Parameters

    Raises
    ------
    UsageError
        For an initialisation that the shape does not allow.
    """

    name = "mu"

    def __init__(self, problem: Problem, parameters: Parameters) -> None:
        self.problem, self.parameters = problem, parameters
        objective = parameters.objective
        compiled = is_compiled(problem, objective.n_components)
        self.model = MuModel(objective, problem.n_features, problem.dtype, compiled)
        schedule = parameters.schedule
        self.batch_size = min(schedule.batch_size, problem.n_samples or schedule.batch_size)
        self.initialization = Initialization(problem, objective.n_components, parameters.start, self.batch_size)
        self.rho = forgetting(schedule.forget_factor, schedule.batch_size, problem.n_samples)
        self.rule = StoppingRule(schedule.tol, schedule.max_no_improvement, problem.n_samples)

    def start(self) -> RunState:
        """See `nmfstream.core.protocols.Solver.start`."""
        solver = MuState()
        return RunState(solver, random_state=self.initialization.begin(solver))

    def stage(self, state: RunState) -> Stage | None:
        """See `nmfstream.core.protocols.Solver.stage`."""
        prepare = self.initialization.stages
        if state.stage < len(prepare):
            return self.initialization.stage(state)
        done = state.stage - len(prepare)
        if state.stop_reason not in (None, MAX_ITER):
            # Stopped within a pass, which is still to be finished.
            return MuPass(self, state, done + 1) if state.row else None
        state.stop_reason = None if done < self.parameters.schedule.max_iter else MAX_ITER
        return None if state.stop_reason else MuPass(self, state, done + 1)


class MuPass:
    """One pass of mini-batches.

    Parameters
    ----------
    solver : MiniBatchMU
    state : RunState
    number : int
        From 1.
    """

    rows: Runs | None = None
    resident = False
    learns = True
    by_block = False

    def __init__(self, solver: MiniBatchMU, state: RunState, number: int) -> None:
        self._solver, self._state, self._number = solver, state, number
        self.name = f"pass {number}"
        self.unit = solver.batch_size
        self.carries_W = not solver.parameters.schedule.fresh_restarts and solver.problem.n_samples is not None

    @property
    def done(self) -> bool:
        """Stopped; a first pass that carries W still goes on to hand out the rows that no step has moved."""
        return self._state.stop_reason is not None and not (self.carries_W and self._number == 1)

    def step(self, batch: Batch, executor: Executor) -> Array | None:
        """See `nmfstream.core.protocols.Stage.step`."""
        run, solver = self._state, self._solver
        state, blocks = _mu(run), batch.blocks()
        if state.H is None:
            solver.initialization.from_rows(run, batch, executor)
        begin_updates(state, solver.model)
        W, generator = self._start(batch, executor)
        if run.stop_reason is None:
            assert state.H is not None
            fixed = solver.model.loss.fix(state.H)
            W = solver.model.settled(self._moved(blocks, fixed, W, executor))
            sums = solver.model.sums(blocks, W, state.H, executor)
            cost = solver.model.cost(blocks, W, fixed, sums, executor)
            before = state.H
            solver.model.update(state, sums, batch.n_rows, solver.rho)
            self._monitor(cost, batch.n_rows, before)
        run.random_state = generator
        return W if self.carries_W else None

    def _start(self, batch: Batch, executor: Executor) -> tuple[Array | None, dict[str, Any] | None]:
        """Rows of W to start from, and the generator after drawing them."""
        if not self.carries_W:
            return None, self._state.random_state
        if batch.W is not None:
            return batch.W, self._state.random_state
        return self._solver.initialization.rows_of_W(self._state, batch, executor)

    def _moved(self, blocks: list[Block], fixed: Fixed, W: Array | None, executor: Executor) -> Array:
        model, schedule = self._solver.model, self._solver.parameters.schedule
        if W is None:
            return model.solve(blocks, fixed, schedule.tol, schedule.fresh_restarts_max_iter, executor)
        return model.one_step(blocks, fixed, W, executor)

    def _monitor(self, cost: float, n_rows: int, before: Array) -> None:
        """Count the step and decide whether it was the last; the first is only counted."""
        run, rule = self._state, self._solver.rule
        state = _mu(run)
        run.n_steps += 1
        run.loss = state.batch_cost = cost
        state.pass_cost, state.pass_rows = state.pass_cost + cost * n_rows, state.pass_rows + n_rows
        assert state.H is not None
        change = relative_change(state.H, before)
        state.pass_change = max(state.pass_change, change)
        if run.n_steps == 1:
            return
        state.smoothed_cost = run.loss = rule.smoothed(state.smoothed_cost, cost, n_rows)
        improved = state.least_cost is None or state.smoothed_cost < state.least_cost
        state.least_cost = state.smoothed_cost if improved else state.least_cost
        state.no_improvement = 0 if improved else state.no_improvement + 1
        run.stop_reason = rule.verdict(change, state.no_improvement)

    def finish(self, executor: Executor) -> None:
        """See `nmfstream.core.protocols.Stage.finish`."""
        run, state = self._state, _mu(self._state)
        loss = state.pass_cost / state.pass_rows if state.pass_rows else float("nan")
        run.history.append(PassRecord(self.name, state.pass_rows, 0.0, loss, state.pass_change))
        state.pass_cost, state.pass_rows, state.pass_change = 0.0, 0, 0.0
        run.n_iter = self._number
        if run.stop_reason is None and self._number >= self._solver.parameters.schedule.max_iter:
            run.stop_reason = MAX_ITER


def partial_step(
    model: MuModel, run: RunState, batch: Batch, schedule: Schedule, rho: float, executor: Executor
) -> None:
    """One step of ``partial_fit``: W solved anew on this chunk, H updated, nothing monitored."""
    state = _mu(run)
    begin_updates(state, model)
    assert state.H is not None
    blocks, fixed = batch.blocks(), model.loss.fix(state.H)
    W = model.settled(model.solve(blocks, fixed, schedule.tol, schedule.fresh_restarts_max_iter, executor))
    model.update(state, model.sums(blocks, W, state.H, executor), batch.n_rows, rho)
    run.n_steps += 1


def _mu(run: RunState) -> MuState:
    assert isinstance(run.solver, MuState)
    return run.solver
