"""`nmfstream score`: how well a model fits data, in one pass and bounded memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from nmfstream.config import Inputs, Resources
from nmfstream.core.blocks import block_rows
from nmfstream.core.deviance import column_sums, null_divergence, power_sum
from nmfstream.core.losses import Fixed, Loss, make_loss
from nmfstream.core.protocols import Batch, Block, Executor, Problem
from nmfstream.core.rowsolve import RowSolver, row_solver
from nmfstream.errors import DataError
from nmfstream.model import Model, check_feature_names, read_model
from nmfstream.run.events import Advanced, Listener, StageFinished, StageStarted, silent
from nmfstream.run.opening import open_data
from nmfstream.run.solving import UNIT_BLOCKS
from nmfstream.stores.protocols import ReadPolicy
from nmfstream.types import Array, Matrix


@dataclass(frozen=True)
class ScoreConfig:
    """`nmfstream score`."""

    inputs: Inputs
    model: str
    resources: Resources = field(default_factory=Resources)


@dataclass
class ScoreReport:
    """How well a model fits.

    Attributes
    ----------
    loss : float
        Divergence and penalties, mean a row (the penalty on H by the model's own rows).
    relative_error : float
        ‖X - WH‖ / ‖X‖ for β = 2, else D(X|WH) / ΣX.
    explained_deviance : float
        1 - D(X|WH) / D(X|column means).
    divergence : float
        D(X|WH) of all rows.
    rows, unfinished : int
        Rows; of these, rows whose W the iteration limit ended.
    clipped : int
        Negative values set to zero.
    seconds : float
    """

    loss: float = 0.0
    relative_error: float = 0.0
    explained_deviance: float = 0.0
    divergence: float = 0.0
    rows: int = 0
    unfinished: int = 0
    clipped: int = 0
    seconds: float = 0.0


class _Portions(NamedTuple):
    """What is scored; the number of rows is None for a stream."""

    rows: int | None
    problem: Problem
    policy: ReadPolicy
    batches: Iterator[Batch]


class _Sums(NamedTuple):
    """What a block adds, in float64."""

    divergence: float
    penalty: float
    phi: float
    total: float
    squares: float
    columns: Array
    unfinished: int


def score(config: ScoreConfig, listener: Listener = silent) -> ScoreReport:
    """Solve W for each row and sum what is left.

    Parameters
    ----------
    config : ScoreConfig
    listener : callable

    Raises
    ------
    NmfstreamError
    """
    began = time.perf_counter()
    model = read_model(config.model)
    report = ScoreReport()
    sums = None
    with _portions(config, model) as (portions, executor):
        listener(StageStarted("score", portions.rows or 0))
        problem = portions.problem
        rules = _Rules(model, problem.dtype)
        for batch in portions.batches:
            for part in executor.map(rules, batch.blocks()):
                sums = part if sums is None else _add(sums, part)
            report.rows += batch.n_rows
            listener(Advanced(report.rows, batch.n_rows * problem.n_features * problem.dtype.itemsize, 0, float("nan")))
    report.clipped = portions.policy.clipped
    if sums is None:
        raise DataError("no rows to score", where=str(config.inputs.data[0]), hint="give data with at least one row")
    _conclude(report, sums, model)
    report.seconds = time.perf_counter() - began
    listener(StageFinished("score", report.rows, report.seconds))
    return report


class _Rules:
    """Solver and loss for one model."""

    def __init__(self, model: Model, dtype: np.dtype[Any]) -> None:
        self._solver: RowSolver = row_solver(model.components, model.objective, dtype)
        self._loss: Loss = make_loss(model.objective.beta, dtype)
        self._fixed: Fixed = self._loss.fix(model.components.astype(dtype, copy=False))
        self._penalties = model.objective.penalties(model.n_features, 1.0)
        self._beta = model.objective.beta

    def __call__(self, block: Block) -> _Sums:
        """The sums of a block."""
        with block.reading() as X:
            return self._sums(X)

    def _sums(self, X: Matrix) -> _Sums:
        solution = self._solver(X)
        W = np.asarray(solution.W, np.float64)
        penalty = self._penalties.l1_W * W.sum() + self._penalties.l2_W / 2 * (W * W).sum()
        columns = column_sums(X)
        return _Sums(
            self._loss.value(X, solution.W, self._fixed),
            float(penalty),
            power_sum(X, self._beta),
            float(columns.sum()),
            2 * power_sum(X, 2.0),
            columns,
            int((~solution.converged).sum()),
        )


def _add(a: _Sums, b: _Sums) -> _Sums:
    pairs: Iterator[tuple[Any, Any]] = zip(a, b)
    return _Sums(*(x + y for x, y in pairs))


def _conclude(report: ScoreReport, sums: _Sums, model: Model) -> None:
    beta, H = model.objective.beta, np.asarray(model.components, np.float64)
    weights = model.objective.penalties(model.n_features, 1.0)
    on_H = weights.l1_H * H.sum() + weights.l2_H / 2 * (H * H).sum()
    report.divergence = sums.divergence
    report.loss = (sums.divergence + sums.penalty) / report.rows + float(on_H)
    size, part = (sums.squares, 2 * sums.divergence) if beta == 2 else (sums.total, sums.divergence)
    ratio = part / size if size else float("nan")
    report.relative_error = float(np.sqrt(ratio)) if beta == 2 else ratio
    null = null_divergence(sums.phi, sums.columns, report.rows, beta)
    report.explained_deviance = 1 - sums.divergence / null if null > 0 else float("nan")
    report.unfinished = sums.unfinished


@contextmanager
def _portions(config: ScoreConfig, model: Model) -> Iterator[tuple[_Portions, Executor]]:
    from nmfstream.run.workers import workers

    opened = _from_stream if config.inputs.data == ("-",) else _from_store
    with opened(config, model) as portions, workers(config.resources.threads) as (_, executor):
        yield portions, executor


@contextmanager
def _from_store(config: ScoreConfig, model: Model) -> Iterator[_Portions]:
    from nmfstream.run.memory import transform_memory
    from nmfstream.run.pipeline import Reading
    from nmfstream.run.transform import typed_as
    from nmfstream.run.workers import workers

    with (
        open_data(config.inputs, config.resources, positive=model.objective.beta <= 0) as data,
        workers(config.resources.threads) as (pool, _),
    ):
        data = typed_as(data, model, config.inputs.dtype)
        check_feature_names(model, data.reader.feature_names, data.problem.n_features, data.reader.name)
        data.reader.check()
        memory = transform_memory(data, model, config.resources)
        size = block_rows(data.problem, model.n_components)
        source = data.source(pool, Reading(memory.portion_bytes, memory.n_buffers))
        unit = size * UNIT_BLOCKS
        batches = source.batches(None, unit, 0, size, by_block=True) if data.problem.n_samples else iter(())
        yield _Portions(data.problem.n_samples, data.problem, data.policy, batches)


@contextmanager
def _from_stream(config: ScoreConfig, model: Model) -> Iterator[_Portions]:
    from nmfstream.run.stream_memory import check_stream_memory
    from nmfstream.stores.chunks import PIPE, checked
    from nmfstream.stores.stream import open_stream
    from nmfstream.stores.stream_writer import standard_input

    PIPE.refuse((config.inputs.transpose, "--transpose"))
    dtype = model.dtype if config.inputs.dtype == "auto" else np.dtype(config.inputs.dtype)
    policy = ReadPolicy(dtype, config.inputs.negative, model.objective.beta <= 0)
    problem = Problem(None, model.n_features, dtype)
    size = block_rows(problem, model.n_components)
    unit = size * UNIT_BLOCKS
    check_stream_memory(problem, model.n_components, model.objective.beta, config.resources, gathered=unit)

    def chunks() -> Iterator[Matrix]:
        for number, array in enumerate(open_stream(standard_input(), config.inputs.input_format)):
            where = f"standard input, array {number}"
            check_feature_names(model, None, array.n_features, where)
            yield from checked(array, policy, where)

    yield _Portions(None, problem, policy, (Batch(0, X, size) for X in regrouped(chunks(), unit)))


def regrouped(chunks: Iterator[Matrix], unit: int) -> Iterator[Matrix]:
    """The same rows in pieces of `unit` (the last may be shorter): sums must not depend on how the rows came."""
    held: list[Array] = []
    n = 0
    for chunk in chunks:
        rows = np.asarray(chunk)
        while n + len(rows) >= unit:
            yield np.concatenate([*held, rows[: unit - n]])
            rows, held, n = rows[unit - n :], [], 0
        if len(rows):
            held.append(rows)
            n += len(rows)
    if n:
        yield np.concatenate(held)
