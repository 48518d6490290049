"""A file in progress, and what an error of the operating system means."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from nmfstream.errors import AccessDeniedError, InputAbsentError, NmfstreamError, OutputExistsError, StorageError
from nmfstream.storage import disk

T = TypeVar("T")

_HINTS = {
    errno.ENOSPC: "free some space, then run the same command again",
    errno.EDQUOT: "your quota is used up: free some of it, then run the same command again",
    errno.EROFS: "the file system is read-only: choose another place",
    errno.EIO: "the device reports an error: check it, or choose another place",
    errno.ESTALE: "the network file system lost the file: check the mount, then run the same command again",
}
_KINDS: dict[int, tuple[type[NmfstreamError], str]] = {
    errno.ENOENT: (InputAbsentError, "check the path"),
    errno.EACCES: (AccessDeniedError, "change its permissions or choose another place"),
    errno.EPERM: (AccessDeniedError, "change its permissions or choose another place"),
    errno.EEXIST: (OutputExistsError, "choose another name or remove it"),
    errno.ENOTEMPTY: (OutputExistsError, "choose another name or remove it"),
    errno.EROFS: (OutputExistsError, _HINTS[errno.EROFS]),
}


def translate(error: OSError, path: Path | str) -> NmfstreamError:
    """The error of the tree that an `OSError` on `path` stands for."""
    code = error.errno or errno.EIO
    kind, hint = _KINDS.get(code, (StorageError, _HINTS.get(code, "see to it, then run the same command again")))
    return kind(os.strerror(code), where=str(path), hint=hint)


@contextmanager
def translated(path: Path | str) -> Iterator[None]:
    """A block whose `OSError` becomes ours, on `path`."""
    try:
        yield
    except NmfstreamError:
        raise
    except OSError as error:
        raise translate(error, path) from error


def uninterrupted(call: Callable[[], T]) -> T:
    """Make a call again for as long as a signal comes between."""
    while True:
        with suppress(InterruptedError):
            return call()


def _of_storage(error: NmfstreamError) -> StorageError:
    return error if isinstance(error, StorageError) else StorageError(error.what, where=error.where, hint=error.hint)


class DurableFile(io.RawIOBase):
    """A file in progress, by offset (`pwrite`, `pread`, any thread) or as a Python file object (one thread).

    Parameters
    ----------
    path : Path
    fd : int
        Descriptor of `nmfstream.storage.durable.disk`; closed with the file.
    """

    def __init__(self, path: Path, fd: int) -> None:
        super().__init__()
        self.path = path
        self._fd = fd
        self._disk = disk.current()
        self._at = 0
        self._failure: StorageError | None = None

    def pwrite(self, data: Any, offset: int) -> None:
        """Write all of `data` (any C-contiguous buffer) at `offset`.

        Raises
        ------
        StorageError
            Whatever part of it was written by then.
        """
        view = memoryview(data)
        rest = view.cast("B") if view.nbytes else view[:0]
        with self._watched():
            while rest.nbytes:
                done = uninterrupted(partial(self._disk.pwrite, self._fd, rest, offset))
                if done <= 0:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                rest, offset = rest[done:], offset + done

    def pread(self, size: int, offset: int) -> bytes:
        """Up to `size` bytes at `offset`; fewer only at the end of the file."""
        parts = []
        with translated(self.path):
            while size > 0:
                part = uninterrupted(partial(self._disk.pread, self._fd, size, offset))
                if not part:
                    break
                parts.append(part)
                size, offset = size - len(part), offset + len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def size(self) -> int:
        """Bytes in the file."""
        with translated(self.path):
            return uninterrupted(lambda: self._disk.size(self._fd))

    def truncate(self, size: int | None = None) -> int:
        """Cut or extend (with zeros) to `size` bytes."""
        length = self._at if size is None else size
        with self._watched():
            uninterrupted(lambda: self._disk.ftruncate(self._fd, length))
        return length

    def sync(self) -> None:
        """Make all that was written survive a power cut.

        Raises
        ------
        StorageError
            Once it failed the file can never be trusted: every later call raises the same again.
        """
        with self._watched():
            uninterrupted(lambda: self._disk.fsync(self._fd))

    def close(self) -> None:
        """Close; idempotent."""
        if self.closed:
            return
        fd, self._fd = self._fd, -1
        super().close()
        try:
            self._disk.close(fd)
        except InterruptedError:  # it is closed all the same
            return
        except OSError as error:
            if self._failure is None:  # else it was told already
                raise translate(error, self.path) from error

    @contextmanager
    def _watched(self) -> Iterator[None]:
        if self._failure is not None:
            raise self._failure
        try:
            yield
        except OSError as error:
            failure = error if isinstance(error, NmfstreamError) else translate(error, self.path)
            self._failure = _of_storage(failure)
            raise self._failure from error

    def read(self, size: int | None = -1) -> bytes:
        """As a file object."""
        wanted = max(0, self.size() - self._at) if size is None or size < 0 else size
        data = self.pread(wanted, self._at)
        self._at += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        """As a file object."""
        view = memoryview(buffer).cast("B")
        data = self.read(view.nbytes)
        view[: len(data)] = data
        return len(data)

    def write(self, data: Any) -> int:
        """As a file object; writes all of it."""
        n = memoryview(data).nbytes
        self.pwrite(data, self._at)
        self._at += n
        return n

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As a file object."""
        base = {os.SEEK_SET: lambda: 0, os.SEEK_CUR: lambda: self._at, os.SEEK_END: self.size}[whence]()
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        """As a file object."""
        return self._at

    def readable(self) -> bool:
        """True."""
        return True

    def writable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True
