"""Compressed columns sorted into compressed rows outside memory.

Entries are dealt into buckets of consecutive rows, each with its own segments of a scratch file; then one bucket
after the other is sorted in memory and appended to the final arrays. Every sort is stable, so duplicates keep their
order and the result depends on the matrix alone.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nmfstream.errors import DataError
from nmfstream.stores.arrays import ArraySource, digest
from nmfstream.stores.base import Reader
from nmfstream.stores.checks import check_indptr, fill_indices
from nmfstream.stores.flat import FlatSource
from nmfstream.stores.protocols import Opening, ReadPolicy
from nmfstream.stores.sparse import WINDOW, SparseReader, check_bounds, check_parts, read_vector
from nmfstream.stores.spill import Spill
from nmfstream.types import Array, Matrix, Task

MOST_BUCKETS = 4096
SEGMENT_BYTES = 1 << 14
"""Least bytes of a bucket written together."""

WORK = 64
"""Bytes of work memory an entry needs while it is sorted."""


class TurnedReader(Reader):
    """A `RowReader` over the three arrays of a CSC matrix.

    Parameters
    ----------
    data, indices, indptr : ArraySource
        `indptr` bounds features, `indices` are rows of X.
    shape : tuple of int
        (n_samples, n_features).
    name : str
    opening : Opening
        Scratch folder, and the memory that sorting may use.
    feature_names : sequence of str, optional
    """

    kind = "csc"

    def __init__(
        self,
        data: ArraySource,
        indices: ArraySource,
        indptr: ArraySource,
        shape: tuple[int, int],
        name: str,
        opening: Opening,
        *,
        feature_names: Sequence[str] | None = None,
    ) -> None:
        self.data, self.indices, self.bounds = data, indices, indptr
        self.name, self.shape, self.dtype = name, shape, data.dtype
        self.nnz: int = data.shape[0]
        self.stored_bytes = data.stored_bytes + indices.stored_bytes + indptr.stored_bytes
        self.task_bytes = max(data.piece_bytes, indices.piece_bytes)
        self.feature_names = feature_names
        self._opening = opening
        self._lock = threading.Lock()
        self._rows: SparseReader | None = None
        self._check_parts()

    def _check_parts(self) -> None:
        check_parts(self.data, self.indices, self.bounds, self.shape, self.name, compressed=1)

    def column_numbers(self, step: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Columns of all entries in stored order, at most `step` at a time, each with the first entry's number."""
        for left in range(0, self.shape[1], WINDOW):
            bounds = read_vector(self.bounds, left, min(left + WINDOW, self.shape[1]) + 1)
            check_indptr(bounds, self.nnz, self.name)
            for low in range(int(bounds[0]), int(bounds[-1]), step):
                entries = np.arange(low, min(low + step, int(bounds[-1])))
                yield low, np.searchsorted(bounds, entries, side="right") - 1 + left

    def sources(self) -> dict[str, ArraySource]:
        """See `Reader`."""
        return {"data": self.data, "indices": self.indices, "indptr": self.bounds}

    def check(self) -> None:
        """See `RowReader`."""
        for source in (self.bounds, self.indices, self.data):
            source.check()
        check_bounds(self.bounds, self.shape[1], self.nnz, self.name)

    def fingerprint(self) -> str:
        """See `RowReader`."""
        parts = (self.data.evidence(), self.indices.evidence(), self.bounds.evidence())
        return digest(f"columns {self.shape} {self.nnz} {self.dtype.str}", *parts)

    def indptr(self, start: int, stop: int) -> NDArray[np.int64]:
        """See `RowReader`."""
        return self._turned().indptr(start, stop)

    def tasks(self, start: int, stop: int, out: Matrix, policy: ReadPolicy) -> list[Task]:
        """See `RowReader`."""
        return self._turned().tasks(start, stop, out, policy)

    def _turned(self) -> SparseReader:
        with self._lock:
            if self._rows is None:
                self._rows = _Turn(self, self._opening).run()
            return self._rows

    def close(self) -> None:
        """See `RowReader`."""
        for source in (self.data, self.indices, self.bounds):
            source.close()
        if self._rows is not None:
            self._rows.close()


