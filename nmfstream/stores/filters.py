"""Decoders of chunk filters, outside any library's lock.

HDF5 holds one lock in the process while it decompresses; these functions release the interpreter and run on all cores.
A filter that is not in `DECODERS` is left to the HDF5 library. Filter numbers and parameters:
https://support.hdfgroup.org/documentation/hdf5-docs/registered_filter_plugins.html
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from nmfstream.machine_code import Kernel, expect
from nmfstream.stores.files import scratch
from nmfstream.stores.libdeflate import inflate_into
from nmfstream.types import Array

Buffer: TypeAlias = Any
"""Anything with the buffer protocol."""

Decoder: TypeAlias = "Callable[[Buffer, int, tuple[int, ...], Array | None], Buffer]"
"""(encoded, most bytes that may come out, the filter's parameters, where to put them if that is at hand)."""


class Damaged(Exception):
    """The bytes of a chunk cannot be what a writer stored; the text says why."""


def inflate(data: Buffer, limit: int, parameters: tuple[int, ...] = (), out: Array | None = None) -> Buffer:
    """Deflate in a zlib wrapper, never more than `limit` bytes.

    Raises
    ------
    Damaged
    """
    target = scratch(limit, "inflated") if out is None or out.nbytes != limit else out.reshape(-1).view(np.uint8)
    if inflate_into(data, target):
        return target
    try:
        stream = zlib.decompressobj()
        plain = stream.decompress(data, limit + 1)
    except zlib.error as error:
        raise Damaged(f"cannot be decompressed ({error})") from error
    if len(plain) > limit or not stream.eof:
        raise Damaged("decompresses to another length than the chunk's")
    return plain


def unshuffle(data: Buffer, limit: int, parameters: tuple[int, ...], out: Array | None = None) -> Buffer:
    """Put the bytes of each element together again; a rest shorter than an element stays where it is."""
    width = parameters[0]
    planes = np.frombuffer(data, np.uint8)
    count = len(planes) // width
    if width <= 1 or count <= 1:
        return data
    target = (
        np.empty(len(planes), np.uint8) if out is None or out.nbytes != len(planes) else out.reshape(-1).view(np.uint8)
    )
    elements, stored = target[: count * width].reshape(count, width), planes[: count * width].reshape(width, count)
    for low in range(0, count, SHUFFLED):
        for byte in range(width):
            elements[low : low + SHUFFLED, byte] = stored[byte, low : low + SHUFFLED]
    target[count * width :] = planes[count * width :]
    return target


SHUFFLED = 1 << 13
"""Elements unshuffled at a time: input and output stay in the cache."""


def verify_fletcher32(data: Buffer, limit: int, parameters: tuple[int, ...] = (), out: Array | None = None) -> Buffer:
    """Strip the checksum off, which must be that of the bytes.

    Raises
    ------
    Damaged
    """
    from numcodecs import Fletcher32

    view = memoryview(data).cast("B")
    if len(view) < 4:
        raise Damaged("too short for its fletcher32 checksum")
    try:
        Fletcher32().decode(view)
    except RuntimeError as error:
        stored = int.from_bytes(view[-4:], "little")
        # Writers before HDF5 1.6.3 swapped the bytes of each half on little-endian machines; the library takes both.
        if fletcher32(view[:-4]) != (stored & 0x00FF00FF) << 8 | (stored >> 8) & 0x00FF00FF:
            raise Damaged("fletcher32 checksum does not match") from error
    return view[:-4]


def fletcher32(data: Buffer) -> int:
    """HDF5's Fletcher checksum: big-endian 16-bit words, both sums modulo 65535."""
    raw = np.frombuffer(data, np.uint8)
    odd = raw[-1:].astype(np.float64) * 256 if len(raw) % 2 else raw[:0].astype(np.float64)
    words = raw[: len(raw) // 2 * 2].view(">u2")
    first = second = 0
    for low in range(0, len(words), SHUFFLED):
        first, second = _continue(words[low : low + SHUFFLED].astype(np.float64), first, second)
    if len(odd):
        first, second = _continue(odd, first, second)
    return (second or 65535 * bool(len(raw))) << 16 | (first or 65535 * bool(len(raw)))


def _continue(words: Array, first: int, second: int) -> tuple[int, int]:
    """Both sums after `words`; exact, for a window's weighted sum stays below 2**53."""
    n = len(words)
    weighted = int(np.einsum("i,i->", words, _WEIGHTS[-n:]))
    return (first + int(words.sum())) % 65535, (second + n * first + weighted) % 65535


_WEIGHTS = np.arange(SHUFFLED, 0, -1, dtype=np.float64)


_LZF = ("nmfstream.stores.kernels.lzf", "decompress")
_decompress_lzf = Kernel(*_LZF)


def unlzf(data: Buffer, limit: int, parameters: tuple[int, ...] = (), out: Array | None = None) -> Buffer:
    """LZF as h5py writes it.

    Raises
    ------
    Damaged
    """
    plain = np.empty(limit, np.uint8)
    length = int(_decompress_lzf(np.frombuffer(data, np.uint8), plain))
    if length < 0:
        raise Damaged("cannot be decompressed (lzf)")
    return plain[:length]


def unblosc(data: Buffer, limit: int, parameters: tuple[int, ...] = (), out: Array | None = None) -> Buffer:
    """A Blosc 1 frame.

    Raises
    ------
    Damaged
    """
    from numcodecs import blosc

    frame = bytes(data) if not isinstance(data, bytes) else data
    if (
        len(frame) < 16
        or struct.unpack_from("<I", frame, 4)[0] > limit
        or struct.unpack_from("<I", frame, 12)[0] > len(frame)
    ):
        raise Damaged("no whole blosc frame")
    return _numcodecs(lambda: blosc.decompress(frame), "blosc")


def unzstd(data: Buffer, limit: int, parameters: tuple[int, ...] = (), out: Array | None = None) -> Buffer:
    """A Zstandard frame.

    Raises
    ------
    Damaged
    """
    from numcodecs.zstd import decompress

    return _numcodecs(lambda: decompress(data, np.empty(limit, np.uint8)), "zstd")


def unlz4(data: Buffer, limit: int, parameters: tuple[int, ...] = (), out: Array | None = None) -> Buffer:
    """LZ4 in the frame of the registered HDF5 filter 32004: total and block size, then blocks with their sizes.

    Raises
    ------
    Damaged
    """
    from numcodecs import lz4

    frame = memoryview(data).cast("B")
    if len(frame) < 12:
        raise Damaged("no whole lz4 frame")
    total, block = struct.unpack_from(">QI", frame)
    if total > limit or block == 0:
        raise Damaged("lz4 frame of another length than the chunk's")
    parts: list[Buffer] = []
    at, done = 12, 0
    while done < total:
        size, wanted = int.from_bytes(frame[at : at + 4], "big"), min(block, total - done)
        part = frame[at + 4 : at + 4 + size]
        head = wanted.to_bytes(4, "little")
        parts.append(part if size == wanted else _numcodecs(lambda: lz4.decompress(head + bytes(part)), "lz4"))  # noqa: B023
        at, done = at + 4 + size, done + wanted
    return b"".join(parts)


def _numcodecs(decode: Callable[[], Buffer], name: str) -> Buffer:
    try:
        return decode()
    except (RuntimeError, ValueError, MemoryError) as error:
        raise Damaged(f"cannot be decompressed ({name}: {error})") from error


DECODERS: dict[int, Decoder] = {
    1: inflate,
    2: unshuffle,
    3: verify_fletcher32,
    32000: unlzf,
    32001: unblosc,
    32004: unlz4,
    32015: unzstd,
}
"""HDF5 filter number to decoder."""

NAMES = {
    1: "gzip",
    2: "shuffle",
    3: "fletcher32",
    4: "szip",
    5: "nbit",
    6: "scaleoffset",
    32000: "lzf",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32013: "zfp",
    32015: "zstd",
    32017: "sz",
    32024: "sz3",
    32026: "blosc2",
    32028: "bzip3",
    307: "bzip2",
}
"""Names of the filters that are met in practice."""


@dataclass(frozen=True)
class Filter:
    """One filter of a pipeline.

    Attributes
    ----------
    number : int
        As registered with the HDF Group.
    parameters : tuple of int
    """

    number: int
    parameters: tuple[int, ...]

    @property
    def name(self) -> str:
        """For messages."""
        return NAMES.get(self.number, f"filter {self.number}")


class Pipeline:
    """The filters of a dataset.

    Parameters
    ----------
    filters : sequence of Filter
        In the order of writing.
    size : int
        Bytes of a decoded chunk.
    """

    def __init__(self, filters: Sequence[Filter], size: int) -> None:
        self.filters = tuple(filters)
        self.size = size
        sums = [4 if f.number == 3 else 0 for f in filters]
        self._limits = [size + sum(sums[:i]) for i in range(len(sums))]

    @property
    def known(self) -> bool:
        """Whether all of it can be decoded here."""
        return all(f.number in DECODERS for f in self.filters)

    @property
    def checksums(self) -> bool:
        """Whether a flipped bit is noticed."""
        return any(f.number == 3 for f in self.filters)

    def announce(self) -> None:
        """Expect the compiled code that decoding is going to call."""
        if any(f.number == 32000 for f in self.filters):
            expect(*_LZF, "b1 b1")

    def decode(self, data: Buffer, mask: int = 0, out: Array | None = None) -> Buffer:
        """The bytes of a chunk.

        Parameters
        ----------
        data : buffer
            As stored.
        mask : int
            Bit i: the writer skipped filter i for this chunk.
        out : ndarray, optional
            C-contiguous, of the chunk's bytes: the last step may put them there.

        Raises
        ------
        Damaged
        """
        for i in reversed(range(len(self.filters))):
            if not mask >> i & 1:
                step = self.filters[i]
                data = DECODERS[step.number](data, self._limits[i], step.parameters, out if i == 0 else None)
        if memoryview(data).nbytes != self.size:
            raise Damaged(f"decodes to {memoryview(data).nbytes} bytes, not the {self.size} of a chunk")
        return data
