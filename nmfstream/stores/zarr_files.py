"""Where a Zarr store's keys live: what a place must offer, and folders."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nmfstream.errors import DataError
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
