"""Frobenius in few passes: sample fit, one pass of online HALS, then full passes with an extrapolated HALS step.

Mairal et al. 2010 (online sums), Cichocki & Phan 2009 (HALS), Ang & Gillis 2019 (extrapolation with restarts).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, cast

import numpy as np

from nmfstream.core import frobenius as fro
from nmfstream.core.extrapolation import Track
from nmfstream.core.fewpass import FewPass
from nmfstream.core.fewpass_stages import PassStage
from nmfstream.core.fewpass_state import FewPassState
from nmfstream.core.frobenius_rows import RowsAt
from nmfstream.core.hals_sample import GAIN, WHOLE_GAIN, HalsFitter
from nmfstream.core.parameters import Objective, Parameters, Penalties
from nmfstream.core.products import sum_of_squares
from nmfstream.core.protocols import Batch, Block, Executor, Problem, Stage
from nmfstream.core.reduction import add_WtX, by_stripes, in_order
from nmfstream.core.revival import RevivingPass
from nmfstream.core.state import RunState
from nmfstream.core.tournament import Fitter, random_H, sample_blocks
from nmfstream.errors import UsageError
from nmfstream.types import Array, Matrix


@dataclass
class HalsState(FewPassState):
    """What `Hals` keeps between two steps (see `FewPassState`)."""

    kind: ClassVar[str] = "hals"
    A: Array | None = None
    B: Array | None = None
    """WᵀW and WᵀX of the rows so far (of the running pass; in the first pass also of the forgotten sample)."""
    A_prior: Array | None = None
    B_prior: Array | None = None
    """The sample's, scaled to all rows, for those not yet read."""
    weight: float = 0.0
    """Rows that A and B stand for."""
    w1: float = 0.0
    square: float = 0.0
    """½‖X‖² of all rows, known after the first pass."""
    Hy: Array | None = None
    beta: float = 0.8
    cap: float = 1.0
    e_old: float = math.inf
    precise: bool = False
    """The loss is so small that it and the sums come from residuals."""