class _Turn:
    """One external sort."""

    def __init__(self, columns: TurnedReader, opening: Opening) -> None:
        self.columns = columns
        memory = max(1 << 20, opening.memory // 4)
        n_rows, self.nnz = max(1, columns.shape[0]), columns.nnz
        wanted = -(-self.nnz * WORK // memory) * 2
        n_buckets = max(1, min(wanted, MOST_BUCKETS, n_rows, memory // SEGMENT_BYTES))
        self.span = -(-n_rows // n_buckets)
        self.n_buckets = -(-n_rows // self.span)
        self.step = max(1 << 12, min(memory // WORK, 1 << 20))
        self.record = np.dtype([("row", np.uint32), ("column", np.int32), ("value", columns.dtype)])
        self.room = max(1, memory // self.n_buckets // self.record.itemsize)
        size = self.nnz * (2 * self.record.itemsize - 4) + 8 * (n_rows + 1)
        self.folder = opening.scratch
        self.spill = Spill(self.folder, size, f"{columns.name}: compressed columns sorted into rows")

    def run(self) -> SparseReader:
        """Deal, then sort bucket by bucket."""
        self.segments: list[list[tuple[int, int]]] = [[] for _ in range(self.n_buckets)]
        self.waiting: list[list[Array]] = [[] for _ in range(self.n_buckets)]
        self.held = np.zeros(self.n_buckets, np.int64)
        for records, buckets in self._records():
            self._deal(records, buckets)
        for bucket in range(self.n_buckets):
            self._flush(bucket)
        try:
            return self._gather()
        finally:
            self.spill.close()

    def _records(self) -> Iterator[tuple[Array, Array]]:
        """Entries in stored order, with the bucket of each."""
        for low, columns in self.columns.column_numbers(self.step):
            high = low + len(columns)
            rows = self._row_numbers(low, high)
            records = np.empty(high - low, self.record)
            records["row"], records["column"] = rows % self.span, columns
            values = records["value"]
            for box in self.columns.data.boxes((low,), (high,)):
                values[box.low[0] - low : box.high[0] - low] = self.columns.data.load(box)
            yield records, rows // self.span

    def _row_numbers(self, low: int, high: int) -> NDArray[np.int64]:
        return checked_indices(self.columns.indices, low, high, self.columns.shape[0], self.columns.name, "row")

    def _deal(self, records: Array, buckets: Array) -> None:
        order = np.argsort(buckets, kind="stable")
        counts = np.bincount(buckets, minlength=self.n_buckets)
        ends = np.cumsum(counts)
        records = records[order]
        for bucket in np.flatnonzero(counts):
            self.waiting[bucket].append(records[ends[bucket] - counts[bucket] : ends[bucket]].copy())
            self.held[bucket] += counts[bucket]
            if self.held[bucket] >= self.room:
                self._flush(int(bucket))

    def _flush(self, bucket: int) -> None:
        if self.waiting[bucket]:
            records = np.concatenate(self.waiting[bucket])
            self.segments[bucket].append((self.spill.append(records.view(np.uint8)), len(records)))
            self.waiting[bucket], self.held[bucket] = [], 0

    def _gather(self) -> SparseReader:
        n_rows = self.columns.shape[0]
        itemsize = self.columns.dtype.itemsize
        final = Spill(self.folder, self.nnz * (4 + itemsize) + 8 * (n_rows + 1), f"{self.columns.name}: its rows")
        places = 0, 8 * (n_rows + 1), 8 * (n_rows + 1) + itemsize * self.nnz
        final.write(np.zeros(1, np.int64), places[0])
        done = 0
        for bucket in range(self.n_buckets):
            done = self._sort(bucket, final, places, done)
        shapes = ((n_rows + 1,), (self.nnz,), (self.nnz,))
        types: tuple[np.dtype[Any], ...] = np.dtype(np.int64), self.columns.dtype, np.dtype(np.int32)
        kept = [_Kept(final, at, s, t, self.columns.name) for at, s, t in zip(places, shapes, types)]
        return SparseReader(kept[1], kept[2], kept[0], self.columns.shape, self.columns.name)

    def _sort(self, bucket: int, final: Spill, places: tuple[int, int, int], done: int) -> int:
        first = bucket * self.span
        count = min(self.span, self.columns.shape[0] - first)
        records = np.empty(sum(n for _, n in self.segments[bucket]), self.record)
        at = 0
        for offset, n in self.segments[bucket]:
            self.spill.file.read_into(records[at : at + n].view(np.uint8), offset)
            at += n
        order = np.argsort(records["row"], kind="stable")
        ends = done + np.cumsum(np.bincount(records["row"], minlength=count)[:count])
        final.write(ends.astype(np.int64), places[0] + 8 * (first + 1))
        final.write(records["value"][order], places[1] + self.columns.dtype.itemsize * done)
        final.write(records["column"][order], places[2] + 4 * done)
        return done + len(records)


class _Kept(FlatSource):
    """A part of a scratch file; the first one closed gives the room back."""

    def __init__(self, spill: Spill, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> None:
        super().__init__(spill.file, offset, shape, dtype, name)
        self._close = partial(spill.close)

    def close(self) -> None:
        """See `ArraySource`."""
        self._close()


class _Entry(NamedTuple):
    """Origin of entries whose row is not known yet."""

    name: str
    first: int
    chunk: str

    def where(self, index: tuple[int, ...]) -> str:
        """See `Origin`."""
        place = f"{self.name}: stored entry {self.first + index[0]}"
        return f"{place}, {self.chunk}" if self.chunk else place


def checked_indices(source: ArraySource, low: int, high: int, limit: int, name: str, axis: str) -> NDArray[np.int64]:
    """Entries ``low:high`` of an array of row or column numbers.

    Raises
    ------
    DataError
        One is not in ``[0, limit)``.
    """
    out = np.empty(high - low, np.int64)
    for box in source.boxes((low,), (high,)):
        target = out[box.low[0] - low : box.high[0] - low]
        fill_indices(target, source.load(box), limit, _Entry(name, box.low[0], source.label(box)), axis)
    return out


class CoordinateReader(TurnedReader):
    """A `RowReader` over rows, columns and values of single entries (COO).

    Parameters
    ----------
    data, rows, columns : ArraySource
        Of one dimension and one length.
    shape, name, opening
        As in `TurnedReader`.
    """

    kind = "coo"

    def __init__(
        self,
        data: ArraySource,
        rows: ArraySource,
        columns: ArraySource,
        shape: tuple[int, int],
        name: str,
        opening: Opening,
    ) -> None:
        super().__init__(data, rows, columns, shape, name, opening)

    def _check_parts(self) -> None:
        if len({self.data.shape, self.indices.shape, self.bounds.shape}) != 1:
            lengths = f"{self.indices.shape[0]} rows, {self.bounds.shape[0]} columns, {self.nnz} values"
            raise DataError(lengths, where=self.name, hint="the sparse structure is damaged: write the store again")

    def check(self) -> None:
        """See `RowReader`."""
        for source in (self.bounds, self.indices, self.data):
            source.check()

    def column_numbers(self, step: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """See `TurnedReader`."""
        for low in range(0, self.nnz, step):
            high = min(low + step, self.nnz)
            yield low, checked_indices(self.bounds, low, high, self.shape[1], self.name, "column")
