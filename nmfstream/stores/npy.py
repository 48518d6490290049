"""NPY files, read with positioned reads; the header is parsed here so that nothing is allocated on its word alone.

Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import ast
import math
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from nmfstream.errors import DataError, InputAbsentError
from nmfstream.stores import transpose
from nmfstream.stores.arrays import real
from nmfstream.stores.base import Reader
from nmfstream.stores.files import PreadFile
from nmfstream.stores.flat import FlatSource
from nmfstream.stores.naming import Candidate
from nmfstream.stores.protocols import Opening

MAGIC = b"\x93NUMPY"
HEADER_LIMIT = 1 << 16
"""No honest header of a real matrix is longer."""


class Header(NamedTuple):
    """What an NPY header says."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    size: int
    """Bytes of the header, magic string included."""

    @property
    def data_bytes(self) -> int:
        """Bytes of the array that the header announces."""
        return math.prod(self.shape) * self.dtype.itemsize


def parse_header(start: bytes, where: str) -> Header:
    """Read a header from the first bytes of a file.

    Parameters
    ----------
    start : bytes
        At least ``HEADER_LIMIT + 12`` bytes, or the whole file.
    where : str
        For messages.

    Raises
    ------
    DataError
        Not NPY, object dtype, impossible shape, header too long.
    """
    if not start:
        raise DataError("the file is empty", where=where, hint="write it again")
    if start[:6] != MAGIC:
        raise DataError("not an NPY file", where=where, hint="name a file that numpy.save wrote")
    width = 2 if start[6:7] == b"\x01" else 4
    length = int.from_bytes(start[8 : 8 + width], "little")
    body = start[8 + width : 8 + width + length]
    if length > HEADER_LIMIT:
        raise DataError(
            f"header of {length} bytes", where=where, hint="it is damaged or no plain array: write it again"
        )
    if len(body) < length:
        raise DataError("the file ends inside its header", where=where, hint="it is truncated: copy it again")
    return _interpret(body, 8 + width + length, where)


def _interpret(body: bytes, size: int, where: str) -> Header:
    try:
        fields = ast.literal_eval(body.decode("latin-1").strip())
        descr, fortran, shape = fields["descr"], fields["fortran_order"], fields["shape"]
        dtype = np.dtype(descr) if isinstance(descr, str) else np.dtype([tuple(field) for field in descr])
        counts = tuple(int(n) for n in shape)
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError) as error:
        raise DataError("the NPY header cannot be read", where=where, hint="write it again with numpy.save") from error
    if dtype.hasobject:
        raise DataError("holds Python objects (pickle), which are never read", where=where, hint="save numbers")
    if any(n < 0 for n in counts) or math.prod(counts) * dtype.itemsize > 1 << 62:
        raise DataError(f"impossible shape {counts}", where=where, hint="the header is damaged: write it again")
    return Header(counts, dtype, bool(fortran), size)


def read_header(file: PreadFile, where: str) -> Header:
    """Header of an NPY file whose size is that of its array exactly.

    Raises
    ------
    DataError
        Truncated, or bytes after the array.
    """
    header = parse_header(file.read(HEADER_LIMIT + 12, 0), where)
    expected = header.size + header.data_bytes
    if file.size < expected:
        raise DataError(
            f"truncated: {expected} bytes expected for shape {header.shape}, {file.size} there",
            where=where,
            hint="copy or write it again",
        )
    if file.size > expected:
        raise DataError(
            f"{file.size - expected} bytes after the array (shape {header.shape}, {expected} bytes)",
            where=where,
            hint="several arrays in one file are read as a stream only: use - as the input, or split them",
        )
    return header


def matrix_of(header: Header, where: str) -> np.dtype[Any]:
    """The native type of a header's values, if they are a real matrix.

    Raises
    ------
    DataError
    """
    dtype = real(header.dtype, where)
    if len(header.shape) != 2:
        raise DataError(
            f"{len(header.shape)}-D array of shape {header.shape}",
            where=where,
            hint="a matrix is needed: reshape it to 2-D",
        )
    return dtype


def open_dataset(store: str, inner: str, opening: Opening) -> Reader:
    """Open an NPY file.

    Raises
    ------
    DataError, InputAbsentError, StorageError
    """
    if inner:
        raise InputAbsentError(f"an NPY file holds one array, not '{inner}'", where=store, hint=f"name {store} alone")
    file = PreadFile(Path(store))
    try:
        header = read_header(file, store)
        return reader_of(header, file, header.size, store, opening)
    except BaseException:
        file.close()
        raise


def candidates(store: str, opening: Opening) -> list[Candidate]:
    """The array, if it is a matrix."""
    file = PreadFile(Path(store))
    try:
        header = read_header(file, store)
        return [Candidate("", header.shape, str(matrix_of(header, store)))]
    finally:
        file.close()


def reader_of(header: Header, file: PreadFile, offset: int, name: str, opening: Opening) -> Reader:
    """Reader of the array at `offset` of a file, as its header describes it."""
    matrix_of(header, name)
    shape = cast("tuple[int, int]", header.shape)
    source = FlatSource(file, offset, shape[::-1] if header.fortran else shape, header.dtype, name)
    return transpose.rows_of(source, name, opening, transposed=header.fortran != opening.transpose)
