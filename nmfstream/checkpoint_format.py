"""One generation of a checkpoint as a file.

::

    prefix   magic (16 bytes), format version (u32), 0 (u32), header bytes (u64), BLAKE2b-128 of these 32 bytes
    header   JSON: "values" as the caller gave them, "arrays": name, dtype, shape, offset in the payload of each;
             padded with spaces to a multiple of 64
    payload  the arrays, raw, little-endian, C order, each beginning at a multiple of 64
    trailer  BLAKE2b-256 of everything before

Every size is checked against the file's before anything is allocated, and nothing is believed before the whole
file's hash fits. The prefix stays as it is in every later version.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from nmfstream.storage.durable import DurableFile
from nmfstream.types import Array

MAGIC = b"nmfstream ckpt\r\n"
VERSION = 1
PIECE = 8 << 20
"""Bytes that are hashed, written or read at a time."""

_PREFIX = struct.Struct("<16sIIQ")
_PREFIX_BYTES = _PREFIX.size + 16
_TRAILER_BYTES = 32
_ALIGN = 64
_DTYPES = {d: np.dtype(d) for d in ("<f4", "<f8", "<i4", "<i8", "<u4", "<u8", "|i1", "|u1", "|b1", "<i2", "<u2")}


class DamagedError(Exception):
    """A generation that cannot be used, and why."""


class NewerVersionError(Exception):
    """A generation that a later version of the program wrote."""


class Slot(NamedTuple):
    """Where an array lies in the payload."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * self.dtype.itemsize


class Layout(NamedTuple):
    """The header of a file, and where its payload begins."""

    values: dict[str, Any]
    slots: list[Slot]
    payload: int


def write(file: DurableFile, values: dict[str, Any], arrays: dict[str, Array]) -> bytes:
    """Write a generation into an empty file; arrays are streamed, not copied.

    Returns
    -------
    digest : bytes
        What `digest` of the file must give.
    """
    slots = _allot(arrays)
    table = [[s.name, s.dtype.str, list(s.shape), s.offset] for s in slots]
    header = json.dumps({"values": values, "arrays": table}, separators=(",", ":")).encode()
    header = header.ljust(_up(_PREFIX_BYTES + len(header)) - _PREFIX_BYTES)
    prefix = _PREFIX.pack(MAGIC, VERSION, 0, len(header))
    out = _HashedWriter(file)
    out.put(prefix + _short_hash(prefix) + header)
    payload = out.at
    for slot in slots:
        out.put(bytes(payload + slot.offset - out.at))
        for piece in _pieces(arrays[slot.name], slot.dtype):
            out.put(piece)
    digest = out.hash.digest()
    out.put(digest)
    return digest


def digest(file: DurableFile) -> bytes:
    """The hash of all but the trailer.

    Raises
    ------
    DamagedError
        If the trailer says another, or there is none.
    """
    end = file.size() - _TRAILER_BYTES
    if end < _PREFIX_BYTES:
        raise DamagedError("it is cut short")
    found = hashlib.blake2b(digest_size=_TRAILER_BYTES)
    for at in range(0, end, PIECE):
        found.update(file.pread(min(PIECE, end - at), at))
    if found.digest() != file.pread(_TRAILER_BYTES, end):
        raise DamagedError("its checksum does not fit")
    return found.digest()


def read_layout(file: DurableFile) -> Layout:
    """Check the whole file and read its header.

    Raises
    ------
    DamagedError, NewerVersionError
    """
    prefix = file.pread(_PREFIX_BYTES, 0)
    if len(prefix) < _PREFIX_BYTES or _short_hash(prefix[: _PREFIX.size]) != prefix[_PREFIX.size :]:
        raise DamagedError("its beginning is damaged")
    magic, version, _, header_bytes = _PREFIX.unpack_from(prefix)
    if magic != MAGIC:
        raise DamagedError("it is no checkpoint")
    if version > VERSION:
        raise NewerVersionError(f"format version {version}; this program reads up to {VERSION}")
    if _PREFIX_BYTES + header_bytes + _TRAILER_BYTES > file.size():
        raise DamagedError("it is cut short")
    digest(file)
    return _parse(file.pread(header_bytes, _PREFIX_BYTES), _PREFIX_BYTES + header_bytes, file.size())


def read_arrays(file: DurableFile, layout: Layout) -> dict[str, Array]:
    """All arrays of a file whose layout was checked."""
    return {slot.name: read_array(file, layout, slot) for slot in layout.slots}


def read_array(file: DurableFile, layout: Layout, slot: Slot) -> Array:
    """One array."""
    out = np.empty(slot.shape, slot.dtype)
    flat = out.reshape(-1).view(np.uint8)
    for at in range(0, slot.nbytes, PIECE):
        piece = flat[at : at + PIECE]
        data = file.pread(piece.nbytes, layout.payload + slot.offset + at)
        if len(data) != piece.nbytes:
            raise DamagedError("it is cut short")
        piece[:] = np.frombuffer(data, np.uint8)
    return out


class _HashedWriter:
    def __init__(self, file: DurableFile) -> None:
        self.file, self.at, self.hash = file, 0, hashlib.blake2b(digest_size=_TRAILER_BYTES)

    def put(self, data: Any) -> None:
        if n := memoryview(data).nbytes:
            self.hash.update(data)
            self.file.pwrite(data, self.at)
            self.at += n


def _up(n: int) -> int:
    return -(-n // _ALIGN) * _ALIGN


def _short_hash(prefix: bytes) -> bytes:
    return hashlib.blake2b(prefix, digest_size=16).digest()


def _allot(arrays: dict[str, Array]) -> list[Slot]:
    slots, offset = [], 0
    for name, array in arrays.items():
        slot = Slot(name, _DTYPES[array.dtype.newbyteorder("<").str], array.shape, offset)
        slots.append(slot)
        offset = _up(offset + slot.nbytes)
    return slots


def _pieces(array: Array, dtype: np.dtype[Any]) -> Iterator[Array]:
    rows = array.reshape(1) if array.ndim == 0 else array
    if rows.flags.c_contiguous:
        rows = rows.reshape(-1)
    step = max(1, PIECE // max(1, dtype.itemsize * math.prod(rows.shape[1:])))
    for start in range(0, len(rows), step):
        piece = np.ascontiguousarray(rows[start : start + step], dtype)
        if piece.nbytes:
            yield piece.reshape(-1).view(np.uint8)


def _parse(header: bytes, payload: int, size: int) -> Layout:
    try:
        content = json.loads(header)
        values = dict(content["values"])
        slots = [_slot(*entry) for entry in content["arrays"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedError("its header is damaged") from error
    end = 0
    for slot in slots:
        if slot.offset != end:
            raise DamagedError("its arrays do not lie one after the other")
        end = _up(slot.offset + slot.nbytes)
    last = slots[-1].offset + slots[-1].nbytes if slots else 0
    if payload + last + _TRAILER_BYTES != size:
        raise DamagedError(f"its arrays claim {payload + last + _TRAILER_BYTES} bytes, the file has {size}")
    return Layout(values, slots, payload)


def _slot(name: str, dtype: str, shape: list[int], offset: int) -> Slot:
    if not all(type(n) is int and 0 <= n < 1 << 62 for n in [*shape, offset]) or len(shape) > 8:
        raise ValueError("shape")
    return Slot(str(name), _DTYPES[dtype], tuple(shape), offset)
