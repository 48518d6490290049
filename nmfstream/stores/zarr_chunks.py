"""Raw bytes of a Zarr array's chunks: a file each, or inner chunks of shards."""

from __future__ import annotations

import math
from collections.abc import Iterator

from nmfstream.errors import DataError
from nmfstream.stores.zarr_codecs import Bytes, Chain, Damaged
from nmfstream.stores.zarr_files import Files
from nmfstream.stores.zarr_inventory import cell_at
from nmfstream.stores.zarr_metadata import ArrayMetadata
from nmfstream.stores.zarr_sharding import ShardIndexes
from nmfstream.types import Array

RESTORE = "restore it from its source, or write the store again"


class ChunkBytes:
    """What lies on disk for every chunk that is decoded at once.

    Parameters
    ----------
    files : Files
    path : str
        Of the array inside the store.
    metadata : ArrayMetadata
        With a chain or sharding.
    """

    def __init__(self, files: Files, path: str, metadata: ArrayMetadata) -> None:
        self.files, self.metadata = files, metadata
        self.prefix = f"{path}/" if path else ""
        sharding = metadata.sharding
        self.shards = None if sharding is None else ShardIndexes(files, self.prefix, metadata)
        self.shape = metadata.chunks if sharding is None else sharding.inner
        chain = metadata.chain if sharding is None else sharding.chain
        assert chain is not None
        self.chain: Chain = chain
        self.grid = tuple(-(-n // c) for n, c in zip(metadata.shape, self.shape))

    def read(self, cell: tuple[int, ...], limit: int) -> tuple[str, Bytes | None]:
        """Key and bytes of a chunk (None: absent); a forged index may not ask for more than `limit` bytes.

        Raises
        ------
        DataError
        """
        if self.shards is None:
            key = self.prefix + self.metadata.key(cell)
            return key, self.files.read(key)
        key, place = self.shards.locate(cell)
        if place is None:
            return key, None
        if place.size > limit:
            raise self.damaged(key, Damaged(f"the shard's index gives inner chunk {cell} {place.size} bytes"))
        raw = self.files.read(key, place.offset, place.size)
        if raw is not None and len(raw) < place.size:
            raise self.damaged(key, Damaged(f"the shard ends inside inner chunk {cell}"))
        return key, raw

    def damaged(self, key: str, error: Damaged) -> DataError:
        """The error for a chunk that does not decode."""
        return DataError(f"chunk {key}: {error}", where=self.files.name, hint=RESTORE)

    def label(self, cell: tuple[int, ...]) -> str:
        """A chunk, for messages."""
        if self.shards is None:
            return f"chunk {self.prefix}{self.metadata.key(cell)}"
        shard = tuple(i // n for i, n in zip(cell, self.shards.per_shard))
        return f"inner chunk {cell} of {self.prefix}{self.metadata.key(shard)}"


def name_chunks(files: Files, path: str, metadata: ArrayMetadata) -> Iterator[Array]:
    """The chunks of a short array of names (texts or records), one after the other.

    Raises
    ------
    DataError
    """
    chunks = ChunkBytes(files, path, metadata)
    for number in range(math.prod(chunks.grid)):
        key, raw = chunks.read(cell_at(number, chunks.grid), 1 << 30)
        if raw is None:
            raise DataError(f"chunk {key} of the names is missing", where=files.name, hint=RESTORE)
        try:
            texts = chunks.chain.dtype.kind == "O"
            yield chunks.chain.texts(raw) if texts else chunks.chain.decode(raw, chunks.shape)
        except Damaged as error:
            raise chunks.damaged(key, error) from error
