"""`nmfstream inverse-transform`: WH, the data that a model and W stand for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from nmfstream.config import Inputs, Resources
from nmfstream.errors import DataError
from nmfstream.model import Model, read_model
from nmfstream.run.events import Advanced, Listener, StageFinished, StageStarted, silent
from nmfstream.run.guards import refuse_own_inputs
from nmfstream.run.pipes import BlockMap
from nmfstream.run.stream_output import Destination, StreamOutput, open_output, rows_a_write
from nmfstream.types import CSR, Array, Matrix

READ_BYTES = 1 << 20
"""Rows of W are narrow: what is made of them is many times as large."""
BLOCK_ROWS = 64
"""Rows of every product: a row's bits do not depend on its place or on its neighbours."""

WRITE_BYTES = 8 << 20
COPIES = 4
"""Blocks of rows, the rows joined, and what the output makes of them."""


@dataclass(frozen=True)
class InverseConfig:
    """`nmfstream inverse-transform`.

    Attributes
    ----------
    inputs : Inputs
        W.
    model : str
    to : Destination
    """

    inputs: Inputs
    model: str
    to: Destination
    resources: Resources = field(default_factory=Resources)


@dataclass
class InverseReport:
    """What was written.

    Attributes
    ----------
    rows, n_features : int
    seconds : float
    """

    rows: int
    n_features: int
    seconds: float = 0.0


class _Rows(NamedTuple):
    """One matrix W: its number of rows (None: unknown), and its rows in order."""

    n_rows: int | None
    chunks: Iterator[Array]


def inverse_transform(config: InverseConfig, listener: Listener = silent) -> InverseReport:
    """Write WH.

    Parameters
    ----------
    config : InverseConfig
    listener : callable

    Raises
    ------
    DataError
        If W has another number of columns than the model has components.
    NmfstreamError
    OSError
        From standard output.
    """
    began = time.perf_counter()
    refuse_own_inputs([config.to.spec], [*config.inputs.data, config.model])
    model = read_model(config.model)
    dtype = model.dtype if config.inputs.dtype == "auto" else np.dtype(config.inputs.dtype)
    report = InverseReport(0, model.n_features)
    _check_memory(config, model, dtype)
    opened = _stream if config.inputs.data == ("-",) else _store
    with opened(config, model, dtype) as (total, matrices):
        output = open_output(config.to, total, model.n_features, dtype)
        try:
            listener(StageStarted("inverse transform", total or 0))
            with BlockMap(BLOCK_ROWS, config.resources.threads) as apply:
                for matrix in matrices:
                    output.begin(matrix.n_rows)
                    _write(matrix.chunks, output, model.components.astype(dtype, copy=False), apply, report, listener)
            output.commit()
        except BaseException:
            output.abort()
            raise
    report.seconds = time.perf_counter() - began
    listener(StageFinished("inverse transform", report.rows, report.seconds))
    return report


def _check_memory(config: InverseConfig, model: Model, dtype: np.dtype[Any]) -> None:
    """Refuse a budget that does not hold a unit of rows, made and written, and what is read of W."""
    from nmfstream.run.stream_memory import check_rows_memory, loaded

    unit = unit_rows(model.n_features, dtype)
    held = {
        **loaded(config.resources),
        "H": 2 * model.n_components * model.n_features * dtype.itemsize,
        "rows being written": COPIES * (unit + BLOCK_ROWS) * model.n_features * dtype.itemsize,
    }
    check_rows_memory(held, model.n_components * dtype.itemsize, config.resources)


def _write(
    chunks: Iterator[Array], output: StreamOutput, H: Array, apply: BlockMap, report: InverseReport, listener: Listener
) -> None:
    unit = unit_rows(H.shape[1], H.dtype)
    for chunk in chunks:
        for a in range(0, len(chunk), unit):
            W = chunk[a : a + unit]
            output.write(np.concatenate(apply(lambda block: product(block, H), W)))
            report.rows += len(W)
            listener(Advanced(report.rows, W.nbytes, 0, float("nan")))


def unit_rows(n_features: int, dtype: np.dtype[Any]) -> int:
    """Rows that are made and written together: about `WRITE_BYTES`, whole chunks of the output."""
    together = rows_a_write(n_features, dtype)
    return together * max(1, WRITE_BYTES // (together * n_features * dtype.itemsize))


def _dense(rows: Matrix) -> Array:
    return rows.toarray() if isinstance(rows, CSR) else rows


def product(W: Matrix, H: Array) -> Array:
    """WH of at most `BLOCK_ROWS` rows, padded so that every product has one shape."""
    rows = _dense(W)
    padded = np.zeros((BLOCK_ROWS, rows.shape[1]), rows.dtype)
    padded[: len(rows)] = rows
    result: Array = (padded @ H)[: len(rows)]
    return result


@contextmanager
def _store(config: InverseConfig, model: Model, dtype: np.dtype[Any]) -> Iterator[tuple[int | None, Iterator[_Rows]]]:
    from nmfstream.run.opening import open_data
    from nmfstream.run.pipeline import Reading
    from nmfstream.run.workers import workers

    with open_data(config.inputs, config.resources) as data, workers(1) as (pool, _):
        _check_columns(data.problem.n_features, model, data.reader.name)
        data.policy.dtype = dtype
        data.reader.check()
        unit = unit_rows(model.n_features, dtype)
        batches = data.source(pool, Reading(READ_BYTES, 2)).batches(None, unit, 0, unit)
        chunks = (_dense(batch.X) for batch in batches)
        n = data.problem.n_samples
        yield n, iter([_Rows(n, chunks if n else iter(()))])


@contextmanager
def _stream(config: InverseConfig, model: Model, dtype: np.dtype[Any]) -> Iterator[tuple[int | None, Iterator[_Rows]]]:
    from nmfstream.stores.chunks import PIPE, checked
    from nmfstream.stores.protocols import ReadPolicy
    from nmfstream.stores.stream import open_stream
    from nmfstream.stores.stream_writer import standard_input

    PIPE.refuse((config.inputs.transpose, "--transpose"))
    policy = ReadPolicy(dtype, config.inputs.negative)

    def matrices() -> Iterator[_Rows]:
        for number, array in enumerate(open_stream(standard_input(), config.inputs.input_format)):
            where = f"standard input, array {number}"
            _check_columns(array.n_features, model, where)
            yield _Rows(array.n_rows, map(_dense, checked(array, policy, where)))

    yield None, matrices()


def _check_columns(columns: int, model: Model, where: str) -> None:
    if columns != model.n_components:
        raise DataError(
            f"W has {columns} columns, the model {model.n_components} components",
            where=where,
            hint="give the W that this model made, and -m with its model",
        )
