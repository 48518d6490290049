"""Starts that compete on the levels of a sample: halved as the rows double, and given up where they cannot win.

Successive halving: Jamieson & Talwalkar 2016. What a level is, `core.sample` plans.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

import numpy as np

from nmfstream.core.products import total
from nmfstream.core.protocols import Batch, Executor
from nmfstream.core.sample import Level
from nmfstream.core.spectral import nndsvd_H
from nmfstream.types import CSR, Array, Matrix

BLOCK_WORK = 1 << 20
"""Entries times components of a block of the sample at least: less is done sooner than it is handed to a thread."""
LEAST_ROWS, BLOCKS = 128, 8
SAME, RESTING = 1e-5, 10.0
"""Relative difference of two losses that are one, where neither fell by so many times that since the last look."""


@dataclass
class Candidate:
    """One start of the tournament."""

    H: Array
    loss: float
    """Objective a row on the rows it was last fitted to."""
    enough: bool = False
    """More rows changed it so little that the levels after this one are not worth their time."""


class Heat(NamedTuple):
    """How starts are fitted to rows.

    Attributes
    ----------
    iterations : int
        Alternations of W and H at most.
    block_rows : int
        Rows a block at most.
    bar : float
        Objective a row that a start has to come below.
    """

    iterations: int
    block_rows: int
    bar: float = math.inf


class Fitter(Protocol):
    """What the tournament asks of a divergence."""

    @property
    def n_components(self) -> int:
        """Rows of H."""
        ...

    @property
    def init(self) -> str | None:
        """The kind of NNDSVD that was asked for, if one was."""
        ...

    def fit_rows(self, X: Matrix, starts: Sequence[Array], heat: Heat, executor: Executor) -> list[Candidate]:
        """Alternate W and H from each start; what comes back of one alone is no worse than what it reached at best.

        Starts that fell behind or came to where another is (see `ahead`) may be missing from what comes back.

        Parameters
        ----------
        X : Matrix
        starts : sequence of ndarray, shape (n_components, n_features)
        heat : Heat
        executor : Executor
        """
        ...

    def movable(self, H: Array) -> Array:
        """A start as the updates can move it: by default as it is."""
        return H

    def finish(self, X: Matrix, winner: Candidate, block_rows: int, executor: Executor) -> Candidate:
        """The winner on all rows X of the sample, driven on where that pays: by default it stays."""
        return winner


def play(
    level: Level,
    rows: Matrix,
    before: Sequence[Candidate],
    fitter: Fitter,
    seed: int,
    block_rows: int,
    executor: Executor,
) -> list[Candidate]:
    """One level: the candidates that go on to the next, best first.

    Parameters
    ----------
    rows : Matrix
        The level's rows.
    before : sequence of Candidate
        What the level before kept; empty at the first.
    """
    new = [fitter.movable(spectral_H(rows, fitter.n_components, seed, fitter.init, executor))] if level.spectral else []
    if level.spectral and before:
        late = fitter.fit_rows(rows, new, Heat(level.iterations, block_rows, before[0].loss), executor)
        return _best([*before, *late], 1)
    starts = [*new, *([c.H for c in before] or _drawn(rows, fitter, seed, level.starts))]
    fitted = fitter.fit_rows(rows, starts, Heat(level.iterations, block_rows), executor)
    return _best(fitted, kept_of(len(starts)))


def kept_of(n_starts: int) -> int:
    """How many starts a level keeps."""
    return max(1, n_starts // 2)


class Racer(Protocol):
    """A start on its way.

    Attributes
    ----------
    best, before : float
        Its lowest loss, and what that was at the last look.
    """

    best: float
    before: float


Runner = TypeVar("Runner", bound=Racer)


def ahead(runs: Sequence[Runner], going: Sequence[Runner], bar: float, left: float) -> list[Runner]:
    """Of the runs that are `going`, those that may still come below `bar` and among those that are kept.

    Losses fall ever more slowly: what a run gained since the last look, as often as there are looks `left`, is more
    than it is going to gain. Of runs that have come to the same loss one goes on.
    """
    bar = min(bar, sorted(run.best for run in runs)[kept_of(len(runs)) - 1])
    found: list[Runner] = []
    for run in going:
        hopeless = run.best - left * (run.before - run.best) > bar
        if not hopeless and not any(_same(run, other) for other in found):
            found.append(run)
    for run in found:
        run.before = run.best
    return found


def _same(run: Racer, other: Racer) -> bool:
    """Whether two that hardly move any more have come to the same loss."""
    near = SAME * abs(other.best)
    moved = max(run.before - run.best, other.before - other.best)
    return abs(run.best - other.best) <= near and moved <= RESTING * near


def _best(candidates: Sequence[Candidate], count: int) -> list[Candidate]:
    return sorted(candidates, key=lambda c: c.loss if np.isfinite(c.loss) else np.inf)[:count]


def _drawn(X: Matrix, fitter: Fitter, seed: int, count: int) -> list[Array]:
    """Random starts; for no more rows than components one start, with which next to nothing is left to fit."""
    k = fitter.n_components
    if X.shape[0] > k or fitter.init is not None:
        return random_H(X, k, seed, count)
    (start,) = random_H(X, k, seed, 1)
    return [_of_rows(X, start, fitter)]


def _of_rows(X: Matrix, start: Array, fitter: Fitter) -> Array:
    """H of the rows X that are not zero, as often as there is room, scaled as the random `start`."""
    rows = X.toarray() if isinstance(X, CSR) else X
    rows = rows[rows.any(axis=1)]
    if not len(rows):
        return start
    scaled = rows / rows.max(axis=1, keepdims=True) * start.max()
    return fitter.movable(np.ascontiguousarray(scaled[np.arange(len(start)) % len(rows)], start.dtype))


def random_H(X: Matrix, n_components: int, seed: int, count: int) -> list[Array]:
    """Uniform rows on (0, 1], scaled as scikit-learn scales: sqrt(mean(X)/k)."""
    mean = _mean(X)
    scale = math.sqrt(mean / n_components) if mean > 0 else 1.0
    rng = np.random.RandomState(seed)
    shape = (n_components, X.shape[1])
    return [(scale * (1.0 - rng.random_sample(shape))).astype(X.dtype) for _ in range(count)]


def spectral_H(X: Matrix, n_components: int, seed: int, init: str | None, executor: Executor) -> Array:
    """H of an NNDSVD of the rows X, of the kind `init` where it names one, else nndsvda."""
    variant = init if init in ("nndsvd", "nndsvdar") else "nndsvda"
    blocks = sample_blocks(X, X.shape[0], n_components)
    return nndsvd_H(blocks, n_components, seed, executor, variant=variant, mean=_mean(X))


def _mean(X: Matrix) -> float:
    return float(total(X) / max(1, X.shape[0] * X.shape[1]))


def sample_blocks(X: Matrix, block_rows: int, n_components: int) -> list[Matrix]:
    """The sample cut so that several threads have work, but not into pieces that are not worth a call."""
    n = X.shape[0]
    entries = X.nnz if isinstance(X, CSR) else X.size
    worth = math.ceil(BLOCK_WORK * n / max(1, entries * n_components))
    rows = min(block_rows, max(LEAST_ROWS, -(-n // BLOCKS), worth))
    return [b.X for b in Batch(0, X, rows).blocks()]
