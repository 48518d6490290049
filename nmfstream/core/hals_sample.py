"""Fitting a sample in memory by extrapolated HALS, several starts side by side on the same products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from nmfstream.core import frobenius as fro
from nmfstream.core.dead import dead_components, merge, revive, worst_rows
from nmfstream.core.extrapolation import Track
from nmfstream.core.parameters import Objective, Penalties
from nmfstream.core.products import Wt_times, sum_of_squares, times_Ht
from nmfstream.core.protocols import Batch, Block, Executor
from nmfstream.core.reduction import add_WtX, by_stripes, in_order
from nmfstream.core.tournament import Candidate, Fitter, Heat, ahead, sample_blocks
from nmfstream.types import Array, Matrix

FIRST = fro.Effort(10, 1e-3)
MORE, ROUND, FALLING = 1000, 20, 0.9
"""Exact data: at most so many more iterations, in rounds that are to lower the loss by a tenth."""
MORE_WORK = 5e10
"""Cells times components of all of these together: half a minute of two cores."""
TALL = 4096
NEGLIGIBLE = {"float32": 1e-8, "float64": 1e-12}
"""Of ½‖X‖²: what exact data leave after some iterations."""
GAIN, WHOLE_GAIN, EVERY = 1e-3, 1e-4, 5
"""Share by which the leader's loss is to fall in so many iterations; less is left to the passes.

Of all rows it is less: no pass finds a better optimum than that which the race ends in."""


@dataclass(frozen=True)
class Rows:
    """The rows of a sample.

    Attributes
    ----------
    blocks : list of Matrix
        For solving W.
    tall : list of Block
        For WᵀX where it is summed by stripes of features: a sum over few rows of a wide matrix is mostly zeros.
    half_square : float
        ½‖X‖².
    """

    blocks: list[Matrix]
    tall: list[Block]
    half_square: float

    @classmethod
    def of(cls, X: Matrix, block_rows: int, n_components: int, executor: Executor) -> Rows:
        """Cut the rows X."""
        blocks = sample_blocks(X, block_rows, n_components)
        tall = Batch(0, X, max(block_rows, TALL)).blocks()
        return cls(blocks, tall, 0.5 * sum(executor.map(sum_of_squares, blocks)))

    @property
    def precise_below(self) -> float:
        """The loss below which it and the sums have to come from residuals."""
        return fro.PRECISE_BELOW[self.blocks[0].dtype.name] * self.half_square

    @property
    def negligible(self) -> float:
        """The loss below which data are of low rank: no start is better than another."""
        return NEGLIGIBLE[self.blocks[0].dtype.name] * self.half_square

    @property
    def nothing(self) -> float:
        """The loss that the rounding of X alone leaves."""
        return float(np.finfo(self.blocks[0].dtype).eps) ** 2 * self.half_square


@dataclass
class Run:
    """One start on its way: its track and its rows of W, block by block."""

    track: Track
    W: list[Array | None]
    best: float = np.inf
    best_H: Array = field(default_factory=lambda: np.zeros(0))
    before: float = np.inf
    """See `Racer`."""

    def note(self, e: float) -> None:
        """Keep the best H."""
        if e < self.best:
            self.best, self.best_H = e, self.track.H


@dataclass(frozen=True)
class HalsFitter(Fitter):
    """The tournament's `Fitter` for β = 2."""

    objective: Objective
    init: str | None = None
    gain: float = GAIN
    size: int = 1 << 62
    """Rows of the largest sample."""

    @property
    def n_components(self) -> int:
        """See `Fitter.n_components`."""
        return self.objective.n_components

    def fit_rows(self, X: Matrix, starts: Sequence[Array], heat: Heat, executor: Executor) -> list[Candidate]:
        """See `Fitter.fit_rows`."""
        rows = Rows.of(X, heat.block_rows, self.n_components, executor)
        p = self.objective.penalties(X.shape[1], X.shape[0])
        runs = [Run(Track.at(H), [None] * len(rows.blocks)) for H in starts]
        going, before, whole = runs, np.inf, X.shape[0] >= self.size
        for i in range(heat.iterations):
            if i and i % EVERY == 0:
                lead = min(r.best for r in going)
                if before - lead < self.gain * lead:
                    break
                before = lead
                going = ahead(runs, going, heat.bar * X.shape[0], (heat.iterations - i) / EVERY)
                if lead <= rows.negligible:
                    going = [min(runs, key=lambda r: r.best)]
                if not going or (lead <= rows.negligible and whole):
                    break
            alternate(rows, going, p, FIRST if i == 0 else fro.WARM, executor)
            if i + 1 < heat.iterations:
                self._revive(rows.blocks, going, executor)
        return [Candidate(r.best_H, r.best / max(1, X.shape[0]), whole and r.best <= rows.negligible) for r in going]

    def finish(self, X: Matrix, winner: Candidate, block_rows: int, executor: Executor) -> Candidate:
        """See `Fitter.finish`: where the data are all but exactly of low rank, as long as the loss falls fast."""
        rows = Rows.of(X, block_rows, self.n_components, executor)
        if not winner.loss * X.shape[0] < rows.precise_below:
            return winner
        p = self.objective.penalties(X.shape[1], X.shape[0])
        # W begins anew, so that the loss is above the winner's for a while.
        best = float(np.nextafter(rows.precise_below, 0.0))
        run = Run(Track.at(winner.H), [None] * len(rows.blocks), best, winner.H)
        work = float(X.shape[0]) * X.shape[1] * self.n_components
        for done in range(0, max(1, min(MORE, int(MORE_WORK / work))), ROUND):
            before = run.best
            for i in range(ROUND):
                alternate(rows, [run], p, FIRST if done + i == 0 else fro.WARM, executor)
            if not rows.nothing < run.best <= FALLING * before:
                break
        found = Candidate(run.best_H, run.best / max(1, X.shape[0]))
        return found if found.loss < winner.loss else winner

    def _revive(self, blocks: Sequence[Matrix], runs: Sequence[Run], executor: Executor) -> None:
        if self.objective.l1_ratio > 0 and (self.objective.alpha_W > 0 or self.objective.alpha_H > 0):
            return
        for run in runs:
            usage = np.sum([(W.astype(np.float64) ** 2).sum(axis=0) for W in run.W if W is not None], axis=0)
            dead = dead_components(run.track.H, np.broadcast_to(usage, len(run.track.H)))
            if len(dead):
                _revive_run(blocks, run, dead, executor)


