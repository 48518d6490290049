"""`nmfstream transform`: W of every row for a model's H."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from nmfstream.config import TransformConfig
from nmfstream.core.blocks import block_rows
from nmfstream.core.rowsolve import row_solver
from nmfstream.errors import DataError, InterruptedRunError, StopRequested, UsageError
from nmfstream.model import Model, check_feature_names, read_model
from nmfstream.plan import MemoryPlan
from nmfstream.run.events import Listener, Note, StageFinished, StageStarted, silent
from nmfstream.run.guards import refuse_own_inputs
from nmfstream.run.memory import transform_memory
from nmfstream.run.opening import Data, open_data
from nmfstream.run.pipeline import Reading
from nmfstream.run.rowjob import RowJob
from nmfstream.run.signals import StopFlag
from nmfstream.run.solving import Quality, solve_rows
from nmfstream.run.stream_output import PipeSink, refuse_text
from nmfstream.run.workers import workers
from nmfstream.stores.shards import SharedRows, missing_rows, open_shard
from nmfstream.types import Array


@dataclass
class TransformReport:
    """What a transform did.

    Attributes
    ----------
    rows : int
        Rows of the output that this job is about.
    rows_solved : int
        Of these, solved now (less where a resumed job had done the rest).
    quality : Quality
        Rows that were not solved to the tolerance, and the worst residual.
    seconds : float
    bytes_read : int
    clipped : int
        Negative values set to zero.
    W : ndarray or None
        Where no output was named.
    shard : tuple of int or None
        The rows (start, stop) of an output that jobs share.
    missing : list of tuple of int
        The ranges that it still lacks.
    """

    rows: int
    rows_solved: int = 0
    quality: Quality = field(default_factory=Quality)
    seconds: float = 0.0
    bytes_read: int = 0
    clipped: int = 0
    W: Array | None = None
    shard: tuple[int, int] | None = None
    missing: list[tuple[int, int]] = field(default_factory=list)


class RowSink(Protocol):
    """Where solved rows go, in order."""

    done: int

    def write(self, start: int, rows: Array) -> None:
        """The next rows, by absolute row number."""
        ...

    def save(self) -> None:
        """Make durable and claim what was written."""
        ...

    def commit(self) -> None:
        """All rows are written."""
        ...


class MemorySink:
    """Rows kept in memory."""

    def __init__(self, rows: tuple[int, int], n_components: int, dtype: Any) -> None:
        self.done = rows[0]
        self._first = rows[0]
        self.W = np.empty((rows[1] - rows[0], n_components), dtype)

    def write(self, start: int, rows: Array) -> None:
        """See `RowSink`."""
        self.W[start - self._first : start - self._first + len(rows)] = rows

    def save(self) -> None:
        """Nothing to make durable."""

    def commit(self) -> None:
        """Nothing to name."""


def transform(config: TransformConfig, listener: Listener = silent) -> TransformReport:
    """Solve for W.

    Parameters
    ----------
    config : TransformConfig
    listener : callable
        Hears the events of the run.

    Returns
    -------
    TransformReport

    Raises
    ------
    NmfstreamError
        Its `exit_code` is the command's.
    """
    began = time.perf_counter()
    refuse_own_inputs([config.output], [*config.inputs.data, config.model])
    model = read_model(config.model)
    with open_data(config.inputs, config.resources, positive=model.objective.beta <= 0) as data:
        data = typed_as(data, model, config.inputs.dtype)
        check_feature_names(model, data.reader.feature_names, data.problem.n_features, data.reader.name)
        rows = _rows(config, data)
        data.reader.check()
        memory = transform_memory(data, model, config.resources)
        with _sink(config, model, data, rows) as sink:
            report = TransformReport(rows[1] - rows[0])
            if sink.done < rows[1]:
                _solve(config, model, data, (sink.done, rows[1]), sink, memory, report, listener)
            sink.commit()
            report.W = getattr(sink, "W", None)
            if isinstance(sink, SharedRows):
                report.shard, report.missing = rows, missing_rows(sink.path)
        report.clipped = data.policy.clipped
    report.seconds = time.perf_counter() - began
    return report


def typed_as(data: Data, model: Model, asked: str) -> Data:
    """The data read in the model's type, unless another was asked for."""
    dtype = model.dtype if asked == "auto" else data.policy.dtype
    data.policy.dtype = np.dtype(dtype)
    data.problem = data.problem._replace(dtype=np.dtype(dtype))
    return data


