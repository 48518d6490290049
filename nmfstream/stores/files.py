"""Reading bytes: positioned reads into reused buffers, never a memory map (a file that shrinks must not kill us)."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from nmfstream.errors import AccessDeniedError, DataError, InputAbsentError, NmfstreamError, StorageError
from nmfstream.types import Array

Buffer: TypeAlias = "bytes | bytearray | memoryview"

PIECE = 2 << 20
"""Bytes of one positioned read of contiguous data: large enough for the disk, small enough for the cache."""

LOCAL = "file://"
"""What a URL of this machine's own files begins with."""

_KINDS: dict[int, type[NmfstreamError]] = {
    errno.ENOENT: InputAbsentError,
    errno.ENOTDIR: InputAbsentError,
    errno.EACCES: AccessDeniedError,
    errno.EPERM: AccessDeniedError,
}
_HINTS = {
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path",
    errno.EACCES: "ask its owner for permission to read",
    errno.EPERM: "ask its owner for permission to read",
}


def translate(error: OSError, path: str | Path) -> NmfstreamError:
    """The error of this package that a failed read stands for."""
    number = error.errno or 0
    what = "no such file" if number == errno.ENOENT else f"read failed: {error.strerror or error}"
    return _KINDS.get(number, StorageError)(
        what, where=str(path), hint=_HINTS.get(number, "check the device, then run again")
    )


class PreadFile:
    """A file open for positioned reads from any thread.

    Parameters
    ----------
    path : Path

    Raises
    ------
    InputAbsentError, AccessDeniedError, StorageError
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self.size = os.fstat(self._fd).st_size
        except OSError as error:
            raise translate(error, path) from error

    def read_into(self, buffer: Any, offset: int) -> None:
        """Fill `buffer` (C-contiguous) with the bytes at `offset`.

        Raises
        ------
        DataError
            The file ends before the buffer is full.
        StorageError
        """
        view = octets(buffer).data
        done = 0
        while done < len(view):
            n = self._read_some(view[done:], offset + done)
            if n == 0:
                raise DataError(
                    f"file ends at byte {offset + done}, {len(view) - done} bytes too early",
                    where=str(self.path),
                    hint="it is truncated or another process shortens it: copy it again",
                )
            done += n

    def _read_some(self, view: memoryview, offset: int) -> int:
        try:
            return os.preadv(self._fd, [view], offset)
        except OSError as error:
            raise translate(error, self.path) from error

    def read(self, size: int, offset: int) -> bytes:
        """`size` bytes at `offset`, or fewer at the file's end."""
        try:
            return os.pread(self._fd, size, offset)
        except OSError as error:
            raise translate(error, self.path) from error

    def close(self) -> None:
        """Release the descriptor; idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class MemoryFile:
    """Bytes that stand in for a `PreadFile`."""

    def __init__(self, content: Buffer, name: str) -> None:
        self._content, self.path, self.size = memoryview(content), Path(name), len(content)

    def read_into(self, buffer: Any, offset: int) -> None:
        """See `PreadFile`."""
        target = octets(buffer)
        target[:] = np.frombuffer(self._content[offset : offset + target.nbytes], np.uint8)

    def read(self, size: int, offset: int) -> bytes:
        """See `PreadFile`."""
        return bytes(self._content[offset : offset + size])

    def close(self) -> None:
        """Nothing is held open."""


class ByteFile(Protocol):
    """What a flat array is read from."""

    size: int

    def read_into(self, buffer: Any, offset: int) -> None:
        """Fill `buffer` with the bytes at `offset`."""
        ...

    def read(self, size: int, offset: int) -> bytes:
        """Up to `size` bytes at `offset`."""
        ...

    def close(self) -> None:
        """Idempotent."""
        ...


def octets(buffer: Any) -> Array:
    """The bytes of a C-contiguous buffer of any type, empty ones too, as a view."""
    array = buffer if isinstance(buffer, np.ndarray) else np.frombuffer(buffer, np.uint8)
    return array.reshape(-1).view(np.uint8)


class _Buffers(threading.local):
    def __init__(self) -> None:
        self.slots: dict[str, Array] = {}


_buffers = _Buffers()


def scratch(size: int, slot: str) -> Array:
    """A reused buffer of this thread: `size` bytes, undefined content, valid until the slot is asked for again."""
    held = _buffers.slots.get(slot)
    if held is None or held.nbytes < size or held.nbytes > 4 * size + (1 << 20):
        _buffers.slots[slot] = held = np.empty(size, np.uint8)
    return held[:size]
