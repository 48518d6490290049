"""Inflate straight into memory at hand: libdeflate, as the package `deflate` brings it along.

That package's own functions return new bytes, whose fresh pages and copy cost a tenth of the decoding; the library's
stable C interface (https://github.com/ebiggers/libdeflate/blob/master/libdeflate.h) writes where it is told to, and
ctypes lets go of the interpreter's lock meanwhile.
"""

from __future__ import annotations

import ctypes
import threading
from functools import cache
from typing import Any

import numpy as np

from nmfstream.types import Array

FORMATS = {"zlib": "libdeflate_zlib_decompress_ex", "gzip": "libdeflate_gzip_decompress_ex"}


def inflate_into(data: Any, out: Array, wrapper: str = "zlib") -> bool:
    """Inflate one whole stream that fills `out` to the last byte.

    Parameters
    ----------
    data : buffer
        The stream, its checksum included; nothing may follow it.
    out : ndarray
        C-contiguous.
    wrapper : str
        A name of `FORMATS`.

    Returns
    -------
    bool
        False where the library is not there, or where `data` is anything else: another decoder can say what.
    """
    library = _library()
    if library is None:
        return False
    stored, read = np.frombuffer(data, np.uint8), ctypes.c_size_t()
    status = getattr(library, FORMATS[wrapper])(
        _decompressor(library), stored.ctypes.data, stored.nbytes, out.ctypes.data, out.nbytes, ctypes.byref(read), None
    )
    return bool(status == 0 and read.value == stored.nbytes)


class _Decompressor:
    """Working memory of the library, freed with the thread it belongs to."""

    def __init__(self, library: Any) -> None:
        self._free = library.libdeflate_free_decompressor
        self.address = library.libdeflate_alloc_decompressor()
        if not self.address:
            raise MemoryError

    def __del__(self) -> None:
        self._free(self.address)


_OF_THREAD = threading.local()


def _decompressor(library: Any) -> int:
    if not hasattr(_OF_THREAD, "decompressor"):
        _OF_THREAD.decompressor = _Decompressor(library)
    return int(_OF_THREAD.decompressor.address)


@cache
def _library() -> Any:
    """The library with its types declared; None where the package is absent or hides it."""
    try:
        from deflate import _deflate

        library = ctypes.CDLL(_deflate.__file__)
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        library.libdeflate_alloc_decompressor.restype = pointer
        library.libdeflate_free_decompressor.argtypes = [pointer]
        library.libdeflate_free_decompressor.restype = None
        for name in FORMATS.values():
            getattr(library, name).argtypes = [pointer, pointer, size, pointer, size, pointer, pointer]
    except (ImportError, OSError, AttributeError):
        return None
    return library
