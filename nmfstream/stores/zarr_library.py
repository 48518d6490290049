"""A Zarr array as the zarr library reads it: for what our own decoder leaves alone (shards in shards, odd grids)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from nmfstream.errors import DataError, NmfstreamError
from nmfstream.stores.arrays import Box, Layout, grid, real
from nmfstream.types import Array


class LibraryArray:
    """See `ArraySource`.

    Parameters
    ----------
    location : str
        Folder, zip or URL of the store.
    path : str
        Of the array inside it.
    """

    layout = Layout("chunked", ("zarr",))

    def __init__(self, location: str, path: str) -> None:
        import zarr
        from zarr.storage import FsspecStore, LocalStore, ZipStore

        self.name = f"{location}/{path}" if path else location
        store: Any
        if "://" in location:
            store = FsspecStore.from_url(location, read_only=True)
        elif Path(location).is_file():
            store = ZipStore(location, read_only=True)
        else:
            store = LocalStore(location, read_only=True)
        try:
            self._array: Any = zarr.open_array(store, path=path, mode="r")
        except Exception as error:  # whatever the library raises on metadata it does not know
            hint = "write the store again with plain chunks"
            raise DataError(f"the zarr library cannot read it either ({error})", where=self.name, hint=hint) from error
        self.shape = tuple(self._array.shape)
        self.dtype = real(self._array.dtype, self.name)
        self.chunks = tuple(self._array.chunks)
        self.stored_bytes = math.prod(self.shape) * self.dtype.itemsize
        self.piece_bytes = self.direct_bytes = 3 * math.prod(self.chunks) * self.dtype.itemsize

    def check(self) -> None:
        """Chunks must all be there, as far as the library can tell.

        Raises
        ------
        DataError
        """
        there, total = int(self._array.nchunks_initialized), int(self._array.nchunks)
        if there < total:
            hint = "write the store again, all-fill chunks included"
            raise DataError(f"{total - there} of {total} chunks are missing", where=self.name, hint=hint)

    def boxes(self, low: tuple[int, ...], high: tuple[int, ...]) -> list[Box]:
        """See `ArraySource`."""
        return list(grid(low, high, self.chunks))

    def load(self, box: Box, into: Array | None = None) -> Array:
        """See `ArraySource`."""
        try:
            return np.asarray(self._array[tuple(slice(a, b) for a, b in zip(box.low, box.high))])
        except NmfstreamError:
            raise
        except Exception as error:  # whatever a codec raises
            what = f"rows {box.low[0]} to {box.high[0] - 1} cannot be decoded ({type(error).__name__}: {error})"
            raise DataError(what, where=self.name, hint="restore the store from its source") from error

    def label(self, box: Box) -> str:
        """See `ArraySource`."""
        return f"chunk {tuple(a // c for a, c in zip(box.low, self.chunks))}"

    def evidence(self) -> bytes:
        """The metadata, and the first and last values."""
        corners = (slice(0, 1),) * len(self.shape), (slice(-1, None),) * len(self.shape)
        edges = [self._array[corner] for corner in corners]
        return repr(self._array.metadata.to_dict()).encode() + b"".join(np.asarray(e).tobytes() for e in edges)

    def close(self) -> None:
        """Close the store."""
        self._array.store.close()
