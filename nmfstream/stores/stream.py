"""Matrices on a pipe: NPY arrays one after the other, or CSV or TSV lines; never more than a few rows in memory."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO, Any, NamedTuple

import numpy as np

from nmfstream.errors import DataError, UsageError
from nmfstream.stores.npy import HEADER_LIMIT, MAGIC, Header, matrix_of, parse_header
from nmfstream.stores.readahead import ReadAhead
from nmfstream.types import Array

CHUNK_BYTES = 4 << 20
"""Bytes of rows that a chunk holds at most (one row at the least)."""

WHOLE_BYTES = 32 << 20
"""Largest column-major array that is taken: its rows are complete only at its end."""

_LONGEST_LINE = 256 << 20
_PARTED_BY = {",": "commas", "\t": "tabs"}


class StreamArray(NamedTuple):
    """One matrix of a stream.

    Attributes
    ----------
    dtype : dtype
        Of the values as they come.
    n_features : int
    n_rows : int or None
        None where only the end of the stream tells.
    chunks : iterator of ndarray or scipy sparse, shape (any, n_features)
        Rows in order, as many as are there, of any real type and byte order, not yet checked.
    """

    dtype: np.dtype[Any]
    n_features: int
    n_rows: int | None
    chunks: Iterator[Any]


def open_stream(
    file: IO[bytes],
    format: str = "npy",
    *,
    name: str = "standard input",
    stop: Callable[[], bool] | None = None,
) -> Iterator[StreamArray]:
    """The matrices of a stream, each to be read to its end before the next.

    Parameters
    ----------
    file : binary file
    format : str
        npy, csv or tsv.
    name : str
        For messages.
    stop : callable, optional
        Asked while nothing comes; `StopRequested` is raised where it says yes.

    Raises
    ------
    DataError
        For what is no NPY array, an array that ends too early, lines of different lengths, or what is no number.
    UsageError
        For an unknown format.
    """
    if format not in FORMATS:
        raise UsageError(f"no stream format is called {format!r}", hint=f"one of {', '.join(FORMATS)}")
    return FORMATS[format](ReadAhead(file, stop=stop), name)


def _npy(pipe: ReadAhead, name: str) -> Iterator[StreamArray]:
    number = 0
    while pipe.wait(1):
        where = f"{name}, array {number}"
        start = _header_bytes(pipe, where)
        if start[: len(MAGIC)] != MAGIC:
            hint = "send what numpy.save writes, or say --input-format csv or tsv"
            raise DataError(f"not an NPY array, it begins with {start!r}", where=where, hint=hint)
        header = parse_header(start, where)
        dtype = matrix_of(header, where)
        n_rows, n_features = header.shape
        chunks = _columnwise(pipe, header, where) if header.fortran else _rowwise(pipe, header, where)
        yield StreamArray(dtype, n_features, n_rows, chunks)
        for _ in chunks:  # what the caller left of it
            pass
        number += 1


def _header_bytes(pipe: ReadAhead, where: str) -> bytes:
    start = pipe.take(10)
    if start[6:7] not in (b"", b"\x01"):
        start += pipe.take(2)
    length = int.from_bytes(start[8:], "little")
    return start if length > HEADER_LIMIT or start[:6] != MAGIC else start + pipe.take(length)


def _rowwise(pipe: ReadAhead, header: Header, where: str) -> Iterator[Array]:
    n_rows, n_features = header.shape
    row_bytes = n_features * header.dtype.itemsize
    most = max(1, CHUNK_BYTES // max(1, row_bytes))
    done = 0
    while done < n_rows and row_bytes:
        raw = pipe.rows(row_bytes, min(most, n_rows - done))
        if len(raw) < row_bytes:
            raise _too_short(header, done * row_bytes + len(raw), where)
        chunk = raw.view(header.dtype).reshape(-1, n_features)
        done += len(chunk)
        yield chunk


def _columnwise(pipe: ReadAhead, header: Header, where: str) -> Iterator[Array]:
    if header.data_bytes > WHOLE_BYTES:
        raise DataError(
            f"a column-major array of {header.data_bytes} bytes cannot be read row by row",
            where=where,
            hint="write it with numpy.ascontiguousarray(X), or name the file instead of -",
        )
    raw, there = np.empty(header.data_bytes, np.uint8), 0
    while there < len(raw):
        if not pipe.wait(1):
            raise _too_short(header, there, where)
        there += pipe.take_into(raw[there:])
    X = raw.view(header.dtype).reshape(header.shape, order="F")
    step = max(1, CHUNK_BYTES * header.shape[0] // max(1, len(raw)))
    for start in range(0, header.shape[0] if len(raw) else 0, step):
        yield X[start : start + step]


def _too_short(header: Header, there: int, where: str) -> DataError:
    return DataError(
        f"truncated: {header.data_bytes} bytes expected for shape {header.shape}, {there} came",
        where=where,
        hint="look at the command that writes into the pipe",
    )


def _text(delimiter: str, pipe: ReadAhead, name: str) -> Iterator[StreamArray]:
    rows = _parsed(_lines(pipe, name), delimiter, name)
    first = next(rows, None)
    if first is not None:
        yield StreamArray(first.dtype, first.shape[1], None, _with_first(first, rows))


def _with_first(first: Array, rest: Iterator[Array]) -> Iterator[Array]:
    yield first
    yield from rest


def _lines(pipe: ReadAhead, name: str) -> Iterator[list[bytes]]:
    """Whole lines, as many as are there; a byte order mark before the first is dropped."""
    head, begun = b"", False
    while piece := pipe.some():
        head += piece
        if not begun and len(head) >= len(BOM_UTF8):
            head, begun = head.removeprefix(BOM_UTF8), True
        cut = head.rfind(b"\n") + 1
        if cut:
            yield head[:cut].splitlines()
            head = head[cut:]
        elif len(head) > _LONGEST_LINE:
            raise DataError("a line without end", where=name, hint="--input-format says what the stream holds")
    if head:
        yield [head]


def _parsed(lines: Iterator[list[bytes]], delimiter: str, name: str) -> Iterator[Array]:
    row, number, n_features = 0, 1, 0
    for some in lines:
        filled = [(at, line) for at, line in enumerate(some, number) if line.strip()]
        number += len(some)
        if not filled:
            continue
        chunk = _numbers(filled, delimiter, row, n_features, name)
        row, n_features = row + len(chunk), chunk.shape[1]
        yield chunk


def _numbers(lines: list[tuple[int, bytes]], delimiter: str, row: int, n_features: int, name: str) -> Array:
    try:
        text = [line.decode() for _, line in lines]
        chunk = np.loadtxt(text, delimiter=delimiter, comments=None, ndmin=2, quotechar='"')
    except ValueError:
        chunk = np.empty((0, 0))
    if len(chunk) != len(lines) or n_features not in (0, chunk.shape[1]):
        raise _bad_line(lines, delimiter, row, n_features, name)
    return chunk


def _bad_line(lines: list[tuple[int, bytes]], delimiter: str, row: int, n_features: int, name: str) -> DataError:
    """Find the line and the field that is no number."""
    for at, (number, line) in enumerate(lines, row):
        where = f"{name}: line {number}, row {at}"
        fields = [field.strip().strip('"') for field in line.decode("utf-8", "replace").split(delimiter)]
        n_features = n_features or len(fields)
        wrong = [column for column, field in enumerate(fields) if not _is_number(field)]
        if wrong:
            return _no_number(fields, wrong, delimiter, at, where)
        if len(fields) != n_features:
            what = f"{len(fields)} fields where the lines before have {n_features}"
            return DataError(what, where=where, hint="mend that line, or look at --input-format")
    where = f"{name}: line {lines[0][0]}, row {row}"
    return DataError("lines that cannot be read", where=where, hint="look at --input-format")


def _no_number(fields: list[str], wrong: list[int], delimiter: str, row: int, where: str) -> DataError:
    field = fields[wrong[0]]
    what = f"{field[:40]!r} is no number" if field else "an empty field"
    return DataError(what, where=f"{where}, column {wrong[0]}", hint=_advice(fields, wrong, delimiter, row))


def _advice(fields: list[str], wrong: list[int], delimiter: str, row: int) -> str:
    """What to do about fields that are no numbers: one field, a header, a column of names, or a stray one."""
    if len(fields) == 1:
        return f"fields are parted by {_PARTED_BY[delimiter]}: look at --input-format"
    if row or not all(fields[column] for column in wrong):
        return "every field must hold a number"
    if wrong == [0]:
        cut = "cut -f2-" if delimiter == "\t" else f"cut -d{delimiter} -f2-"
        return f"drop a column of names, as with '{cut}'"
    return "drop a header line, as with 'tail -n +2'"


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


FORMATS: dict[str, Callable[[ReadAhead, str], Iterator[StreamArray]]] = {
    "npy": _npy,
    "csv": partial(_text, ","),
    "tsv": partial(_text, "\t"),
}
