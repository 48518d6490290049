"""A Zarr array as an `ArraySource`: chunks and inner chunks read and decoded by ourselves, on any thread."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np

from nmfstream.errors import DataError
from nmfstream.stores.arrays import Box, Layout, Shared, cell_of, grid, real, whole_cell
from nmfstream.stores.files import scratch
from nmfstream.stores.zarr_chunks import ChunkBytes
from nmfstream.stores.zarr_codecs import Bytes, Damaged, plausible
from nmfstream.stores.zarr_files import Files
from nmfstream.stores.zarr_inventory import cell_at, first_missing, present
from nmfstream.stores.zarr_metadata import ArrayMetadata
from nmfstream.stores.zarr_sharding import ShardIndexes
from nmfstream.types import Array

SAMPLES = 48
"""Chunks looked at for sizes and for the fingerprint."""

EDGE = 1 << 10
"""Bytes at either end of such a chunk that enter the fingerprint."""

SMALL = 1 << 16
"""Bytes of a chunk that enters the fingerprint whole."""


class ZarrArray:
    """See `ArraySource`.

    Parameters
    ----------
    files : Files
    path : str
        Of the array inside the store.
    metadata : ArrayMetadata
        With a chain or sharding.
    missing : str
        ``"error"`` or ``"fill"``.
    """

    def __init__(self, files: Files, path: str, metadata: ArrayMetadata, missing: str = "error") -> None:
        self._files, self._metadata, self._missing = files, metadata, missing
        self.name = f"{files.name}/{path}" if path else files.name
        self.shape = metadata.shape
        self.dtype = real(metadata.dtype, self.name)
        self._bytes = ChunkBytes(files, path, metadata)
        self._prefix = self._bytes.prefix
        self.chunks = self._bytes.shape
        chain = self._bytes.chain
        kind = "chunked" if metadata.sharding is None else "sharded"
        self.layout = Layout(kind, tuple(step.name for step in reversed(chain.steps)), chain.checksums)
        self._chunk_bytes = math.prod(self.chunks) * self.dtype.itemsize
        self._shared = Shared(self._chunk_bytes)
        self._measure()

    def _measure(self) -> None:
        """Bytes on disk, from the sizes of some chunks spread over the grid."""
        metadata = self._metadata
        sizes = [self._files.size(self._prefix + metadata.key(cell)) for cell in self._sampled()]
        there = [s for s in sizes if s is not None]
        mean = sum(there) / len(there) if there else 0
        self.stored_bytes = int(mean * metadata.n_chunks)
        under_key = math.prod(metadata.chunks) * self.dtype.itemsize
        if there and not plausible(max(there), under_key):
            what = f"chunks of {under_key} bytes are declared where files of {max(there)} bytes lie"
            raise DataError(what, where=self.name, hint="the metadata are damaged: write the store again")
        self.piece_bytes = self.direct_bytes = self._chunk_bytes + min(max(there, default=0), self._chunk_bytes)

    def _sampled(self) -> list[tuple[int, ...]]:
        n, grid_shape = self._metadata.n_chunks, self._metadata.grid
        numbers = sorted({i * (n - 1) // max(1, SAMPLES - 1) for i in range(SAMPLES)}) if n else []
        return [cell_at(number, grid_shape) for number in numbers]

    def check(self) -> None:
        """Count what is missing; see `ArraySource`.

        Raises
        ------
        DataError
        """
        if not self._files.listable or not self._metadata.n_chunks:
            return
        there = present(self._files, self._prefix, self._metadata)
        absent, total, first = self._metadata.n_chunks - len(there), self._metadata.n_chunks, first_missing(there)
        if self._bytes.shards is not None:
            absent, total, first = self._absent_inside(self._bytes.shards, there, first)
        if absent:
            self._absent(absent, total, self._metadata.key(cell_at(first, self._metadata.grid)))

    def _absent_inside(self, shards: ShardIndexes, there: Array, first: int) -> tuple[int, int, int]:
        """The same counts by inner chunk, and the first shard that lacks one."""
        total, held = math.prod(self._bytes.grid), 0
        for number in there:
            cell = cell_at(int(number), self._metadata.grid)
            absent = shards.absent(cell)
            held += self._inner_count(cell) - absent
            first = min(first, int(number)) if absent else first
        return total - held, total, first

    def _inner_count(self, shard: tuple[int, ...]) -> int:
        outer = whole_cell(shard, self._metadata.chunks, self.shape)
        return math.prod(-(-n // c) for n, c in zip(outer.shape, self.chunks))

    def _absent(self, absent: int, total: int, first: str) -> None:
        """Refuse missing chunks, unless they are accepted and the fill value is a number."""
        fill = self._metadata.fill_value
        what = f"{absent} of {total} chunks are missing (first: {self._prefix}{first})"
        if fill is None or not np.isfinite(fill):
            hint = "restore them from their source: the store's fill value is no number that could stand for them"
            raise DataError(what, where=self.name, hint=hint)
        if self._missing != "fill":
            hint = (
                "restore them, or accept them with --missing-chunks fill "
                f"(zarr leaves out chunks that are all {fill} by default)"
            )
            raise DataError(what, where=self.name, hint=hint)

    def boxes(self, low: tuple[int, ...], high: tuple[int, ...]) -> list[Box]:
        """See `ArraySource`."""
        return list(grid(low, high, self.chunks))

    def load(self, box: Box, into: Array | None = None) -> Array:
        """See `ArraySource`."""
        cell = cell_of(box, self.chunks)
        whole = whole_cell(cell, self.chunks, self.shape)
        if box == whole:
            return self._decoded(cell, whole, into)
        kept = self._shared.take(cell, math.prod(box.shape), lambda: self._lasting(cell, whole))
        return kept[box.inside(whole.low)]

    def _lasting(self, cell: tuple[int, ...], whole: Box) -> Array:
        """A chunk in memory of its own."""
        out = np.empty(whole.shape, self.dtype)
        values = self._decoded(cell, whole, out)
        return values if values is out else values.copy()

    def _decoded(self, cell: tuple[int, ...], whole: Box, into: Array | None) -> Array:
        key, raw = self._bytes.read(cell, 2 * self._chunk_bytes + (1 << 20))
        if raw is None:
            return self._filled(key, whole)
        direct = into is not None and self._bytes.chain.plain and whole.shape == self.chunks
        out = into.reshape(-1).view(np.uint8) if direct and into is not None else None
        chunk = self._values(key, raw, out)
        if into is not None and np.may_share_memory(chunk, into):
            return into
        return chunk[tuple(slice(0, n) for n in whole.shape)]

    def _values(self, key: str, raw: Bytes, out: Bytes | None) -> Array:
        if not plausible(len(raw), self._chunk_bytes):
            raise self._bytes.damaged(key, Damaged(f"{len(raw)} bytes cannot hold a chunk of {self._chunk_bytes}"))
        room = scratch(self._chunk_bytes, "chunk") if out is None else out
        try:
            return self._bytes.chain.decode(raw, self.chunks, room)
        except Damaged as error:
            raise self._bytes.damaged(key, error) from error

    def _filled(self, key: str, whole: Box) -> Array:
        self._absent(1, math.prod(self._bytes.grid), key.removeprefix(self._prefix))
        return np.broadcast_to(np.asarray(self._metadata.fill_value, self.dtype), whole.shape)

    def label(self, box: Box) -> str:
        """See `ArraySource`."""
        return self._bytes.label(cell_of(box, self.chunks))

    def evidence(self) -> bytes:
        """Metadata, and size and edges of some chunks."""
        h = hashlib.sha256(repr((self.shape, self.chunks, self.dtype.str, self._metadata.fill_value)).encode())
        for cell in self._sampled():
            key = self._prefix + self._metadata.key(cell)
            size = self._files.size(key) or 0
            h.update(repr((cell, size)).encode())
            spans = [(0, size)] if size <= SMALL else [(0, EDGE), (-EDGE, EDGE)]
            for offset, count in spans:
                data = self._files.read(key, offset, count)
                h.update(b"-" if data is None else data.tobytes())
        return h.digest()

    def close(self) -> None:
        """See `ArraySource`."""
        self._files.close()


def small(array: ZarrArray, limit: int) -> Any:
    """All values of an array of one dimension, if it has at most `limit`.

    Raises
    ------
    DataError
    """
    if array.shape[0] > limit:
        raise DataError(f"{array.shape[0]} values where at most {limit} belong", where=array.name)
    out = np.empty(array.shape, array.dtype)
    for box in array.boxes((0,), array.shape):
        out[box.inside((0,))] = array.load(box)
    return out
