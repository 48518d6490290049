"""Full passes that look for what dead components could explain, and put them back to life at the end."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from nmfstream.core.dead import MOST_A_BLOCK, Worst, dead_components, merge, revive, worst_rows
from nmfstream.core.fewpass_stages import PassStage
from nmfstream.core.fewpass_state import FewPassState
from nmfstream.core.protocols import Block, Executor
from nmfstream.core.reduction import in_order
from nmfstream.core.rowsolve import row_solver
from nmfstream.core.state import RunState
from nmfstream.types import Array

S = TypeVar("S", bound=FewPassState)


class RevivingPass(PassStage[S]):
    """A pass at fixed H that knows its dead components.

    Rows are looked at only where a row of H is dead, or where the pass before found a component that no row uses.
    An L1 penalty kills what it should; nothing is put back to life then.
    """

    lift = 0.0
    """Share of its mean that a revived row of H has at least everywhere (multiplicative steps cannot leave zero)."""

    def __init__(self, solver: Any, state: RunState) -> None:
        super().__init__(solver, state)
        self.unit = solver.step_rows

    def look(self, blocks: list[Block], H: Array, executor: Executor) -> Worst | None:
        """The worst rows of the pass so far, these blocks included; None where nothing is dead."""
        own, objective = self.own, self.solver.objective
        dead = dead_components(H, np.ones(len(H)))
        if not (own.unused or len(dead)) or (objective.l1_ratio > 0 and self.solver.penalized):
            return None
        solver = row_solver(H, objective, H.dtype)
        found = None if own.worst_rows is None else Worst(own.worst_loss, own.worst_rows)

        def worst_of(block: Block) -> Worst:
            with block.reading() as X:
                return worst_rows(X, solver(X).W, H, MOST_A_BLOCK)

        for worst in in_order(executor, worst_of, blocks):
            found = merge(found, worst, len(H))
        return found

    def keep(self, found: Worst | None) -> None:
        """Remember the worst rows."""
        if found is not None:
            self.own.worst_loss, self.own.worst_rows = found

    def revived(self, H: Array, usage: Array) -> tuple[Array, Array]:
        """H with the dead components replaced, and their numbers; forgets the worst rows.

        Parameters
        ----------
        usage : ndarray of shape (n_components,)
            How much the rows of the pass used each component.
        """
        own, done = self.own, np.zeros(0, np.int64)
        dead = dead_components(H, usage)
        if own.worst_rows is not None:
            H, done = revive(H, dead, Worst(own.worst_loss, own.worst_rows), lift=self.lift)
        own.revived += len(done)
        own.unused = len(dead) > len(done)
        own.worst_rows, own.worst_loss = None, np.zeros(0)
        return H, done
