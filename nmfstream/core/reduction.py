"""Partial results in a fixed order: the two reductions of WᵀX and WᵀW, chosen by shape alone.

Up to `PARTIAL_BYTES` of k x m float64 each block returns its partial and the partials are added in block order.
Larger: fixed feature stripes, one task a stripe, row blocks in order, into one accumulator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from nmfstream.core.kernels.sparse_products import column_range
from nmfstream.core.products import Wt_times
from nmfstream.core.protocols import Block, Executor
from nmfstream.types import CSR, Array, Matrix

Item = TypeVar("Item")
Result = TypeVar("Result")

PARTIAL_BYTES = 4 << 20
STRIPE_BYTES = 2 << 20
AT_ONCE = 4
"""Partial sums that wait for their turn, a thread."""


def in_order(executor: Executor, task: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Results in the order of the items, a few at a time, so that few partial sums are in memory at once."""
    waiting = list(items)
    width = AT_ONCE * max(1, executor.n_workers)
    for low in range(0, len(waiting), width):
        yield from executor.map(task, waiting[low : low + width])


def by_stripes(n_components: int, n_features: int) -> bool:
    """Whether k x m is too large for a partial a block."""
    return n_components * n_features * 8 > PARTIAL_BYTES


def stripes(n_components: int, n_features: int) -> list[tuple[int, int]]:
    """Fixed feature stripes: about `STRIPE_BYTES` of float64 each, a multiple of 64 columns."""
    width = max(64, STRIPE_BYTES // (8 * n_components) // 64 * 64)
    return [(a, min(a + width, n_features)) for a in range(0, n_features, width)]


def columns(X: Matrix, start: int, stop: int) -> Matrix:
    """Columns ``start:stop`` of X (a view where dense, a copy where sparse)."""
    return column_range(X, start, stop) if isinstance(X, CSR) else X[:, start:stop]


def add_WtX(out: Array, blocks: Sequence[Block], W: Array, executor: Executor, *, scale: float = 1.0) -> None:
    """Add ``scale * WᵀX`` of a whole batch to `out` by stripes or by blocks, in a fixed order.

    Parameters
    ----------
    out : ndarray of float64, shape (n_components, n_features)
        Scratch of the caller's, never a run's state: an interrupted call leaves it half-added.
    blocks : sequence of Block
    W : ndarray of shape (n_rows of the batch, n_components)
    """
    k, m = out.shape
    if by_stripes(k, m):

        def add_stripe(stripe: tuple[int, int]) -> None:
            a, b = stripe
            for block in blocks:
                part = Wt_times(W[block.start : block.stop], columns(block.X, a, b))
                out[:, a:b] += part if scale == 1.0 else scale * part

        executor.map(add_stripe, stripes(k, m))
        return
    for part in in_order(executor, lambda b: Wt_times(W[b.start : b.stop], b.X), blocks):
        out += part if scale == 1.0 else scale * part
