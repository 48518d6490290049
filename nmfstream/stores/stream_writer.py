"""Rows out into a pipe: NPY, CSV, TSV or JSON lines."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from nmfstream.errors import StorageError, UsageError
from nmfstream.types import Array


def npy_header(shape: tuple[int, int], dtype: np.dtype[Any]) -> bytes:
    """The bytes before the rows of an NPY array."""
    buffer = io.BytesIO()
    described = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(buffer, described)
    return buffer.getvalue()


def _lines(rows: Array, delimiter: str) -> list[str]:
    """Each row as text, digits enough to read back as the same numbers."""
    number = "%.9g" if rows.dtype == np.float32 else "%.17g"
    pattern = delimiter.join([number] * rows.shape[1])
    return [pattern % tuple(row) for row in rows.tolist()]


def _delimited(delimiter: str) -> Callable[[int, Array], bytes]:
    def text(start: int, rows: Array) -> bytes:
        return "".join(line + "\n" for line in _lines(rows, delimiter)).encode()

    return text


def _json_lines(start: int, rows: Array) -> bytes:
    numbered = enumerate(_lines(rows, ", "), start)
    return "".join(f'{{"row": {row}, "w": [{line}]}}\n' for row, line in numbered).encode()


def _binary(start: int, rows: Array) -> bytes:
    return rows.tobytes()


FORMATS: dict[str, Callable[[int, Array], bytes]] = {
    "npy": _binary,
    "csv": _delimited(","),
    "tsv": _delimited("\t"),
    "jsonl": _json_lines,
}


class StreamWriter:
    """A `RowWriter` into a pipe: rows in order, gone at once.

    Parameters
    ----------
    file : binary file
    format : str
        npy, csv, tsv or jsonl.
    shape : tuple of int or None, int
        Rows and columns. Where the rows are not known an NPY array is written for each `write`.
    dtype : dtype
    first_row : int
        Number of the first row in JSON lines.
    """

    chunk_rows = 1
    resumed = False

    def __init__(
        self, file: IO[bytes], format: str, shape: tuple[int | None, int], dtype: np.dtype[Any], first_row: int = 0
    ) -> None:
        if format not in FORMATS:
            raise UsageError(f"no output format is called {format!r}", hint=f"one of {', '.join(FORMATS)}")
        n_rows, n_columns = shape
        self.shape = (n_rows or 0, n_columns)
        self.dtype = dtype.newbyteorder("=")
        self._file, self._encode, self._first, self._next = file, FORMATS[format], first_row, 0
        self._headed = format == "npy"
        self._open_end = n_rows is None
        if self._headed and n_rows is not None:
            self._put(npy_header((n_rows, n_columns), self.dtype))

    def write(self, start: int, rows: Array) -> None:
        """Put the next rows.

        Raises
        ------
        ValueError
            If they are not the next ones.
        OSError
            `BrokenPipeError` where the reader is gone.
        """
        if start != self._next:
            raise ValueError(f"row {start} where row {self._next} comes next")
        if self._headed and self._open_end:
            self._put(npy_header(rows.shape, self.dtype))
        self._put(self._encode(self._first + start, np.ascontiguousarray(rows, self.dtype)))
        self._next += len(rows)

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) or 0 :]

    def flush(self) -> None:
        """Hand what was written to the reader."""
        self._file.flush()

    def commit(self, *, overwrite: bool = False) -> None:
        """Flush, at the end.

        Raises
        ------
        StorageError
            If rows are missing.
        """
        self.flush()
        if not self._open_end and self._next != self.shape[0]:
            raise StorageError(f"{self._next} of {self.shape[0]} rows were written", where="standard output")

    def abort(self) -> None:
        """Nothing can be taken back."""

    def close(self) -> None:
        """Nothing to release."""


def standard_output(format: str) -> IO[bytes]:
    """Standard output for data.

    Raises
    ------
    UsageError
        If it is a terminal and the format is not text.
    StorageError
        If it is closed.
    """
    import sys

    if sys.stdout is None:
        raise StorageError("standard output is closed", hint="leave it open, or use -o FILE")
    if format == "npy" and sys.stdout.isatty():
        raise UsageError(
            "NPY is not for a terminal", where="standard output", hint="use -o W.npy, a pipe, or --output-format csv"
        )
    return sys.stdout.buffer


def standard_input() -> IO[bytes]:
    """Standard input for data.

    Raises
    ------
    UsageError
        If it is closed or a terminal.
    """
    import sys

    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("nothing is piped in", where="-", hint="as in 'cat x.npy | nmfstream ... -', or name a file")
    return sys.stdin.buffer
