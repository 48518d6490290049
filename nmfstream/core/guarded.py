"""Full passes whose step of H is judged by the next pass, and taken back to a safe one where the loss rose."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from nmfstream.core.fewpass_state import FewPassState
from nmfstream.core.revival import RevivingPass
from nmfstream.types import Array

SLACK = 1e-7
NOISE = 1e-3
"""What a safe step may seem to raise the loss, since rows are solved to a tolerance."""


@dataclass
class GuardedState(FewPassState):
    """What such passes keep (see `FewPassState`)."""

    Hy: Array | None = None
    """H of the running full pass."""
    safe: Array | None = None
    """A step that cannot raise the objective, from the best H that a pass has measured."""
    H_bold: Array | None = None
    """The last bold step, not extrapolated."""
    beta: float = 0.5
    best: float = math.inf
    H_best: Array | None = None
    """The H that had this loss."""
    must_take: bool = False


S = TypeVar("S", bound=GuardedState)
Steps = Callable[[], tuple[Array, Array]]
Unit = Callable[[Array], tuple[Array, Array]]


class GuardedPass(RevivingPass[S]):
    """The end of a pass at fixed Hy."""

    lift = 0.01

    def close(self, penalty: float, usage: Array, steps: Steps, unit: Unit) -> None:
        """Judge Hy by the pass's loss, and choose the next.

        Parameters
        ----------
        penalty : float
            On H, for all rows.
        usage : ndarray of shape (n_components,)
            Sums of W's columns.
        steps : callable
            Gives the safe step and the bold one.
        unit : callable
            Scales rows of H, where there is no penalty.
        """
        own, loss = self.own, self.own.total + penalty
        taken = loss <= own.best + (NOISE if own.must_take else SLACK) * abs(own.best)
        if taken:
            own.H_best = own.Hy
            self._take(*steps(), unit)
            self._revive(usage, unit)
            own.best, own.must_take = loss, False
        else:
            self._go_back()
        assert own.safe is not None and own.Hy is not None and own.H_best is not None
        # Where a row has one minimum the safe step is no worse than the best H: nothing is left to choose.
        own.candidates = [] if 1 <= self.solver.objective.beta <= 2 else [own.safe, own.H_best]
        self.run.n_steps += 1
        self.record(own.safe, own.best / max(1, own.rows), accepted=taken)

    def _go_back(self) -> None:
        """To the safe step; where that one raised the loss, half-way: rows have several minima for β outside [1, 2]."""
        own = self.own
        assert own.safe is not None and own.H_best is not None
        own.beta *= 0.5
        if own.must_take:
            own.Hy, own.safe = (0.5 * (own.H_best + own.safe)).astype(own.safe.dtype), own.H_best
        else:
            own.Hy = own.safe
        own.must_take = not own.must_take

    def _revive(self, usage: Array, unit: Unit) -> None:
        """Both steps get what is put back to life: with it the safe one stays safe."""
        own, free = self.own, not self.solver.penalized
        assert own.safe is not None and own.Hy is not None
        H, done = self.revived(own.safe, usage)
        if len(done):
            own.safe, own.Hy = H, own.Hy.copy()
            own.Hy[done] = H[done]
            own.H_bold, own.beta = None, 0.5
            if free:
                own.safe, own.Hy = unit(own.safe)[0], unit(own.Hy)[0]

    def _take(self, safe: Array, bold: Array, unit: Unit) -> None:
        own, free = self.own, not self.solver.penalized
        assert own.Hy is not None
        dtype = own.Hy.dtype
        if free:
            safe, bold = unit(safe)[0], unit(bold)[0]
        trial = bold
        if own.H_bold is not None:
            trial = np.maximum(0.1 * bold, bold + own.beta * (bold - own.H_bold))
        trial = unit(trial)[0] if free else trial
        own.H_bold = bold
        own.safe, own.Hy = (np.ascontiguousarray(a, dtype) for a in (safe, trial))
