"""NPY outputs: a header, then rows by `pwrite` at their offset."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.lib import format as npy

from nmfstream.storage.durable import DurableFile
from nmfstream.stores.offset_writer import OffsetWriter, begin
from nmfstream.stores.outputs import Making, Output


def header(making: Making) -> bytes:
    """The bytes before the first row (format 1.0)."""
    return header_of(making.shape, making.dtype)


def header_of(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """The header of any array; as long for every length of its first axis."""
    buffer = io.BytesIO()
    described = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(buffer, described)
    return buffer.getvalue()


def lay(file: DurableFile, making: Making) -> int:
    """Write the header, and give the file its whole length."""
    head = header(making)
    file.pwrite(head, 0)
    file.truncate(len(head) + making.shape[0] * making.row_bytes)
    return len(head)


def find(file: DurableFile, making: Making) -> int:
    """Offset of the rows in a file that `lay` made.

    Raises
    ------
    ValueError
        If it is another array.
    """
    head = header(making)
    if file.pread(len(head), 0) != head or file.size() != len(head) + making.shape[0] * making.row_bytes:
        raise ValueError("another array")
    return len(head)


def open_npy(output: Output, making: Making) -> OffsetWriter:
    """Begin or continue an NPY output."""
    file, offset, resumed = begin(
        output.path, making.partial, making.resume, lambda f: lay(f, making), lambda f: find(f, making)
    )
    return OffsetWriter(file, offset, making, output.path, resumed=resumed)
