"""W of a batch by multiplicative updates at fixed H: one step, or many until the whole batch changes little."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nmfstream.core.losses import Fixed, Loss
from nmfstream.core.mu_iterate import Solved, several
from nmfstream.core.parameters import Penalties
from nmfstream.core.products import total
from nmfstream.core.protocols import Block, Executor
from nmfstream.types import CSR, Array, Matrix


@dataclass(frozen=True)
class RowUpdate:
    """Multiplicative steps on rows of W.

    Attributes
    ----------
    loss : Loss
    fixed : Fixed
        H, prepared.
    penalties : Penalties
    """

    loss: Loss
    fixed: Fixed
    penalties: Penalties

    def step(self, X: Matrix, W: Array, shared: Any) -> Array:
        """One step; W itself stays."""
        return self.steps(X, W, shared, 1).W

    def steps(self, X: Matrix, W: Array, shared: Any, n_steps: int) -> Solved:
        """`n_steps` steps, with the change that each of them makes."""
        return several(self.loss, X, W, self.fixed, shared, self.penalties, n_steps)


@dataclass(frozen=True)
class Prepared:
    """Rows to solve: blocks with what their steps share, and the mean of X over all of them.

    Attributes
    ----------
    jobs : list of (Block, shared)
    mean : float
    """

    jobs: list[tuple[Block, Any]]
    mean: float

    @classmethod
    def of(cls, update: RowUpdate, blocks: Sequence[Block], executor: Executor) -> Prepared:
        """One look at X for both."""
        found = executor.map(lambda block: (update.loss.share(block.X, update.fixed), _total(block.X)), blocks)
        cells = blocks[-1].stop * blocks[0].X.shape[1]
        jobs = [(block, shared) for block, (shared, _) in zip(blocks, found, strict=True)]
        return cls(jobs, sum(total for _, total in found) / cells)

    def flat(self, n_components: int, dtype: np.dtype[Any]) -> list[Array]:
        """W of each block at sqrt(mean(X) / k)."""
        level = np.sqrt(self.mean / n_components)
        return [np.full((block.stop - block.start, n_components), level, dtype) for block, _ in self.jobs]


def _total(X: Matrix) -> float:
    """Sum of X; rows of a dense one by BLAS, in their own type."""
    if isinstance(X, CSR):
        return total(X)
    return float((X @ np.ones(X.shape[1], X.dtype)).sum(dtype=np.float64))


def solve_rows(
    update: RowUpdate, blocks: Sequence[Block], n_components: int, tol: float, max_iter: int, executor: Executor
) -> Array:
    """Steps on all rows from a flat start until ‖W - W before‖ ≤ tol ‖W‖ over all blocks together.

    Several steps are made between two looks at the norms; where the rule had been met before the last of
    them, they are made again up to that one. The result is that of looking after each step.

    Parameters
    ----------
    update : RowUpdate
    blocks : sequence of Block
        They begin at row 0.
    n_components : int
    tol : float
        0: all `max_iter` steps.
    max_iter : int
        Most steps.
    executor : Executor

    Returns
    -------
    ndarray of shape (n_rows, n_components)
    """
    prepared = Prepared.of(update, blocks, executor)
    jobs, parts = prepared.jobs, prepared.flat(n_components, update.fixed.H.dtype)
    # Without a rule nothing is looked at, but a call stays short: the executor asks between calls whether to stop.
    done, most = 0, update.loss.steps_at_once * (1 if tol > 0 else 4)
    while done < max_iter:
        n_steps = min(most, max_iter - done)
        solved = _advance(update, jobs, parts, n_steps, executor)
        met = _first_met(solved, tol)
        if met is not None and met < n_steps:
            solved = _advance(update, jobs, parts, met, executor)
        parts = [part.W for part in solved]
        done += n_steps
        if met is not None:
            break
    return np.concatenate(parts)


def _advance(
    update: RowUpdate, jobs: list[tuple[Block, Any]], parts: list[Array], n_steps: int, executor: Executor
) -> list[Solved]:
    def task(i: int) -> Solved:
        block, shared = jobs[i]
        return update.steps(block.X, parts[i], shared, n_steps)

    return executor.map(task, range(len(jobs)))


def _first_met(solved: list[Solved], tol: float) -> int | None:
    """Number of the first step (from 1) after which the rule is met."""
    if not tol > 0:
        return None
    changes, norms = sum(part.changes for part in solved), sum(part.norms for part in solved)
    with np.errstate(invalid="ignore", divide="ignore"):
        met = np.sqrt(changes) / np.sqrt(norms) <= tol
    return int(np.argmax(met)) + 1 if met.any() else None
