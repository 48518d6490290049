"""Decoding of Zarr chunks: the codec chains of v2 and v3, from an allow-list, outside the zarr library.

Sources: Zarr v2 and v3 specifications, zarr-specs.readthedocs.io; headers of the Blosc 1 and Zstandard frames.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numcodecs
import numpy as np
from numpy.typing import NDArray

from nmfstream.errors import DataError
from nmfstream.stores.libdeflate import inflate_into
from nmfstream.types import Array

Bytes = NDArray[np.uint8]

COMPRESSORS = frozenset({"blosc", "zstd", "lz4", "gzip", "zlib", "bz2", "lzma", "zfpy", "pcodec"})
FILTERS = frozenset({"shuffle", "delta", "fixedscaleoffset", "quantize", "bitround", "astype", "packbits"})
CHECKSUMS = frozenset({"crc32", "crc32c", "adler32", "fletcher32", "jenkins_lookup3"})
ALLOWED = COMPRESSORS | FILTERS | CHECKSUMS
"""Codecs that turn bytes into numbers and nothing else; those that build Python objects are never run."""


class Unusual(Exception):
    """Honest, but left to the zarr library."""


class Damaged(Exception):
    """A chunk that does not decode to what its metadata say."""


class Codec(NamedTuple):
    """One step of a chain, as numcodecs names and configures it."""

    name: str
    config: tuple[tuple[str, Any], ...]


def codec(name: str, config: dict[str, Any], where: str) -> Codec:
    """A step that the allow-list admits.

    Raises
    ------
    DataError
        If it is not on the list.
    """
    plain = name.removeprefix("numcodecs.")
    if plain not in ALLOWED:
        hint = f"write the store again with one of {', '.join(sorted(COMPRESSORS))}"
        raise DataError(f"codec {name!r} is not among those that are read", where=where, hint=hint)
    return Codec(plain, tuple(sorted((k, _frozen(v)) for k, v in config.items() if k != "id")))


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@cache
def _numcodec(step: Codec) -> Any:
    config = {} if step.name in ("zstd", "blosc", "lz4", "gzip", "zlib", "crc32c") else dict(step.config)
    try:
        return numcodecs.get_codec({"id": step.name, **config})
    except Exception as error:
        raise Damaged(f"codec {step.name!r} cannot be set up here ({error})") from error


def blosc_size(raw: Bytes) -> int:
    """Decoded bytes that a Blosc frame declares; its own length must be what the header says."""
    if len(raw) < 16:
        raise Damaged("the Blosc header is cut off")
    n_bytes, _, stored = struct.unpack("<III", raw[4:16].tobytes())
    if stored != len(raw):
        raise Damaged(f"{len(raw)} bytes where its Blosc header says {stored}")
    return int(n_bytes)


def lz4_size(raw: Bytes) -> int:
    """Decoded bytes that the four bytes before an LZ4 block declare."""
    if len(raw) < 4:
        raise Damaged("the LZ4 header is cut off")
    return int(struct.unpack("<I", raw[:4].tobytes())[0])


def zstd_size(raw: Bytes) -> int | None:
    """Decoded bytes that the first Zstandard frame declares; None where it leaves that open."""
    head = raw[:18].tobytes()
    if len(head) < 6 or head[:4] != b"\x28\xb5\x2f\xfd":
        raise Damaged("no Zstandard frame")
    kind, single = head[4] >> 6, head[4] >> 5 & 1
    at = 5 + (0 if single else 1) + (0, 1, 2, 4)[head[4] & 3]
    width = (1 if single else 0, 2, 4, 8)[kind]
    if width == 0:
        return None
    return int.from_bytes(head[at : at + width], "little") + (256 if width == 2 else 0)


DECLARED: dict[str, Callable[[Bytes], int | None]] = {"blosc": blosc_size, "lz4": lz4_size, "zstd": zstd_size}
"""What a frame says of its decoded size, so that nothing is allocated on a forged word."""


def _inflate(raw: Bytes, size: int, wrapper: str, out: Bytes | None) -> Bytes:
    """Decode deflate, at most one byte more than `size`; several gzip members follow one another."""
    target = np.empty(size, np.uint8) if out is None or out.nbytes != size else out
    if inflate_into(raw, target, wrapper):
        return target
    parts, left, rest = [], size + 1, bytes(raw)
    while rest and left > 0:
        step = zlib.decompressobj(_WBITS[wrapper])
        part = step.decompress(rest, left)
        if not step.eof and len(part) < left:
            raise Damaged("the compressed bytes end too early")
        parts.append(part)
        left -= len(part)
        rest = step.unused_data if wrapper == "gzip" else b""
    return np.frombuffer(parts[0] if len(parts) == 1 else b"".join(parts), np.uint8)


_WBITS = {"gzip": 31, "zlib": 15}


def run(step: Codec, raw: Bytes, size: int | None, out: Bytes | None = None) -> Bytes:
    """Decode one step.

    Parameters
    ----------
    size : int or None
        Bytes that must come out, where that is known.
    out : ndarray of uint8, optional
        May be filled and returned instead of new memory.

    Raises
    ------
    Damaged
    """
    declared = DECLARED[step.name](raw) if step.name in DECLARED and size is not None else None
    if declared is not None and declared != size:
        raise Damaged(f"{step.name} frame of {declared} bytes where {size} belong")
    if size is not None and step.name in _WBITS:
        return _inflate(raw, size, step.name, out)
    direct = out if out is not None and declared is not None else None
    decoded = _numcodec(step).decode(raw, out=direct) if direct is not None else _numcodec(step).decode(raw)
    return direct if direct is not None else flat(decoded)


def flat(data: Any) -> Bytes:
    """Any buffer as bytes, without a copy where it is contiguous."""
    array = np.asarray(data) if isinstance(data, np.ndarray) else np.frombuffer(data, np.uint8)
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


class Chain(NamedTuple):
    """How one chunk's bytes become values.

    Attributes
    ----------
    steps : tuple of Codec
        In the order of decoding.
    dtype : dtype
        As stored, with its byte order.
    axes : tuple of int
        Order in which the chunk's dimensions were laid out (0, 1: C order; 1, 0: F order).
    """

    steps: tuple[Codec, ...]
    dtype: np.dtype[Any]
    axes: tuple[int, ...]

    @property
    def plain(self) -> bool:
        """Whether bytes lie as they are in memory: C order, native."""
        return self.dtype.isnative and self.axes == tuple(range(len(self.axes)))

    @property
    def checksums(self) -> bool:
        """Whether a flipped bit is noticed."""
        verified = CHECKSUMS | {"gzip", "zlib", "bz2", "lzma"}
        return any(s.name in verified or ("checksum", True) in s.config for s in self.steps)

    def decode(self, raw: Bytes, shape: tuple[int, ...], out: Bytes | None = None) -> Array:
        """The values of a chunk of `shape`; in `out` where the last step can write there.

        Raises
        ------
        Damaged
        """
        size = math.prod(shape) * self.dtype.itemsize
        data = self._bytes(raw, size, out)
        if len(data) != size:
            raise Damaged(f"{len(data)} bytes where {size} belong")
        stored = data.view(self.dtype).reshape(tuple(shape[a] for a in self.axes))
        return stored.transpose(tuple(self.axes.index(a) for a in range(len(shape))))

    def texts(self, raw: Bytes) -> Array:
        """The values of a chunk of variable-length texts, in one dimension.

        Raises
        ------
        Damaged
        """
        if self.dtype.kind != "O":
            raise Damaged("no texts")
        return np.asarray(numcodecs.VLenUTF8().decode(self._bytes(raw, None, None).tobytes()))

    def _bytes(self, raw: Bytes, size: int | None, out: Bytes | None) -> Bytes:
        if not len(raw):
            raise Damaged("no bytes at all")
        data = raw
        try:
            for i, step in enumerate(self.steps):
                # Filters may change the number of bytes, so that it is known only where none follows.
                known = None if size is None or not self.sizes_known(i) else size + self._tail(i)
                data = run(step, data, known, out if i + 1 == len(self.steps) else None)
        except Damaged:
            raise
        except Exception as error:  # whatever a codec's library raises on bytes it cannot read
            raise Damaged(f"{type(error).__name__}: {error}") from error
        return data

    def sizes_known(self, i: int) -> bool:
        """Whether the bytes after step `i` follow from the chunk's size."""
        return all(s.name in CHECKSUMS or s.name == "shuffle" for s in self.steps[i + 1 :])

    def _tail(self, i: int) -> int:
        return sum(4 for s in self.steps[i + 1 :] if s.name in CHECKSUMS)


def plausible(stored: int, size: int) -> bool:
    """Whether `stored` bytes can hold `size` at all: no codec packs a million to one."""
    return size <= 1_000_000 * (stored + 64)
