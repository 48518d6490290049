"""Kullback-Leibler in few passes: sample fit, a pass of incremental EM, then damped and guarded Newton passes.

Neal & Hinton 1998 (incremental EM), Cappé & Moulines 2009 (online EM), Hsieh & Dhillon 2011 (one-variable Newton).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np

from nmfstream.core import divergence as kl
from nmfstream.core.fewpass import SHORT, FewPass
from nmfstream.core.fewpass_stages import PassStage
from nmfstream.core.guarded import GuardedPass, GuardedState
from nmfstream.core.newton_passes import ROUNDS, ROUNDS_OF_MANY, batch_rounds, batch_sums, prior_sums
from nmfstream.core.newton_sample import SETTLED, NewtonFitter
from nmfstream.core.parameters import Parameters, Penalties
from nmfstream.core.protocols import Batch, Executor, Problem, Stage
from nmfstream.core.sample import MANY_ROWS
from nmfstream.core.state import RunState
from nmfstream.core.tournament import Fitter, random_H, sample_blocks
from nmfstream.errors import UsageError
from nmfstream.types import Array, Matrix

PRIOR_WEIGHT = 0.3


@dataclass
class NewtonState(GuardedState):
    """What `Newton` keeps between two steps (see `GuardedState`); sums have features first."""

    kind: ClassVar[str] = "newton"
    V0: Array | None = None
    s0: Array | None = None
    """Expected counts and sums of W of the rows of the first pass so far."""
    V_prior: Array | None = None
    s_prior: Array | None = None
    """The same of the sample."""
    fading: bool = False
    """The sample is short: it and older rows are forgotten on the way."""
    weight: float = 0.0
    """Rows that the sums stand for, the sample left out."""
    R: Array | None = None
    Q: Array | None = None
    s: Array | None = None
    beta: float = 0.75
    """Larger than for other divergences: damped steps overshoot less."""


class Newton(FewPass[NewtonState]):
    """The few-pass solver for β = 1 (see `Solver`)."""

    name = "newton"
    state_class = NewtonState
    dear = raced = True
    sample_effort = 2.0
    """More iterations fit the sample better, but not the data: the passes end at a higher loss, seconds later."""

    def __init__(self, problem: Problem, parameters: Parameters) -> None:
        if parameters.objective.beta != 1.0:
            raise UsageError(
                "solver newton needs beta_loss kullback-leibler", where="--solver", hint="use --solver auto"
            )
        super().__init__(problem, parameters)

    @property
    def many(self) -> bool:
        """Whether rows are so many that time goes into passes."""
        return (self.problem.n_samples or 0) >= MANY_ROWS

    @property
    def rounds(self) -> int:
        """Rounds on a batch of the first pass."""
        return ROUNDS_OF_MANY if self.many else ROUNDS

    def fitter(self) -> Fitter:
        """How the sample is fitted."""
        return NewtonFitter(self.objective, self.parameters.start.init, SETTLED if self.many else 0.0)

    def first_pass(self, state: RunState) -> Stage:
        """The pass that updates H on the way."""
        return cast(Stage, FirstPass(self, state))

    def full_pass(self, state: RunState) -> Stage:
        """A pass at fixed H."""
        return cast(Stage, FullPass(self, state))

    def unit(self, H: Array) -> Array:
        """H with rows of sum 1."""
        return H if self.penalized else kl.unit_sums(H)[0]

    def judge(self, X: Matrix, H: Array, block_rows: int, executor: Executor) -> float:
        """Mean objective of the rows X at H."""
        p = self.objective.penalties(H.shape[1], X.shape[0])
        Ht, s = np.ascontiguousarray(H.T), H.sum(axis=1, dtype=np.float64)

        def value(block: Matrix) -> float:
            rows = kl.nonzeros(block)
            return kl.rows_objective(rows, *kl.solve_W(rows, Ht, s, p, kl.SHARP), s, p)

        total = sum(executor.map(value, sample_blocks(X, block_rows, self.k)))
        return float((total + kl.H_penalty(H, p)) / max(1, X.shape[0]))

    def adopt(
        self, own: NewtonState, H: Array, X: Matrix, loss: float, block_rows: int, executor: Executor
    ) -> dict[str, Any]:
        """The winner, and the counts that the sample expects of it."""
        H = self.unit(H)
        V, s = prior_sums(X, H, self.objective, block_rows, executor)
        share = X.shape[0] / max(1.0, self.n)
        fading = share < SHORT or self.schedule.forget_factor is not None
        scale = 1.0 if fading else PRIOR_WEIGHT / share
        return {"H": H, "V_prior": scale * V, "s_prior": scale * s, "fading": fading}


class NewtonPass(PassStage[NewtonState]):
    """What both kinds of pass do with a batch."""

    solver: Newton

    def penalties(self, rows: float) -> Penalties:
        """Weights for statistics that stand for `rows` rows."""
        return self.solver.objective.penalties(self.solver.problem.n_features, rows)

    def score(self, held: Matrix | None, H: Array) -> tuple[int, float]:
        """Rows set aside and their objective, without the penalty on H."""
        if held is None:
            return 0, 0.0
        rows, s, p = kl.nonzeros(held), H.sum(axis=1, dtype=np.float64), self.penalties(0.0)
        W, V = kl.solve_W(rows, np.ascontiguousarray(H.T), s, p, kl.SHARP)
        return held.shape[0], kl.rows_objective(rows, W, V, s, p)


class FirstPass(NewtonPass):
    """Pass 1: inner rounds on a batch with what older rows expect as a prior."""

    def step(self, batch: Batch, executor: Executor) -> None:
        """Fit H to a batch and the prior."""
        own, solver = self.own, self.solver
        H = own.H if own.H is not None else self._drawn(batch.X)
        X, held = self.learnt_rows(batch)
        rows = X.shape[0]
        held_rows, held_total = self.score(held, H)
        keep, rest = self._memory(rows)
        V0, s0 = self._prior(H.shape, keep, rest)
        weight = keep * own.weight + rows
        # The sample counts as the rows that its sums stand for.
        stands_for = weight + (rest * solver.n if own.V_prior is not None and not own.fading else 0.0)
        done = batch_rounds(
            X, H, V0, s0, self.penalties(0.0), self.penalties(stands_for), batch.block_rows, executor,
            free=not solver.penalized, rounds=solver.rounds,
        )  # fmt: skip
        own.H_before = H if own.H_before is None else own.H_before
        own.H = done.H
        own.V0 = keep * own.V0 + done.V if own.V0 is not None else done.V
        own.s0 = (keep * own.s0 if own.s0 is not None else 0.0) / done.scale + done.s
        if own.V_prior is not None and own.s_prior is not None:
            own.s_prior = own.s_prior / done.scale
            if own.fading:
                own.V_prior, own.s_prior = keep * own.V_prior, keep * own.s_prior
        own.weight = weight
        own.rows += rows
        own.total += done.objective
        own.held_rows += held_rows
        own.held_total += held_total
        self.run.n_steps += 1
        self.run.loss = own.total / max(1, own.rows) + kl.H_penalty(done.H, self.penalties(1.0))

    def _drawn(self, X: Matrix) -> Array:
        H = random_H(X, self.solver.k, self.own.seed, 1)[0]
        return H if self.solver.penalized else kl.unit_sums(H)[0]

    def _memory(self, rows: int) -> tuple[float, float]:
        """Share of older sums that is kept, and share of the sample's prior that counts."""
        own, solver = self.own, self.solver
        factor = solver.schedule.forget_factor
        if factor is not None:
            keep = float(factor ** (rows / solver.n)) if solver.n else float(factor)
            return keep, keep
        if own.fading or own.V_prior is None:
            half = solver.horizon(own, rows)
            keep = max(0.0, 1.0 - rows / half) if own.rows or own.V_prior is not None else 1.0
            return keep, keep
        return 1.0, max(0.0, 1.0 - (own.rows + rows) / solver.n)

    def _prior(self, shape: tuple[int, ...], keep: float, rest: float) -> tuple[Array | None, Array]:
        own = self.own
        V, s = None, np.zeros(shape[0])
        for factor, V_part, s_part in ((keep, own.V0, own.s0), (rest, own.V_prior, own.s_prior)):
            if V_part is not None and s_part is not None and factor > 0:
                V = factor * V_part if V is None else V + factor * V_part
                s = s + factor * s_part
        return V, s

    def finish(self, executor: Executor) -> None:
        """Close the pass; the full passes begin with empty sums."""
        own = self.own
        assert own.H is not None
        own.V0 = own.s0 = own.V_prior = own.s_prior = None
        own.Hy = own.H
        self.record(own.H, own.total / max(1, own.rows) + kl.H_penalty(own.H, self.penalties(1.0)))