def _rows(config: TransformConfig, data: Data) -> tuple[int, int]:
    n = data.problem.n_samples or 0
    start, end = config.rows or (0, n)
    stop = min(end, n)
    if not 0 <= start <= stop:
        raise UsageError(
            f"--rows {start}:{end} lies outside the data", where=data.reader.name, hint=f"rows go from 0 to {n}"
        )
    return start, stop


def _solve(
    config: TransformConfig,
    model: Model,
    data: Data,
    rows: tuple[int, int],
    sink: RowSink,
    memory: MemoryPlan,
    report: TransformReport,
    listener: Listener,
) -> None:
    began = time.perf_counter()
    solver = row_solver(model.components, model.objective, data.problem.dtype, config.tol, config.max_iter)
    size = block_rows(data.problem, model.n_components)
    listener(StageStarted("transform", rows[1] - rows[0]))
    with StopFlag(config.saving.max_time) as stop, workers(config.resources.threads, stop) as (pool, executor):
        source = data.source(pool, Reading(memory.portion_bytes, memory.n_buffers))
        try:
            for solved in solve_rows(source, solver, executor, rows, size, report.quality, listener):
                sink.write(solved.batch.start, solved.W)
                report.rows_solved += len(solved.W)
                if rows[0] + report.rows_solved < rows[1]:
                    stop.check()
        except StopRequested:
            sink.save()
            raise _interrupted(stop, config.output, rows[0] + report.rows_solved, rows[1]) from None
    listener(StageFinished("transform", rows[1] - rows[0], time.perf_counter() - began))
    if report.quality.unfinished:
        worst = f"row {report.quality.worst_row}, relative residual {report.quality.worst:.2g}"
        listener(Note(f"{report.quality.unfinished} rows not solved to the tolerance (worst: {worst})", warning=True))


def _interrupted(stop: StopFlag, output: str | None, row: int, end: int) -> InterruptedRunError:
    """What was saved; of a pipe, where the rows that its reader has end."""
    if output is not None and output != "-":
        return stop.error(where=output)
    where = "standard output" if output else ""
    return stop.unsaved(what=f"rows before {row} are done", where=where, hint=f"--rows {row}:{end} gives the rest")


@contextmanager
def _sink(config: TransformConfig, model: Model, data: Data, rows: tuple[int, int]) -> Iterator[Any]:
    k, dtype = model.n_components, data.problem.dtype
    if config.output is None:
        yield MemorySink(rows, k, dtype)
        return
    if config.output == "-":
        yield PipeSink(rows, k, dtype, config.output_format)
        return
    refuse_text(config.output, config.output_format)
    n = data.problem.n_samples or 0
    identity = job_identity(model, data, {"tol": config.tol, "max_iter": config.max_iter})
    if config.rows is not None:
        with open_shard(config.output, (n, k), dtype, rows, identity) as shard:
            yield shard
        return
    job = RowJob(config.output, (n, k), dtype, identity, config.saving)
    try:
        yield job
    except DataError:
        job.abort()
        raise


def job_identity(model: Model, data: Data, values: dict[str, Any]) -> dict[str, Any]:
    """What decides on the rows of W: H, the data, and how they are solved and read."""
    H = np.ascontiguousarray(model.components)
    return {
        "H": hashlib.blake2b(H.tobytes(), digest_size=16).hexdigest(),
        "data": data.reader.fingerprint(),
        "negative": data.policy.negative,
        **values,
    }
