"""Which rows are fitted before the first pass, in what order: nested samples, and the plan of the tournament on them.

The sample is up to 512 runs of consecutive rows, spread evenly over all rows by absolute row number; smaller
levels are evenly spaced rows of it, so everything is read once. Starts are halved as the levels double
(see `core.tournament`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from nmfstream.core.protocols import Problem
from nmfstream.types import CSR, Array, Matrix, Runs

FEW_RUNS, MANY_RUNS, RUN_ROWS = 64, 512, 16
"""Neighbours are alike in many stores: sixty long runs of short texts, package by package, were no fair sample."""
SAMPLE_BYTES = 128 << 20
LEAST_BYTES = 512 << 20
WHOLE_BYTES = 32 << 20
"""All rows, and W of theirs, up to this size are the sample."""
MANY_ROWS = 100_000
REPEATED_ROWS, REPEATED_WORK = 80_000, 2e9
"""Less than this, in rows and in nonzeros times components, is fitted more often."""
TAKEN = 1 << 17
"""Entries that `take` copies at a time: their places would need more memory than they themselves."""


def bytes_a_row(problem: Problem) -> float:
    """Mean bytes of a row in memory: values (and 4 bytes of column number each where sparse)."""
    if problem.nnz is None or not problem.n_samples:
        return float(problem.n_features * problem.dtype.itemsize)
    return max(1.0, problem.nnz / problem.n_samples * (problem.dtype.itemsize + 4))


def fits(problem: Problem, n_components: int) -> bool:
    """Whether all rows are small enough to be fitted in memory."""
    width = bytes_a_row(problem) + n_components * problem.dtype.itemsize
    return problem.n_samples is not None and problem.n_samples * width <= WHOLE_BYTES


def first_level(n_components: int) -> int:
    """Rows below which a fitted sample overfits: max(1024, 50 k)."""
    return max(1024, 50 * n_components)


def sample_size(problem: Problem, n_components: int, asked: int | None = None) -> int:
    """Rows of the largest sample.

    Parameters
    ----------
    problem : Problem
    n_components : int
    asked : int, optional
        ``--sample-rows``; None: min(n/4, 128 MiB of rows), but at least max(1024, 50 k) rows as long as those are
        under 512 MiB.

    Returns
    -------
    int
        At most ``problem.n_samples``; 0 for no sample.
    """
    n = problem.n_samples if problem.n_samples is not None else first_level(n_components)
    if asked is not None:
        return min(asked, n)
    width = bytes_a_row(problem)
    least = min(first_level(n_components), int(LEAST_BYTES // width))
    return max(1, min(n, max(least, min(n // 4, int(SAMPLE_BYTES // width)))))


def spread_runs(n_samples: int, size: int, seed: int) -> Runs:
    """`size` rows of `n_samples` as runs, one in each of as many equal strata, its place drawn by `seed`."""
    n_runs = max(1, min(size, MANY_RUNS, max(FEW_RUNS, size // RUN_ROWS)))
    places = np.random.RandomState(seed).random_sample(n_runs)
    runs: list[tuple[int, int]] = []
    low = 0
    for i in range(n_runs):
        length, spare = ((i + 1) * rows // n_runs - i * rows // n_runs for rows in (size, n_samples - size))
        start = low + int(places[i] * (spare + 1))
        low += length + spare
        if runs and runs[-1][1] == start:
            runs[-1] = (runs[-1][0], start + length)
        elif length:
            runs.append((start, start + length))
    return tuple(runs)


class Level(NamedTuple):
    """One step of the tournament."""

    rows: int
    """Rows it is fitted to."""
    iterations: int
    """Alternations of W and H a start."""
    starts: int
    """Random starts (of the first level)."""
    spectral: bool
    """Whether an NNDSVD of these rows is a further start."""


def levels(
    n_samples: int,
    size: int,
    n_components: int,
    n_init: int | None,
    *,
    init: str | None,
    raced: bool,
    most: float = 10.0,
    work: float = 1.0,
) -> list[Level]:
    """The tournament: doubling rows, halved starts, few iterations each.

    Parameters
    ----------
    n_samples, size : int
        Rows in all, and of the largest sample.
    n_init : int, optional
        Starts; None: see `default_starts`.
    init : str, optional
        What was asked for: ``"random"`` starts alone, or an NNDSVD of the first level's rows among them.
    raced : bool
        Whether many rows are fitted by `race`.
    most : float
        How many times as many iterations are made at most where rows are few.
    work : float
        Nonzeros (cells) of all rows, times components.

    Notes
    -----
    Iterations grow where rows and work are few: they cost next to nothing there. At 100 000 rows
    and more the products of all levels together are worth less than three passes; where these allow it, starts
    compete on more rows and for longer: of short texts, a few hundred rows more tell the better from the worse.
    """
    q = min(most, max(1.0, min(REPEATED_ROWS / max(1, n_samples), REPEATED_WORK / max(1.0, work))))
    many = n_samples >= MANY_ROWS
    starts = default_starts(n_samples, n_components) if n_init is None else max(1, n_init)
    if raced and many and n_init is None and init is None:
        return race(n_samples, size, n_components)
    plan: list[Level] = []
    first = first_level(n_components)
    rows = min(size, max(first, min(4 * first, n_samples // 150)) if many else first)
    longer = 2 if rows >= 2 * first else 1
    if many and 2 * rows > size:
        rows = size
    while True:
        whole, spectral = rows >= size, not plan and init not in (None, "random")
        if whole and starts == 1:
            repeats = 5 * min(2.0, q)
        else:
            repeats = 5 if not plan and (many or not whole) else 2 if whole else 3
            repeats *= longer if starts > 1 else 1
        plan.append(Level(rows, math.ceil(repeats * q), starts - spectral, spectral))
        if whole and starts == 1:
            break
        starts, rows = max(1, starts // 2), grown(rows, size)
    if not many and init is None and (n_init is None or n_init > 1):
        plan.append(Level(size, math.ceil(5 * q), 0, True))
    return plan


def default_starts(n_samples: int, n_components: int) -> int:
    """Eight, or four where the first level of many rows is more than a small part of them."""
    return 4 if MANY_ROWS <= n_samples < 80 * first_level(n_components) else 8


RACE, LATER, LAST = (15, 10, 8), 6, 7
"""Iterations of the first levels of `race`, of those after them, and of the last."""
RACE_VISITS = 5.0
"""Iterations on all rows that all levels of `race` are worth at most; three passes make six."""


def race(n_samples: int, size: int, n_components: int) -> list[Level]:
    """The tournament where passes are dear: an NNDSVD among the starts, on more rows at first, for longer.

    Products of all levels together are worth less than three passes.
    """
    first = first_level(n_components)
    rows, starts = min(size, max(first, min(4 * first, n_samples // 100))), default_starts(n_samples, n_components)
    plan: list[Level] = []
    visits = 0
    while rows < size or starts > 1:
        iterations = RACE[len(plan)] if len(plan) < len(RACE) else LATER
        plan.append(Level(rows, iterations, starts if plan else starts - 1, not plan))
        visits += rows * iterations * starts
        starts, rows = max(1, starts // 2), grown(rows, size)
    plan.append(Level(size, LAST, 1, False))
    share = min(1.0, RACE_VISITS * n_samples / (visits + LAST * size))
    return [level._replace(iterations=max(3, int(share * level.iterations))) for level in plan]


def grown(rows: int, size: int) -> int:
    """Rows of the next level: twice as many, or all where few more are left."""
    return 2 * rows if 3 * rows < size else size


def level_rows(X: Matrix, rows: int) -> Matrix:
    """`rows` evenly spaced rows of the sample X."""
    return X if rows >= X.shape[0] else take(X, spaced(X.shape[0], rows))


def spaced(n_samples: int, rows: int) -> Array:
    """Numbers of `rows` evenly spaced rows of so many: all where more are asked for."""
    rows = min(rows, n_samples)
    return np.arange(rows, dtype=np.int64) * n_samples // max(1, rows)


def take(X: Matrix, rows: Array) -> Matrix:
    """The rows of X with these numbers (or where a mask of them holds), copied."""
    if not isinstance(X, CSR):
        return np.ascontiguousarray(X[rows])
    if rows.dtype == bool:
        rows = np.flatnonzero(rows)
    lengths = np.diff(X.indptr)[rows]
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    out = CSR(indptr, np.empty(indptr[-1], X.indices.dtype), np.empty(indptr[-1], X.data.dtype), X.n_cols)
    step = max(1, len(rows) * TAKEN // max(1, int(indptr[-1])))
    for a in range(0, len(rows), step):
        b = min(a + step, len(rows))
        to = slice(indptr[a], indptr[b])
        places = np.repeat(X.indptr[:-1][rows[a:b]] - indptr[a:b], lengths[a:b]) + np.arange(to.start, to.stop)
        out.indices[to], out.data[to] = X.indices[places], X.data[places]
    return out


def stack(parts: Sequence[Matrix]) -> Matrix:
    """Rows one after the other, dense where a part is."""
    if not all(isinstance(part, CSR) for part in parts):
        return np.concatenate([part.toarray() if isinstance(part, CSR) else part for part in parts])
    sparse = [part.rebased() for part in parts if isinstance(part, CSR)]
    ends = np.cumsum([0, *(part.nnz for part in sparse)])
    indptr = np.concatenate([[0], *(part.indptr[1:] + end for part, end in zip(sparse, ends, strict=False))])
    indices = np.concatenate([part.indices for part in sparse])
    return CSR(indptr.astype(np.int64), indices, np.concatenate([part.data for part in sparse]), sparse[0].n_cols)


def draw_seed(generator: Any) -> int:
    """One number from the user's generator, from which everything random of a run follows."""
    return int(generator.randint(np.iinfo(np.int32).max))
