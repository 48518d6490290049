"""The arithmetic of one ``mu`` step, for whole runs and for ``partial_fit`` alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from nmfstream.core import penalties as penalty
from nmfstream.core.init_state import InitState
from nmfstream.core.losses import Fixed, Loss, make_loss
from nmfstream.core.mu_rows import RowUpdate, solve_rows
from nmfstream.core.mu_sums import Sums, batch_sums
from nmfstream.core.parameters import Objective, Penalties
from nmfstream.core.protocols import Block, Executor, Problem
from nmfstream.types import Array

TINY = float(np.finfo(np.float64).eps)
COMPILED_WORK = {True: 1_000_000, False: 8_000_000}
"""Nonzeros (True) or cells times components from which an input pays for compiled kernels."""


@dataclass
class MuState(InitState):
    """H, its running numerator and denominator, and the monitor of the stopping rule.

    Attributes
    ----------
    A, B : ndarray
        H^(1/γ) is A / B; of H's shape and type.
    smoothed_cost, least_cost : float or None
    no_improvement : int
    batch_cost : float
        Mean cost of a row of the last batch, before its update of H.
    pass_cost, pass_change : float
        Sum of the batches' costs, and H before the pass, for the history.
    """

    kind: ClassVar[str] = "mu"
    A: Array | None = None
    B: Array | None = None
    smoothed_cost: float | None = None
    least_cost: float | None = None
    no_improvement: int = 0
    batch_cost: float = float("nan")
    pass_cost: float = 0.0
    pass_rows: int = 0
    pass_change: float = 0.0


def is_compiled(problem: Problem, n_components: int) -> bool:
    """Whether the input is large enough for compiled kernels."""
    cells = (problem.n_samples or 0) * problem.n_features if problem.nnz is None else problem.nnz
    return cells * n_components >= COMPILED_WORK[problem.sparse]


class MuModel:
    """The arithmetic of one step, for whole runs and for ``partial_fit`` alike.

    Parameters
    ----------
    objective : Objective
    n_features : int
    dtype : dtype
    compiled : bool
    """

    def __init__(self, objective: Objective, n_features: int, dtype: Any, compiled: bool = False) -> None:
        self.objective, self.n_features, self.dtype = objective, n_features, np.dtype(dtype)
        self.loss: Loss = make_loss(objective.beta, self.dtype, compiled)

    def penalties(self, n_rows: int) -> Penalties:
        """Weights for a batch of `n_rows` rows."""
        return self.objective.penalties(self.n_features, n_rows)

    def solve(self, blocks: list[Block], H: Array | Fixed, tol: float, max_iter: int, executor: Executor) -> Array:
        """W of these rows from a flat start, stopping on the change of all of them together."""
        fixed = H if isinstance(H, Fixed) else self.loss.fix(H)
        update = RowUpdate(self.loss, fixed, self.penalties(blocks[-1].stop))
        return solve_rows(update, blocks, self.objective.n_components, tol, max_iter, executor)

    def one_step(self, blocks: list[Block], fixed: Fixed, W: Array, executor: Executor) -> Array:
        """W after one step."""
        update = RowUpdate(self.loss, fixed, self.penalties(blocks[-1].stop))

        def task(block: Block) -> Array:
            return update.step(block.X, W[block.start : block.stop], self.loss.share(block.X, fixed))

        return np.concatenate(executor.map(task, blocks))

    def settled(self, W: Array) -> Array:
        """W with what is next to nothing set to zero, which β < 1 needs."""
        if self.objective.beta < 1:
            W[W < TINY] = 0.0
        return W

    def sums(self, blocks: list[Block], W: Array, H: Array, executor: Executor) -> Sums:
        """Statistics of a batch."""
        return batch_sums(self.loss, blocks, W, H, executor)

    def cost(self, blocks: list[Block], W: Array, fixed: Fixed, sums: Sums, executor: Executor) -> float:
        """Mean cost of a row of the batch, penalties included, as scikit-learn counts them."""
        divergence = self.loss.total_cost(sums.cost, sums.summary, sums.terms, fixed)
        if divergence is None:
            divergence = self.divergence(blocks, W, fixed, executor)
        n_rows = blocks[-1].stop
        l1_W, l1_H, l2_W, l2_H = self.penalties(n_rows)
        return (divergence + penalty.value(W, l1_W, l2_W) + penalty.value(fixed.H, l1_H, l2_H)) / n_rows

    def divergence(self, blocks: list[Block], W: Array, fixed: Fixed, executor: Executor) -> float:
        """D(X | WH) of these rows, from residuals where they are small."""
        return sum(executor.map(lambda b: self.loss.value(b.X, W[b.start : b.stop], fixed), blocks))

    def update(self, state: MuState, sums: Sums, n_rows: int, rho: float) -> None:
        """A ← ρA + numerator·H^(1/γ), B ← ρB + denominator, H ← (A/B)^γ; nothing here can be interrupted."""
        assert state.H is not None and state.A is not None and state.B is not None
        H, gamma = state.H, self.loss.gamma
        l1_H, l2_H = self.penalties(n_rows)[1::2]
        denominator = penalty.penalized(self.loss.H_denominator(sums.summary, sums.terms, H), H, l1_H, l2_H)
        numerator = sums.terms[0].astype(self.dtype)
        numerator *= H if gamma == 1 else H ** (1 / gamma)
        state.A *= rho
        state.A += numerator
        state.B *= rho
        state.B += denominator
        new = np.divide(state.A, state.B, out=numerator)
        if gamma != 1:
            new **= gamma
        if self.objective.beta <= 1:
            new[new < TINY] = 0.0
        state.H = new


def forgetting(forget_factor: float | None, batch_size: int, n_samples: int | None) -> float:
    """ρ of one step: forget_factor^(batch_size / n_samples), a whole forget_factor where n is unknown."""
    factor = 0.7 if forget_factor is None else forget_factor
    if n_samples is None:
        return float(factor)
    return float(factor ** (min(batch_size, n_samples) / n_samples))


def begin_updates(state: MuState, model: MuModel) -> None:
    """A = H, B = 1 before the first step."""
    if state.A is None and state.H is not None:
        state.A = state.H.copy()
        state.B = np.ones_like(state.H)
