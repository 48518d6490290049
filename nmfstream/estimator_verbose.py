"""What ``verbose`` prints, in scikit-learn's words."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from nmfstream.core.convergence import NO_IMPROVEMENT, SMALL_CHANGE
from nmfstream.core.mu_model import MuState
from nmfstream.core.protocols import Problem
from nmfstream.core.state import RunState

_WHY = {
    SMALL_CHANGE: "small H change",
    NO_IMPROVEMENT: "lack of improvement in objective function",
}


def narrator(estimator: Any, problem: Problem) -> Callable[[RunState], None]:
    """A listener between steps that prints one line a step and one at convergence."""
    n_steps = estimator.max_iter * math.ceil((problem.n_samples or 0) / estimator._batch_size)
    told = 0

    def tell(run: RunState) -> None:
        nonlocal told
        if run.n_steps <= told:
            return
        told = run.n_steps
        print(_line(run, n_steps))
        if run.stop_reason in _WHY:
            print(f"Converged ({_WHY[run.stop_reason]}) at step {told}/{n_steps}")

    return tell


def _line(run: RunState, n_steps: int) -> str:
    state, line = run.solver, f"Minibatch step {run.n_steps}/{n_steps}: mean batch cost: "
    if not isinstance(state, MuState):
        return f"{line}{run.loss}"
    smoothed = "" if state.smoothed_cost is None else f", ewa cost: {state.smoothed_cost}"
    return f"{line}{state.batch_cost}{smoothed}"
