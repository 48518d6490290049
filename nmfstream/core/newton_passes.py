"""What the passes of `Newton` do with a batch: inner rounds of the first pass, sums of the later ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nmfstream.core import divergence as kl
from nmfstream.core.kernels.sparse_products import times_dense, transposed
from nmfstream.core.newton_sample import Columns, row_stripes
from nmfstream.core.parameters import Objective, Penalties
from nmfstream.core.protocols import Batch, Executor
from nmfstream.core.reduction import by_stripes, in_order
from nmfstream.core.tournament import sample_blocks
from nmfstream.types import CSR, Array, Matrix

ROUNDS, ROUNDS_OF_MANY = 5, 2
"""Rounds on a batch; where rows are many so are batches, and further rounds gain less than the time they take."""
ENOUGH = 3e-3
"""Relative change of a batch's objective below which another round is worth less than it costs."""


class Fitted(NamedTuple):
    """A batch after its rounds."""

    H: Array
    V: Array
    """Counts that the batch expects, (n_features, n_components)."""
    s: Array
    """Sums of its W."""
    scale: Array
    """What rows of H were multiplied by: W's sums of before are to be divided by it."""
    objective: float
    """Of the batch's rows at the H it came with."""


def cut_rows(X: Matrix, block_rows: int) -> tuple[CSR, list[tuple[int, int]]]:
    """The nonzeros of a batch, and the bounds of its blocks."""
    whole = kl.nonzeros(X).rebased() if isinstance(X, CSR) else kl.nonzeros(X)
    return whole, [(b.start, b.stop) for b in Batch(0, whole, block_rows).blocks()]


def batch_rounds(
    X: Matrix, H: Array, prior: Array | None, s_prior: Array, pW: Penalties, pH: Penalties, block_rows: int,
    executor: Executor, *, free: bool, rounds: int = ROUNDS,
) -> Fitted:  # fmt: skip
    """Alternate W and H on a batch, older rows standing in as expected counts.

    Parameters
    ----------
    X : Matrix, shape (n_rows, n_features)
    H : ndarray of shape (n_components, n_features)
    prior : ndarray of float64, shape (n_features, n_components), or None
    s_prior : ndarray of shape (n_components,)
    pW, pH : Penalties
        For the batch's rows of W, and for H with all that the sums stand for.
    free : bool
        Rows of H are kept at sum 1.
    rounds : int
        At most.
    """
    whole, bounds = cut_rows(X, block_rows)
    columns, stripes = Columns.of(X, whole), row_stripes(whole.shape[1])
    W = np.zeros((whole.shape[0], len(H)), whole.dtype)
    Ht, scale, s = np.ascontiguousarray(H.T), np.ones(len(H)), H.sum(axis=1, dtype=np.float64)
    own = sum(executor.map(lambda bound: kl.own_divergence(whole.rows(*bound)), bounds))
    objective, before = 0.0, np.inf
    for r in range(rounds):
        value = own + _solve_W(whole, bounds, Ht, s, W, pW, kl.COLD if r == 0 else kl.WARM, executor)
        objective = value if r == 0 else objective
        settled, before = abs(before - value) <= ENOUGH * abs(value), value
        sums = W.sum(axis=0, dtype=np.float64) + s_prior / scale
        last = settled or r + 1 == rounds
        Ht, s, counts = _solve_H(columns, stripes, Ht, sums, W, prior, pH, executor, counting=last)
        if free:
            rows = np.where(s > 0, s, 1.0)
            Ht, W, scale, s = Ht / rows.astype(Ht.dtype), W * rows.astype(W.dtype), scale / rows, s / rows
        if last:
            break
    return Fitted(np.ascontiguousarray(Ht.T), counts, W.sum(axis=0, dtype=np.float64), scale, objective)


