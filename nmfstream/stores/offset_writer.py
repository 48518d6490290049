"""Rows at a fixed place in one file: written by `pwrite`, so writing a row again changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from nmfstream.errors import CheckpointMismatchError, NmfstreamError
from nmfstream.storage import durable
from nmfstream.storage.durable import DurableFile
from nmfstream.stores.outputs import Making, forget_ranges
from nmfstream.types import Array

Place = TypeVar("Place")
"""Where values lie in a file: the offset of its first row, or the offsets of its parts."""


def checked_rows(start: int, rows: Array, shape: tuple[int, int], dtype: np.dtype[Any]) -> Array:
    """The rows as they are stored.

    Raises
    ------
    ValueError
        If they do not fit into `shape` at `start`.
    """
    if rows.ndim != 2 or rows.shape[1] != shape[1] or not 0 <= start <= start + len(rows) <= shape[0]:
        raise ValueError(f"rows {start}:{start + len(rows)} of shape {rows.shape} do not fit into {shape}")
    return np.ascontiguousarray(rows, dtype)


class OffsetWriter:
    """A `RowWriter` over one file whose rows lie one after the other from `offset` on."""

    nnz = None

    def __init__(self, file: DurableFile, offset: int, making: Making, final: Path, *, resumed: bool) -> None:
        self.shape, self.dtype, self.chunk_rows = making.shape, making.dtype, 1
        self.final, self.resumed = final, resumed
        self._file, self._offset, self._row_bytes = file, offset, making.row_bytes

    def write(self, start: int, rows: Array) -> None:
        """Put rows at ``start``."""
        block = checked_rows(start, rows, self.shape, self.dtype)
        if block.size:
            self._file.pwrite(block, self._offset + start * self._row_bytes)

    def flush(self) -> None:
        """Sync the file."""
        self._file.sync()

    def commit(self, *, overwrite: bool = False) -> None:
        """Sync, then give the file its final name."""
        self.flush()
        self._publish(overwrite)
        self._file.close()
        forget_ranges(self.final)

    def _publish(self, overwrite: bool) -> None:
        durable.publish(self._file.path, self.final, overwrite=overwrite)

    def abort(self) -> None:
        """Remove the file in progress."""
        durable.discard(self._file)

    def close(self) -> None:
        """Let go of the file in progress, which stays for a resume."""
        self._file.close()


def begin(
    final: Path,
    partial: Path | None,
    resume: bool,
    lay: Callable[[DurableFile], Place],
    find: Callable[[DurableFile], Place],
) -> tuple[DurableFile, Place, bool]:
    """Open the file in progress.

    Parameters
    ----------
    partial : Path or None
        Name while in progress; None: a hidden one beside the final name.
    resume : bool
        Continue `partial` where it is there.
    lay : callable
        Writes the skeleton into an empty file; says where the values go.
    find : callable
        Where they are in an existing file, or an error if it is not the same array.

    Returns
    -------
    file, place, resumed
        Where `partial` was named, the file appeared under it with its whole skeleton.
    """
    if resume and partial is not None and durable.exists(partial):
        return *_continue(partial, find), True
    file = durable.temporary(final if partial is None else partial)
    try:
        offset = lay(file)
        return (_named(file, partial) if partial is not None else file), offset, False
    except BaseException:
        durable.discard(file)
        raise


def _continue(partial: Path, find: Callable[[DurableFile], Place]) -> tuple[DurableFile, Place]:
    file = durable.reopen(partial)
    try:
        return file, find(file)
    except (ValueError, KeyError, OSError) as error:
        file.close()
        if isinstance(error, NmfstreamError):
            raise
        raise another_array(partial) from error


def another_array(partial: Path) -> CheckpointMismatchError:
    """The error for an output in progress that cannot be the one to continue."""
    what = "the output in progress holds another array"
    return CheckpointMismatchError(what, where=str(partial), hint="begin anew with --overwrite")


def _named(file: DurableFile, partial: Path) -> DurableFile:
    file.sync()
    file.close()
    durable.publish(file.path, partial)
    return durable.reopen(partial)
