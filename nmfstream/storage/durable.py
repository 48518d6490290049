"""The only place that creates, syncs, renames or deletes files.

What is published here is whole under its final name, or not there: files are written under a hidden name in the
same folder, synced, and then linked (or renamed) to the final one, whose folder is synced in turn.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from nmfstream.errors import NmfstreamError, OutputExistsError
from nmfstream.storage import disk
from nmfstream.storage.disk import use as use
from nmfstream.storage.file import DurableFile as DurableFile
from nmfstream.storage.file import translate as translate
from nmfstream.storage.file import translated, uninterrupted

T = TypeVar("T")

ATTEMPTS = 3
"""Times a call is made on a path whose network file system says ESTALE."""

_UNSYNCABLE = (errno.EINVAL, errno.ENOTSUP)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS)
_NOT_CREATABLE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)

_in_making: set[Path] = set()
"""Hidden names given out by this process; some may be published or gone."""


def _patiently(call: Callable[[], T]) -> T:
    """Make a call on a path again where a network file system lost its handle, or a signal came between."""
    for attempt in range(1, ATTEMPTS):
        try:
            return uninterrupted(call)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            disk.current().pause(0.1 * attempt)
    return uninterrupted(call)


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
        return DurableFile(path, _patiently(lambda: disk.current().open(str(path), flags)))


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
    """A hidden name beside `final` for what `publish` will name, or `remove_unpublished` removes."""
    name = _hidden_name(final)
    _in_making.add(name)
    return name


def _hidden_name(final: Path) -> Path:
    """A name that tells whose it is: ``.NAME.HOST-PID-RANDOM.tmp``."""
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
    with translated(path):
        return DurableFile(path, _patiently(lambda: disk.current().open(str(path), flags | os.O_CLOEXEC)))


def publish(path: Path, final: Path, *, overwrite: bool = False) -> None:
    """Give a synced file its final name, durably.

    Raises
    ------
    OutputExistsError
        If the name is taken and `overwrite` is not given; `path` stays.
    """
    with translated(final):
        if overwrite:
            _patiently(lambda: disk.current().rename(str(path), str(final)))
        else:
            _link(str(path), str(final))
    _in_making.discard(path)
    sync_folder(final.parent)


def _link(path: str, final: str) -> None:
    try:
        _patiently(lambda: disk.current().link(path, final))
    except OSError as error:
        if error.errno in _NO_LINKS:
            _patiently(lambda: disk.current().rename_new(path, final))
            return
        # A network file system may answer "exists" to the repeat of a request that it has carried out.
        if error.errno != errno.EEXIST or disk.current().stat(path).identity != disk.current().stat(final).identity:
            raise
    _patiently(lambda: disk.current().unlink(path))


def publish_tree(folder: Path, final: Path, *, overwrite: bool = False) -> None:
    """Give a synced folder its final name, durably; what stood there is removed after the exchange.

    Raises
    ------
    OutputExistsError
        If the name is taken and `overwrite` is not given.
    """
    with translated(final):
        if not overwrite or not exists(final):
            _patiently(lambda: disk.current().rename_new(str(folder), str(final)))
            old = None
        else:
            old = _replace(folder, final)
    sync_folder(final.parent)
    if old is not None:
        remove_tree(old)
    _in_making.discard(folder)


def _replace(folder: Path, final: Path) -> Path:
    try:
        disk.current().exchange(str(folder), str(final))
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
            raise
        aside = _hidden_name(final)
        disk.current().rename(str(final), str(aside))
        disk.current().rename(str(folder), str(final))
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


def remove_unpublished() -> None:
    """Remove whatever this process has under hidden names: it ends, and no code that would do so is reached."""
    while _in_making:
        with suppress(NmfstreamError, OSError):
            remove_tree(_in_making.pop())


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    with translated(folder):
        fd = _patiently(lambda: disk.current().open(str(folder), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        try:
            uninterrupted(lambda: disk.current().fsync(fd))
        except OSError as error:
            if error.errno not in _UNSYNCABLE:  # some file systems cannot sync a folder
                raise
        finally:
            with suppress(InterruptedError):  # an interrupted close has closed
                disk.current().close(fd)


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
    """Create one folder, durably; a folder that is there already stays.

    Raises
    ------
    OutputExistsError
        If a file has the name, or it cannot be created.
    """
    if is_folder(path):
        return
    with _creating(path), suppress(FileExistsError):
        _patiently(lambda: disk.current().mkdir(str(path)))
    if exists(path) and not is_folder(path):
        raise OutputExistsError("is no folder", where=str(path), hint="choose another name or remove it")
    sync_folder(path.parent)


def second_name(path: Path, name: Path) -> None:
    """Give a file that stays a second, write-once name, durably (a copy where the file system has no links).

    Raises
    ------
    OutputExistsError
        If the name is taken.
    """
    try:
        with translated(name):
            _patiently(lambda: disk.current().link(str(path), str(name)))
    except NmfstreamError as error:
        if not isinstance(error.__cause__, OSError) or error.__cause__.errno not in _NO_LINKS:
            raise
        write_whole(name, read_bytes(path))
    sync_folder(name.parent)


def remove(path: Path) -> None:
    """Remove a file; nothing happens where it is gone already."""
    with translated(path), suppress(FileNotFoundError):
        _patiently(lambda: disk.current().unlink(str(path)))
    _in_making.discard(path)


def remove_folder(path: Path) -> None:
    """Remove an empty folder."""
    with translated(path):
        _patiently(lambda: disk.current().rmdir(str(path)))


def remove_tree(path: Path) -> None:
    """Remove a folder and all below it (links are removed, not followed), or a file."""
    with translated(path), suppress(FileNotFoundError):
        if not disk.current().stat(str(path)).folder:
            remove(path)
            return
        for name in sorted(disk.current().listdir(str(path))):
            remove_tree(path / name)
        disk.current().rmdir(str(path))
    _in_making.discard(path)


def read_bytes(path: Path) -> bytes:
    """All bytes of a file."""
    with view(path) as file:
        return file.pread(file.size(), 0)


def names(folder: Path) -> list[str]:
    """Names in a folder, sorted."""
    with translated(folder):
        return sorted(_patiently(lambda: disk.current().listdir(str(folder))))


def exists(path: Path) -> bool:
    """Whether anything has the name (a dangling link counts)."""
    return _entry(path) is not None


def is_folder(path: Path) -> bool:
    """Whether the name is a real folder."""
    entry = _entry(path)
    return entry is not None and entry.folder


def _entry(path: Path) -> disk.Entry | None:
    with translated(path):
        try:
            return _patiently(lambda: disk.current().stat(str(path)))
        except (FileNotFoundError, NotADirectoryError):
            return None


def identity(path: Path) -> tuple[int, int]:
    """Equal for two names of one file."""
    with translated(path):
        return _patiently(lambda: disk.current().stat(str(path))).identity


def sweep(final: Path) -> None:
    """Remove what dead processes of this host left in progress for `final`."""
    mine = f".{final.name}.{_host()}-"
    for name in names(final.parent) if exists(final.parent) else ():
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
