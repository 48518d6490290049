"""``solver="hals"`` of the estimator: rows of W each at its optimum, and ``partial_fit`` by sums that fade."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nmfstream.core.dead import dead_components, revive, worst_rows
from nmfstream.core.parameters import Objective
from nmfstream.core.protocols import Executor
from nmfstream.core.reduction import add_WtX
from nmfstream.core.rowsolve import row_solver
from nmfstream.core.state import RunState, SolverState
from nmfstream.errors import DataError
from nmfstream.estimator_engine import one_batch
from nmfstream.types import CSR, Array, Matrix

MARGIN = 1e3
"""Between the largest value of X and the square roots of its type's limits."""


@dataclass
class OnlineState(SolverState):
    """H and the fading sums WᵀW and WᵀX."""

    kind: ClassVar[str] = "hals-online"
    A: Array | None = None
    B: Array | None = None
    weight: float = 0.0


def solve_each_row(X: Matrix, H: Array, objective: Objective, executor: Executor) -> Array:
    """The optimal W of each row, whatever rows stand beside it."""
    solver = row_solver(np.ascontiguousarray(H, X.dtype), objective, X.dtype)
    blocks = one_batch(X, objective.n_components).blocks()
    return np.concatenate([solution.W for solution in executor.map(lambda b: solver(b.X), blocks)])


def check_range(X: Matrix) -> None:
    """Refuse values whose squares are out of the type's range: sums of them would be infinite or zero.

    Raises
    ------
    DataError
    """
    largest = float((X.values if isinstance(X, CSR) else X).max(initial=0.0))
    limits = np.finfo(X.dtype)
    if largest and not math.sqrt(limits.tiny) * MARGIN < largest < math.sqrt(limits.max) / MARGIN:
        raise DataError(
            f"values up to {largest:.3g} have squares that {X.dtype.name} cannot sum",
            hint="divide X by its largest value",
        )


def partial_fit_hals(run: RunState, X: Matrix, objective: Objective, rho: float, executor: Executor) -> None:
    """A ← ρA + WᵀW, B ← ρB + WᵀX, then one update of H by coordinate descent on these sums.

    Components that no row uses are put back to life as what the chunk's worst rows lack, unless an L1 penalty is on.
    """
    from nmfstream.core import frobenius

    if not isinstance(run.solver, OnlineState):
        run.solver = OnlineState(run.solver.H)
    state = run.solver
    assert state.H is not None
    W = solve_each_row(X, state.H, objective, executor)
    A, B = (W.T @ W).astype(np.float64), np.zeros(state.H.shape)
    add_WtX(B, one_batch(X, objective.n_components).blocks(), W, executor)
    weight = float(X.shape[0])
    if state.A is not None and state.B is not None:
        A, B, weight = A + rho * state.A, B + rho * state.B, weight + rho * state.weight
    step = frobenius.HStep(A, B, state.H, objective.penalties(X.shape[1], weight))
    H = frobenius.update_H([step], executor)[0].astype(X.dtype)
    if not objective.alpha_H * objective.l1_ratio and not objective.alpha_W * objective.l1_ratio:
        H = revive(H, dead_components(H, A.diagonal()), worst_rows(X, W, state.H))[0]
    state.H, state.A, state.B, state.weight = H, A, B, weight
    run.n_steps += 1
