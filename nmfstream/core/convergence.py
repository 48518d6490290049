"""Stopping rule of scikit-learn's mini-batch algorithm: change of H, then lack of improvement of a smoothed cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nmfstream.types import Array

SMALL_CHANGE = "converged: H changed by less than tol"
NO_IMPROVEMENT = "converged: the smoothed cost stopped improving"
MAX_ITER = "max_iter reached"


@dataclass(frozen=True)
class StoppingRule:
    """When a run of mini-batches ends.

    Attributes
    ----------
    tol : float
        Relative change of H (Frobenius norm) from one batch to the next at which the run ends; 0: never.
    max_no_improvement : int or None
        Batches in a row without a new minimum of the smoothed cost at which it ends.
    n_samples : int or None
        Rows in all; None for a stream, whose cost is not smoothed.
    """

    tol: float
    max_no_improvement: int | None
    n_samples: int | None

    def smoothed(self, before: float | None, cost: float, batch_rows: int) -> float:
        """Exponentially weighted average of the batches' costs, a batch weighing its share of all rows."""
        if before is None:
            return cost
        weight = min(1.0, batch_rows / ((self.n_samples or batch_rows) + 1))
        return before * (1.0 - weight) + cost * weight

    def verdict(self, change: float, no_improvement: int) -> str | None:
        """Why to stop now, or None."""
        if self.tol > 0 and change <= self.tol:
            return SMALL_CHANGE
        if self.max_no_improvement is not None and no_improvement >= self.max_no_improvement:
            return NO_IMPROVEMENT
        return None


def relative_change(new: Array, old: Array) -> float:
    """‖new - old‖ / ‖new‖ (NaN for zeros), summed in float64."""
    norm = float(np.vecdot(new, new).sum(dtype=np.float64))
    difference = new - old
    change = float(np.vecdot(difference, difference).sum(dtype=np.float64))
    return float(np.sqrt(change / norm)) if norm > 0 else float("nan")