class Hals(FewPass[HalsState]):
    """The few-pass solver for β = 2 (see `Solver`)."""

    name = "hals"
    state_class = HalsState
    remembers = 0.3

    def __init__(self, problem: Problem, parameters: Parameters) -> None:
        if parameters.objective.beta != 2.0:
            raise UsageError(
                "solver hals needs beta_loss frobenius", where="--solver", hint="use --solver auto for other losses"
            )
        super().__init__(problem, parameters)

    @property
    def by_block(self) -> bool:
        """See `FewPass.by_block`: not where rows are set aside, nor where WᵀX is summed by feature stripes."""
        return self.share <= 0 and not by_stripes(self.k, self.problem.n_features)

    def fitter(self) -> Fitter:
        """How the sample is fitted."""
        gain = WHOLE_GAIN if self.whole else GAIN
        return HalsFitter(self.objective, self.parameters.start.init, gain, self.size or 1 << 62)

    def first_pass(self, state: RunState) -> Stage:
        """The pass that updates H on the way."""
        return cast(Stage, FirstPass(self, state))

    def full_pass(self, state: RunState) -> Stage:
        """A pass at fixed H."""
        return cast(Stage, FullPass(self, state))

    def adopt(
        self, own: HalsState, H: Array, X: Matrix, loss: float, block_rows: int, executor: Executor
    ) -> dict[str, Any]:
        """The winner with unit rows, and its statistics on the sample."""
        if not self.penalized:
            H = fro.unit_rows(H)[0]
        blocks = sample_blocks(X, block_rows, self.k)
        half_square = 0.5 * sum(executor.map(sum_of_squares, blocks))
        precise = loss * X.shape[0] < fro.PRECISE_BELOW[H.dtype.name] * half_square
        sums = solve_sums(blocks, H, self.objective, fro.SHARP, executor, precise=precise)
        return {"H": H, "precise": precise} | self.of_sample(sums.A, sums.B, X.shape[0])

    def settle(self, own: HalsState, H: Array, X: Matrix, loss: float, executor: Executor) -> dict[str, Any]:
        """See `FewPass.settle`; also what the loss of a pass is reckoned from."""
        blocks = sample_blocks(X, max(1, X.shape[0] // 8), self.k)
        square = 0.5 * float(sum(executor.map(sum_of_squares, blocks)))
        precise = loss * X.shape[0] < fro.PRECISE_BELOW[H.dtype.name] * square
        return super().settle(own, H, X, loss, executor) | {"square": square, "precise": precise}

    def unit(self, H: Array) -> Array:
        """H with rows of norm 1."""
        return H if self.penalized else fro.unit_rows(H)[0]

    def memory(self, own: HalsState, rows: float) -> float:
        """Share of the old sums that a batch of `rows` rows leaves."""
        return self.remembered(own, 0.0 if own.A_prior is not None else own.weight, rows)


def solve_sums(
    blocks: list[Matrix], H: Array, objective: Objective, effort: fro.Effort, executor: Executor, *, precise: bool
) -> fro.Sums:
    """Sums of some rows at H, blocks of any size."""
    bounds = np.concatenate([[0], np.cumsum([X.shape[0] for X in blocks])])
    cuts = [Block(int(a), int(b), X) for a, b, X in zip(bounds, bounds[1:], blocks, strict=False)]
    p = objective.penalties(H.shape[1], float(bounds[-1]))
    sums = block_map(cuts, H, p, effort, executor, precise=precise)
    return with_WH(sums, H) if precise else sums


def with_WH(sums: fro.Sums, H: Array) -> fro.Sums:
    """WᵀX in the place of Wᵀ(X − WH)."""
    return fro.Sums(sums.A, sums.B + sums.A @ H.astype(np.float64), sums.w1, sums.half_square, sums.square)


def block_map(
    blocks: list[Block],
    H: Array,
    p: Penalties,
    effort: fro.Effort,
    executor: Executor,
    *,
    precise: bool,
    squares: bool = False,
) -> fro.Sums:
    """The map and the ordered reduction of one batch."""
    k, m = H.shape
    rows, out = RowsAt(H, p, effort), fro.Sums.zero(k, m)
    if precise or not by_stripes(k, m):
        sums = rows.sums_of_residuals if precise else rows.sums
        for s in in_order(executor, partial(sums, squares=squares), blocks):
            out.add(s)
        return out

    def solve(block: Block) -> tuple[Array, fro.Sums]:
        with block.reading() as X:
            W, sums = rows.solved(X)
            sums.square = 0.5 * sum_of_squares(X) if squares else 0.0
            return W, sums

    W = np.zeros((max((b.stop for b in blocks), default=0), k), H.dtype)
    for b, (w, s) in zip(blocks, in_order(executor, solve, blocks), strict=True):
        W[b.start : b.start + len(w)] = w
        out.add(s)
    add_WtX(out.B, [Block(b.start, b.start + b.X.shape[0], b.X) for b in blocks], W, executor)
    return out


class HalsPass(PassStage[HalsState]):
    """What both kinds of pass do with a batch."""

    solver: Hals

    def penalties(self, rows: float) -> Penalties:
        """Weights for statistics that stand for `rows` rows."""
        return self.solver.objective.penalties(self.solver.problem.n_features, rows)

    def score(self, held: Matrix | None, H: Array) -> tuple[int, float]:
        """Rows set aside and their objective, without the penalty on H."""
        if held is None:
            return 0, 0.0
        p = self.penalties(0.0)
        _, s = RowsAt(H, p, fro.COLD).solved(held)
        return held.shape[0], 0.5 * sum_of_squares(held) + s.half_square + fro.row_penalty(s, p)

    def started(self, batch: Batch) -> Array:
        """H, drawn from the first block where there is none yet."""
        if self.own.H is not None:
            return self.own.H
        return random_H(batch.blocks()[0].X, self.solver.k, self.own.seed, 1)[0]


class FirstPass(HalsPass):
    """Pass 1: W of a batch, its statistics added to the older ones, an update of H."""

    def step(self, batch: Batch, executor: Executor) -> None:
        """Solve a batch and update H."""
        own, solver = self.own, self.solver
        H = self.started(batch)
        blocks, held = self.parts(batch)
        rows = batch.n_rows - (0 if held is None else held.shape[0])
        s = block_map(blocks, H, self.penalties(0.0), fro.COLD, executor, precise=own.precise, squares=True)
        s = with_WH(s, H) if own.precise else s
        held_rows, held_total = self.score(held, H)
        rho = solver.memory(own, rows)
        A = s.A if own.A is None else rho * own.A + s.A
        B = s.B if own.B is None else rho * own.B + s.B
        weight = rho * own.weight + rows
        H_new, norms = self._update(A, B, H, weight, own.rows + rows, executor)
        own.H_before = H if own.H_before is None else own.H_before
        own.H, own.A, own.B, own.weight = H_new, A, B, weight
        if norms is not None:
            self._rescale(norms)
        own.rows += rows
        own.square += s.square
        own.total += (0.0 if own.precise else s.square) + s.half_square + fro.row_penalty(s, self.penalties(0.0))
        own.held_rows += held_rows
        own.held_total += held_total
        self.run.n_steps += 1
        self.run.loss = own.total / max(1, own.rows) + fro.H_penalty(H_new, self.penalties(1.0))

    def _update(
        self, A: Array, B: Array, H: Array, weight: float, done: int, executor: Executor
    ) -> tuple[Array, Array | None]:
        own, solver = self.own, self.solver
        if own.A_prior is not None and own.B_prior is not None:
            rest = max(0.0, 1.0 - done / solver.n)
            A, B, weight = A + rest * own.A_prior, B + rest * own.B_prior, weight + rest * solver.n
        H = fro.update_H([fro.HStep(A, B, H, self.penalties(weight))], executor)[0]
        return (H, None) if solver.penalized else fro.unit_rows(H)

    def _rescale(self, norms: Array) -> None:
        own = self.own
        for A, B in ((own.A, own.B), (own.A_prior, own.B_prior)):
            if A is not None and B is not None:
                A *= norms[:, None] * norms
                B *= norms[:, None]

    def finish(self, executor: Executor) -> None:
        """Close the pass; the full passes begin with empty sums."""
        own = self.own
        assert own.H is not None
        loss = own.total / max(1, own.rows) + fro.H_penalty(own.H, self.penalties(1.0))
        own.precise = loss * own.rows < fro.PRECISE_BELOW[own.H.dtype.name] * own.square
        own.weight = float(own.rows)
        own.A = own.B = own.A_prior = own.B_prior = None
        own.Hy = own.H
        self.record(own.H, loss)


class FullPass(HalsPass, RevivingPass[HalsState]):
    """Pass 2 and on: sums over all rows at fixed Hy, then one guarded, extrapolated HALS step."""

    def step(self, batch: Batch, executor: Executor) -> None:
        """Add a batch's sums."""
        own = self.own
        Hy, p = own.Hy, self.penalties(0.0)
        assert Hy is not None
        own.H_before = own.H
        blocks, held = self.parts(batch)
        rows = batch.n_rows - (0 if held is None else held.shape[0])
        s = block_map(blocks, Hy, p, fro.SHARP, executor, precise=own.precise)
        worst = self.look(blocks, Hy, executor)
        held_rows, held_total = self.score(held, Hy)
        if own.A is None or own.B is None:
            own.A, own.B, own.w1 = s.A, s.B, s.w1
        else:
            own.A += s.A
            own.B += s.B
            own.w1 += s.w1
        own.rows += rows
        own.total += s.half_square
        own.held_rows += held_rows
        own.held_total += held_total
        self.keep(worst)

    def finish(self, executor: Executor) -> None:
        """The step of H, taken or not, and the stopping rule."""
        own = self.own
        A, B, Hy, H_now = own.A, own.B, own.Hy, own.H
        assert A is not None and B is not None and Hy is not None and H_now is not None
        p = self.penalties(float(own.rows))
        if own.precise:
            B = B + A @ Hy.astype(np.float64)
        sums = fro.Sums(A, B, own.w1, own.total)
        at_Hy = (0.0 if own.precise else own.square) + own.total + fro.row_penalty(sums, p) + fro.H_penalty(Hy, p)
        H = fro.update_H([fro.HStep(A, B, Hy, p)], executor)[0]
        e = max(0.0, fro.moved_objective(at_Hy, A, B, Hy, H, p))
        track = Track(H_now, Hy, own.beta, own.cap, own.e_old)
        taken = track.advance(H, e)
        revived, done = self.revived(track.H, A.diagonal())
        track = Track.at(revived) if len(done) else track
        own.Hy, own.beta, own.cap, own.e_old = track.Hy, track.beta, track.cap, track.e_old
        own.precise = e < fro.PRECISE_BELOW[H.dtype.name] * own.square
        own.A = own.B = None
        self.run.n_steps += 1
        self.record(track.H, (e if taken else min(e, own.e_old)) / max(1, own.rows), accepted=taken)
