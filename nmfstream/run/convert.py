"""`nmfstream convert`: any store into any other, out of core, in one read."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from nmfstream.config import Inputs, Resources
from nmfstream.errors import DataError
from nmfstream.plan import Demand, MemoryPlan, Pass, plan_memory
from nmfstream.run.events import Advanced, Listener, StageFinished, StageStarted, silent
from nmfstream.run.guards import refuse_own_inputs
from nmfstream.run.memory import budget, layout, libraries
from nmfstream.run.opening import Data, open_data
from nmfstream.run.pipeline import Reading
from nmfstream.run.signals import StopFlag
from nmfstream.run.stream_output import Destination, open_output
from nmfstream.run.workers import n_threads, workers
from nmfstream.stores.chunks import is_stream
from nmfstream.stores.outputs import CHUNK_BYTES, open_writer, refuse_existing
from nmfstream.stores.protocols import RowWriter
from nmfstream.stores.sparse_writer import CHUNK, SparseWriter, holds_sparse, open_sparse_writer
from nmfstream.types import CSR, Array, Matrix

EXACT = 2**53
"""Integers up to here pass through float64 unchanged."""


@dataclass(frozen=True)
class ConvertConfig:
    """`nmfstream convert`.

    Attributes
    ----------
    inputs : Inputs
        ``dtype="auto"`` keeps the type as stored.
    output : str
        ``STORE[/DATASET]`` (dataset ``X`` where none is given), or ``-``: an NPY array on standard output.
    chunk_rows : int or None
        Rows stored together (dense Zarr); None: about 4 MiB.
    overwrite : bool
    resources : Resources
    """

    inputs: Inputs
    output: str
    chunk_rows: int | None = None
    overwrite: bool = False
    resources: Resources = field(default_factory=Resources)


@dataclass
class ConvertReport:
    """What a conversion wrote.

    Attributes
    ----------
    rows, n_features : int
    nnz : int or None
        Stored entries; None for a dense output.
    dtype : str
    seconds : float
    clipped : int
        Negative values set to zero.
    """

    rows: int
    n_features: int
    nnz: int | None
    dtype: str
    seconds: float = 0.0
    clipped: int = 0


class _Output(Protocol):
    def write(self, start: int, rows: Matrix) -> None: ...

    def commit(self, *, overwrite: bool) -> None: ...

    def abort(self) -> None: ...


class _Dense:
    """Rows into a `RowWriter`, sparse ones made dense a few at a time."""

    nnz = None

    def __init__(self, writer: RowWriter | _Onward, dtype: np.dtype[Any], step: int) -> None:
        self._writer, self._dtype, self._step = writer, dtype, step

    def write(self, start: int, rows: Matrix) -> None:
        for a in range(0, rows.shape[0], self._step):
            part = rows.rows(a, a + self._step) if isinstance(rows, CSR) else rows[a : a + self._step]
            dense = part.toarray() if isinstance(part, CSR) else part
            self._writer.write(start + a, dense.astype(self._dtype, copy=False))

    def commit(self, *, overwrite: bool) -> None:
        self._writer.commit(overwrite=overwrite)

    def abort(self) -> None:
        self._writer.abort()


class _Onward:
    """One array on standard output, in the place of a `RowWriter`."""

    def __init__(self, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self._piped = open_output(Destination("-"), shape[0], shape[1], dtype)
        self._piped.begin(shape[0])

    def write(self, start: int, rows: Array) -> None:
        self._piped.write(rows)

    def commit(self, *, overwrite: bool) -> None:
        self._piped.commit()

    def abort(self) -> None:
        self._piped.abort()


class _Sparse:
    """Rows into a `SparseWriter`."""

    def __init__(self, writer: SparseWriter) -> None:
        self._writer = writer

    @property
    def nnz(self) -> int:
        return self._writer.nnz

    def write(self, start: int, rows: Matrix) -> None:
        assert isinstance(rows, CSR)
        self._writer.append(rows)

    def commit(self, *, overwrite: bool) -> None:
        self._writer.commit(overwrite=overwrite)

    def abort(self) -> None:
        self._writer.abort()


def convert(config: ConvertConfig, listener: Listener = silent) -> ConvertReport:
    """Rewrite a store.

    Dense stays dense; sparse stays sparse where the output's format has a sparse form, and becomes dense for NPY.
    Values keep their stored type unless another is asked for. The arrays of a stream become one matrix in a store.

    Parameters
    ----------
    config : ConvertConfig
    listener : callable
        Hears the events of the run.

    Raises
    ------
    NmfstreamError
        Its `exit_code` is the command's. Nothing stays of an output that did not become whole.
    """
    began = time.perf_counter()
    refuse_own_inputs([config.output], config.inputs.data)
    if is_stream(config.inputs.data):
        from nmfstream.run.convert_stream import convert_stream

        return convert_stream(config, listener)
    if config.output != "-":
        refuse_existing(config.output, overwrite=config.overwrite)
    with open_data(config.inputs, config.resources) as data:
        dtype = stored_dtype(config.inputs.dtype, data.reader.dtype)
        data.policy.dtype = carrier(dtype)
        data.problem = data.problem._replace(dtype=data.policy.dtype)
        unit = unit_rows(config, data, dtype)
        memory = _memory(config, data, unit, dtype)
        data.reader.check()
        output = _open(config, data, dtype, unit)
        try:
            _copy(config, data, output, unit, memory, dtype, listener)
            output.commit(overwrite=config.overwrite)
        except BaseException:
            output.abort()
            raise
        rows, n_features = data.reader.shape
        report = ConvertReport(rows, n_features, output.nnz, dtype.name, clipped=data.policy.clipped)
    report.seconds = time.perf_counter() - began
    return report


def stored_dtype(asked: str, given: Any) -> np.dtype[Any]:
    """The output's type: as given, or the one asked for; nothing is wider than float64."""
    stored = np.dtype(given if asked == "auto" else asked).newbyteorder("=")
    return np.dtype(np.float64) if stored.kind == "f" and stored.itemsize > 8 else stored


