# ruff: noqa: D102  (each method is the system call of its name)
"""The operating system's calls that change or read files, as one object that tests can replace."""

from __future__ import annotations

import ctypes
import errno
import os
import stat as modes
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

_RENAME_NOREPLACE, _RENAME_EXCHANGE, _AT_FDCWD = 1, 2, -100


class Entry(NamedTuple):
    """What a path is.

    Attributes
    ----------
    folder : bool
        A real directory (a link to one is none).
    size : int
        Bytes.
    identity : tuple of int
        Device and inode: equal for two names of one file.
    """

    folder: bool
    size: int
    identity: tuple[int, int]


class Disk(Protocol):
    """Calls as the kernel makes them: each may fail with `OSError`, do part of its work, or never return."""

    def open(self, path: str, flags: int, mode: int = 0o666) -> int: ...
    def pwrite(self, fd: int, data: memoryview, offset: int) -> int: ...
    def pread(self, fd: int, size: int, offset: int) -> bytes: ...
    def ftruncate(self, fd: int, size: int) -> None: ...
    def size(self, fd: int) -> int: ...
    def fsync(self, fd: int) -> None: ...
    def close(self, fd: int) -> None: ...
    def stat(self, path: str) -> Entry: ...
    def listdir(self, path: str) -> list[str]: ...
    def link(self, source: str, target: str) -> None: ...
    def unlink(self, path: str) -> None: ...
    def rename(self, source: str, target: str) -> None: ...
    def rename_new(self, source: str, target: str) -> None: ...
    def exchange(self, one: str, other: str) -> None: ...
    def mkdir(self, path: str) -> None: ...
    def rmdir(self, path: str) -> None: ...
    def now(self) -> float: ...
    def pause(self, seconds: float) -> None: ...


def _renameat2() -> Any:
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return None
    call.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    return call


class RealDisk:
    """The disk itself."""

    pread = staticmethod(os.pread)
    ftruncate = staticmethod(os.ftruncate)
    fsync = staticmethod(os.fsync)
    close = staticmethod(os.close)
    listdir = staticmethod(os.listdir)
    unlink = staticmethod(os.unlink)
    rename = staticmethod(os.rename)
    mkdir = staticmethod(os.mkdir)
    rmdir = staticmethod(os.rmdir)
    now = staticmethod(time.monotonic)
    pause = staticmethod(time.sleep)

    def open(self, path: str, flags: int, mode: int = 0o666) -> int:
        """A descriptor; new files are not executable."""
        return os.open(path, flags, mode)

    def pwrite(self, fd: int, data: memoryview, offset: int) -> int:
        """Bytes written, which may be fewer than asked for."""
        return os.pwrite(fd, data, offset)

    def size(self, fd: int) -> int:
        """Length of an open file."""
        return os.fstat(fd).st_size

    def stat(self, path: str) -> Entry:
        """What `path` itself is; links are not followed."""
        found = os.lstat(path)
        return Entry(modes.S_ISDIR(found.st_mode), found.st_size, (found.st_dev, found.st_ino))

    def link(self, source: str, target: str) -> None:
        """Give a file a second name; fails where the name exists."""
        os.link(source, target, follow_symlinks=False)

    def rename_new(self, source: str, target: str) -> None:
        """Rename that fails where the new name exists (one step on Linux)."""
        if self._renameat2(source, target, _RENAME_NOREPLACE):
            return
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
        self.rename(source, target)

    def exchange(self, one: str, other: str) -> None:
        """Swap two names in one step; ENOSYS where the system cannot."""
        if not self._renameat2(one, other, _RENAME_EXCHANGE):
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), other)

    def _renameat2(self, source: str, target: str, flags: int) -> bool:
        call = _renameat2()
        if call is None:
            return False
        if call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags) == 0:
            return True
        code = ctypes.get_errno()
        if code in (errno.ENOSYS, errno.EINVAL):
            return False
        raise OSError(code, os.strerror(code), target)


_current: Disk = RealDisk()


def current() -> Disk:
    """The disk in use."""
    return _current


@contextmanager
def use(other: Disk) -> Iterator[Disk]:
    """Put another `Disk` in the place of the real one, for the whole process (tests)."""
    global _current
    before, _current = _current, other
    try:
        yield other
    finally:
        _current = before
