"""Which way to read a stored array by rows of X: as it lies, or rearranged outside memory.

Dense arrays with samples in columns, or with chunks that are tall and narrow, are read as they lie as long as one
slab of whole chunks fits in the budget; else they are copied once, band by band, into scratch. Compressed columns
are sorted into rows by buckets of rows, in scratch as well.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import numpy as np

from nmfstream.stores.arrays import ArraySource, Box, Layout, grid
from nmfstream.stores.base import Reader
from nmfstream.stores.dense import DenseReader
from nmfstream.stores.files import scratch
from nmfstream.stores.protocols import Opening
from nmfstream.stores.sparse import SparseReader
from nmfstream.stores.spill import Spill
from nmfstream.stores.turned import TurnedReader
from nmfstream.types import Array

BAND_BYTES = 4 << 20
"""Rows of a rearranged array that are read together."""


def rows_of(
    source: ArraySource,
    name: str,
    opening: Opening,
    *,
    transposed: bool,
    feature_names: Sequence[str] | None = None,
) -> Reader:
    """Rows of a dense array.

    Parameters
    ----------
    source : ArraySource
        Of two dimensions.
    name : str
    opening : Opening
        Its memory decides whether chunks are read as they lie.
    transposed : bool
        Samples are columns of the source.
    feature_names : sequence of str, optional
    """
    reader = DenseReader(source, name, transposed=transposed, feature_names=feature_names)
    slab = reader.chunk_rows * reader.shape[1] * reader.dtype.itemsize
    if slab <= opening.memory // 4 or slab <= 2 * source.piece_bytes:
        return reader
    return DenseReader(BandedSource(source, name, opening, transposed), name, feature_names=feature_names)


def sparse_rows(
    data: ArraySource,
    indices: ArraySource,
    indptr: ArraySource,
    *,
    shape: tuple[int, int],
    name: str,
    opening: Opening,
    by_rows: bool,
    feature_names: Sequence[str] | None = None,
) -> Reader:
    """Rows of a compressed sparse matrix.

    Parameters
    ----------
    data, indices, indptr : ArraySource
        Of one dimension.
    shape : tuple of int
        (n_samples, n_features).
    by_rows : bool
        `indptr` bounds samples (CSR); else features (CSC), and the entries are sorted in scratch when they are
        first asked for.
    """
    if by_rows:
        return SparseReader(data, indices, indptr, shape, name, feature_names=feature_names)
    return TurnedReader(data, indices, indptr, shape, name, opening, feature_names=feature_names)


class BandedSource:
    """An array copied into scratch by bands of rows: each band lies in one piece, tile after tile.

    The copy is made on the first `load`; until then it answers for the array it is made from. See `ArraySource`.
    """

    def __init__(self, source: ArraySource, name: str, opening: Opening, transposed: bool) -> None:
        self._source, self._name, self._opening = source, name, opening
        self._turn = -1 if transposed else 1
        self.shape = source.shape[:: self._turn]
        self.dtype = source.dtype
        row_bytes = max(1, self.shape[1] * self.dtype.itemsize)
        self._band = max(1, min(BAND_BYTES // row_bytes, max(1, self.shape[0])))
        self.chunks: tuple[int, ...] = (self._band, max(1, self.shape[1]))
        # Columns of one tile: what a chunk of the source is wide.
        self._width = self._source.chunks[:: self._turn][1]
        self.stored_bytes = source.stored_bytes
        self.piece_bytes = self.direct_bytes = max(2 * source.piece_bytes, 2 * self._band * row_bytes)
        self.layout = Layout(f"{source.layout.kind}, rearranged", source.layout.filters, source.layout.checksums)
        self._lock = threading.Lock()
        self._spill: Spill | None = None

    def check(self) -> None:
        """See `ArraySource`."""
        self._source.check()

    def boxes(self, low: tuple[int, ...], high: tuple[int, ...]) -> list[Box]:
        """Whole bands, cut at the region."""
        return list(grid(low, high, self.chunks))

    def load(self, box: Box, into: Array | None = None) -> Array:
        """See `ArraySource`."""
        spill = self._copy()
        top, bottom = self._bounds(box.low[0] // self._band)
        raw = scratch((bottom - top) * self.shape[1] * self.dtype.itemsize, "band").view(self.dtype)
        spill.file.read_into(raw, self._offset(top, 0, 0))
        rows = slice(box.low[0] - top, box.high[0] - top)
        out = into if into is not None else scratch(math.prod(box.shape) * self.dtype.itemsize, "rows").view(self.dtype)
        out = out.reshape(box.shape)
        for left in range(0, self.shape[1], self._width):
            right = min(left + self._width, self.shape[1])
            tile = raw[(bottom - top) * left : (bottom - top) * right].reshape(bottom - top, right - left)
            out[:, left:right] = tile[rows]
        return into if into is not None else out

    def _bounds(self, band: int) -> tuple[int, int]:
        return band * self._band, min((band + 1) * self._band, self.shape[0])

    def _offset(self, row: int, left: int, width: int) -> int:
        """Bytes before a row of the tile that begins at column `left`."""
        top, bottom = self._bounds(row // self._band)
        return (top * self.shape[1] + (bottom - top) * left + (row - top) * width) * self.dtype.itemsize

    def _copy(self) -> Spill:
        with self._lock:
            if self._spill is None:
                size = math.prod(self.shape) * self.dtype.itemsize
                spill = Spill(self._opening.scratch, size, f"{self._name}: rearranged by rows")
                for box in self._source.boxes((0, 0), self._source.shape):
                    self._put(spill, box)
                self._spill = spill
            return self._spill

    def _put(self, spill: Spill, box: Box) -> None:
        block = self._source.load(box)
        block = block.T if self._turn < 0 else block
        (row, column), width = box.low[:: self._turn], block.shape[1]
        for left in range(column, column + width, self._width):
            tile = block[:, left - column : left - column + self._width]
            for low in range(row - row % self._band, row + len(block), self._band):
                part = tile[max(0, low - row) : low - row + self._band]
                spill.write(np.ascontiguousarray(part, self.dtype), self._offset(max(low, row), left, tile.shape[1]))

    def label(self, box: Box) -> str:
        """Bands are no chunks of the store."""
        return ""

    def evidence(self) -> bytes:
        """See `ArraySource`."""
        return self._source.evidence()

    def close(self) -> None:
        """See `ArraySource`."""
        self._source.close()
        if self._spill is not None:
            self._spill.close()
