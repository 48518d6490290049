"""Rows that are scored and never learnt from, chosen by a hash of their absolute row number."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nmfstream.core.protocols import Batch, Block
from nmfstream.core.sample import take
from nmfstream.types import Matrix, Runs, cut


def held_out(rows: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """Which rows are set aside: those whose SplitMix64 hash (Steele et al. 2014) is in the lowest `share`.

    Parameters
    ----------
    rows : ndarray of int64
        Absolute row numbers.
    share : float
        Between 0 and 1.
    """
    z = rows.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53 < share


def row_numbers(runs: Runs) -> NDArray[np.int64]:
    """Absolute numbers of the rows of some runs, in order."""
    return np.concatenate([np.arange(a, b, dtype=np.int64) for a, b in runs] or [np.zeros(0, np.int64)])


def split(batch: Batch, share: float) -> tuple[list[Block], Matrix | None]:
    """Blocks of the rows to learn from, and the rows set aside (None where there are none).

    Blocks keep their bounds in the batch, so that results do not depend on where a batch was cut.
    """
    blocks = batch.blocks()
    if share <= 0:
        return blocks, None
    held = held_out(np.arange(batch.start, batch.stop, dtype=np.int64), share)
    if not held.any():
        return blocks, None
    kept = [Block(b.start, b.stop, take(b.X, ~held[b.start : b.stop])) for b in blocks]
    return [b for b in kept if b.X.shape[0]], take(cut(batch.X, 0, batch.n_rows), held)


def split_rows(batch: Batch, share: float) -> tuple[Matrix, Matrix | None]:
    """The rows to learn from as one matrix, and the rows set aside (None where there are none)."""
    if share <= 0:
        return batch.X, None
    held = held_out(np.arange(batch.start, batch.stop, dtype=np.int64), share)
    return (take(batch.X, ~held), take(batch.X, held)) if held.any() else (batch.X, None)


def learnt(runs: Runs, share: float) -> NDArray[np.bool_] | None:
    """Which rows of a gathered sample are not set aside; None: all (if all were, none is)."""
    if share <= 0:
        return None
    held = held_out(row_numbers(runs), share)
    return ~held if held.any() and not held.all() else None
