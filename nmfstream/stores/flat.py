"""Arrays that lie in a file as they are in memory: NPY, contiguous HDF5, stored NPZ members, our own scratch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nmfstream.errors import DataError
from nmfstream.stores.arrays import Box, Layout
from nmfstream.stores.files import PIECE, ByteFile, scratch
from nmfstream.types import Array

SEGMENT = 4 << 10
"""Least bytes of a stored row worth a read of their own, where samples are columns."""

EVIDENCE = 1 << 10
"""Bytes of each sample of the data in a fingerprint."""

SAMPLES = 64
"""Samples that a fingerprint takes of data that are too large to be hashed whole."""

WHOLE = 1 << 20
"""Stored bytes up to which all of them go into a fingerprint."""


def sampled(size: int) -> list[tuple[int, int]]:
    """(offset, length) of what a fingerprint reads of `size` bytes: all, or places spread evenly."""
    if size <= WHOLE:
        return [(0, size)]
    last = size - EVIDENCE
    return [(last * i // (SAMPLES - 1), EVIDENCE) for i in range(SAMPLES)]


class FlatSource:
    """A C-ordered array of one or two dimensions at an offset of a file. See `ArraySource`.

    Parameters
    ----------
    file : ByteFile
        Closed with the source.
    offset : int
    shape : tuple of int
    dtype : dtype
        As stored.
    name : str
        For messages.
    """

    def __init__(self, file: ByteFile, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> None:
        self._file, self._offset, self._stored, self._name = file, offset, dtype, name
        self.shape = shape
        self.dtype = dtype.newbyteorder("=")
        self.chunks = (1, max(1, SEGMENT // dtype.itemsize))[: len(shape)]
        self.layout = Layout("contiguous")
        self.stored_bytes = math.prod(shape) * dtype.itemsize
        self._row_bytes = math.prod(shape[1:]) * dtype.itemsize
        self.piece_bytes = max(PIECE, min(self._row_bytes, 2 * PIECE))
        self.direct_bytes = 0 if dtype == self.dtype else self.piece_bytes

    def check(self) -> None:
        """The file still holds the whole array."""
        if self._offset + self.stored_bytes > self._file.size:
            raise DataError(
                f"{self._offset + self.stored_bytes} bytes expected, {self._file.size} there",
                where=self._name,
                hint="it is truncated: copy or write it again",
            )

    def boxes(self, low: tuple[int, ...], high: tuple[int, ...]) -> list[Box]:
        """Pieces of some megabytes, by rows of what is stored."""
        width = math.prod(b - a for a, b in zip(low[1:], high[1:])) * self._stored.itemsize
        rows = max(1, PIECE // max(1, width))
        starts = range(low[0], high[0], rows) if width else ()
        return [Box((at, *low[1:]), (min(at + rows, high[0]), *high[1:])) for at in starts]

    def load(self, box: Box, into: Array | None = None) -> Array:
        """See `ArraySource`."""
        if into is None or self._stored != self.dtype:
            into = scratch(math.prod(box.shape) * self._stored.itemsize, "flat").view(self._stored).reshape(box.shape)
        if box.shape[1:] == self.shape[1:]:
            self._file.read_into(into, self._offset + box.low[0] * self._row_bytes)
        else:
            self._load_segments(box, into)
        return into

    def _load_segments(self, box: Box, into: Array) -> None:
        at = self._offset + box.low[0] * self._row_bytes + box.low[1] * self._stored.itemsize
        for row in into:
            self._file.read_into(row, at)
            at += self._row_bytes

    def label(self, box: Box) -> str:
        """Contiguous data have no chunks."""
        return ""

    def evidence(self) -> bytes:
        """All of a small array, samples of a large one."""
        return b"".join(self._file.read(size, self._offset + at) for at, size in sampled(self.stored_bytes))

    def close(self) -> None:
        """See `ArraySource`."""
        self._file.close()
