"""The only place that creates, syncs, renames or deletes files.

What is published here is whole under its final name, or not there: files are written under a hidden name in the
same folder, synced, and then linked (or renamed) to the final one, whose folder is synced in turn.
"""

from __future__ import annotations

import errno
import io
import os
import secrets
import socket
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from nmfstream.errors import AccessDeniedError, InputAbsentError, NmfstreamError, OutputExistsError, StorageError
from nmfstream.storage.disk import Disk, RealDisk

T = TypeVar("T")

ATTEMPTS = 3
"""Times a call is made on a path whose network file system says ESTALE."""

_UNSYNCABLE = (errno.EINVAL, errno.ENOTSUP)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS)
_NOT_CREATABLE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)
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

_disk: Disk = RealDisk()


def disk() -> Disk:
    """The disk in use."""
    return _disk


@contextmanager
def use(other: Disk) -> Iterator[Disk]:
    """Put another `Disk` in the place of the real one, for the whole process (tests)."""
    global _disk
    before, _disk = _disk, other
    try:
        yield other
    finally:
        _disk = before


def translate(error: OSError, path: Path | str) -> NmfstreamError:
    """The error of the tree that an `OSError` on `path` stands for."""
    code = error.errno or errno.EIO
    kind, hint = _KINDS.get(code, (StorageError, _HINTS.get(code, "see to it, then run the same command again")))
    return kind(os.strerror(code), where=str(path), hint=hint)


@contextmanager
def _translated(path: Path | str) -> Iterator[None]:
    try:
        yield
    except NmfstreamError:
        raise
    except OSError as error:
        raise translate(error, path) from error


def _uninterrupted(call: Callable[[], T]) -> T:
    while True:
        with suppress(InterruptedError):
            return call()


def _patiently(call: Callable[[], T]) -> T:
    """Make a call on a path again where a network file system lost its handle, or a signal came between."""
    for attempt in range(1, ATTEMPTS):
        try:
            return _uninterrupted(call)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            _disk.pause(0.1 * attempt)
    return _uninterrupted(call)


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
        self._disk = _disk
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
                done = _uninterrupted(partial(self._disk.pwrite, self._fd, rest, offset))
                if done <= 0:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                rest, offset = rest[done:], offset + done

    def pread(self, size: int, offset: int) -> bytes:
        """Up to `size` bytes at `offset`; fewer only at the end of the file."""
        parts = []
        with _translated(self.path):
            while size > 0:
                part = _uninterrupted(partial(self._disk.pread, self._fd, size, offset))
                if not part:
                    break
                parts.append(part)
                size, offset = size - len(part), offset + len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def size(self) -> int:
        """Bytes in the file."""
        with _translated(self.path):
            return self._disk.size(self._fd)

    def truncate(self, size: int | None = None) -> int:
        """Cut or extend (with zeros) to `size` bytes."""
        length = self._at if size is None else size
        with self._watched():
            self._disk.ftruncate(self._fd, length)
        return length

    def sync(self) -> None:
        """Make all that was written survive a power cut.

        Raises
        ------
        StorageError
            Once it failed the file can never be trusted: every later call raises the same again.
        """
        with self._watched():
            _uninterrupted(lambda: self._disk.fsync(self._fd))

    def close(self) -> None:
        """Close; idempotent."""
        if self.closed:
            return
        fd, self._fd = self._fd, -1
        super().close()
        with self._watched(), suppress(InterruptedError):  # an interrupted close has closed
            self._disk.close(fd)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        if self._failure is not None:
            raise self._failure
        try:
            yield
        except OSError as error:
            failure = error if isinstance(error, NmfstreamError) else translate(error, self.path)
            self._failure = failure if isinstance(failure, StorageError) else StorageError(str(failure))
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


