"""Where a run's batches come from: memory (here), a store (`pipeline`), or a stream (`streaming`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from nmfstream.core.protocols import Batch, Problem
from nmfstream.types import CSR, Matrix, Runs, cut


class Source(Protocol):
    """Rows of X, as often as they are asked for."""

    problem: Problem

    def batches(
        self, rows: Runs | None, unit: int, start: int, block_rows: int, *, by_block: bool = False
    ) -> Iterator[Batch]:
        """Batches of `unit` rows of each run in `rows` (None: of all), the first `start` rows left out.

        `start` counts rows of the runs, not absolute ones, and lies on a batch's bound. With `by_block` a batch
        may be one that is never in memory as a whole (see `Stage.by_block`).
        """
        ...

    def gather(self, rows: Runs) -> Matrix:
        """The rows of these runs, one run after the other: whoever asks may move them where they are writeable."""
        ...


def batch_bounds(rows: Runs, unit: int, start: int) -> Iterator[tuple[int, int]]:
    """Absolute (start, stop) of each batch: runs cut every `unit` rows from their own start."""
    behind = 0
    for first, last in rows:
        for a in range(first, last, unit):
            b = min(a + unit, last)
            if behind >= start:
                yield a, b
            behind += b - a


class MemorySource:
    """A matrix in memory; batches are views.

    Parameters
    ----------
    X : ndarray (C-contiguous) or CSR
        In the model's dtype, checked.
    """

    def __init__(self, X: Matrix) -> None:
        n, m = X.shape
        self.X = X
        self.problem = Problem(n, m, np.dtype(X.dtype), X.nnz if isinstance(X, CSR) else None)

    def batches(
        self, rows: Runs | None, unit: int, start: int, block_rows: int, *, by_block: bool = False
    ) -> Iterator[Batch]:
        """See `Source.batches`."""
        for a, b in batch_bounds(rows or ((0, self.X.shape[0]),), unit, start):
            yield Batch(a, cut(self.X, a, b), block_rows)

    def gather(self, rows: Runs) -> Matrix:
        """See `Source.gather`."""
        X = join([cut(self.X, a, b) for a, b in rows])
        if not isinstance(X, CSR) and np.may_share_memory(X, self.X):
            X = X.view()
            X.flags.writeable = False
        return X


def join(parts: list[Matrix]) -> Matrix:
    """Rows one after the other: a copy, or the only part itself."""
    if len(parts) == 1:
        return parts[0].rebased() if isinstance(parts[0], CSR) else parts[0]
    sparse = [part.rebased() for part in parts if isinstance(part, CSR)]
    if not sparse:
        return np.concatenate([np.asarray(part) for part in parts])
    ends = np.cumsum([0, *(part.nnz for part in sparse)], dtype=np.int64)
    indptr = np.concatenate([ends[:1], *(p.indptr[1:] + e for p, e in zip(sparse, ends[:-1], strict=True))])
    return CSR(
        indptr,
        np.concatenate([part.indices for part in sparse]),
        np.concatenate([part.data for part in sparse]),
        sparse[0].n_cols,
    )


def from_scipy(X: Any, dtype: np.dtype[Any]) -> CSR:
    """A scipy sparse matrix or array as canonical `CSR` of `dtype` (a copy where it must be)."""
    X = X.tocsr()
    if not X.has_canonical_format:
        X = X.copy()
        X.sum_duplicates()
    return CSR(np.asarray(X.indptr, np.int64), np.asarray(X.indices, np.int32), np.asarray(X.data, dtype), X.shape[1])
