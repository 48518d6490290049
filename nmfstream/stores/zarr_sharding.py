"""Indexes of shards: where in a file each inner chunk lies.

Source: the ``sharding_indexed`` codec of the Zarr v3 specification.
"""

from __future__ import annotations

import math
import threading
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nmfstream.errors import DataError
from nmfstream.stores.zarr_codecs import Damaged, run
from nmfstream.stores.zarr_files import Files
from nmfstream.stores.zarr_metadata import ArrayMetadata, Sharding

ABSENT = 2**64 - 1
_HINT = "restore the file from its source, or write the store again"


class Place(NamedTuple):
    """Bytes of an inner chunk in its shard's file."""

    offset: int
    size: int


class ShardIndexes:
    """The indexes of an array's shards, each read once.

    Parameters
    ----------
    files : Files
    prefix : str
        Of the array's keys.
    metadata : ArrayMetadata
        With ``sharding``.
    """

    def __init__(self, files: Files, prefix: str, metadata: ArrayMetadata) -> None:
        assert metadata.sharding is not None
        self._files, self._prefix, self._metadata = files, prefix, metadata
        self._sharding: Sharding = metadata.sharding
        self.per_shard = tuple(-(-c // i) for c, i in zip(metadata.chunks, self._sharding.inner))
        self._count = math.prod(self.per_shard)
        self._held: dict[tuple[int, ...], NDArray[np.uint64] | None] = {}
        self._lock = threading.Lock()

    def locate(self, cell: tuple[int, ...]) -> tuple[str, Place | None]:
        """Key of the shard that an inner chunk belongs to, and its place there (None: absent)."""
        shard = tuple(i // n for i, n in zip(cell, self.per_shard))
        index = self.index(shard)
        key = self._prefix + self._metadata.key(shard)
        if index is None:
            return key, None
        offset, size = index[tuple(i % n for i, n in zip(cell, self.per_shard))]
        return key, None if int(offset) == ABSENT else Place(int(offset), int(size))

    def index(self, shard: tuple[int, ...]) -> NDArray[np.uint64] | None:
        """The index of a shard: shape ``per_shard + (2,)``; None where the shard is absent."""
        with self._lock:
            if shard in self._held:
                return self._held[shard]
        found = self._load(shard)
        with self._lock:
            self._held[shard] = found
        return found

    def _load(self, shard: tuple[int, ...]) -> NDArray[np.uint64] | None:
        key = self._prefix + self._metadata.key(shard)
        size = 16 * self._count + 4 * len(self._sharding.index_steps)
        raw = self._files.read(key, -size if self._sharding.at_end else 0, size)
        if raw is None:
            return None
        try:
            for step in self._sharding.index_steps:
                raw = run(step, raw, None)
            if len(raw) != 16 * self._count:
                raise Damaged(f"{len(raw)} bytes where {16 * self._count} belong")
        except (Damaged, RuntimeError, ValueError) as error:
            raise DataError(f"index of the shard: {error}", where=f"{self._files.name}/{key}", hint=_HINT) from error
        return np.frombuffer(raw.tobytes(), "<u8").astype(np.uint64).reshape(*self.per_shard, 2)

    def absent(self, shard: tuple[int, ...]) -> int:
        """Inner chunks inside the array that a shard does not hold."""
        index = self.index(shard)
        grid = tuple(-(-n // c) for n, c in zip(self._metadata.shape, self._sharding.inner))
        inside = tuple(slice(0, min(n, g - i * n)) for n, g, i in zip(self.per_shard, grid, shard))
        counts = tuple(s.stop for s in inside)
        return math.prod(counts) if index is None else int(np.count_nonzero(index[..., 0][inside] == ABSENT))
