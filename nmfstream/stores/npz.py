"""NPZ archives: dense members, and the sparse matrices of ``scipy.sparse.save_npz``.

Stored members are read in place, deflated ones are inflated once: into memory if small, else into scratch. No size
that the archive claims is believed before it agrees with the array's header and with what deflate can do.
"""

from __future__ import annotations

import math
import threading
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np

from nmfstream.errors import DataError, NmfstreamError
from nmfstream.stores import transpose
from nmfstream.stores.arrays import ArraySource, Box
from nmfstream.stores.base import Reader
from nmfstream.stores.files import ByteFile, MemoryFile, PreadFile
from nmfstream.stores.flat import FlatSource
from nmfstream.stores.naming import Candidate, absent, choose
from nmfstream.stores.npy import HEADER_LIMIT, Header, matrix_of, parse_header
from nmfstream.stores.protocols import Opening
from nmfstream.stores.spill import Spill
from nmfstream.stores.turned import CoordinateReader
from nmfstream.types import Array

RATIO = 1032
"""What deflate can compress at most."""

STEP = 1 << 20
SMALL_SHARE = 16
"""Members up to this fraction of the memory are inflated there."""

_SPARSE = {
    "csr": ("data", "indices", "indptr"),
    "csc": ("data", "indices", "indptr"),
    "coo": ("data", "row", "col"),
}
_AGAIN = "write it again with numpy.savez or scipy.sparse.save_npz"


def open_dataset(store: str, inner: str, opening: Opening) -> Reader:
    """Open a member, the only 2-D member, or the sparse matrix of an archive.

    Raises
    ------
    DataError, UsageError, InputAbsentError, StorageError
    """
    archive = Archive(store)
    try:
        if not inner and archive.sparse_format():
            return _sparse(archive, opening)
        name = inner.removesuffix(".npy") or choose(_dense_candidates(archive), store).path
        return _dense(archive, name, opening)
    except BaseException:
        archive.close()
        raise


def candidates(store: str, opening: Opening) -> list[Candidate]:
    """The sparse matrix, or the 2-D members."""
    archive = Archive(store)
    try:
        kind = archive.sparse_format()
        if kind:
            return [Candidate("", archive.shape(), str(archive.header("data").dtype), kind)]
        return list(_dense_candidates(archive))
    finally:
        archive.close()


def _dense_candidates(archive: Archive) -> list[Candidate]:
    return list(_two_dimensional(archive))


def _two_dimensional(archive: Archive) -> Iterator[Candidate]:
    for name in archive.members:
        try:
            header = archive.header(name)
            yield Candidate(name, header.shape, str(matrix_of(header, name)))
        except DataError:
            continue


def _dense(archive: Archive, name: str, opening: Opening) -> Reader:
    header = archive.header(name)
    where = f"{archive.store}/{name}"
    matrix_of(header, where)
    source = archive.source(name, opening)
    return transpose.rows_of(source, where, opening, transposed=header.fortran != opening.transpose)


def _sparse(archive: Archive, opening: Opening) -> Reader:
    kind = archive.sparse_format()
    if kind not in _SPARSE:
        hint = "convert it first: scipy.sparse.save_npz(path, matrix.tocsr())"
        raise DataError(f"a sparse matrix in {kind} format", where=archive.store, hint=hint)
    for part in _SPARSE[kind]:
        if len(archive.header(part).shape) != 1:
            raise DataError(f"member '{part}' is not 1-D", where=archive.store, hint=_AGAIN)
    first, second, third = (archive.source(part, opening) for part in _SPARSE[kind])
    rows, columns = archive.shape()
    shape = (columns, rows) if opening.transpose else (rows, columns)
    if kind == "coo":
        second, third = (third, second) if opening.transpose else (second, third)
        return CoordinateReader(first, second, third, shape, archive.store, opening)
    by_rows = (kind == "csr") != opening.transpose
    return transpose.sparse_rows(
        first, second, third, shape=shape, name=archive.store, opening=opening, by_rows=by_rows
    )


