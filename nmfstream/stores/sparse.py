"""Rows of a CSR matrix from three one-dimensional `ArraySource`: data, indices, indptr."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nmfstream.errors import DataError
from nmfstream.stores.arrays import ArraySource, Box, digest, grouped
from nmfstream.stores.base import Reader
from nmfstream.stores.checks import EntryOrigin, check_indptr, fill, fill_indices, healthy, in_range
from nmfstream.stores.protocols import ReadPolicy
from nmfstream.types import CSR, Array, Matrix, Task

WINDOW = 1 << 16
"""Bounds read at a time."""


class SparseReader(Reader):
    """A `RowReader` over the three arrays of a CSR matrix.

    Parameters
    ----------
    data, indices, indptr : ArraySource
        Of one dimension; indices and indptr of any integer type.
    shape : tuple of int
    name : str
    feature_names : sequence of str, optional

    Raises
    ------
    DataError
        Lengths do not fit together.
    """

    kind = "csr"

    def __init__(
        self,
        data: ArraySource,
        indices: ArraySource,
        indptr: ArraySource,
        shape: tuple[int, int],
        name: str,
        *,
        feature_names: Sequence[str] | None = None,
    ) -> None:
        check_parts(data, indices, indptr, shape, name)
        self._data, self._indices, self._indptr = data, indices, indptr
        self.name, self.shape, self.dtype = name, shape, data.dtype
        self.nnz = data.shape[0]
        self.stored_bytes = data.stored_bytes + indices.stored_bytes + indptr.stored_bytes
        self.task_bytes = max(data.piece_bytes, indices.piece_bytes)
        self.feature_names = feature_names
        self._window: tuple[int, NDArray[np.int64]] = (0, np.empty(0, np.int64))
        self._lock = threading.Lock()

    def sources(self) -> dict[str, ArraySource]:
        """See `Reader`."""
        return {"data": self._data, "indices": self._indices, "indptr": self._indptr}

    def check(self) -> None:
        """See `RowReader`: missing chunks, then all of indptr in windows."""
        for source in (self._indptr, self._indices, self._data):
            source.check()
        check_bounds(self._indptr, self.shape[0], int(self.nnz or 0), self.name)

    def fingerprint(self) -> str:
        """See `RowReader`."""
        parts = (self._data.evidence(), self._indices.evidence(), self._indptr.evidence())
        return digest(f"sparse {self.shape} {self.nnz} {self.dtype.str}", *parts)

    def indptr(self, start: int, stop: int) -> NDArray[np.int64]:
        """See `RowReader`."""
        with self._lock:
            first, held = self._window
            if not (first <= start and stop < first + len(held)):
                held = self._read_bounds(start, max(stop, min(start + WINDOW, self.shape[0])))
                first = start
                self._window = first, held
            return held[start - first : stop - first + 1].copy()

    def _read_bounds(self, start: int, stop: int) -> NDArray[np.int64]:
        bounds = read_vector(self._indptr, start, stop + 1)
        check_indptr(bounds, int(self.nnz or 0), self.name, start)
        return bounds

    def tasks(self, start: int, stop: int, out: Matrix, policy: ReadPolicy) -> list[Task]:
        """See `RowReader`."""
        assert isinstance(out, CSR)
        first = int(self.indptr(start, start)[0])
        span = (first,), (first + len(out.data),)
        values = [
            partial(self._fill_data, boxes, start, first, out, policy)
            for boxes in grouped(self._data.boxes(*span), self.dtype.itemsize)
        ]
        columns = [
            partial(self._fill_indices, boxes, start, first, out)
            for boxes in grouped(self._indices.boxes(*span), self._indices.dtype.itemsize)
        ]
        return [*values, *columns]

    def _fill_data(self, boxes: Sequence[Box], start: int, first: int, out: CSR, policy: ReadPolicy) -> None:
        parts = [out.data[box.low[0] - first : box.high[0] - first] for box in boxes]
        blocks = self._blocks(self._data, boxes, parts)
        if blocks is parts and healthy(out.data[boxes[0].low[0] - first : boxes[-1].high[0] - first], policy):
            return
        for box, target, block in zip(boxes, parts, blocks):
            fill(target, block, policy, self._origin(self._data, box, start, first, out))

    def _fill_indices(self, boxes: Sequence[Box], start: int, first: int, out: CSR) -> None:
        parts = [out.indices[box.low[0] - first : box.high[0] - first] for box in boxes]
        blocks = self._blocks(self._indices, boxes, parts)
        if blocks is parts and in_range(
            out.indices[boxes[0].low[0] - first : boxes[-1].high[0] - first], self.shape[1]
        ):
            return
        for box, target, block in zip(boxes, parts, blocks):
            fill_indices(target, block, self.shape[1], self._origin(self._indices, box, start, first, out))

    def _blocks(self, source: ArraySource, boxes: Sequence[Box], parts: Sequence[Array]) -> Iterable[Array]:
        """Values of boxes: `parts` themselves, filled, where the types are the same; else one after the other."""
        if source.dtype != parts[0].dtype:
            return map(source.load, boxes)
        for box, part in zip(boxes, parts):
            block = source.load(box, part)
            if block is not part:
                np.copyto(part, block)
        return parts

    def _origin(self, source: ArraySource, box: Box, start: int, first: int, out: CSR) -> EntryOrigin:
        column = partial(self._column_of, first) if source is self._data else None
        return EntryOrigin(self.name, box.low[0] - first, out.indptr, start, source.label(box), column)

    def _column_of(self, first: int, entry: int) -> int:
        return int(read_vector(self._indices, first + entry, first + entry + 1)[0])

    def close(self) -> None:
        """See `RowReader`."""
        for source in (self._data, self._indices, self._indptr):
            source.close()


def check_parts(
    data: ArraySource,
    indices: ArraySource,
    indptr: ArraySource,
    shape: tuple[int, int],
    name: str,
    compressed: int = 0,
) -> None:
    """Types and lengths of a compressed sparse matrix whose axis `compressed` is the one `indptr` bounds.

    Raises
    ------
    DataError
    """
    hint = "the sparse structure is damaged: write the store again"
    if indices.dtype.kind not in "iu" or indptr.dtype.kind not in "iu":
        raise DataError(
            f"indices and indptr must be integers, not {indices.dtype} and {indptr.dtype}", where=name, hint=hint
        )
    if data.shape[0] != indices.shape[0]:
        raise DataError(f"{data.shape[0]} values but {indices.shape[0]} indices", where=name, hint=hint)
    if indptr.shape[0] != shape[compressed] + 1:
        raise DataError(
            f"indptr has {indptr.shape[0]} entries, {shape[compressed] + 1} expected", where=name, hint=hint
        )
    if max(shape[1], 0) > np.iinfo(np.int32).max:
        raise DataError(f"{shape[1]} columns, more than 2147483647", where=name, hint="split the matrix by columns")


def inferred_shape(indices: ArraySource, indptr: ArraySource, *, by_rows: bool) -> tuple[int, int]:
    """(rows, columns) of a matrix that does not state it: up to the largest index; all indices are read."""
    step = 1 << 22
    count = indices.shape[0]
    pieces = (read_vector(indices, low, min(low + step, count)) for low in range(0, count, step))
    other = max((int(piece.max()) for piece in pieces), default=-1) + 1
    compressed = max(0, indptr.shape[0] - 1)
    return (compressed, other) if by_rows else (other, compressed)


def check_bounds(indptr: ArraySource, n_rows: int, nnz: int, name: str) -> None:
    """All of indptr, in windows: it begins at 0, never decreases, ends at the number of stored entries.

    Raises
    ------
    DataError
    """
    last = 0
    for start in range(0, n_rows + 1, WINDOW):
        bounds = read_vector(indptr, start, min(start + WINDOW, n_rows + 1))
        check_indptr(np.concatenate(([last], bounds)), nnz, name, start - 1)
        if start == 0 and bounds[0] != 0:
            raise DataError(f"indptr begins at {bounds[0]}, not at 0", where=name, hint="write the store again")
        last = int(bounds[-1])
    if last != nnz:
        raise DataError(
            f"indptr ends at {last}, but {nnz} entries are stored",
            where=name,
            hint="the store is damaged: write it again",
        )


def read_vector(source: ArraySource, start: int, stop: int) -> NDArray[np.int64]:
    """Entries ``start:stop`` of an integer array as int64."""
    out = np.empty(stop - start, np.int64)
    for box in source.boxes((start,), (stop,)):
        out[box.low[0] - start : box.high[0] - start] = source.load(box)
    return out