def create(path: Path) -> DurableFile:
    """Create exactly this file, for reading and writing.

    Raises
    ------
    OutputExistsError
        If anything, a dangling link too, has the name, or the name cannot be created.
    AccessDeniedError, StorageError
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    with _creating(path):
        return DurableFile(path, _patiently(lambda: _disk.open(str(path), flags)))


@contextmanager
def _creating(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _NOT_CREATABLE:
            raise OutputExistsError(
                f"cannot be created ({os.strerror(error.errno or 0)})", where=str(path), hint="check its folder"
            ) from error
        raise translate(error, path) from error


def temporary_name(final: Path) -> Path:
    """A hidden name beside `final` that tells whose it is: ``.NAME.HOST-PID-RANDOM.tmp``."""
    return final.parent / f".{final.name}.{_host()}-{os.getpid()}-{secrets.token_hex(4)}.tmp"


def temporary(final: Path) -> DurableFile:
    """Create a file under a hidden name beside `final`."""
    return create(temporary_name(final))


def reopen(path: Path) -> DurableFile:
    """Open an existing file for reading and writing."""
    return _open(path, os.O_RDWR)


def view(path: Path) -> DurableFile:
    """Open an existing file for reading."""
    return _open(path, os.O_RDONLY)


def _open(path: Path, flags: int) -> DurableFile:
    with _translated(path):
        return DurableFile(path, _patiently(lambda: _disk.open(str(path), flags | os.O_CLOEXEC)))


def publish(path: Path, final: Path, *, overwrite: bool = False) -> None:
    """Give a synced file its final name, durably.

    Raises
    ------
    OutputExistsError
        If the name is taken and `overwrite` is not given; `path` stays.
    """
    with _translated(final):
        if overwrite:
            _patiently(lambda: _disk.rename(str(path), str(final)))
        else:
            _link(str(path), str(final))
    sync_folder(final.parent)


def _link(path: str, final: str) -> None:
    try:
        _patiently(lambda: _disk.link(path, final))
    except OSError as error:
        if error.errno in _NO_LINKS:
            _patiently(lambda: _disk.rename_new(path, final))
            return
        # A network file system may answer "exists" to the repeat of a request that it has carried out.
        if error.errno != errno.EEXIST or _disk.stat(path).identity != _disk.stat(final).identity:
            raise
    _patiently(lambda: _disk.unlink(path))


def publish_tree(folder: Path, final: Path, *, overwrite: bool = False) -> None:
    """Give a synced folder its final name, durably; what stood there is removed after the exchange.

    Raises
    ------
    OutputExistsError
        If the name is taken and `overwrite` is not given.
    """
    with _translated(final):
        if not overwrite or not exists(final):
            _patiently(lambda: _disk.rename_new(str(folder), str(final)))
            old = None
        else:
            old = _replace(folder, final)
    sync_folder(final.parent)
    if old is not None:
        remove_tree(old)


def _replace(folder: Path, final: Path) -> Path:
    try:
        _disk.exchange(str(folder), str(final))
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
            raise
        aside = temporary_name(final)
        _disk.rename(str(final), str(aside))
        _disk.rename(str(folder), str(final))
        return aside
    return folder


def write_whole(final: Path, data: bytes, *, overwrite: bool = False) -> None:
    """Write a small file in one go: whole and durable under its name, or not there."""
    file = temporary(final)
    try:
        file.pwrite(data, 0)
        file.sync()
        file.close()
        publish(file.path, final, overwrite=overwrite)
    except Exception:
        discard(file)
        raise


def discard(file: DurableFile) -> None:
    """Close and remove a file in progress, whatever state it is in."""
    with suppress(NmfstreamError, OSError):
        file.close()
    with suppress(NmfstreamError, OSError):
        remove(file.path)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    with _translated(folder):
        fd = _patiently(lambda: _disk.open(str(folder), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        try:
            _disk.fsync(fd)
        except OSError as error:
            if error.errno not in _UNSYNCABLE:  # some file systems cannot sync a folder
                raise
        finally:
            _disk.close(fd)


def sync_tree(folder: Path) -> None:
    """Sync every file and folder below `folder`, and itself."""
    for name in names(folder):
        path = folder / name
        if is_folder(path):
            sync_tree(path)
        else:
            with view(path) as file:
                file.sync()
    sync_folder(folder)


def make_folder(path: Path) -> None:
    """Create one folder, durably.

    Raises
    ------
    OutputExistsError
        If the name exists or cannot be created.
    """
    with _creating(path):
        _patiently(lambda: _disk.mkdir(str(path)))
    sync_folder(path.parent)


def remove(path: Path) -> None:
    """Remove a file; nothing happens where it is gone already."""
    with _translated(path), suppress(FileNotFoundError):
        _patiently(lambda: _disk.unlink(str(path)))


def remove_tree(path: Path) -> None:
    """Remove a folder and all below it (links are removed, not followed), or a file."""
    with _translated(path), suppress(FileNotFoundError):
        if not _disk.stat(str(path)).folder:
            _disk.unlink(str(path))
            return
        for name in sorted(_disk.listdir(str(path))):
            remove_tree(path / name)
        _disk.rmdir(str(path))


def read_bytes(path: Path) -> bytes:
    """All bytes of a file."""
    with view(path) as file:
        return file.pread(file.size(), 0)


def names(folder: Path) -> list[str]:
    """Names in a folder, sorted."""
    with _translated(folder):
        return sorted(_patiently(lambda: _disk.listdir(str(folder))))


def exists(path: Path) -> bool:
    """Whether anything has the name (a dangling link counts)."""
    with _translated(path):
        try:
            _patiently(lambda: _disk.stat(str(path)))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True


def is_folder(path: Path) -> bool:
    """Whether the name is a real folder."""
    with _translated(path):
        return exists(path) and _patiently(lambda: _disk.stat(str(path))).folder


def sweep(final: Path) -> None:
    """Remove what dead processes of this host left in progress for `final`."""
    mine = f".{final.name}.{_host()}-"
    for name in names(final.parent):
        if name.startswith(mine) and name.endswith(".tmp"):
            pid = name.removeprefix(mine).split("-")[0]
            if pid.isdigit() and not alive(int(pid)):
                remove_tree(final.parent / name)


def alive(pid: int) -> bool:
    """Whether a process of this host lives."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _host() -> str:
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"
