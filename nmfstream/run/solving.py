"""W for a fixed H: the one loop behind `transform`, `fit --w` and scoring."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

from nmfstream.core.protocols import Batch, Block, Executor
from nmfstream.core.rowsolve import RowSolution, RowSolver
from nmfstream.run.events import Advanced, Listener, silent
from nmfstream.run.sources import Source
from nmfstream.types import Array

UNIT_BLOCKS = 8


class SolvedRows(NamedTuple):
    """W of consecutive rows."""

    batch: Batch
    W: Array
    residual: Array


@dataclass
class Quality:
    """How near to optimal the rows solved so far are.

    Attributes
    ----------
    rows : int
    unfinished : int
        Rows that the iteration limit ended.
    worst : float
        Largest relative KKT residual.
    worst_row : int
        Its row; -1 before any row.
    """

    rows: int = 0
    unfinished: int = 0
    worst: float = 0.0
    worst_row: int = -1

    def take(self, start: int, solution: RowSolution) -> None:
        """Add the rows of one block."""
        self.rows += len(solution.W)
        self.unfinished += int((~solution.converged).sum())
        if len(solution.W) and (self.worst_row < 0 or float(solution.residual.max()) > self.worst):
            self.worst = float(solution.residual.max())
            self.worst_row = start + int(solution.residual.argmax())


def solve_rows(
    source: Source,
    solver: RowSolver,
    executor: Executor,
    rows: tuple[int, int],
    block_rows: int,
    quality: Quality,
    listener: Listener = silent,
) -> Iterator[SolvedRows]:
    """W of rows ``rows[0]:rows[1]``, some blocks at a time, in order.

    Parameters
    ----------
    source : Source
    solver : RowSolver
        For one H.
    executor : Executor
    rows : tuple of int
    block_rows : int
        Rows a block, from shape alone.
    quality : Quality
        Told of every row.
    listener : callable

    Raises
    ------
    StopRequested
        When a stop was asked for.
    """
    import numpy as np

    if rows[0] >= rows[1]:
        return
    batches = source.batches((rows,), block_rows * UNIT_BLOCKS, 0, block_rows, by_block=True)

    def solved(block: Block) -> RowSolution:
        with block.reading() as X:
            return solver(X)

    with closing(batches):  # type: ignore[type-var]
        for batch in batches:
            blocks = batch.blocks()
            solutions = executor.map(solved, blocks)
            for block, solution in zip(blocks, solutions, strict=True):
                quality.take(batch.start + block.start, solution)
            W = np.concatenate([solution.W for solution in solutions])
            yield SolvedRows(batch, W, np.concatenate([solution.residual for solution in solutions]))
            listener(Advanced(batch.stop - rows[0], batch.nbytes, 0, float("nan")))
