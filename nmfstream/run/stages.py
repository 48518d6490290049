"""The loop that every fit is: stages of a solver over a source, one step at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from nmfstream.core.protocols import Batch, Executor, Solver, Stage
from nmfstream.core.state import RunState
from nmfstream.run.events import Advanced, Listener, StageFinished, StageStarted, silent
from nmfstream.run.sources import Source
from nmfstream.types import Array, Runs


class CarriedW(Protocol):
    """Rows of W that ``mu`` carries from pass to pass: pass e reads generation e-1 and writes e."""

    def begin(self, generation: int, row: int) -> None:
        """Pass `generation` (from 1) goes on at `row`."""
        ...

    def read(self, start: int, stop: int) -> Array | None:
        """Rows of the previous generation; None where the first pass has to make its own."""
        ...

    def write(self, start: int, W: Array) -> None:
        """Rows of this generation; idempotent."""
        ...


class MemoryW:
    """W in memory, both generations in one array (nothing is resumed from memory).

    Parameters
    ----------
    n_samples, n_components : int
    dtype : dtype
    initial : ndarray, optional
        W of ``init="custom"``.
    """

    def __init__(self, n_samples: int, n_components: int, dtype: object, initial: Array | None = None) -> None:
        self.W = np.empty((n_samples, n_components), dtype) if initial is None else initial  # type: ignore[call-overload]
        self._known = initial is not None

    def begin(self, generation: int, row: int) -> None:
        """See `CarriedW.begin`."""
        self._known = self._known or generation > 1

    def read(self, start: int, stop: int) -> Array | None:
        """See `CarriedW.read`."""
        return self.W[start:stop] if self._known else None

    def write(self, start: int, W: Array) -> None:
        """See `CarriedW.write`."""
        self.W[start : start + len(W)] = W


@dataclass
class Hooks:
    """What happens around the steps.

    Attributes
    ----------
    after_step : callable
        Called between two steps, when the state is whole: saves, and raises `StopRequested` to end the run.
    listener : callable
        Hears the events.
    """

    after_step: Callable[[RunState], None] = field(default=lambda state: None)
    listener: Listener = silent


def run_stages(
    solver: Solver,
    state: RunState,
    source: Source,
    executor: Executor,
    block_rows: int,
    carried: CarriedW | None = None,
    hooks: Hooks | None = None,
) -> None:
    """Take the state through all stages that are left; it is whole whenever this returns or raises.

    Parameters
    ----------
    solver : Solver
    state : RunState
        Changed in place.
    source : Source
    executor : Executor
    block_rows : int
        Rows a block, from shape and parameters alone.
    carried : CarriedW, optional
        Needed where a stage carries W.
    hooks : Hooks, optional

    Raises
    ------
    StopRequested
        When a stop was asked for; the step in hand has not happened.
    """
    hooks = hooks or Hooks()
    while (stage := solver.stage(state)) is not None:
        _run_stage(stage, state, source, executor, block_rows, carried, hooks)


def _run_stage(
    stage: Stage,
    state: RunState,
    source: Source,
    executor: Executor,
    block_rows: int,
    carried: CarriedW | None,
    hooks: Hooks,
) -> None:
    began, records = time.perf_counter(), len(state.history)
    rows = stage_rows(stage.rows, source.problem.n_samples)
    hooks.listener(StageStarted(stage.name, rows, 0 if stage.resident else state.row))
    steps = _resident_steps if stage.resident else _streamed_steps
    for batch in steps(stage, state, source, executor, block_rows, carried):
        # What is resident was read before its first step.
        read = (rows, batch.nbytes * (state.row == 1)) if stage.resident else (state.row, batch.nbytes)
        hooks.listener(Advanced(*read, state.n_steps, state.loss))
        hooks.after_step(state)
    if carried is not None and stage.carries_W and state.row < rows:
        _hand_on(stage, state, carried, rows)
    stage.finish(executor)
    rows = rows or state.row
    state.stage, state.row = state.stage + 1, 0
    seconds = time.perf_counter() - began
    for record in state.history[records:]:
        record.seconds = seconds
    hooks.listener(StageFinished(stage.name, rows, seconds, state.history[-1] if state.history[records:] else None))
    hooks.after_step(state)


def _streamed_steps(
    stage: Stage,
    state: RunState,
    source: Source,
    executor: Executor,
    block_rows: int,
    carried: CarriedW | None,
) -> Iterator[Batch]:
    if stage.done:
        return
    W = carried if stage.carries_W else None
    if W is not None:
        W.begin(state.n_iter + 1, state.row)
    given = source.batches(stage.rows, stage.unit, state.row, block_rows, by_block=stage.by_block)
    with closing(given) as batches:  # type: ignore[type-var]
        for batch in batches:
            batch.W = W.read(batch.start, batch.stop) if W is not None else None
            after = stage.step(batch, executor)
            if W is not None and after is not None:
                W.write(batch.start, after)
            state.row += batch.n_rows
            state.rows_read += batch.n_rows
            yield batch
            if stage.done:
                return


def _hand_on(stage: Stage, state: RunState, carried: CarriedW, n_rows: int) -> None:
    """Rows that a stopped pass has not come to keep the W that they had."""
    carried.begin(state.n_iter + 1, state.row)
    for start in range(state.row, n_rows, stage.unit):
        W = carried.read(start, min(start + stage.unit, n_rows))
        assert W is not None
        carried.write(start, W)


def _resident_steps(
    stage: Stage,
    state: RunState,
    source: Source,
    executor: Executor,
    block_rows: int,
    carried: CarriedW | None,
) -> Iterator[Batch]:
    if stage.done:
        return
    assert stage.rows is not None
    X = source.gather(stage.rows)
    batch = Batch(0, X, block_rows)
    while not stage.done:
        stage.step(batch, executor)
        state.rows_read += 0 if state.row else X.shape[0]
        state.row += 1
        yield batch


def stage_rows(runs: Runs | None, n_samples: int | None) -> int:
    """Rows that a stage reads; 0 where nobody knows."""
    return sum(b - a for a, b in runs) if runs is not None else n_samples or 0