class FullPass(NewtonPass, GuardedPass[NewtonState]):
    """Pass 2 and on: sums over all rows at fixed H, then a damped Newton step, taken back if the loss rose."""

    def step(self, batch: Batch, executor: Executor) -> None:
        """Add a batch's sums."""
        own = self.own
        assert own.Hy is not None
        X, held = self.learnt_rows(batch)
        held_rows, held_total = self.score(held, own.Hy)
        sums = batch_sums(X, own.Hy, self.penalties(0.0), batch.block_rows, executor)
        worst = self.look(self.parts(batch)[0], own.Hy, executor)
        own.H_before = own.Hy
        if own.R is None or own.Q is None or own.s is None:
            own.R, own.Q, own.s = (np.asarray(a, np.float64) for a in sums[:3])
        else:
            own.R += sums.Rt
            own.Q += sums.Qt
            own.s += sums.s
        self.keep(worst)
        own.rows += X.shape[0]
        own.total += sums.objective
        own.held_rows += held_rows
        own.held_total += held_total

    def finish(self, executor: Executor) -> None:
        """The step of H, taken or not."""
        own = self.own
        assert own.Hy is not None and own.R is not None and own.Q is not None and own.s is not None
        p, H = self.penalties(float(own.rows)), own.Hy.astype(np.float64)
        R, Q, s = own.R.T, own.Q.T, own.s
        own.R = own.Q = own.s = None
        self.close(
            kl.H_penalty(own.Hy, p), s, lambda: (kl.em_step(H, R, s, p), kl.newton_step(H, R, Q, s, p)), kl.unit_sums
        )
