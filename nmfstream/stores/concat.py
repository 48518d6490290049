"""Several inputs as one matrix: rows one after the other."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmfstream.errors import DataError, UsageError
from nmfstream.stores.arrays import ArraySource, digest
from nmfstream.stores.base import Reader
from nmfstream.stores.protocols import ReadPolicy, RowReader
from nmfstream.types import CSR, Matrix, Task


class ConcatReader(Reader):
    """A `RowReader` over the rows of several.

    Raises
    ------
    DataError
        Numbers or names of features differ.
    UsageError
        Some are sparse and some dense.
    """

    def __init__(self, readers: Sequence[RowReader]) -> None:
        self.readers = tuple(readers)
        first = readers[0]
        self._check_alike()
        self._starts = [0, *accumulate(reader.shape[0] for reader in readers)]
        self.name = f"{first.name} and {len(readers) - 1} more"
        self.shape = self._starts[-1], first.shape[1]
        self.dtype = np.result_type(*(reader.dtype for reader in readers))
        self.nnz = None if first.nnz is None else sum(int(reader.nnz or 0) for reader in readers)
        self._entries = [0, *accumulate(int(reader.nnz or 0) for reader in readers)]
        self.chunk_rows = max(reader.chunk_rows for reader in readers)
        self.stored_bytes = sum(reader.stored_bytes for reader in readers)
        self.task_bytes = max(reader.task_bytes for reader in readers)
        self.feature_names = next((r.feature_names for r in readers if r.feature_names is not None), None)

    @property
    def direct_bytes(self) -> int:
        """See `RowReader`."""
        return max(r.direct_bytes if r.dtype == self.dtype else r.task_bytes for r in self.readers)

    def _check_alike(self) -> None:
        first = self.readers[0]
        for reader in self.readers[1:]:
            if reader.shape[1] != first.shape[1]:
                raise DataError(
                    f"{reader.shape[1]} features, but {first.name} has {first.shape[1]}",
                    where=reader.name,
                    hint="inputs that are read as one need the same features",
                )
            if (reader.nnz is None) != (first.nnz is None):
                raise UsageError(
                    f"{'dense' if reader.nnz is None else 'sparse'}, unlike {first.name}",
                    where=reader.name,
                    hint="convert one of them first: nmfstream convert",
                )
        self._check_names()

    def _check_names(self) -> None:
        named = [reader for reader in self.readers if reader.feature_names is not None]
        for reader in named[1:]:
            pairs = zip(named[0].feature_names or (), reader.feature_names or ())
            differing = next((pair for pair in pairs if pair[0] != pair[1]), None)
            if differing is not None:
                raise DataError(
                    f"feature '{differing[1]}' stands where {named[0].name} has '{differing[0]}'",
                    where=reader.name,
                    hint="bring the features into the same order",
                )

    def _parts(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Index of each reader that rows ``start:stop`` touch, and the rows of its own."""
        i = bisect_right(self._starts, start) - 1
        while i < len(self.readers) and self._starts[i] < stop:
            low, high = max(start, self._starts[i]), min(stop, self._starts[i + 1])
            if high > low:
                yield i, low - self._starts[i], high - self._starts[i]
            i += 1

    def sources(self) -> dict[str, ArraySource]:
        """See `Reader`: those of every input, with its number."""
        found: dict[str, ArraySource] = {}
        for i, reader in enumerate(self.readers):
            if isinstance(reader, Reader):
                found |= {f"{i}/{name}": source for name, source in reader.sources().items()}
        return found

    def check(self) -> None:
        """See `RowReader`."""
        for reader in self.readers:
            reader.check()

    def fingerprint(self) -> str:
        """See `RowReader`."""
        return digest(*(reader.fingerprint() for reader in self.readers))

    def indptr(self, start: int, stop: int) -> NDArray[np.int64]:
        """See `RowReader`."""
        bounds = [self.readers[i].indptr(low, high) + self._entries[i] for i, low, high in self._parts(start, stop)]
        if not bounds:
            return self._boundary(start)
        return np.concatenate([bounds[0][:1], *(part[1:] for part in bounds)])

    def _boundary(self, row: int) -> NDArray[np.int64]:
        i = min(bisect_right(self._starts, row) - 1, len(self.readers) - 1)
        own = row - self._starts[i]
        return self.readers[i].indptr(own, own) + self._entries[i]

    def tasks(self, start: int, stop: int, out: Matrix, policy: ReadPolicy) -> list[Task]:
        """See `RowReader`."""
        found: list[Task] = []
        for i, low, high in self._parts(start, stop):
            at = self._starts[i] + low - start
            found.extend(self.readers[i].tasks(low, high, _part(out, at, at + high - low), policy))
        return found

    def close(self) -> None:
        """See `RowReader`."""
        for reader in self.readers:
            reader.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return ConcatReader, (self.readers,)


def _part(out: Matrix, start: int, stop: int) -> Matrix:
    return out.rows(start, stop).rebased() if isinstance(out, CSR) else out[start:stop]
