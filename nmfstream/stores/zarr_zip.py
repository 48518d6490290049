"""Zarr stores in zip archives, read with positioned reads."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nmfstream.errors import DataError
from nmfstream.stores.files import scratch, translate
from nmfstream.stores.zarr_files import Bytes, Entry, pread_into, span


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
        self._refuse_ways_out()
        self._tree = _tree(self._members)

    def _refuse_ways_out(self) -> None:
        for name in self._members:
            if name.startswith("/") or ".." in name.split("/"):
                self.close()
                hint = "it may be crafted: restore it from a source that you trust"
                raise DataError(f"a member is named {name!r}", where=self.name, hint=hint)

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
