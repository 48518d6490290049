"""A batch's statistics for the update of H: by blocks where H is small, by feature stripes where it is large."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nmfstream.core.losses import Loss
from nmfstream.core.protocols import Block, Executor
from nmfstream.core.reduction import by_stripes, in_order, stripes
from nmfstream.types import CSR, Array, Matrix


class Sums(NamedTuple):
    """Sums over a batch, in float64.

    Attributes
    ----------
    cost : float
    terms : ndarray of shape (n_terms, n_components, n_features)
    summary : ndarray
        Of W (see `Loss.summary`).
    """

    cost: float
    terms: Array
    summary: Array


def batch_sums(loss: Loss, blocks: Sequence[Block], W: Array, H: Array, executor: Executor) -> Sums:
    """Statistics of a batch, added in an order that follows from shapes alone."""
    add = _over_stripes if by_stripes(*H.shape) else _over_blocks
    terms = np.zeros((loss.n_terms, *H.shape))
    cost = add(loss, blocks, W, H, terms, executor)
    summaries = np.stack([loss.summary(W[block.start : block.stop]) for block in blocks])
    return Sums(cost, terms, np.asarray(summaries.sum(axis=0, dtype=np.float64)))


def _over_blocks(loss: Loss, blocks: Sequence[Block], W: Array, H: Array, terms: Array, executor: Executor) -> float:
    cost = 0.0
    for part in in_order(executor, lambda b: loss.statistics(b.X, W[b.start : b.stop], H), blocks):
        terms += part.terms
        cost += part.cost
    return cost


def _over_stripes(loss: Loss, blocks: Sequence[Block], W: Array, H: Array, terms: Array, executor: Executor) -> float:
    bounds = stripes(*H.shape)
    pieces = executor.map(lambda block: split_columns(block.X, bounds), blocks)

    def add(number: int) -> float:
        a, b = bounds[number]
        h, cost = np.ascontiguousarray(H[:, a:b]), 0.0
        for block, piece in zip(blocks, pieces, strict=True):
            part = loss.statistics(piece[number], W[block.start : block.stop], h)
            terms[:, :, a:b] += part.terms
            cost += part.cost
        return cost

    return float(sum(executor.map(add, range(len(bounds)))))


def split_columns(X: Matrix, bounds: Sequence[tuple[int, int]]) -> list[Matrix]:
    """X cut into stripes of columns of one width (the last may be narrower): views where dense.

    Sparse rows are sorted by stripe once, whatever the number of stripes.
    """
    if not isinstance(X, CSR):
        return [X[:, a:b] for a, b in bounds]
    own, n_rows, width = X.rebased(), X.shape[0], bounds[0][1] - bounds[0][0]
    stripe = own.indices // width
    rows = np.repeat(np.arange(n_rows), np.diff(own.indptr))
    order = np.argsort(stripe, kind="stable")
    counts = np.bincount(stripe.astype(np.int64) * n_rows + rows, minlength=len(bounds) * n_rows)
    ends = np.concatenate([[0], np.cumsum(counts)])
    indices, data = (own.indices - stripe * width)[order], own.data[order]
    return [CSR(ends[s * n_rows : (s + 1) * n_rows + 1], indices, data, b - a) for s, (a, b) in enumerate(bounds)]
