"""How many rows a block has: from shape, nonzeros, type and parameters alone, never from threads or memory."""

from __future__ import annotations

from nmfstream.core.protocols import Problem

BLOCK_BYTES = 4 << 20
MULTIPLE = 32
LEAST, MOST = 64, 2048
MOST_SPARSE = 4096
BLOCKS_A_BATCH = 4
STEP_BYTES = 8 << 20
"""A step where H stands still, but a whole batch at least."""


def row_bytes(problem: Problem) -> float:
    """Mean bytes a row of X in memory."""
    itemsize = problem.dtype.itemsize
    if problem.nnz is None:
        return float(problem.n_features * itemsize)
    return problem.nnz / max(1, problem.n_samples or 1) * (itemsize + 4) + 8


def block_rows(problem: Problem, n_components: int, batch_rows: int | None = None) -> int:
    """Rows a block: about `BLOCK_BYTES` of X and W, a multiple of 32 between 64 and 2048 (sparse: 4096).

    Parameters
    ----------
    problem : Problem
    n_components : int
    batch_rows : int, optional
        Where H is updated every so many rows, a block is at most a quarter of them (but 64 or more), so that
        a batch keeps several threads busy. A sparse one may have more of them: with fewer nonzeros than half the
        columns, sums over a block are mostly zeros.
    """
    bytes_a_row = row_bytes(problem) + n_components * problem.dtype.itemsize
    most = MOST if problem.nnz is None else MOST_SPARSE
    if batch_rows is not None:
        most = min(most, max(-(-batch_rows // BLOCKS_A_BATCH), min(batch_rows, _filling_rows(problem))))
    rows = int(min(most, BLOCK_BYTES / bytes_a_row))
    return max(LEAST, -(-rows // MULTIPLE) * MULTIPLE if rows == most else rows // MULTIPLE * MULTIPLE)


def step_rows(batch_rows: int, bytes_a_row: float) -> int:
    """Rows a step where H stands still: whole batches, about `STEP_BYTES` of them."""
    return batch_rows * max(1, int(STEP_BYTES / max(1.0, batch_rows * bytes_a_row)))


def _filling_rows(problem: Problem) -> int:
    """Rows with half as many nonzeros as X has columns; 0 where it is dense."""
    if problem.nnz is None:
        return 0
    return int(0.5 * problem.n_features * (problem.n_samples or 1) / max(1, problem.nnz))
