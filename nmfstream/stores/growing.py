"""An NPY file whose number of rows is known only at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nmfstream.storage import durable
from nmfstream.stores.stream_writer import npy_header
from nmfstream.types import Array


class GrowingNpy:
    """Rows appended to a hidden file beside `final`, named when whole.

    Parameters
    ----------
    final : Path
    n_columns : int
    dtype : dtype
    """

    def __init__(self, final: Path, n_columns: int, dtype: np.dtype[Any]) -> None:
        self.final, self.n_columns, self.dtype = final, n_columns, dtype.newbyteorder("=")
        self.n_rows = 0
        durable.sweep(final)
        self._file = durable.temporary(final)
        self._at = len(npy_header((0, n_columns), self.dtype))

    def append(self, rows: Array) -> None:
        """Put the next rows."""
        block = np.ascontiguousarray(rows, self.dtype)
        if block.size:
            self._file.pwrite(block, self._at)
        self._at += block.nbytes
        self.n_rows += len(block)

    def read(self, start: int, stop: int) -> Array:
        """Rows that were put before."""
        head = self._at - self.n_rows * self.n_columns * self.dtype.itemsize
        row_bytes = self.n_columns * self.dtype.itemsize
        data = self._file.pread((stop - start) * row_bytes, head + start * row_bytes)
        return np.frombuffer(data, self.dtype).reshape(stop - start, self.n_columns)

    def commit(self, *, overwrite: bool = False) -> None:
        """Write the header, sync, and give the file its name.

        Raises
        ------
        OutputExistsError, StorageError
        """
        self._file.pwrite(npy_header((self.n_rows, self.n_columns), self.dtype), 0)
        self._file.sync()
        self._file.close()
        durable.publish(self._file.path, self.final, overwrite=overwrite)

    def abort(self) -> None:
        """Remove the file in progress."""
        durable.discard(self._file)
