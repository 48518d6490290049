"""W of a batch by multiplicative updates at fixed H: one step, or many until the whole batch changes little."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from nmfstream.core.losses import Fixed, Loss
from nmfstream.core.parameters import Penalties
from nmfstream.core.penalties import penalized
from nmfstream.core.products import total
from nmfstream.core.protocols import Block, Executor
from nmfstream.types import Array, Matrix


class Solved(NamedTuple):
    """Rows of W after some steps.

    Attributes
    ----------
    W : ndarray of shape (n_rows, n_components)
    changes, norms : ndarray of float64, shape (n_steps,)
        ‖W - W before‖² and ‖W‖² of each step.
    """

    W: Array
    changes: Array
    norms: Array


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
        numerator, denominator = self.loss.W_terms(X, W, self.fixed, shared)
        numerator /= penalized(denominator, W, self.penalties.l1_W, self.penalties.l2_W)
        if self.loss.gamma != 1:
            numerator **= self.loss.gamma
        numerator *= W
        return numerator

    def steps(self, X: Matrix, W: Array, shared: Any, n_steps: int) -> Solved:
        """`n_steps` steps, with the change that each of them makes."""
        iterate = getattr(self.loss, "iterate", None)
        if iterate is not None and (solved := iterate(X, W, self.fixed, self.penalties, n_steps)) is not None:
            return Solved(*solved)
        changes, norms = np.zeros(n_steps), np.zeros(n_steps)
        for i in range(n_steps):
            before, W = W, self.step(X, W, shared)
            difference = (W - before).ravel()
            flat = W.ravel()
            changes[i], norms[i] = np.dot(difference, difference), np.dot(flat, flat)
        return Solved(W, changes, norms)


def flat_start(blocks: Sequence[Block], n_components: int, dtype: np.dtype[Any], executor: Executor) -> Array:
    """W of all rows at sqrt(mean(X) / k), the mean being that of these blocks together."""
    n_rows, n_features = blocks[-1].stop, blocks[0].X.shape[1]
    mean = sum(executor.map(lambda block: total(block.X), blocks)) / (n_rows * n_features)
    return np.full((n_rows, n_components), np.sqrt(mean / n_components), dtype)


def solve_rows(
    update: RowUpdate, blocks: Sequence[Block], W: Array, tol: float, max_iter: int, executor: Executor
) -> Array:
    """Steps on all rows until ‖W - W before‖ ≤ tol ‖W‖ over all blocks together, at most `max_iter`.

    Several steps are made between two looks at the norms; where the rule had been met before the last of
    them, they are made again up to that one. The result is that of looking after each step.

    Parameters
    ----------
    update : RowUpdate
    blocks : sequence of Block
    W : ndarray of shape (n_rows, n_components)
        The start; stays.
    tol : float
        0: all `max_iter` steps.
    max_iter : int
    executor : Executor

    Returns
    -------
    ndarray of shape (n_rows, n_components)
    """
    shared = executor.map(lambda block: update.loss.share(block.X, update.fixed), blocks)
    jobs = list(zip(blocks, shared, strict=True))
    parts = [W[block.start : block.stop] for block in blocks]
    done, most = 0, update.loss.steps_at_once if tol > 0 else max_iter
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
