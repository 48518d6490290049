"""`nmfstream convert -`: the arrays of standard input as one store, or on as a stream of another type."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np

from nmfstream.errors import DataError
from nmfstream.run.convert import ConvertConfig, ConvertReport, carrier, refuse_inexact, stored_dtype
from nmfstream.run.events import Advanced, Listener, StageFinished, StageStarted
from nmfstream.run.stream_memory import check_rows_memory, loaded
from nmfstream.run.stream_output import Destination, StreamOutput, open_output
from nmfstream.stores.chunks import PIPE, checked
from nmfstream.stores.outputs import CHUNK_BYTES
from nmfstream.stores.protocols import ReadPolicy
from nmfstream.stores.stream import StreamArray, open_stream
from nmfstream.stores.stream_writer import standard_input

WRITTEN = 6
"""Chunks of a store in the making: gathered, encoded, on their way to the disk."""


def convert_stream(config: ConvertConfig, listener: Listener) -> ConvertReport:
    """Write what comes, in bounded memory however long it is.

    The first array says the type of the output, unless one is asked for. To standard output goes one array for each
    that comes; a store takes the rows of all.

    Raises
    ------
    UsageError
        For ``--transpose``: columns come last; and for what needs data that can be read again.
    DataError
        If nothing comes, or arrays that do not go together.
    """
    PIPE.refuse(
        (config.inputs.transpose, "--transpose"),
        (config.saving.resume, "--resume"),
        (config.saving.max_time is not None, "--max-time"),
    )
    began = time.perf_counter()
    held = loaded(config.resources)
    arrays = open_stream(standard_input(), config.inputs.input_format)
    first = next(arrays, None)
    if first is None:
        raise PIPE.nothing()
    dtype = stored_dtype(config.inputs.dtype, first.dtype)
    policy = ReadPolicy(carrier(dtype), config.inputs.negative)
    report = ConvertReport(0, first.n_features, None, dtype.name)
    row_bytes = first.n_features * max(first.dtype.itemsize, policy.dtype.itemsize, dtype.itemsize)
    held |= {"rows being written": WRITTEN * max(CHUNK_BYTES, row_bytes)}
    check_rows_memory(held, row_bytes, config.resources)
    to = Destination(config.output, dataset="X", overwrite=config.saving.overwrite, chunk_rows=config.chunk_rows)
    output = open_output(to, None, first.n_features, dtype)
    listener(StageStarted("convert", 0))
    try:
        for array in _alike(chain([first], arrays), first, dtype, config.inputs.dtype):
            _copy(array, output, policy, dtype, report, listener)
        output.commit()
    except BaseException:
        output.abort()
        raise
    report.rows_written = report.rows
    report.clipped, report.seconds = policy.clipped, time.perf_counter() - began
    listener(StageFinished("convert", report.rows, report.seconds))
    return report


def _alike(
    arrays: Iterator[StreamArray], first: StreamArray, dtype: np.dtype[Any], asked: str
) -> Iterator[StreamArray]:
    """The arrays, as long as they have the first one's columns and nothing that its type cannot hold."""
    for number, array in enumerate(arrays):
        if array.n_features != first.n_features:
            what, hint = f"has {array.n_features} features, the first array {first.n_features}", "send them apart"
            raise DataError(what, where=PIPE.part(number), hint=hint)
        if asked == "auto" and not np.can_cast(stored_dtype("auto", array.dtype), dtype):
            what, hint = f"is {array.dtype.name}, the first array {dtype.name}", "say which it shall be by --dtype"
            raise DataError(what, where=PIPE.part(number), hint=hint)
        yield array


def _copy(
    array: StreamArray,
    output: StreamOutput,
    policy: ReadPolicy,
    dtype: np.dtype[Any],
    report: ConvertReport,
    listener: Listener,
) -> None:
    output.begin(array.n_rows)
    for chunk in checked(array, policy, PIPE.name, report.rows):
        rows = np.asarray(chunk)
        refuse_inexact(rows, dtype, PIPE.name, report.rows)
        output.write(rows.astype(dtype, copy=False))
        report.rows += len(rows)
        listener(Advanced(report.rows, rows.nbytes, 0, float("nan")))
