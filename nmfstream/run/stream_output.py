"""Where the rows of a stream go: on as a stream, or into a store that is named when the stream has ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from nmfstream.errors import UsageError
from nmfstream.stores.growing import GrowingNpy
from nmfstream.stores.outputs import Making, open_writer, parse_output, refuse_existing
from nmfstream.stores.protocols import RowWriter
from nmfstream.stores.stream_writer import StreamWriter, standard_output
from nmfstream.types import Array

COPY_BYTES = 8 << 20


class StreamOutput(Protocol):
    """Takes arrays of rows one after the other."""

    def begin(self, n_rows: int | None) -> None:
        """An array of so many rows comes (None: nobody knows)."""
        ...

    def write(self, rows: Array) -> None:
        """The next rows of it."""
        ...

    def commit(self) -> None:
        """The stream has ended."""
        ...

    def abort(self) -> None:
        """The stream broke; what can be taken back is."""
        ...


class Piped:
    """On as a stream: each array as it comes.

    Parameters
    ----------
    format : str
        npy, csv, tsv or jsonl.
    n_columns : int
    dtype : dtype
    """

    def __init__(self, format: str, n_columns: int, dtype: np.dtype[Any], first_row: int = 0) -> None:
        self._file = standard_output(format)
        self._format, self._n_columns, self._dtype = format, n_columns, dtype
        self._row, self._at = first_row, 0
        self._writer: StreamWriter | None = None

    def begin(self, n_rows: int | None) -> None:
        """See `StreamOutput`."""
        self._row, self._at = self._row + self._at, 0
        self._writer = StreamWriter(self._file, self._format, (n_rows, self._n_columns), self._dtype, self._row)

    def write(self, rows: Array) -> None:
        """See `StreamOutput`; the reader has the rows when this returns."""
        assert self._writer is not None
        self._writer.write(self._at, rows)
        self._at += len(rows)
        self._writer.flush()

    def commit(self) -> None:
        """See `StreamOutput`."""
        self._file.flush()

    def abort(self) -> None:
        """What has gone is gone."""


class PipeSink:
    """Rows ``rows[0]:rows[1]`` of a store's W as one array on standard output; a `nmfstream.run.transform.RowSink`.

    Parameters
    ----------
    rows : tuple of int
    n_columns : int
    dtype : dtype
    format : str
    """

    def __init__(self, rows: tuple[int, int], n_columns: int, dtype: np.dtype[Any], format: str) -> None:
        self.done = rows[0]
        self._piped = Piped(format, n_columns, dtype, rows[0])
        self._piped.begin(rows[1] - rows[0])

    def write(self, start: int, rows: Array) -> None:
        """The next rows."""
        self._piped.write(rows)

    def save(self) -> None:
        """Nothing can be claimed."""

    def commit(self) -> None:
        """All rows are written."""
        self._piped.commit()


class Kept:
    """In memory: `W`, the rows of all arrays, once the stream has ended."""

    def __init__(self, n_columns: int, dtype: np.dtype[Any]) -> None:
        self.W = np.empty((0, n_columns), dtype)
        self._parts = [self.W]

    def begin(self, n_rows: int | None) -> None:
        """See `StreamOutput`."""

    def write(self, rows: Array) -> None:
        """See `StreamOutput`."""
        self._parts.append(rows)

    def commit(self) -> None:
        """See `StreamOutput`."""
        self.W = np.concatenate(self._parts)

    def abort(self) -> None:
        """Nothing to take back."""


class Stored:
    """Into one store, rows of all arrays one after the other; it has its name only when whole."""

    def __init__(self, to: Destination, n_columns: int, dtype: np.dtype[Any]) -> None:
        output = parse_output(to.spec, to.dataset)
        self._to = to
        self._is_npy = output.suffix == ".npy"
        self._rows = GrowingNpy(output.path, n_columns, dtype)

    def begin(self, n_rows: int | None) -> None:
        """See `StreamOutput`."""

    def write(self, rows: Array) -> None:
        """See `StreamOutput`."""
        self._rows.append(rows)

    def commit(self) -> None:
        """See `StreamOutput`."""
        if self._is_npy:
            self._rows.commit(overwrite=self._to.overwrite)
            return
        self._copy()
        self._rows.abort()

    def _copy(self) -> None:
        rows = self._rows
        shape = (rows.n_rows, rows.n_columns)
        to = self._to
        writer = open_writer(to.spec, shape, rows.dtype, chunk_rows=to.chunk_rows, dataset=to.dataset)
        try:
            row_bytes = rows.n_columns * rows.dtype.itemsize
            step = -(-max(1, COPY_BYTES // row_bytes) // writer.chunk_rows) * writer.chunk_rows
            for a in range(0, rows.n_rows, step):
                writer.write(a, rows.read(a, min(a + step, rows.n_rows)))
            writer.commit(overwrite=to.overwrite)
        except BaseException:
            writer.abort()
            raise

    def abort(self) -> None:
        """See `StreamOutput`."""
        self._rows.abort()


class Sized:
    """Into one store whose number of rows is known."""

    def __init__(self, writer: RowWriter, overwrite: bool) -> None:
        self._writer, self._overwrite, self._at = writer, overwrite, 0

    def begin(self, n_rows: int | None) -> None:
        """See `StreamOutput`."""

    def write(self, rows: Array) -> None:
        """See `StreamOutput`."""
        self._writer.write(self._at, rows)
        self._at += len(rows)

    def commit(self) -> None:
        """See `StreamOutput`."""
        self._writer.commit(overwrite=self._overwrite)

    def abort(self) -> None:
        """See `StreamOutput`."""
        self._writer.abort()


@dataclass(frozen=True)
class Destination:
    """Where rows go, as it was asked for.

    Attributes
    ----------
    spec : str
        ``-`` or ``STORE[/DATASET]``.
    format : str
        Of standard output.
    dataset : str
        Name inside a store where `spec` gives none.
    overwrite : bool
    chunk_rows : int or None
        Rows stored together; None: about 4 MiB.
    """

    spec: str
    format: str = "npy"
    dataset: str = "W"
    overwrite: bool = False
    chunk_rows: int | None = None


def open_output(
    to: Destination, n_rows: int | None, n_columns: int, dtype: np.dtype[Any], *, first_row: int = 0
) -> StreamOutput:
    """Begin an output.

    Parameters
    ----------
    to : Destination
    n_rows : int or None
        None where only the end of the input tells.
    n_columns : int
    dtype : dtype
    first_row : int
        Number of the first row in JSON lines.

    Raises
    ------
    OutputExistsError, UsageError, StorageError
    """
    if to.spec == "-":
        return Piped(to.format, n_columns, dtype, first_row)
    refuse_text(to.spec, to.format)
    refuse_existing(to.spec, overwrite=to.overwrite)
    if n_rows is None:
        return Stored(to, n_columns, dtype)
    shape = (n_rows, n_columns)
    return Sized(open_writer(to.spec, shape, dtype, chunk_rows=to.chunk_rows, dataset=to.dataset), to.overwrite)


def rows_a_write(n_columns: int, dtype: np.dtype[Any]) -> int:
    """Rows that writers of chunks take at once without reading back."""
    return Making((1 << 62, n_columns), dtype).rows_together


def refuse_text(spec: str, format: str) -> None:
    """Text goes to standard output alone.

    Raises
    ------
    UsageError
    """
    if spec != "-" and format != "npy":
        raise UsageError(
            f"text goes to standard output, not into {spec}",
            where=f"--output-format {format}",
            hint=f"use -o - and redirect it, as in '> W.{format}'",
        )
