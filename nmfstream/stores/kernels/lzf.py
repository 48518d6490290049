"""LZF decompression (Marc Lehmann's liblzf, the format of h5py's ``compression="lzf"``), compiled."""

from __future__ import annotations

from numba import njit

from nmfstream.machine_code import NATIVE


@njit(**NATIVE)
def decompress(data, out):  # type: ignore[no-untyped-def]
    """Decode `data` into `out`, both uint8: the number of bytes, or -1 where the stream is broken.

    A control byte below 32 announces that many literals plus one; otherwise its upper three bits are a length
    (7: more in the next byte) and its lower five with the next byte a distance back.
    """
    i, o, end, room = 0, 0, data.size, out.size
    while i < end:
        control = int(data[i])
        i += 1
        if control < 32:
            run = control + 1
            if i + run > end or o + run > room:
                return -1
            for j in range(run):
                out[o + j] = data[i + j]
            i += run
            o += run
            continue
        length = control >> 5
        if length == 7:
            if i >= end:
                return -1
            length += int(data[i])
            i += 1
        if i >= end:
            return -1
        source = o - ((control & 31) << 8) - int(data[i]) - 1
        i += 1
        length += 2
        if source < 0 or o + length > room:
            return -1
        for j in range(length):
            out[o + j] = out[source + j]
        o += length
    return o