def _revive_run(blocks: Sequence[Matrix], run: Run, dead: Array, executor: Executor) -> None:
    H = run.track.H
    found = None
    items = [(X, W) for X, W in zip(blocks, run.W, strict=True) if W is not None]
    for worst in in_order(executor, lambda i: worst_rows(i[0], i[1], H, len(dead)), items):
        found = merge(found, worst, len(dead))
    if found is None:
        return
    H, done = revive(H, dead, found)
    if len(done):
        run.track = replace(Track.at(H), e_old=np.inf)


def alternate(rows: Rows, runs: Sequence[Run], p: Penalties, effort: fro.Effort, executor: Executor) -> None:
    """One solve of W and one guarded step of H for every run."""
    k = len(runs[0].track.H)
    precise = [run.best < rows.precise_below for run in runs]
    Ws, sums = solve_all(rows, runs, p, precise, effort, executor)
    wanted = [fro.HStep(s.A, s.B, r.track.Hy, p) for s, r in zip(sums, runs, strict=True)]
    for i, (run, H, s) in enumerate(zip(runs, fro.update_H(wanted, executor), sums, strict=True)):
        at_Hy = (
            s.half_square
            + (0.0 if precise[i] else rows.half_square)
            + fro.row_penalty(s, p)
            + fro.H_penalty(run.track.Hy, p)
        )
        e = fro.moved_objective(at_Hy, s.A, s.B, run.track.Hy, H, p)
        if run.track.beta < 0.05:
            run.track.e_old = np.inf
        if run.track.advance(H, max(e, 0.0)):
            run.W = [W[:, i * k : (i + 1) * k] for W in Ws]
            run.note(max(e, 0.0))


def solve_all(
    rows: Rows,
    runs: Sequence[Run],
    p: Penalties,
    precise: Sequence[bool],
    effort: fro.Effort,
    executor: Executor,
) -> tuple[list[Array], list[fro.Sums]]:
    """W of every block at every run's Hy (side by side), and each run's sums."""
    Hs = [r.track.Hy for r in runs]
    k, m = Hs[0].shape
    stacked = np.ascontiguousarray(np.concatenate(Hs))
    grams = [fro.gram(H, p.l2_W) for H in Hs]
    striped = by_stripes(len(stacked), m)

    def solve(j: int) -> tuple[Array, list[fro.Sums], Array | None]:
        X = rows.blocks[j]
        C = times_Ht(X, stacked)
        parts = [
            _rows(X, np.ascontiguousarray(C[:, i * k : (i + 1) * k]), H, grams[i], p, effort, runs[i].W[j], precise[i])
            for i, H in enumerate(Hs)
        ]
        W = np.concatenate([w for w, _ in parts], axis=1)
        return W, [s for _, s in parts], None if striped else Wt_times(W, X)

    Ws, out, B = [], [fro.Sums.zero(k, m) for _ in runs], np.zeros(stacked.shape)
    for W, sums, WtX in in_order(executor, solve, range(len(rows.blocks))):
        Ws.append(W)
        for total_, s in zip(out, sums, strict=True):
            total_.add(s)
        if WtX is not None:
            B += WtX
    if striped:
        add_WtX(B, rows.tall, np.concatenate(Ws), executor)
    for i, (s, H) in enumerate(zip(out, Hs, strict=True)):
        s.B = s.B + s.A @ H.astype(np.float64) if precise[i] else B[i * k : (i + 1) * k]
    return Ws, out


def _rows(
    X: Matrix, C: Array, H: Array, G: Array, p: Penalties, effort: fro.Effort, W: Array | None, precise: bool
) -> tuple[Array, fro.Sums]:
    W = fro.solve_rows(C, G, p, effort, W)
    if precise:
        W, WtR, half = fro.refine(X, W, H, G, p)
        s = fro.own_sums(W, C, G, p)
        return W, fro.Sums(s.A, WtR, s.w1, half)
    return W, fro.own_sums(W, C, G, p)
