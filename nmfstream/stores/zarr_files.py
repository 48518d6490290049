"""Where a Zarr store's keys live: a folder, a zip, or a place that fsspec reaches."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nmfstream.errors import DataError, InputAbsentError, RemoteError
from nmfstream.stores.files import scratch, translate

Bytes: TypeAlias = NDArray[np.uint8]


class Entry(NamedTuple):
    """A name in one level of a store."""

    name: str
    folder: bool


class Files(Protocol):
    """Bytes under keys; None stands for an absent key, everything else that goes wrong is an error."""

    name: str
    listable: bool

    def get(self, key: str) -> bytes | None:
        """All bytes of a small document."""
        ...

    def read(self, key: str, offset: int = 0, size: int | None = None) -> Bytes | None:
        """Bytes in this thread's scratch; a negative offset counts from the end; fewer where the key is shorter."""
        ...

    def size(self, key: str) -> int | None:
        """Bytes under a key."""
        ...

    def entries(self, prefix: str) -> Iterable[Entry]:
        """Names one level below a prefix ("" for the root); nothing where it does not exist."""
        ...

    def close(self) -> None:
        """Release handles; idempotent."""
        ...


def span(length: int, offset: int, size: int | None) -> tuple[int, int]:
    """Start and number of the bytes meant, inside `length` bytes."""
    start = max(0, length + offset) if offset < 0 else min(offset, length)
    return start, length - start if size is None else min(size, length - start)


def pread_into(fd: int, buffer: Bytes, offset: int) -> int:
    """Fill a buffer from a file; fewer bytes only at its end."""
    view, done = buffer.data, 0
    while done < len(view):
        n = os.preadv(fd, [view[done:]], offset + done)
        if n == 0:
            break
        done += n
    return done