def _solve_W(
    X: CSR, bounds: list[tuple[int, int]], Ht: Array, s: Array, W: Array, p: Penalties, effort: kl.Effort,
    executor: Executor,
) -> float:  # fmt: skip
    def solve(bound: tuple[int, int]) -> float:
        a, b = bound
        block = X.rows(a, b)
        w, V = kl.solve_W(block, Ht, s, p, effort, W[a:b])
        return kl.model_part(block, w, V, s, p)

    return float(sum(executor.map(solve, bounds)))


def _solve_H(
    columns: Columns, stripes: list[tuple[int, int]], Ht: Array, s: Array, W: Array, prior: Array | None, p: Penalties,
    executor: Executor, *, counting: bool,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """H, the sums of its rows, and if `counting` what the batch expects of it."""

    def solve(stripe: tuple[int, int]) -> tuple[Array, Array, Array]:
        a, b = stripe
        part, rows = Ht[a:b].copy(), columns.stripe(a, b)
        V = kl.solve_columns(rows, W, s, part, p, None if prior is None else prior[a:b], 1, rebuilt=counting)
        counts = part * times_dense(kl.ratio(rows, V), W) if counting else part[:0]
        return part, part.sum(axis=0, dtype=np.float64), counts

    parts = executor.map(solve, stripes)
    new, rows, counts = (list(found) for found in zip(*parts, strict=True))
    return np.concatenate(new), np.sum(rows, axis=0), np.concatenate(counts).astype(np.float64)


def prior_sums(X: Matrix, H: Array, objective: Objective, block_rows: int, executor: Executor) -> tuple[Array, Array]:
    """Counts that the rows X expect at H, (n_features, n_components), and the sums of their W."""
    p = objective.penalties(H.shape[1], 0)
    blocks = sample_blocks(X, block_rows, len(H))
    Rt, s = np.zeros(H.T.shape), np.zeros(len(H))
    Ht, sums = np.ascontiguousarray(H.T), H.sum(axis=1, dtype=np.float64)
    for part in in_order(executor, lambda b: kl.block_sums(b, Ht, sums, p), blocks):
        Rt += part.Rt
        s += part.s
    return Rt * Ht, s


def batch_sums(X: Matrix, H: Array, p: Penalties, block_rows: int, executor: Executor) -> kl.Sums:
    """The sums of a batch at fixed H, by blocks or, where H is large, by stripes of features."""
    Ht, s = np.ascontiguousarray(H.T), H.sum(axis=1, dtype=np.float64)
    if by_stripes(*H.shape):
        return _striped_sums(X, Ht, s, p, block_rows, executor)
    Rt, Qt, sums, objective = np.zeros(Ht.shape), np.zeros(Ht.shape), np.zeros(len(s)), 0.0
    blocks = [b.X for b in Batch(0, X, block_rows).blocks()]
    for part in in_order(executor, lambda b: kl.block_sums(b, Ht, s, p), blocks):
        Rt += part.Rt
        Qt += part.Qt
        sums += part.s
        objective += part.objective
    return kl.Sums(Rt, Qt, sums, objective)


def _striped_sums(X: Matrix, Ht: Array, s: Array, p: Penalties, block_rows: int, executor: Executor) -> kl.Sums:
    whole, bounds = cut_rows(X, block_rows)
    W = np.zeros((whole.shape[0], len(s)), whole.dtype)
    V = np.zeros(whole.nnz, whole.dtype)

    def solve(bound: tuple[int, int]) -> float:
        a, b = bound
        block = whole.rows(a, b)
        w, v = kl.solve_W(block, Ht, s, p, kl.SHARP, W[a:b])
        V[block.indptr[0] : block.indptr[-1]] = v
        return kl.rows_objective(block, w, v, s, p)

    objective = float(sum(executor.map(solve, bounds)))
    R, Q = (transposed(kl.ratio(whole, V, power)) for power in (1, 2))
    squares = W * W
    parts = executor.map(
        lambda c: (times_dense(R.rows(*c), W), times_dense(Q.rows(*c), squares)), row_stripes(R.shape[0])
    )  # fmt: skip
    Rt, Qt = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    return kl.Sums(Rt, Qt, W.sum(axis=0, dtype=np.float64), objective)
