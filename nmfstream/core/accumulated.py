"""Any β in few passes: a sample fitted by multiplicative updates, then their numerators and denominators summed.

The first pass updates H after every batch from sums that forget (Lefèvre, Bach & Févotte 2011) and, where the
sample is large beside the data, from the sample's sums for the rows not yet read. Every later pass takes one
multiplicative step from the sums over all rows at one H, which cannot raise the objective for the W it was taken
with (Févotte & Idier 2011).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np

from nmfstream.core import penalties as penalty
from nmfstream.core.closing import ClosingStage
from nmfstream.core.fewpass import FewPass
from nmfstream.core.fewpass_stages import PassStage
from nmfstream.core.guarded import GuardedPass, GuardedState
from nmfstream.core.mu_model import MuModel, is_compiled
from nmfstream.core.parameters import Parameters
from nmfstream.core.protocols import Batch, Block, Executor, Problem, Stage
from nmfstream.core.rowsolve import row_solver
from nmfstream.core.state import RunState
from nmfstream.core.tournament import Candidate, Fitter, Heat, random_H
from nmfstream.types import Array, Matrix

FLOOR = 1e-3
"""Of the mean of H: a component whose sample lacks a column may still learn it."""

COLD = (40, 1e-4)
"""Most steps on W of the sample from a flat start, and the relative change that ends them."""

ROW_TOL, ROW_STEPS = 1e-2, 100
"""Relative KKT residual of a row in a pass, and the most steps towards it."""

WARM_STEPS = 3
STEPS_AN_ITERATION = 1
"""Steps of H for one iteration of the tournament."""


class Terms(NamedTuple):
    """What rows say of H^(1/γ): numerator and denominator in float64, and their cost at H, penalties included."""

    A: Array
    B: Array
    cost: float


@dataclass
class AccumulatedState(GuardedState):
    """What `Accumulated` keeps between two steps (see `GuardedState`)."""

    kind: ClassVar[str] = "accumulated"
    A: Array | None = None
    B: Array | None = None
    A_prior: Array | None = None
    B_prior: Array | None = None
    weight: float = 0.0


class Accumulated(FewPass[AccumulatedState]):
    """The few-pass solver for any β (see `Solver`)."""

    name = "accumulated"
    state_class = AccumulatedState
    dear = True

    def __init__(self, problem: Problem, parameters: Parameters) -> None:
        super().__init__(problem, parameters)
        compiled = is_compiled(problem, self.k)
        self.model = MuModel(self.objective, problem.n_features, problem.dtype, compiled)

    def fitter(self) -> Fitter:
        """How the sample is fitted."""
        return MuFitter(self.model)

    def first_pass(self, state: RunState) -> Stage:
        """The pass that updates H on the way."""
        return cast(Stage, FirstPass(self, state))

    def full_pass(self, state: RunState) -> Stage:
        """A pass at fixed H."""
        return cast(Stage, FullPass(self, state))

    def closing(self, state: RunState) -> Stage | None:
        """The choice between the last step and the best H that a pass has measured."""
        own = cast(AccumulatedState, state.solver)
        return cast(Stage, ClosingStage(self, state)) if own.candidates and self.size else None

    def adopt(
        self, own: AccumulatedState, H: Array, X: Matrix, loss: float, block_rows: int, executor: Executor
    ) -> dict[str, Any]:
        """The winner, nowhere locked at zero, and its sums on the sample."""
        H = lifted(H) if self.objective.l1_ratio == 0 else H
        terms = terms_of(self.model, Batch(0, X, block_rows).blocks(), H, executor)
        return {"H": H} | self.of_sample(terms.A, terms.B, X.shape[0])

    def memory(self, own: AccumulatedState, rows: float) -> float:
        """Share of the old sums that a batch of `rows` rows leaves."""
        return self.remembered(own, 0.0 if own.A_prior is not None else own.weight, rows)


def terms_of(model: MuModel, blocks: list[Block], H: Array, executor: Executor, W: Array | None = None) -> Terms:
    """Sums of some rows at H, each solved by itself, or at their W."""
    fixed = model.loss.fix(H)
    if W is None:
        solver = row_solver(H, model.objective, H.dtype, ROW_TOL, ROW_STEPS)
        W = model.settled(np.concatenate(executor.map(lambda b: solver(b.X).W, blocks)))
    sums = model.sums(blocks, W, H, executor)
    n_rows = blocks[-1].stop
    l1_H, l2_H = model.penalties(n_rows)[1::2]
    B = penalty.penalized(model.loss.H_denominator(sums.summary, sums.terms, H), H, l1_H, l2_H)
    A = sums.terms[0] * powered(H, 1 / model.loss.gamma)
    return Terms(A, np.asarray(B, np.float64), model.cost(blocks, W, fixed, sums, executor) * n_rows)


def powered(H: Array, exponent: float) -> Array:
    """H to a power, in float64."""
    values = H.astype(np.float64)
    return values if exponent == 1 else np.asarray(values**exponent)


def ratio(A: Array, B: Array, H: Array, gamma: float) -> Array:
    """(A/B)^γ in H's type; H where there is nothing to divide by, or the result is no number."""
    with np.errstate(all="ignore"):
        new = powered(A / B, gamma).astype(H.dtype)
    return np.ascontiguousarray(np.where(np.isfinite(new), new, H))


