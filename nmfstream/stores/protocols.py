"""What a store can do: rows in (`RowReader`), rows out (`RowWriter`). No mathematics here."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nmfstream.types import CSR, Matrix, Task


@dataclass(frozen=True)
class Opening:
    """How inputs are opened.

    Attributes
    ----------
    transpose : bool
        Samples are columns of what is stored.
    missing_chunks : str
        ``"error"`` or ``"fill"``.
    allow_external : bool
        Follow external links and external raw storage of HDF5.
    scratch : Path or None
        Folder for what can be rebuilt (spilled members, external transposes); None: the system's.
    memory : int
        Bytes that opening and rearranging may use.
    """

    transpose: bool = False
    missing_chunks: str = "error"
    allow_external: bool = False
    scratch: Path | None = None
    memory: int = 256 << 20


@dataclass
class ReadPolicy:
    """What happens to values as they are read.

    Attributes
    ----------
    dtype : dtype
        float32 or float64, to which values are converted.
    negative : str
        ``"error"`` or ``"clip"`` (counted in `clipped`).
    positive : bool
        Zeros are refused as well (β ≤ 0).
    clipped : int
        Negative values set to zero so far.
    """

    dtype: np.dtype[Any]
    negative: str = "error"
    positive: bool = False
    clipped: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def count_clipped(self, n: int) -> None:
        """Add to `clipped`; safe from any thread."""
        with self._lock:
            self.clipped += n


class RowReader(Protocol):
    """Rows of one matrix in a store. Context manager; its tasks are safe on any thread.

    Attributes
    ----------
    name : str
        As the user wrote it (file and dataset), for messages.
    shape : tuple of int
        (n_samples, n_features).
    dtype : dtype
        As stored (native byte order).
    nnz : int or None
        Stored entries of a sparse store; None for a dense one.
    chunk_rows : int
        Rows that are decoded together (1 where any row can be read alone). Reads that begin and end at
        multiples of it decode no chunk twice.
    stored_bytes : int
        Bytes on disk of the data that a whole read touches.
    task_bytes : int
        Most temporary bytes that one task needs besides its output (raw and decoded chunk).
    direct_bytes : int
        The same where values stay of the stored type.
    feature_names : sequence of str or None
    """

    name: str
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    nnz: int | None
    chunk_rows: int
    stored_bytes: int
    task_bytes: int
    feature_names: Sequence[str] | None

    @property
    def direct_bytes(self) -> int:
        """See the class."""
        ...

    def check(self) -> None:
        """Look for missing chunks and sources, and at the sparse skeleton, before any value is read.

        Raises
        ------
        DataError
        """
        ...

    def fingerprint(self) -> str:
        """A text that changes when the data do: shape, type and a hash of the store's cheap evidence.

        Never depends on time stamps alone, nor on the folder the store lies in.
        """
        ...

    def indptr(self, start: int, stop: int) -> NDArray[np.int64]:
        """Bounds of rows ``start:stop`` in the stored entries, absolute (sparse stores only)."""
        ...

    def tasks(self, start: int, stop: int, out: Matrix, policy: ReadPolicy) -> list[Task]:
        """Independent tasks that together fill `out` with rows ``start:stop``, converted and checked.

        Parameters
        ----------
        out : ndarray of shape (stop - start, n_features), C-contiguous, or CSR
            In ``policy.dtype``. For a sparse store a `CSR` with ``indptr`` from `indptr` moved to begin at 0
            and ``indices``, ``data`` of that length; only these two are written, in stored order:
            `nmfstream.stores.checks.canonical` then checks, sorts and sums duplicates.

        Raises
        ------
        DataError, StorageError
            From a task, naming store, row and chunk.
        """
        ...

    def close(self) -> None:
        """Release file handles; idempotent."""
        ...

    def __enter__(self) -> RowReader: ...

    def __exit__(self, *exc: object) -> None: ...


class RowWriter(Protocol):
    """Rows of one matrix on their way into a store.

    The rows are under an in-progress name until `commit` gives them the final one.

    Attributes
    ----------
    shape : tuple of int
    chunk_rows : int
        Rows that are stored together: writes aligned to it never read back.
    nnz : int or None
        Entries written so far of a sparse output, whose rows come in order; None for a dense one.
    """

    shape: tuple[int, int]
    chunk_rows: int

    @property
    def nnz(self) -> int | None:
        """See the class."""
        ...

    def write(self, start: int, rows: Any) -> None:
        """Put rows at ``start`` (dense ones an array, sparse ones a `CSR`); again changes nothing. One thread."""
        ...

    def flush(self) -> None:
        """All rows written so far survive a power cut."""
        ...

    def commit(self, *, overwrite: bool = False) -> None:
        """Flush, then give the whole its final name.

        Raises
        ------
        OutputExistsError
            If the name is taken and `overwrite` is not given.
        """
        ...

    def abort(self) -> None:
        """Remove what is in progress; nothing of it stays."""
        ...


def allocate(reader: RowReader, start: int, stop: int, dtype: np.dtype[Any]) -> Matrix:
    """An output for `RowReader.tasks` of rows ``start:stop``."""
    if reader.nnz is None:
        return np.empty((stop - start, reader.shape[1]), dtype)
    indptr = reader.indptr(start, stop)
    nnz = int(indptr[-1] - indptr[0])
    return CSR(indptr - indptr[0], np.empty(nnz, np.int32), np.empty(nnz, dtype), reader.shape[1])
