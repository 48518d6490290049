"""Bytes of a pipe, fetched by a thread of their own, so that reading and computing overlap."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

import numpy as np

from nmfstream.errors import StopRequested, StorageError

CAPACITY = 16 << 20
_PIECE = 1 << 18
_F_SETPIPE_SZ, _PIPE_BYTES = 1031, 1 << 20
_ASK_SECONDS = 0.1


class ReadAhead:
    """A pipe's bytes in order.

    Whoever is slower sets the pace: where computing is, whole blocks are waiting when it asks; where the pipe is,
    each row is there as soon as its last byte has come.

    Parameters
    ----------
    file : binary file
        Nothing of it has been read yet.
    capacity : int
        Bytes held at most, unless one row is larger.
    stop : callable, optional
        Asked while nothing comes: whether to give up waiting.
    """

    def __init__(self, file: IO[bytes], capacity: int = CAPACITY, stop: Callable[[], bool] | None = None) -> None:
        self._capacity, self._stop = capacity, stop
        self._pieces: deque[memoryview] = deque()
        self._held = 0
        self._wanted = 0
        self._ended = False
        self._error: BaseException | None = None
        self._change = threading.Condition()
        self._read = _reader(file)
        _widen(file)
        threading.Thread(target=self._fetch, daemon=True).start()

    def _fetch(self) -> None:
        try:
            while piece := self._read(_PIECE):
                with self._change:
                    self._pieces.append(memoryview(piece))
                    self._held += len(piece)
                    self._change.notify_all()
                    while self._held >= max(self._capacity, self._wanted):
                        self._change.wait()
        except (OSError, ValueError) as error:
            self._error = error
        with self._change:
            self._ended = True
            self._change.notify_all()

    def wait(self, size: int) -> int:
        """Wait for `size` bytes, or the end; returns the number of bytes that are there, perhaps more.

        Raises
        ------
        StorageError
            If reading failed.
        StopRequested
            If a stop was asked for while waiting.
        """
        with self._change:
            self._wanted = size
            self._change.notify_all()
            while self._held < size and not self._ended:
                if self._stop is not None and self._stop():
                    raise StopRequested
                self._change.wait(None if self._stop is None else _ASK_SECONDS)
            if self._held < size and self._error is not None:
                raise StorageError(f"read failed: {self._error}", where="standard input") from self._error
            return self._held

    def take_into(self, out: Any) -> int:
        """Move bytes into a buffer until it is full or none are there; returns how many."""
        view, at = memoryview(out).cast("B"), 0
        with self._change:
            while at < len(view) and self._pieces:
                piece = self._pieces.popleft()
                part = piece[: len(view) - at]
                view[at : at + len(part)] = part
                at += len(part)
                if len(part) < len(piece):
                    self._pieces.appendleft(piece[len(part) :])
            self._held -= at
            self._change.notify_all()
        return at

    def take(self, size: int) -> bytes:
        """Wait for `size` bytes and return them; fewer only at the end."""
        self.wait(size)
        out = bytearray(size)
        return bytes(out[: self.take_into(out)])

    def rows(self, row_bytes: int, most: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Wait for one row; returns the whole rows that are there, `most` at most, as bytes.

        An incomplete row is returned only at the end of the input.
        """
        there = self.wait(row_bytes)
        size = there if there < row_bytes else min(there // row_bytes, most) * row_bytes
        out = np.empty(size, np.uint8)
        self.take_into(out)
        return out

    def some(self) -> bytes:
        """Wait for a byte; returns what is there (nothing at the end)."""
        return self.take(min(self.wait(1), self._capacity))


def _reader(file: IO[bytes]) -> Callable[[int], bytes]:
    """Reads what is there; of a real file by its descriptor.

    A thread that waits inside a file object holds its lock, and the interpreter cannot end while one does.
    """
    try:
        descriptor = os.dup(file.fileno())
    except (OSError, ValueError, AttributeError):
        return getattr(file, "read1", file.read)
    return lambda size: os.read(descriptor, size)


def _widen(file: IO[bytes]) -> None:
    with suppress(OSError, ValueError, AttributeError, ImportError):
        import fcntl

        fcntl.fcntl(file.fileno(), _F_SETPIPE_SZ, _PIPE_BYTES)