def carrier(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """float32 where it holds every value of a type, else float64."""
    return np.dtype(np.float32 if np.result_type(dtype, np.float32) == np.float32 else np.float64)


def unit_rows(config: ConvertConfig, data: Data, dtype: np.dtype[Any]) -> int:
    """Rows that are written at a time: whole chunks of the output, at least some megabytes."""
    n, m = data.reader.shape
    row_bytes = max(1, m * dtype.itemsize)
    if data.reader.nnz is not None and _keeps_sparse(config, data):
        row_bytes = max(1, data.reader.nnz // max(1, n) * (dtype.itemsize + 4))
        return max(1, min(n, (4 * CHUNK_BYTES) // row_bytes))
    chunk = max(1, min(config.chunk_rows or CHUNK_BYTES // row_bytes, max(1, n)))
    return chunk * max(1, CHUNK_BYTES // (chunk * row_bytes))


def _keeps_sparse(config: ConvertConfig, data: Data) -> bool:
    return data.reader.nnz is not None and config.output != "-" and holds_sparse(config.output)


def _memory(config: ConvertConfig, data: Data, unit: int, dtype: np.dtype[Any]) -> MemoryPlan:
    """The plan of a conversion.

    Raises
    ------
    UsageError
        If the budget is too small.
    """
    m = data.reader.shape[1]
    dense = 3 * unit * m * max(dtype.itemsize, data.policy.dtype.itemsize)
    sparse = 4 * CHUNK * (dtype.itemsize + 12)
    is_sparse = _keeps_sparse(config, data)
    demand = Demand(libraries(0, data.problem), [Pass(unit, {"rows being written": sparse if is_sparse else dense})])
    return plan_memory(layout(data), demand, n_threads(config.resources.threads), budget(config.resources))


def _open(config: ConvertConfig, data: Data, dtype: np.dtype[Any], unit: int) -> _Dense | _Sparse:
    (n, m), names = data.reader.shape, data.reader.feature_names
    if _keeps_sparse(config, data):
        return _Sparse(open_sparse_writer(config.output, m, dtype, feature_names=names))
    if config.output == "-":
        return _Dense(_Onward((n, m), dtype), dtype, unit)
    writer = open_writer(config.output, (n, m), dtype, chunk_rows=config.chunk_rows, dataset="X", feature_names=names)
    return _Dense(writer, dtype, unit)


def _copy(
    config: ConvertConfig,
    data: Data,
    output: _Output,
    unit: int,
    memory: MemoryPlan,
    dtype: np.dtype[Any],
    listener: Listener,
) -> None:
    n, began = data.reader.shape[0], time.perf_counter()
    listener(StageStarted("convert", n))
    with StopFlag(None) as stop, workers(config.resources.threads, stop) as (pool, _):
        source = data.source(pool, Reading(memory.portion_bytes, memory.n_buffers))
        for step, batch in enumerate(source.batches(None, unit, 0, unit), 1):
            refuse_inexact(batch.X, dtype, data.reader.name, batch.start)
            output.write(batch.start, batch.X)
            listener(Advanced(batch.stop, _size(batch.X), step, float("nan")))
            if stop():
                raise stop.unsaved(hint="run the same command again")
    listener(StageFinished("convert", n, time.perf_counter() - began))


def _size(X: Matrix) -> int:
    return X.nnz * (X.dtype.itemsize + 4) if isinstance(X, CSR) else int(X.nbytes)


def refuse_inexact(X: Matrix, dtype: np.dtype[Any], name: str, start: int) -> None:
    """Integers of 64 bits that float64 cannot carry are refused rather than rounded.

    Raises
    ------
    DataError
    """
    values = X.values if isinstance(X, CSR) else X
    if dtype.kind in "iu" and dtype.itemsize == 8 and values.size and values.max() > EXACT:
        where = f"{name}: rows from {start}"
        raise DataError(f"an integer beyond {EXACT}", where=where, hint="give --dtype float64 to round it")