class FolderFiles:
    """A store in a folder."""

    listable = True

    def __init__(self, root: Path) -> None:
        self.root, self.name = root, str(root)

    def get(self, key: str) -> bytes | None:
        """All bytes of a small document."""
        data = self.read(key)
        return None if data is None else data.tobytes()

    def read(self, key: str, offset: int = 0, size: int | None = None) -> Bytes | None:
        """Bytes in this thread's scratch."""
        try:
            fd = os.open(self.root / key, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise translate(error, self.root / key) from error
        try:
            start, count = span(os.fstat(fd).st_size, offset, size)
            buffer = scratch(count, "raw")
            return buffer[: pread_into(fd, buffer, start)]
        except IsADirectoryError as error:
            raise folder_in_place(f"{self.name}/{key}") from error
        except OSError as error:
            raise translate(error, self.root / key) from error
        finally:
            os.close(fd)

    def size(self, key: str) -> int | None:
        """Bytes under a key."""
        try:
            return (self.root / key).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Names one level below a prefix."""
        try:
            with os.scandir(self.root / prefix) as names:
                for entry in names:
                    yield Entry(entry.name, entry.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise translate(error, self.root / prefix) from error

    def close(self) -> None:
        """Nothing is held open."""


def folder_in_place(where: str) -> DataError:
    """A folder stands where a chunk's file should."""
    hint = "restore the chunk from its source"
    return DataError("a folder stands in the place of this chunk", where=where, hint=hint)


class Member(NamedTuple):
    """A member of a zip archive."""

    header: int
    stored: int
    size: int
    method: int
    crc: int


class ZipFiles:
    """A store in a zip archive; of several members with one name the last counts."""

    listable = True

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)
        self._fd = -1
        self._open()

    def _open(self) -> None:
        try:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            with zipfile.ZipFile(self.path) as archive:
                self._members = {
                    m.filename: Member(m.header_offset, m.compress_size, m.file_size, m.compress_type, m.CRC)
                    for m in archive.infolist()
                    if not m.is_dir()
                }
        except zipfile.BadZipFile as error:
            hint = "restore it from its source"
            raise DataError(f"not a zip archive ({error})", where=self.name, hint=hint) from error
        except OSError as error:
            raise translate(error, self.path) from error
        self._tree = _tree(self._members)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "name": self.name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]

    def get(self, key: str) -> bytes | None:
        """All bytes of a small document."""
        data = self.read(key)
        return None if data is None else data.tobytes()

    def read(self, key: str, offset: int = 0, size: int | None = None) -> Bytes | None:
        """Bytes in this thread's scratch."""
        member = self._members.get(key)
        if member is None:
            return None
        start, count = span(member.size, offset, size)
        if member.method != zipfile.ZIP_STORED:
            return self._inflated(key, member)[start : start + count]
        data = self._raw(key, member, start, count)
        if count == member.size:
            self._verify(key, member, data)
        return data

    def _raw(self, key: str, member: Member, start: int, count: int) -> Bytes:
        buffer = scratch(count, "raw")
        try:
            head = os.pread(self._fd, 30, member.header)
            if len(head) < 30 or head[:4] != b"PK\x03\x04":
                raise self._damaged(key, "its header is damaged")
            name, extra = struct.unpack("<HH", head[26:30])
            done = pread_into(self._fd, buffer, member.header + 30 + name + extra + start)
        except OSError as error:
            if isinstance(error, DataError):
                raise
            raise translate(error, self.path) from error
        if done < count:
            raise self._damaged(key, "it is truncated")
        return buffer

    def _inflated(self, key: str, member: Member) -> Bytes:
        raw = self._raw(key, member, 0, member.stored)
        if member.method != zipfile.ZIP_DEFLATED:
            raise self._damaged(key, f"its compression method {member.method} is not deflate")
        try:
            data = np.frombuffer(zlib.decompressobj(-15).decompress(raw.data, member.size + 1), np.uint8)
        except zlib.error as error:
            raise self._damaged(key, str(error)) from error
        self._verify(key, member, data)
        return data

    def _verify(self, key: str, member: Member, data: Bytes) -> None:
        if len(data) != member.size or zlib.crc32(data.data) != member.crc:
            raise self._damaged(key, "its bytes do not match the archive's checksum")

    def _damaged(self, key: str, why: str) -> DataError:
        return DataError(f"member {key} of the archive: {why}", where=self.name, hint="restore it from its source")

    def size(self, key: str) -> int | None:
        """Bytes under a key."""
        member = self._members.get(key)
        return None if member is None else member.size

    def entries(self, prefix: str) -> Iterable[Entry]:
        """Names one level below a prefix."""
        return [Entry(name, folder) for name, folder in self._tree.get(prefix.strip("/"), {}).items()]

    def close(self) -> None:
        """Close the archive; idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _tree(names: Iterable[str]) -> dict[str, dict[str, bool]]:
    tree: dict[str, dict[str, bool]] = {}
    for name in names:
        parts = name.split("/")
        for i, part in enumerate(parts):
            tree.setdefault("/".join(parts[:i]), {})[part] = i + 1 < len(parts)
    return tree


ATTEMPTS = 4
"""Times a remote request is made before the remote counts as gone."""


class RemoteFiles:
    """A store behind a URL. Only the remote's clear "not found" is an absence; any other failure is tried again.

    Parameters
    ----------
    url : str
    pause : callable
        Waits some seconds (tests replace it).
    """

    def __init__(self, url: str, pause: Callable[[float], None] | None = None) -> None:
        self.name = self._url = url.rstrip("/")
        self._pause = pause or _sleep
        self._connect()
        self.listable = not url.startswith(("http://", "https://"))

    def _connect(self) -> None:
        try:
            import fsspec
        except ImportError as error:
            raise RemoteError("URLs need fsspec", where=self._url, hint="pip install 'nmfstream[remote]'") from error
        try:
            self._fs, self._root = fsspec.core.url_to_fs(self._url)
        except (ImportError, ValueError) as error:
            hint = "install what it names, or copy the store to this machine"
            raise RemoteError(f"this kind of URL cannot be read: {error}", where=self._url, hint=hint) from error

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self._url}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["url"])  # type: ignore[misc]

    def get(self, key: str) -> bytes | None:
        """All bytes of a small document."""
        data = self._asked(key, lambda: self._fs.cat_file(self._path(key)))
        return None if data is None else bytes(data)

    def read(self, key: str, offset: int = 0, size: int | None = None) -> Bytes | None:
        """Bytes as the remote gives them."""
        end = None if size is None else (offset + size if offset >= 0 or offset + size < 0 else None)
        data = self._asked(key, lambda: self._fs.cat_file(self._path(key), start=offset or None, end=end))
        if data is None:
            return None
        if size is not None and len(data) > size:  # the server knows no ranges and has sent the whole
            start, count = span(len(data), offset, size)
            data = data[start : start + count]
        return np.frombuffer(data, np.uint8)

    def size(self, key: str) -> int | None:
        """Bytes under a key."""
        size = self._asked(key, lambda: self._fs.size(self._path(key)))
        return None if size is None else int(size)

    def entries(self, prefix: str) -> list[Entry]:
        """Names one level below a prefix."""
        if not self.listable:
            return []
        found = self._asked(prefix, lambda: self._fs.ls(self._path(prefix), detail=True)) or []
        return [Entry(f["name"].rstrip("/").rsplit("/", 1)[-1], f["type"] == "directory") for f in found]

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}" if key else self._root

    def _asked(self, key: str, request: Callable[[], Any]) -> Any:
        for attempt in range(ATTEMPTS):
            try:
                return request()
            except FileNotFoundError:
                return None
            except Exception as error:  # whatever a remote's library raises
                last = error
            if attempt + 1 < ATTEMPTS:
                self._pause(0.25 * 4**attempt)
        what = f"the remote failed {ATTEMPTS} times ({type(last).__name__}: {last})"
        raise RemoteError(what, where=f"{self._url}/{key}", hint="run the same command again later") from last

    def close(self) -> None:
        """Nothing is held open."""


def _sleep(seconds: float) -> None:
    import time

    time.sleep(seconds)


def open_files(location: str) -> Files:
    """The files of a store by its path or URL.

    Raises
    ------
    InputAbsentError
        If there is nothing at that path.
    """
    if "://" in location:
        return RemoteFiles(location)
    path = Path(location)
    if path.is_dir():
        return FolderFiles(path)
    if path.is_file():
        return ZipFiles(path)
    raise InputAbsentError("there is no such store", where=location, hint="check the path")
