"""What a few-pass solver keeps between two steps, and what follows from it: the record of a pass, the end of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from nmfstream.core.parameters import Schedule
from nmfstream.core.state import PassRecord, RunState, SolverState
from nmfstream.types import Array


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


def record(own: FewPassState, run: RunState, name: str, H: Array, loss: float, *, accepted: bool = True) -> None:
    """Close a pass: history, counters, what the stopping rule looks at."""
    held = own.held_total / own.held_rows if own.held_rows else None
    rows, loss = own.rows + own.held_rows, max(float(loss), 0.0)  # less than nothing is rounding
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
