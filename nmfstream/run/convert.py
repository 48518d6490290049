"""`nmfstream convert`: any store into any other, out of core, in one read."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nmfstream.config import Inputs, Resources, Saving
from nmfstream.errors import DataError, InterruptedRunError
from nmfstream.plan import Demand, MemoryPlan, Pass, plan_memory
from nmfstream.run.events import Advanced, Listener, StageFinished, StageStarted, silent
from nmfstream.run.guards import refuse_own_inputs
from nmfstream.run.memory import budget, compiled_first, layout, libraries
from nmfstream.run.opening import Data, open_data
from nmfstream.run.pipeline import Reading
from nmfstream.run.rowjob import RowJob, dense_opener
from nmfstream.run.signals import StopFlag
from nmfstream.run.stream_output import Destination, open_output
from nmfstream.run.workers import n_threads, workers
from nmfstream.stores.chunks import is_stream
from nmfstream.stores.outputs import CHUNK_BYTES, refuse_existing
from nmfstream.stores.protocols import Opening, RowWriter
from nmfstream.stores.registry import open_reader
from nmfstream.stores.sparse_writer import CHUNK, SparseMaking, holds_sparse, open_sparse_writer
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
    saving : Saving
        Interval, `resume`, `overwrite`, `max_time`.
    resources : Resources
    """

    inputs: Inputs
    output: str
    chunk_rows: int | None = None
    saving: Saving = field(default_factory=Saving)
    resources: Resources = field(default_factory=Resources)


@dataclass
class ConvertReport:
    """What a conversion wrote.

    Attributes
    ----------
    rows, n_features : int
    rows_written : int
        Of these, now: less where an earlier run had written the rest.
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
    rows_written: int = 0


class _Sink(Protocol):
    """Where converted rows go, in order."""

    done: int

    @property
    def nnz(self) -> int | None: ...

    def write(self, start: int, rows: Matrix) -> None: ...

    def save(self) -> None: ...

    def commit(self) -> None: ...

    def abort(self) -> None: ...


class _Onward:
    """One array on standard output."""

    done, nnz = 0, None

    def __init__(self, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self._piped = open_output(Destination("-"), shape[0], shape[1], dtype)
        self._piped.begin(shape[0])

    def write(self, start: int, rows: Matrix) -> None:
        assert isinstance(rows, np.ndarray)
        self._piped.write(rows)

    def save(self) -> None:
        """Nothing can be saved."""

    def commit(self) -> None:
        self._piped.commit()

    def abort(self) -> None:
        self._piped.abort()


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
        Its `exit_code` is the command's. Nothing stays of an output that did not become whole, unless it was saved
        for a run that resumes.
    """
    began = time.perf_counter()
    refuse_own_inputs([config.output], config.inputs.data)
    if is_stream(config.inputs.data):
        from nmfstream.run.convert_stream import convert_stream

        return convert_stream(config, listener)
    if config.output != "-" and not config.saving.resume:
        refuse_existing(config.output, overwrite=config.saving.overwrite)
    with open_data(config.inputs, config.resources) as data:
        dtype = stored_dtype(config.inputs.dtype, data.reader.dtype)
        data.policy.dtype = carrier(dtype)
        data.problem = data.problem._replace(dtype=data.policy.dtype)
        unit = unit_rows(config, data, dtype)
        memory = _memory(config, data, unit, dtype)
        data.reader.check()
        rows, n_features = data.reader.shape
        report = ConvertReport(rows, n_features, None, dtype.name)
        sink = _Onward((rows, n_features), dtype) if config.output == "-" else _job(config, data, dtype)
        if isinstance(sink, RowJob) and sink.finished:
            with open_reader(config.output, Opening()) as written:
                report.nnz = written.nnz
            sink.commit()
        else:
            report.rows_written = rows - sink.done
            try:
                _copy(config, data, sink, unit, memory, dtype, listener)
                report.nnz = sink.nnz
                sink.commit()
            except BaseException:
                sink.abort()
                raise
        report.clipped = data.policy.clipped
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
    passes = [Pass(unit, {"rows being written": sparse if is_sparse else dense})]
    memory = budget(config.resources)
    before = compiled_first(memory)
    demand = Demand(libraries(0, data.problem), passes, before=before)
    return plan_memory(layout(data), demand, n_threads(config.resources.threads), memory)


def _job(config: ConvertConfig, data: Data, dtype: np.dtype[Any]) -> RowJob:
    shape, names, nnz = data.reader.shape, data.reader.feature_names, data.reader.nnz
    sparse = _keeps_sparse(config, data)
    identity = {
        "data": data.reader.fingerprint(),
        "negative": data.policy.negative,
        "sparse": sparse,
        "chunk_rows": config.chunk_rows,
    }

    def begin_sparse(partial: Path, done: int, entries: int) -> RowWriter:
        making = SparseMaking(shape, nnz or 0, dtype, partial, names)
        return open_sparse_writer(config.output, making, n_rows=done, nnz=entries)

    dense = dense_opener(config.output, shape, dtype, chunk_rows=config.chunk_rows, dataset="X", feature_names=names)
    opener = begin_sparse if sparse else dense
    return RowJob(config.output, shape, dtype, identity, config.saving, dataset="X", opener=opener)


def _copy(
    config: ConvertConfig,
    data: Data,
    sink: _Sink,
    unit: int,
    memory: MemoryPlan,
    dtype: np.dtype[Any],
    listener: Listener,
) -> None:
    n, began = data.reader.shape[0], time.perf_counter()
    keeps_sparse = _keeps_sparse(config, data)
    listener(StageStarted("convert", n, sink.done))
    with StopFlag(config.saving.max_time) as stop, workers(config.resources.threads, stop) as (pool, _):
        source = data.source(pool, Reading(memory.portion_bytes, memory.n_buffers))
        batches = source.batches(((sink.done, n),), unit, 0, unit) if sink.done < n else ()
        for step, batch in enumerate(batches, 1):
            refuse_inexact(batch.X, dtype, data.reader.name, batch.start)
            rows = batch.X if keeps_sparse else _dense(batch.X, dtype)
            sink.write(batch.start, rows)
            listener(Advanced(batch.stop, _size(batch.X), step, float("nan")))
            if stop() and batch.stop < n:
                sink.save()
                raise _interrupted(stop, config.output)
    listener(StageFinished("convert", n, time.perf_counter() - began))


def _dense(rows: Matrix, dtype: np.dtype[Any]) -> Array:
    return (rows.toarray() if isinstance(rows, CSR) else rows).astype(dtype, copy=False)


def _interrupted(stop: StopFlag, output: str) -> InterruptedRunError:
    if output == "-":
        return stop.unsaved(what="the array is cut short", hint="run the same command again")
    return stop.error(where=output)


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