class Archive:
    """A zip of NPY members.

    Parameters
    ----------
    store : str
        Path.

    Raises
    ------
    DataError
        No zip, names twice or outside.
    """

    def __init__(self, store: str) -> None:
        self.store = store
        self.raw = PreadFile(Path(store))
        try:
            self.zip = zipfile.ZipFile(store)
            self.members = self._members()
        except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, ValueError, OSError) as error:
            self.raw.close()
            if isinstance(error, NmfstreamError):
                raise
            what = "the file is empty" if self.raw.size == 0 else f"not a whole NPZ archive ({error})"
            raise DataError(what, where=store, hint="copy it again, or write it again") from error

    def _members(self) -> dict[str, zipfile.ZipInfo]:
        infos = [info for info in self.zip.infolist() if info.filename.endswith(".npy")]
        repeated = [name for name, n in Counter(info.filename for info in infos).items() if n > 1]
        if repeated:
            raise DataError(f"member '{repeated[0]}' is there more than once", where=self.store, hint=_AGAIN)
        for info in infos:
            if info.filename.startswith("/") or ".." in info.filename.split("/"):
                raise DataError(f"member '{info.filename}' names a path outside", where=self.store, hint=_AGAIN)
        return {info.filename.removesuffix(".npy"): info for info in infos}

    def info(self, name: str) -> zipfile.ZipInfo:
        """The directory entry of a member.

        Raises
        ------
        InputAbsentError
        """
        if name not in self.members:
            raise absent(name, self.members, self.store)
        return self.members[name]

    def header(self, name: str) -> Header:
        """The NPY header of a member, which must agree with the sizes in the directory.

        Raises
        ------
        DataError
        """
        info, where = self.info(name), f"{self.store}/{name}"
        with self.stream(name) as stream:
            header = parse_header(guarded(stream, HEADER_LIMIT + 12, where), where)
        stated, needed = info.file_size, header.size + header.data_bytes
        most = info.compress_size * (RATIO if info.compress_type else 1) + STEP
        if stated != needed or stated > most:
            what = f"{needed} bytes expected for shape {header.shape}, {stated} stated, {info.compress_size} stored"
            raise DataError(what, where=where, hint="the archive is damaged or forged: write it again")
        return header

    def stream(self, name: str) -> Any:
        """A member's bytes, inflated as they are read."""
        info = self.info(name)
        try:
            return self.zip.open(info)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError) as error:
            where = f"{self.store}/{name}"
            raise DataError(f"the member cannot be opened ({error})", where=where, hint=_AGAIN) from error

    def small(self, name: str) -> Array:
        """A member of few entries, read whole."""
        header = self.header(name)
        if header.data_bytes > 1 << 12:
            raise DataError(f"member '{name}' is too long", where=self.store, hint=_AGAIN)
        with self.stream(name) as stream:
            content = guarded(stream, header.size + header.data_bytes, f"{self.store}/{name}")
        return np.frombuffer(content, header.dtype, offset=header.size)

    def sparse_format(self) -> str:
        """csr, csc, coo… where scipy wrote a sparse matrix; else empty."""
        if not {"format", "shape", "data"} <= set(self.members):
            return ""
        value = self.small("format").reshape(-1)[0]
        return value.decode() if isinstance(value, bytes) else str(value)

    def shape(self) -> tuple[int, int]:
        """Shape of the sparse matrix."""
        stored = self.small("shape").reshape(-1)
        if stored.dtype.kind not in "iu" or len(stored) != 2 or min(stored) < 0:
            raise DataError(f"impossible shape {stored.tolist()}", where=self.store, hint=_AGAIN)
        return int(stored[0]), int(stored[1])

    def source(self, name: str, opening: Opening) -> ArraySource:
        """The array of a member."""
        return MemberSource(self, name, opening)

    def offset(self, name: str) -> int:
        """Where a stored member's bytes begin in the file."""
        info = self.info(name)
        local = self.raw.read(30, info.header_offset)
        return info.header_offset + 30 + int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")

    def close(self) -> None:
        """Idempotent."""
        self.zip.close()
        self.raw.close()


def guarded(stream: Any, size: int, where: str) -> bytes:
    """Up to `size` bytes of a member.

    Raises
    ------
    DataError
        Broken deflate stream or wrong CRC.
    """
    try:
        return cast(bytes, stream.read(size))
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError) as error:
        raise DataError(f"the member is damaged ({error})", where=where, hint="restore or write it again") from error


class MemberSource(FlatSource):
    """The array of one member; the archive is closed with it. See `ArraySource`."""

    def __init__(self, archive: Archive, name: str, opening: Opening) -> None:
        header, where = archive.header(name), f"{archive.store}/{name}"
        shape = header.shape[::-1] if header.fortran else header.shape
        super().__init__(cast(ByteFile, archive.raw), 0, shape, header.dtype, where)
        self._archive, self._member, self._opening, self._header = archive, name, opening, header
        self._info = archive.info(name)
        stored = self._info.compress_type == zipfile.ZIP_STORED
        kind = "stored" if stored else "compressed"
        self.layout = type(self.layout)(f"{kind} member", () if stored else ("zip",), True)
        self.raw_bytes, self.stored_bytes = math.prod(shape) * header.dtype.itemsize, self._info.compress_size
        self._stored_in_place, self._ready, self._lock = stored, False, threading.Lock()

    def check(self) -> None:
        """The CRC of a stored member; deflated ones are checked as they are inflated."""
        self._prepare()

    def load(self, box: Box, into: Array | None = None) -> Array:
        """See `ArraySource`."""
        self._prepare()
        return super().load(box, into)

    def _prepare(self) -> None:
        with self._lock:
            if not self._ready:
                (self._verify if self._stored_in_place else self._inflate)()
                self._ready = True

    def _verify(self) -> None:
        start = self._archive.offset(self._member)
        crc = 0
        for at in range(0, self._info.file_size, STEP):
            crc = zlib.crc32(self._file.read(min(STEP, self._info.file_size - at), start + at), crc)
        if crc != self._info.CRC:
            raise DataError("CRC does not match", where=self._name, hint="restore or write it again")
        self._offset = start + self._header.size

    def _inflate(self) -> None:
        size = self._info.file_size
        if size <= self._opening.memory // SMALL_SHARE:
            with self._archive.stream(self._member) as stream:
                self._file = MemoryFile(guarded(stream, -1, self._name), self._name)
        else:
            spill = Spill(self._opening.scratch, size, f"{self._name}: inflated")
            with self._archive.stream(self._member) as stream:
                while piece := guarded(stream, STEP, self._name):
                    spill.append(piece)
            self._file = _SpilledFile(spill)
        if self._file.size != size:
            what = f"inflates to {self._file.size} bytes, not {size}"
            raise DataError(what, where=self._name, hint="restore or write it again")
        self._offset = self._header.size

    def evidence(self) -> bytes:
        """The archive's CRC of the member."""
        return self._info.CRC.to_bytes(4, "little") + self._info.file_size.to_bytes(8, "little")

    def close(self) -> None:
        """See `ArraySource`."""
        self._file.close()
        self._archive.close()


class _SpilledFile:
    """A scratch file as a `ByteFile`."""

    def __init__(self, spill: Spill) -> None:
        self._spill = spill
        self.size = spill.file.size
        self.read_into, self.read, self.close = spill.file.read_into, spill.file.read, spill.close
