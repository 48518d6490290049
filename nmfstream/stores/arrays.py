"""The storage side of a reader: an N-dimensional array that is decoded box by box.

A format implements `ArraySource` once; `dense.DenseReader`, `sparse.SparseReader` and `transpose` make rows of it,
straight or transposed, dense or CSR. So a new format is one source, whatever the matrix in it looks like.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from nmfstream.errors import DataError
from nmfstream.types import Array

TASK_BYTES = 1 << 19
"""Least decoded bytes of a task."""


class Box(NamedTuple):
    """A block of an array: ``low <= index < high`` in every dimension."""

    low: tuple[int, ...]
    high: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Extent in every dimension."""
        return tuple(high - low for low, high in zip(self.low, self.high))

    def inside(self, origin: tuple[int, ...]) -> tuple[slice, ...]:
        """Slices of this box in an array that begins at `origin`."""
        return tuple(slice(low - at, high - at) for low, high, at in zip(self.low, self.high, origin))


@dataclass(frozen=True)
class Layout:
    """How an array is stored, for `info` and warnings.

    Attributes
    ----------
    kind : str
        contiguous, chunked, sharded, compact, virtual…
    filters : tuple of str
        Compression and the like, in the order of writing.
    checksums : bool
        Whether a flipped bit in the store would be noticed.
    """

    kind: str
    filters: tuple[str, ...] = ()
    checksums: bool = False


class ArraySource(Protocol):
    """An array in a store. All methods but `close` may be called from any thread.

    Attributes
    ----------
    shape : tuple of int
    dtype : dtype
        Native byte order.
    chunks : tuple of int
        What is decoded together (1 along a dimension that can be cut anywhere).
    stored_bytes : int
        Bytes on disk.
    piece_bytes : int
        Temporary bytes of one `load`.
    direct_bytes : int
        Those of one that fills what it is given.
    layout : Layout
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]
    stored_bytes: int
    piece_bytes: int
    direct_bytes: int
    layout: Layout

    def check(self) -> None:
        """Count missing chunks from the store's own index; DataError if there are any and they are not accepted."""
        ...

    def boxes(self, low: tuple[int, ...], high: tuple[int, ...]) -> list[Box]:
        """Boxes that cover the region, each decoded by one `load`."""
        ...

    def load(self, box: Box, into: Array | None = None) -> Array:
        """Values of one of the `boxes`, in any byte order, in a buffer that this thread's next `load` reuses.

        A source that can, fills `into` (C-contiguous, native `dtype`, the box's shape) and returns that very object.
        """
        ...

    def label(self, box: Box) -> str:
        """The chunk of a box, for messages; empty where there is none."""
        ...

    def evidence(self) -> bytes:
        """Bytes that change when the data do, from a few cheap reads; the same for a copy of the file."""
        ...

    def close(self) -> None:
        """Release handles; idempotent."""
        ...


def grid(low: tuple[int, ...], high: tuple[int, ...], chunks: tuple[int, ...]) -> Iterator[Box]:
    """The parts of a regular grid of `chunks` that a region touches, each clipped to the region, in C order."""
    ranges = [range(a // c, -(-b // c)) if b > a else range(0) for a, b, c in zip(low, high, chunks)]
    for cell in itertools.product(*ranges):
        yield Box(
            tuple(max(a, i * c) for a, i, c in zip(low, cell, chunks)),
            tuple(min(b, (i + 1) * c) for b, i, c in zip(high, cell, chunks)),
        )


def grouped(boxes: Sequence[Box], itemsize: int) -> Iterator[Sequence[Box]]:
    """Boxes in groups worth a task of their own: handing tiny ones to threads would cost more than decoding them."""
    if boxes:
        count = max(1, TASK_BYTES // max(1, math.prod(boxes[0].shape) * itemsize))
        yield from (boxes[at : at + count] for at in range(0, len(boxes), count))


def cell_of(box: Box, chunks: tuple[int, ...]) -> tuple[int, ...]:
    """Grid position of the chunk that holds `box`."""
    return tuple(a // c for a, c in zip(box.low, chunks))


def whole_cell(cell: tuple[int, ...], chunks: tuple[int, ...], shape: tuple[int, ...]) -> Box:
    """The box of a chunk, clipped to the array."""
    low = tuple(i * c for i, c in zip(cell, chunks))
    return Box(low, tuple(min(a + c, n) for a, c, n in zip(low, chunks, shape)))


def real(dtype: np.dtype[Any], where: str) -> np.dtype[Any]:
    """`dtype` in native byte order.

    Raises
    ------
    DataError
        Values of this type are no real numbers.
    """
    if dtype.kind not in "biuf":
        kind = {"c": "complex numbers", "M": "dates", "m": "time spans", "O": "Python objects", "V": "records"}
        raise DataError(
            f"holds {kind.get(dtype.kind, 'text')} ({dtype})",
            where=where,
            hint="store real numbers (integers or floats)",
        )
    return dtype.newbyteorder("=")


def digest(*parts: bytes | str) -> str:
    """Short hash of evidence."""
    h = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        h.update(len(data).to_bytes(8, "little"))
        h.update(data)
    return h.hexdigest()[:32]


HELD_CHUNKS, HELD_BYTES = 6, 8 << 20
"""Decoded chunks that wait for another read."""


class Shared:
    """Decoded chunks that several reads share: each is decoded once, by whichever thread comes first.

    Reads that cut a chunk (rows of a sparse store end anywhere) would otherwise decode it once on either side of
    the cut. A chunk is forgotten when all of it has been served, or when newer ones need the room.

    Parameters
    ----------
    chunk_bytes : int
        Of one decoded chunk: few are held where they are large.
    """

    def __init__(self, chunk_bytes: int) -> None:
        self._capacity = max(2, min(HELD_CHUNKS, HELD_BYTES // max(1, chunk_bytes)))
        self._held: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, key: Hashable, served: int, decode: Callable[[], Array]) -> Array:
        """The decoded chunk `key`, of which the caller uses `served` elements."""
        with self._lock:
            entry = self._held.setdefault(key, _Entry())
            self._held.move_to_end(key)
            while len(self._held) > self._capacity:
                self._held.popitem(last=False)
        with entry.lock:
            if entry.values is None:
                entry.values = decode()
            values = entry.values
            entry.served += served
            done = entry.served >= values.size
        if done:
            with self._lock:
                self._held.pop(key, None)
        return values


class _Entry:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.values: Array | None = None
        self.served = 0
