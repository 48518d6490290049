"""Datasets of an HDF5 file as array sources: chunks decoded outside the library, or slices read through it."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from functools import partial
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from nmfstream.errors import DataError
from nmfstream.stores.arrays import Box, Layout, Shared, cell_of, grid, whole_cell
from nmfstream.stores.files import PIECE, scratch
from nmfstream.stores.filters import Damaged, Pipeline
from nmfstream.stores.flat import EVIDENCE, SAMPLES, WHOLE
from nmfstream.stores.hdf5_file import HDF5File, translated
from nmfstream.types import Array

GRID_LIMIT = 1 << 28
"""Cells of a grid whose table fits in memory."""

FEW = 8
"""Boxes that a fingerprint decodes of a large dataset that only the library reads."""

SPREAD = 1.25
"""The larger stored chunks against the mean."""

ABSENT = np.uint64(2**64 - 1)

_REPAIR = "restore the file from its source, or write it again"


@dataclass(frozen=True)
class Table:
    """Where each chunk lies: arrays over the linear number of its cell.

    Attributes
    ----------
    address : ndarray of uint64
        Offset in the file; `ABSENT` where the chunk was never written.
    size : ndarray of uint32
        Stored bytes.
    mask : ndarray of uint32
        Filters that the writer skipped.
    """

    address: NDArray[np.uint64]
    size: NDArray[np.uint32]
    mask: NDArray[np.uint32]


class HDF5Source:
    """What the sources of one dataset have in common. See `ArraySource`.

    Parameters
    ----------
    file : HDF5File
        Closed with the source.
    dataset : h5py.Dataset
    name : str
        For messages.
    fill_missing : bool
        Chunks that were never written are read as the fill value.
    """

    def __init__(self, file: HDF5File, dataset: Any, name: str, fill_missing: bool) -> None:
        self._file, self._dataset, self._name, self._fill_missing = file, dataset, name, fill_missing
        self.shape: tuple[int, ...] = dataset.shape
        self.dtype: np.dtype[Any] = dataset.dtype.newbyteorder("=")
        self.stored_bytes = int(dataset.id.get_storage_size())
        self._lock = threading.Lock()

    def close(self) -> None:
        """See `ArraySource`."""
        self._file.close()

    def _require(self, present: int, total: int, unit: str) -> None:
        if present >= total or self._fill_missing:
            return
        raise DataError(
            f"{total - present} of {total} {unit} were never written",
            where=self._name,
            hint=f"if they stand for the fill value {self._dataset.fillvalue}, say --missing-chunks fill",
        )


class LibrarySource(HDF5Source):
    """A dataset that is read through the HDF5 library, a slice at a time under its lock."""

    def __init__(self, file: HDF5File, dataset: Any, name: str, fill_missing: bool, layout: Layout) -> None:
        super().__init__(file, dataset, name, fill_missing)
        self.layout = layout
        self.chunks = dataset.chunks or (1,) * len(self.shape)
        row_bytes = max(1, math.prod(self.shape[1:]) * self.dtype.itemsize)
        self._steps = dataset.chunks or (max(1, PIECE // row_bytes), *(max(1, n) for n in self.shape[1:]))
        self.piece_bytes = self.direct_bytes = 2 * math.prod(self._steps) * self.dtype.itemsize

    def check(self) -> None:
        """See `ArraySource`."""
        if not math.prod(self.shape) or self.layout.kind in ("compact", "virtual", "external"):
            return
        if self._dataset.chunks:
            total = math.prod(-(-n // c) for n, c in zip(self.shape, self.chunks))
            with translated(self._name):
                self._require(self._dataset.id.get_num_chunks(), total, "chunks")
        else:
            self._require(int(self.stored_bytes > 0), 1, "blocks")

    def boxes(self, low: tuple[int, ...], high: tuple[int, ...]) -> list[Box]:
        """See `ArraySource`."""
        return list(grid(low, high, self._steps))

    def load(self, box: Box, into: Array | None = None) -> Array:
        """See `ArraySource`."""
        if into is None:
            into = scratch(math.prod(box.shape) * self.dtype.itemsize, "library").view(self.dtype).reshape(box.shape)
        try:
            self._dataset.read_direct(into, box.inside((0,) * len(box.low)))
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"the HDF5 library cannot read it ({error})", where=f"{self._name}: {self.label(box)}", hint=_REPAIR
            ) from error
        return into

    def label(self, box: Box) -> str:
        """See `ArraySource`."""
        return f"chunk {cell_of(box, self.chunks)}" if self._dataset.chunks else f"from {box.low}"

    def evidence(self) -> bytes:
        """Values of all boxes of a small dataset, of a few of a large one."""
        boxes = self.boxes((0,) * len(self.shape), self.shape) if math.prod(self.shape) else []
        few = 1 if self.stored_bytes <= WHOLE else max(1, len(boxes) // FEW)
        return self.stored_bytes.to_bytes(8, "little") + b"".join(self.load(box).tobytes() for box in boxes[::few])


class ChunkedSource(HDF5Source):
    """A dataset whose chunks are read with positioned reads and decoded in the calling thread.

    Parameters
    ----------
    pipeline : Pipeline
        All of it known.
    """

    def __init__(self, file: HDF5File, dataset: Any, name: str, fill_missing: bool, pipeline: Pipeline) -> None:
        super().__init__(file, dataset, name, fill_missing)
        self._pipeline, self._stored = pipeline, dataset.dtype
        self.chunks: tuple[int, ...] = dataset.chunks
        self._cells = tuple(-(-n // c) for n, c in zip(self.shape, self.chunks))
        self.layout = Layout("chunked", tuple(f.name for f in pipeline.filters), pipeline.checksums)
        self.piece_bytes = self.direct_bytes = self._stored_size() + len(pipeline.filters) * pipeline.size
        self._shared = Shared(pipeline.size)
        self._table: Table | None = None
        self._through_library: LibrarySource | None = None

    def _stored_size(self) -> int:
        """Bytes of a chunk as stored, a little more than the mean: the largest is known only to the index."""
        there = min(self.stored_bytes, math.prod(self.shape) * self.dtype.itemsize)
        return min(self._pipeline.size, int(SPREAD * there / max(1, math.prod(self._cells))))

    def check(self) -> None:
        """See `ArraySource`."""
        self._index()

    def _index(self) -> Table:
        with self._lock:
            if self._table is None:
                total = math.prod(self._cells)
                with translated(self._name), h5py._hl.base.phil:
                    self._require(self._dataset.id.get_num_chunks(), total, "chunks")
                    self._table = self._read_table(total)
                self._compare(self._table)
            return self._table

    def _read_table(self, total: int) -> Table:
        if total > GRID_LIMIT:
            raise DataError(
                f"{total} chunks, more than can be indexed", where=self._name, hint="rewrite it in larger chunks"
            )
        table = Table(np.full(total, ABSENT), np.zeros(total, np.uint32), np.zeros(total, np.uint32))
        strides = [math.prod(self._cells[i + 1 :]) for i in range(len(self._cells))]

        def note(chunk: Any) -> None:
            cell = [at // c for at, c in zip(chunk.chunk_offset, self.chunks)]
            if all(i < n for i, n in zip(cell, self._cells)):
                i = sum(i * s for i, s in zip(cell, strides))
                table.address[i], table.size[i], table.mask[i] = chunk.byte_offset, chunk.size, chunk.filter_mask

        self._dataset.id.chunk_iter(note)
        self._require(int(np.count_nonzero(table.address != ABSENT)), total, "chunks")
        self._check_extent(table)
        return table

    def _check_extent(self, table: Table) -> None:
        present = table.address != ABSENT
        ends = table.address[present] + table.size[present]
        if ends.size and int(ends.max()) > self._file.raw.size:
            last = np.unravel_index(int(np.flatnonzero(present)[np.argmax(ends)]), self._cells)
            cell = tuple(int(i) for i in last)
            raise DataError(
                f"chunk {cell} ends at byte {int(ends.max())}, the file at {self._file.raw.size}",
                where=self._name,
                hint="the file is truncated: copy or write it again",
            )

    def _compare(self, table: Table) -> None:
        """One chunk as decoded here must be what the library reads; else the library reads all of them.

        Older versions of it misreport addresses behind a user block. A chunk that it lists but does not find, and so
        reads as fill values, is damage to its index.

        Raises
        ------
        DataError
        """
        present = np.flatnonzero(table.address != ABSENT)
        if not present.size:
            return
        cell = tuple(int(i) for i in np.unravel_index(int(present[0]), self._cells))
        box = whole_cell(cell, self.chunks, self.shape)
        library = LibrarySource(self._file, self._dataset, self._name, self._fill_missing, self.layout)
        try:
            reference = library.load(box, np.empty(box.shape, self.dtype))
        except DataError:
            return
        try:
            values = self._decode(table, cell)[tuple(slice(n) for n in box.shape)]
            same = values.astype(self.dtype, copy=False).tobytes() == reference.tobytes()
        except DataError:
            values, same = None, False
        if not same:
            fill = np.full(box.shape, self._dataset.fillvalue, self.dtype)
            if values is not None and reference.tobytes() == fill.tobytes():
                raise DataError(f"its index lists chunk {cell} but does not lead to it", where=self._name, hint=_REPAIR)
            self._through_library = library

    def boxes(self, low: tuple[int, ...], high: tuple[int, ...]) -> list[Box]:
        """See `ArraySource`."""
        return list(grid(low, high, self.chunks))

    def load(self, box: Box, into: Array | None = None) -> Array:
        """See `ArraySource`."""
        table = self._table or self._index()
        if self._through_library is not None:
            return self._through_library.load(box, into)
        cell = cell_of(box, self.chunks)
        whole = whole_cell(cell, self.chunks, self.shape)
        if box == whole:
            into = into if box.shape == self.chunks and self._stored == self.dtype else None
            values = self._decode(table, cell, into)
        else:
            decode = partial(self._decode_copy, table, cell, whole)
            values = self._shared.take(cell, math.prod(box.shape), decode)
        return into if values is into and into is not None else values[box.inside(whole.low)]

    def _decode_copy(self, table: Table, cell: tuple[int, ...], whole: Box) -> Array:
        """A chunk in memory of its own."""
        out = np.empty(self.chunks, self.dtype) if self._stored == self.dtype else None
        values = self._decode(table, cell, out)
        return (values if values is out else values.copy())[tuple(slice(n) for n in whole.shape)]

    def _decode(self, table: Table, cell: tuple[int, ...], into: Array | None = None) -> Array:
        """A whole chunk, padding included; `into` itself where the bytes went straight there."""
        i = int(np.ravel_multi_index(cell, self._cells))
        if table.address[i] == ABSENT:
            return np.broadcast_to(np.asarray(self._dataset.fillvalue, self._stored), self.chunks)
        size, mask = int(table.size[i]), int(table.mask[i])
        direct = not self._pipeline.filters and into is not None and size == into.nbytes
        raw = into if direct and into is not None else scratch(size, "raw")
        self._file.raw.read_into(raw, int(table.address[i]))
        try:
            plain = raw if direct else self._pipeline.decode(raw, mask, into)
        except Damaged as error:
            where = f"{self._name}: chunk {cell} at byte {int(table.address[i])}"
            raise DataError(str(error), where=where, hint=_REPAIR) from error
        if into is not None and isinstance(plain, np.ndarray) and np.shares_memory(plain, into):
            return into
        return np.frombuffer(plain, self._stored).reshape(self.chunks)

    def label(self, box: Box) -> str:
        """See `ArraySource`."""
        return f"chunk {cell_of(box, self.chunks)}"

    def evidence(self) -> bytes:
        """Stored sizes of all chunks, and bytes of some of them (of all in a small dataset)."""
        table = self._index()
        present = np.flatnonzero(table.address != ABSENT)
        parts = [table.size.tobytes()]
        count = len(present) if self.stored_bytes <= WHOLE else min(len(present), SAMPLES)
        for i in present[np.linspace(0, len(present) - 1, count).astype(int)]:
            address, size = int(table.address[i]), int(table.size[i])
            span = size if self.stored_bytes <= WHOLE else min(EVIDENCE, size)
            parts += [self._file.raw.read(span, address + at) for at in sorted({0, (size - span) // 2, size - span})]
        return b"".join(parts)
