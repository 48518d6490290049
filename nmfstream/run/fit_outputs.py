"""What a fit leaves besides the model: W and H alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nmfstream.core.protocols import Executor
from nmfstream.core.rowsolve import row_solver
from nmfstream.core.state import RunState
from nmfstream.errors import OutputExistsError
from nmfstream.model import Model
from nmfstream.run.carried import DiskW
from nmfstream.run.events import StageFinished, StageStarted
from nmfstream.run.rowjob import RowJob
from nmfstream.run.solving import Quality, solve_rows
from nmfstream.run.sources import Source
from nmfstream.run.transform import job_identity
from nmfstream.storage import durable
from nmfstream.stores.outputs import open_writer, refuse_existing
from nmfstream.types import Array

if TYPE_CHECKING:
    from nmfstream.run.fit import Job

COPY_BYTES = 16 << 20

Rows = Iterator[tuple[int, Array]]


def check_outputs(job: Job, *, resuming: bool) -> None:
    """Refuse outputs that stand already, before any work.

    Raises
    ------
    OutputExistsError
    """
    saving = job.config.saving
    if resuming:
        return
    model = Path(str(job.config.model))
    if durable.exists(model) and not saving.overwrite:
        hint = "--overwrite replaces it" if not saving.resume else "its checkpoint is gone: --overwrite begins anew"
        raise OutputExistsError("the model exists already", where=str(model), hint=hint)
    for spec in (job.config.w, job.config.components):
        if spec is not None and (saving.overwrite or not saving.resume):
            refuse_existing(spec, overwrite=saving.overwrite)


@dataclass
class Written:
    """W as it was written.

    Attributes
    ----------
    quality : Quality or None
    rows_read : int
        Rows of X that this took.
    """

    quality: Quality | None = None
    rows_read: int = 0


def write_W(
    job: Job, model: Model, carried: DiskW | None, state: RunState, source: Source, executor: Executor
) -> Written:
    """Write W where it was asked for: what `mu` carried, or what `transform` gives for the final H."""
    if job.config.w is None:
        return Written()
    n, k = job.plan.n_samples, model.n_components
    identity = job_identity(model, job.data, {})
    saving = replace(job.config.saving, overwrite=_free(job))
    # A whole W without a record is that of an earlier, shorter run.
    output = RowJob(job.config.w, (n, k), model.dtype, identity, saving, trust=False)
    written = Written(Quality() if carried is None else None)
    if not output.finished:
        name = "W"
        job.hear(StageStarted(name, n, output.done))
        for start, rows in _rows(job, model, carried, state, source, executor, output.done, written):
            output.write(start, rows)
        output.commit(keep_record=True)
        job.hear(StageFinished(name, n, 0.0))
    return written


def _free(job: Job) -> bool:
    """Whether an existing W may be replaced: a resumed run that went on replaces what it wrote before."""
    return job.config.saving.overwrite or job.config.saving.resume


def _rows(
    job: Job,
    model: Model,
    carried: DiskW | None,
    state: RunState,
    source: Source,
    executor: Executor,
    start: int,
    written: Written,
) -> Rows:
    n = job.plan.n_samples
    if carried is not None:
        return _carried_rows(carried, state.n_iter, start, n, model.n_components * model.dtype.itemsize)
    written.rows_read = n - start
    if job.plan.solver == "mu":
        return _batch_rows(job, model, source, executor, start, written)
    return _solved_rows(job, model, source, executor, start, written)


def _carried_rows(carried: DiskW, generation: int, start: int, n: int, row_bytes: int) -> Rows:
    rows = carried.last(generation)
    step = max(1, COPY_BYTES // row_bytes)
    for a in range(start, n, step):
        yield a, rows(a, min(a + step, n))


def _batch_rows(job: Job, model: Model, source: Source, executor: Executor, start: int, written: Written) -> Rows:
    """``fresh_restarts``: solved anew, stopping by batch."""
    written.quality = None
    solver: Any = job.solver
    schedule = job.parameters.schedule
    most = schedule.max_iter if schedule.transform_max_iter is None else schedule.transform_max_iter
    with closing(source.batches(None, job.plan.batch_rows, start, job.plan.block_rows)) as batches:  # type: ignore[type-var]
        for batch in batches:
            yield batch.start, solver.model.solve(batch.blocks(), model.components, schedule.tol, most, executor)


def _solved_rows(job: Job, model: Model, source: Source, executor: Executor, start: int, written: Written) -> Rows:
    solver = row_solver(model.components, model.objective, job.data.problem.dtype)
    assert written.quality is not None
    bounds = (start, job.plan.n_samples)
    for solved in solve_rows(source, solver, executor, bounds, job.plan.block_rows, written.quality, job.hear):
        yield solved.batch.start, solved.W


def write_components(job: Job, model: Model) -> None:
    """H alone, where it was asked for."""
    if job.config.components is None:
        return
    writer = open_writer(job.config.components, model.components.shape, model.dtype, dataset="components")
    try:
        writer.write(0, np.ascontiguousarray(model.components))
        writer.commit(overwrite=_free(job))
    except BaseException:
        writer.abort()
        raise
