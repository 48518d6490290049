"""`nmfstream transform -`: W of matrices that come through a pipe, each row as soon as it is solved."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

from nmfstream.config import TransformConfig
from nmfstream.core.blocks import block_rows
from nmfstream.core.protocols import Problem
from nmfstream.core.rowsolve import row_solver
from nmfstream.model import Model, check_feature_names, read_model
from nmfstream.run.events import Advanced, Listener, Note, StageFinished, StageStarted, silent
from nmfstream.run.guards import refuse_own_inputs
from nmfstream.run.pipes import BlockMap
from nmfstream.run.solving import Quality
from nmfstream.run.stream_memory import check_stream_memory
from nmfstream.run.stream_output import Destination, Kept, StreamOutput, open_output
from nmfstream.stores.chunks import PIPE, checked, of_iterator, origin_of
from nmfstream.stores.protocols import ReadPolicy
from nmfstream.stores.stream import StreamArray, open_stream
from nmfstream.stores.stream_writer import standard_input
from nmfstream.types import Array, Matrix


@dataclass
class StreamReport:
    """What went through.

    Attributes
    ----------
    rows, arrays : int
    quality : Quality
        Rows that were not solved to the tolerance, and the worst residual.
    seconds : float
    bytes_read : int
        Of X in memory.
    clipped : int
        Negative values set to zero.
    W : ndarray or None
        Where no output was named.
    shard, missing
        None and nothing: a stream is never one job's part.
    """

    rows: int = 0
    arrays: int = 0
    quality: Quality = field(default_factory=Quality)
    seconds: float = 0.0
    bytes_read: int = 0
    clipped: int = 0
    W: Array | None = None
    shard: tuple[int, int] | None = None
    missing: list[tuple[int, int]] = field(default_factory=list)


def stream_transform(
    config: TransformConfig, listener: Listener = silent, *, source: IO[bytes] | None = None
) -> StreamReport:
    """Solve for W of every array of standard input, in bounded memory however long they are.

    Parameters
    ----------
    config : TransformConfig
        ``inputs.data`` is ``("-",)`` or one iterator of row chunks; `output` is ``"-"``, a store, whose rows are
        those of all arrays, or None: W is kept in memory.
    listener : callable
    source : binary file, optional
        In the place of standard input.

    Raises
    ------
    NmfstreamError
    OSError
        From standard output: `BrokenPipeError` where the reader is gone.
    """
    origin_of(config.inputs.data).refuse(
        (config.rows is not None, "--rows"),
        (config.saving.resume, "--resume"),
        (config.inputs.transpose, "--transpose"),
    )
    began = time.perf_counter()
    refuse_own_inputs([config.output], [config.model])
    model = read_model(config.model)
    dtype = model.dtype if config.inputs.dtype == "auto" else np.dtype(config.inputs.dtype)
    policy = ReadPolicy(dtype, config.inputs.negative, model.objective.beta <= 0)
    report = StreamReport()
    problem = Problem(None, model.n_features, dtype)
    check_stream_memory(problem, model.n_components, model.objective.beta, config.resources)
    arrays = _arrays(config, source)
    output = _output(config, model, dtype)
    try:
        _pump(arrays, output, model, policy, config, report, listener)
        output.commit()
    except BaseException:
        output.abort()
        raise
    report.W = getattr(output, "W", None)
    report.clipped, report.seconds = policy.clipped, time.perf_counter() - began
    return report


def _arrays(config: TransformConfig, source: IO[bytes] | None) -> Iterator[StreamArray]:
    data = config.inputs.data[0]
    if not isinstance(data, str):
        return of_iterator(data)
    return open_stream(source or standard_input(), config.inputs.input_format, name=PIPE.name)


def _output(config: TransformConfig, model: Model, dtype: np.dtype[Any]) -> StreamOutput:
    if config.output is None:
        return Kept(model.n_components, dtype)
    to = Destination(config.output, config.output_format, "W", config.saving.overwrite)
    return open_output(to, None, model.n_components, dtype)


def _pump(
    arrays: Iterator[StreamArray],
    output: StreamOutput,
    model: Model,
    policy: ReadPolicy,
    config: TransformConfig,
    report: StreamReport,
    listener: Listener,
) -> None:
    solver = row_solver(model.components, model.objective, policy.dtype, config.tol, config.max_iter)
    problem, origin = Problem(None, model.n_features, policy.dtype), origin_of(config.inputs.data)
    began = time.perf_counter()
    listener(StageStarted("transform", 0))
    with BlockMap(block_rows(problem, model.n_components), config.resources.threads) as apply:
        for array in arrays:
            check_feature_names(model, None, array.n_features, origin.part(report.arrays))
            output.begin(array.n_rows)
            for chunk in checked(array, policy, origin.name, report.rows):
                _solve(chunk, solver, apply, output, report)
                size = chunk.shape[0] * array.n_features * policy.dtype.itemsize
                report.bytes_read += size
                listener(Advanced(report.rows, size, 0, float("nan")))
            report.arrays += 1
    if not report.arrays and config.inputs.input_format == "npy":
        raise origin.nothing()
    listener(StageFinished("transform", report.rows, time.perf_counter() - began))
    if report.quality.unfinished:
        worst = f"row {report.quality.worst_row}, relative residual {report.quality.worst:.2g}"
        listener(Note(f"{report.quality.unfinished} rows not solved to the tolerance (worst: {worst})", warning=True))


def _solve(chunk: Matrix, solver: Any, apply: BlockMap, output: StreamOutput, report: StreamReport) -> None:
    at = report.rows
    for solution in apply(solver, chunk):
        report.quality.take(at, solution)
        output.write(solution.W)
        at += len(solution.W)
    report.rows = at