def bold(H: Array, safe: Array) -> Array:
    """The multiplicative step from H to `safe` taken twice, within a factor of ten."""
    with np.errstate(all="ignore"):
        twice = safe * np.clip(safe / H, 0.1, 10)
    return np.ascontiguousarray(np.where(np.isfinite(twice), twice, safe))


class AccumulatedPass(PassStage[AccumulatedState]):
    """What both kinds of pass do with a batch."""

    solver: Accumulated

    def learnt_from(self, batch: Batch, H: Array, executor: Executor) -> tuple[int, Terms | None, int, float]:
        """Rows and terms to learn from; rows set aside and their cost."""
        blocks, held = self.parts(batch)
        rows = sum(b.X.shape[0] for b in blocks)
        terms = terms_of(self.solver.model, _numbered(blocks), H, executor) if rows else None
        if held is None or not held.shape[0]:
            return rows, terms, 0, 0.0
        scored = terms_of(self.solver.model, Batch(0, held, batch.block_rows).blocks(), H, executor)
        return rows, terms, held.shape[0], scored.cost

    def count(self, rows: int, cost: float, held_rows: int, held_cost: float) -> None:
        """Add a batch to the pass."""
        own = self.own
        own.rows += rows
        own.total += cost
        own.held_rows += held_rows
        own.held_total += held_cost
        self.run.loss = own.total / max(1, own.rows)


def _numbered(blocks: list[Block]) -> list[Block]:
    """Blocks without gaps, as rows of a batch of their own."""
    ends = np.cumsum([0, *(b.X.shape[0] for b in blocks)])
    return [Block(int(a), int(z), b.X) for a, z, b in zip(ends, ends[1:], blocks, strict=False)]


class FirstPass(AccumulatedPass):
    """Pass 1: W of a batch, its terms added to the older ones, an update of H."""

    def step(self, batch: Batch, executor: Executor) -> None:
        """Solve a batch and update H."""
        own, solver = self.own, self.solver
        H = random_H(batch.X, solver.k, own.seed, 1)[0] if own.H is None else own.H
        rows, terms, held_rows, held_cost = self.learnt_from(batch, H, executor)
        own.H_before = H if own.H_before is None else own.H_before
        own.H = H
        if terms is not None:
            rho = solver.memory(own, rows)
            A = terms.A if own.A is None else rho * own.A + terms.A
            B = terms.B if own.B is None else rho * own.B + terms.B
            own.A, own.B, own.weight = A, B, rho * own.weight + rows
            own.H = self._updated(A, B, H, own.rows + rows)
        self.count(rows, terms.cost if terms is not None else 0.0, held_rows, held_cost)
        self.run.n_steps += 1

    def _updated(self, A: Array, B: Array, H: Array, done: int) -> Array:
        own, solver = self.own, self.solver
        if own.A_prior is not None and own.B_prior is not None:
            rest = max(0.0, 1.0 - done / max(1.0, solver.n))
            A, B = A + rest * own.A_prior, B + rest * own.B_prior
        return ratio(A, B, H, solver.model.loss.gamma)

    def finish(self, executor: Executor) -> None:
        """Close the pass; the full passes begin with empty sums."""
        own = self.own
        assert own.H is not None
        own.A = own.B = own.A_prior = own.B_prior = None
        own.Hy = own.H
        self.record(own.H, own.total / max(1, own.rows))


