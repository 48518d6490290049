"""What the engine's parts promise each other. Mathematics only: no file, no thread, no command line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from nmfstream.core.state import RunState
from nmfstream.types import CSR, Array, Matrix, Runs, cut

Item = TypeVar("Item")
Result = TypeVar("Result")


class Executor(Protocol):
    """Runs tasks, perhaps at once; the results are those of one after the other."""

    n_workers: int

    def map(self, task: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Results in the order of the items. Raises `StopRequested` between two tasks when asked to stop."""
        ...


class Block:
    """A fixed cut of a batch.

    Parameters
    ----------
    start, stop : int
        Its rows, relative to the batch.
    X : Matrix
        Those rows.
    """

    def __init__(self, start: int, stop: int, X: Matrix) -> None:
        self.start, self.stop, self._X = start, stop, X

    @property
    def X(self) -> Matrix:
        """The rows."""
        return self._X

    def reading(self) -> AbstractContextManager[Matrix]:
        """The rows for one task: valid until the context is left."""
        return nullcontext(self._X)

    def parts(self) -> AbstractContextManager[Sequence[Matrix]]:
        """As `reading`, but rows that do not lie together need not be brought together."""
        return nullcontext([self._X])


class Batch:
    """Rows between two steps, valid until the next batch is asked for.

    Parameters
    ----------
    start : int
        Absolute row number of the first row.
    X : Matrix, shape (n_rows, n_features)
        The rows, in the model's dtype, checked.
    block_rows : int
        Rows a block; follows from shape and parameters alone.
    W : ndarray of shape (n_rows, n_components), optional
        The rows of W that the previous pass left, where the stage carries W.
    """

    def __init__(self, start: int, X: Matrix, block_rows: int, W: Array | None = None) -> None:
        self.start, self.block_rows, self.W, self._X = start, block_rows, W, X

    @property
    def X(self) -> Matrix:
        """The rows."""
        return self._X

    @property
    def stop(self) -> int:
        """One past the absolute number of the last row."""
        return self.start + self.n_rows

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return int(self._X.shape[0])

    @property
    def nbytes(self) -> int:
        """Bytes of the rows in memory."""
        X = self._X
        return X.nnz * (X.dtype.itemsize + 4) if isinstance(X, CSR) else X.nbytes

    def bounds(self) -> list[tuple[int, int]]:
        """Rows of each block: `block_rows`, the last may have fewer."""
        return [(a, min(a + self.block_rows, self.n_rows)) for a in range(0, self.n_rows, self.block_rows)]

    def blocks(self) -> list[Block]:
        """The batch cut into blocks."""
        return [Block(a, b, cut(self._X, a, b)) for a, b in self.bounds()]


class Problem(NamedTuple):
    """What is known of X before a value is read.

    Attributes
    ----------
    n_samples : int or None
        None for a stream whose length is unknown.
    n_features : int
    dtype : dtype
        float32 or float64: the model's type, to which values are converted as they are read.
    nnz : int or None
        Number of stored entries of a sparse X; None for a dense one.
    """

    n_samples: int | None
    n_features: int
    dtype: np.dtype[Any]
    nnz: int | None = None

    @property
    def sparse(self) -> bool:
        """Whether blocks come as `CSR`."""
        return self.nnz is not None


class Stage(Protocol):
    """One read of (some of) the data and what is done with it.

    A stage holds the run's state and changes it only at the very end of `step` and `finish`, by operations
    that cannot be interrupted: every call of `Executor.map` comes before the first change. A step that
    `StopRequested` leaves has therefore never happened.

    Attributes
    ----------
    name : str
        In words, for progress, history and messages: ``"mean of X"``, ``"sample"``, ``"pass 3"``.
    rows : Runs or None
        The runs that are read, by absolute row number; None for all rows.
    unit : int
        Rows a step.
    resident : bool
        The rows are gathered in memory first and `step` is called on all of them until `done`.
    carries_W : bool
        `step` takes rows of W from the previous pass in `Batch.W` and returns the new ones.
    learns : bool
        A pass over the data that updates H (counted by ``n_iter``), as opposed to one that prepares.
    by_block : bool
        `step` needs no `Batch.X`, only its blocks, and each of them (nearly always) once, by `Block.reading`
        or `Block.parts`.
    """

    name: str
    rows: Runs | None
    unit: int
    resident: bool
    carries_W: bool
    learns: bool
    by_block: bool

    @property
    def done(self) -> bool:
        """No further step of this stage is wanted (early stopping; the last level of a sample)."""
        ...

    def step(self, batch: Batch, executor: Executor) -> Array | None:
        """Take one batch; returns its rows of W where the stage carries W."""
        ...

    def finish(self, executor: Executor) -> None:
        """After the last row (or `done`): update what is updated once a read, and decide whether to stop."""
        ...


class Solver(Protocol):
    """An algorithm as a sequence of stages, chosen from the state alone so that a run can be resumed anywhere.

    Attributes
    ----------
    name : str
        As ``--solver`` and the model file call it.
    """

    name: str

    def start(self) -> RunState:
        """The state before anything is read."""
        ...

    def stage(self, state: RunState) -> Stage | None:
        """The stage that ``state.stage`` stands in; None when the run is over (``state.stop_reason`` says why).

        After `Stage.finish` the driver adds one to ``state.stage`` and sets ``state.row`` to 0.
        """
        ...