class FullPass(AccumulatedPass, GuardedPass[AccumulatedState]):
    """Pass 2 and on: sums over all rows at fixed H, then one guarded step."""

    def step(self, batch: Batch, executor: Executor) -> None:
        """Add a batch's terms."""
        own = self.own
        assert own.Hy is not None
        rows, terms, held_rows, held_cost = self.learnt_from(batch, own.Hy, executor)
        worst = self.look(self.parts(batch)[0], own.Hy, executor)
        own.H_before = own.Hy
        self.keep(worst)
        if terms is not None:
            own.A = terms.A if own.A is None else own.A + terms.A
            own.B = terms.B if own.B is None else own.B + terms.B
        self.count(rows, terms.cost if terms is not None else 0.0, held_rows, held_cost)

    def finish(self, executor: Executor) -> None:
        """The step of H, taken or not."""
        own, gamma = self.own, self.solver.model.loss.gamma
        Hy, A, B = own.Hy, own.A, own.B
        assert Hy is not None and A is not None and B is not None
        own.A = own.B = None
        safe = ratio(A, B, Hy, gamma)
        self.close(0.0, A.sum(axis=1), lambda: (safe, bold(Hy, safe)), as_it_is)


def lifted(H: Array) -> Array:
    """H without what is zero or nearly so."""
    return np.asarray(np.maximum(H, H.dtype.type(FLOOR * float(H.mean()))))


def as_it_is(H: Array) -> tuple[Array, Array]:
    """H, whose rows need no common scale here."""
    return H, np.ones(len(H))


@dataclass(frozen=True)
class MuFitter(Fitter):
    """The tournament's `Fitter` for any β."""

    model: MuModel
    init: None = None
    """Which NNDSVD makes no difference: its zeros would stay."""

    @property
    def n_components(self) -> int:
        """See `Fitter.n_components`."""
        return self.model.objective.n_components

    def movable(self, H: Array) -> Array:
        """See `Fitter.movable`: nowhere zero, where a multiplicative update would stay."""
        return lifted(H)

    def fit_rows(self, X: Matrix, starts: Sequence[Array], heat: Heat, executor: Executor) -> list[Candidate]:
        """See `Fitter.fit_rows`."""
        blocks = Batch(0, X, min(heat.block_rows, max(128, -(-X.shape[0] // 8)))).blocks()
        return [self._fit(blocks, H, STEPS_AN_ITERATION * heat.iterations, executor) for H in starts]

    def _fit(self, blocks: list[Block], H: Array, steps: int, executor: Executor) -> Candidate:
        model = self.model
        W, best, safe, loss = None, Candidate(H, math.inf), H, math.inf
        for _ in range(steps):
            fixed = model.loss.fix(H)
            if W is None:
                W = model.solve(blocks, fixed, COLD[1], COLD[0], executor)
            else:
                for _ in range(WARM_STEPS):
                    W = model.one_step(blocks, fixed, W, executor)
            terms = terms_of(model, blocks, H, executor, model.settled(W))
            before, loss = loss, terms.cost / blocks[-1].stop
            if loss < best.loss:
                best = Candidate(H, loss)
            if loss > before:
                H, loss = safe, math.inf
            else:
                safe = ratio(terms.A, terms.B, H, model.loss.gamma)
                H = bold(H, safe)
        return best
