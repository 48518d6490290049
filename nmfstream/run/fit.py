"""`nmfstream fit`: learn H, write the model and W; saved on the way, resumed where it stopped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nmfstream.checkpoint import Checkpoints
from nmfstream.config import FitConfig
from nmfstream.core.blocks import block_rows
from nmfstream.core.parameters import Parameters
from nmfstream.core.protocols import Solver
from nmfstream.core.solvers import make_solver, resolve
from nmfstream.core.state import RunState
from nmfstream.errors import CheckpointMismatchError, DataError, StopRequested, UsageError
from nmfstream.fingerprint import numeric_fingerprint
from nmfstream.model import flat_parameters
from nmfstream.run.carried import DiskW
from nmfstream.run.events import Event, Listener, Note, StageFinished, silent
from nmfstream.run.fit_inputs import custom_start, initial_rows
from nmfstream.run.fit_outputs import check_outputs, write_components, write_W
from nmfstream.run.fit_report import FitPlan, FitReport, commit_model, continued, goes_on_from, make_model
from nmfstream.run.fit_stream import fit_stream
from nmfstream.run.guards import refuse_own_inputs
from nmfstream.run.memory import fit_memory
from nmfstream.run.opening import Data, open_data
from nmfstream.run.pipeline import Reading
from nmfstream.run.rowjob import forget_record
from nmfstream.run.saver import Companions, Saver
from nmfstream.run.signals import StopFlag
from nmfstream.run.stages import Hooks, run_stages
from nmfstream.run.workers import n_threads, workers
from nmfstream.stores.chunks import is_stream
from nmfstream.units import size_text


@dataclass
class Job:
    """A fit, prepared: nothing of the values is read yet."""

    config: FitConfig
    data: Data
    parameters: Parameters
    solver: Solver
    plan: FitPlan
    listener: Listener
    sample_seconds: float = 0.0

    def hear(self, event: Event) -> None:
        """Pass events on; the sample's time is reported apart."""
        if isinstance(event, StageFinished) and event.name == "sample":
            self.sample_seconds += event.seconds
        self.listener(event)

    @property
    def checkpoint(self) -> Path:
        """Where the run is saved."""
        given = self.config.saving.path
        return given or Path(f"{self.config.model}.ckpt")

    @property
    def carries_W(self) -> bool:
        """Whether rows of W live on from pass to pass."""
        return self.plan.solver == "mu" and not self.parameters.schedule.fresh_restarts


def fit(config: FitConfig, listener: Listener = silent) -> FitReport:
    """Learn H from the data.

    Parameters
    ----------
    config : FitConfig
    listener : callable
        Hears the events of the run.

    Returns
    -------
    FitReport

    Raises
    ------
    NmfstreamError
        Its `exit_code` is the command's.
    """
    if config.model is None:
        raise UsageError("no model is named", where="-o", hint="say where it goes, as in -o MODEL.h5")
    began = time.perf_counter()
    read = (*config.inputs.data, config.h_init, config.w_init, config.continue_from)
    refuse_own_inputs([config.model, config.w, config.components], read)
    if is_stream(config.inputs.data):
        return fit_stream(config, listener)
    with open_data(config.inputs, config.resources, positive=config.parameters.objective.beta <= 0) as data:
        job = prepare(config, data, listener)
        if config.dry_run:
            return FitReport(None, job.plan, job.plan.n_samples)
        report = _run(job)
        report.clipped, report.seconds = data.policy.clipped, time.perf_counter() - began
    return report


def prepare(config: FitConfig, data: Data, listener: Listener = silent) -> Job:
    """Check the store, choose the solver, plan the memory.

    Raises
    ------
    DataError, UsageError
    """
    problem = data.problem
    if not problem.n_samples or not problem.n_features:
        raise DataError(
            f"nothing to learn from: {problem.n_samples} rows x {problem.n_features} columns", where=data.reader.name
        )
    data.reader.check()
    parameters = custom_start(config, data)
    parameters = continued(config, parameters, problem.n_features, data.reader.feature_names)
    name = resolve(config.solver, parameters.objective.beta)
    solver = make_solver(name, problem, parameters)
    return Job(config, data, parameters, solver, _plan(config, data, name, solver, parameters), listener)


def _plan(config: FitConfig, data: Data, name: str, solver: Solver, parameters: Parameters) -> FitPlan:
    problem = data.problem
    batch = min(parameters.schedule.batch_size, problem.n_samples or parameters.schedule.batch_size)
    size = block_rows(problem, parameters.objective.n_components, batch)
    return FitPlan(
        name,
        str(problem.dtype),
        problem.n_samples or 0,
        problem.n_features,
        batch,
        size,
        getattr(solver, "size", 0),
        n_threads(config.resources.threads),
        fit_memory(config, data, name, solver, parameters, batch),
        data.reader.stored_bytes,
        parameters.schedule.max_iter,
    )


def _run(job: Job) -> FitReport:
    config, saving = job.config, job.config.saving
    with _checkpoints(job) as checkpoints, StopFlag(saving.max_time) as stop:
        after = saving.overwrite and goes_on_from(config, job.checkpoint)
        saved = checkpoints.open(resume=saving.resume, overwrite=saving.overwrite, after=after, check=stop.check)
        check_outputs(job, resuming=saved is not None)
        state = saved.state if saved is not None else job.solver.start()
        carried = _carried(job, saved.extra if saved is not None else {})
        if carried is not None and saved is None:
            carried.discard()
        saver = Saver(checkpoints, saving, stop, job.hear, _companions(carried))
        checkpoints.start()
        before = (state.stage, state.row)
        try:
            with workers(config.resources.threads, stop) as (pool, executor):
                source = job.data.source(pool, Reading(job.plan.memory.portion_bytes, job.plan.memory.n_buffers))
                hooks = Hooks(saver.after_step, job.hear)
                run_stages(job.solver, state, source, executor, job.plan.block_rows, carried, hooks)
                finished = saved is not None and saved.finished and before == (state.stage, state.row)
                return _finish(job, state, saver, carried, source, executor, finished)
        except StopRequested:
            saver.interrupted(state)
            raise stop.error(where=str(job.checkpoint)) from None
        except CheckpointMismatchError:
            checkpoints.lease.require()  # whoever took over may have removed what this run still wanted
            raise
        finally:
            if carried is not None:
                carried.close()


def _finish(
    job: Job, state: RunState, saver: Saver, carried: DiskW | None, source: Any, executor: Any, finished: bool
) -> FitReport:
    """Outputs in their order: W, components, model; then the last generation."""
    reader = job.data.reader
    model = make_model(
        state, job.parameters, job.plan.solver, job.data.problem.dtype, reader.feature_names, reader.fingerprint()
    )
    rows = job.plan.n_samples
    passes = state.rows_read / rows
    report = FitReport(model, job.plan, rows, passes, sample_seconds=job.sample_seconds, nothing_to_do=finished)
    report.revived = int(getattr(state.solver, "revived", 0))
    if finished:
        _tidy(job.config, carried, state)
        return report
    done = write_W(job, model, carried, state, source, executor)
    report.quality, report.passes = done.quality, passes + done.rows_read / rows
    write_components(job, model)
    commit_model(job.config, model)
    saver.finish(state)
    _tidy(job.config, carried, state)
    return report


def _tidy(config: FitConfig, carried: DiskW | None, state: RunState) -> None:
    """Remove what a finished run needs no more; also what one left that was killed before it could."""
    if config.w is not None:
        forget_record(config.w)
    if carried is not None:
        carried.discard(keep=state.n_iter)


@contextmanager
def _checkpoints(job: Job) -> Iterator[Checkpoints]:
    identity = {
        **flat_parameters(job.parameters, job.plan.solver),
        "dtype": job.plan.dtype,
        "negative": job.config.inputs.negative,
    }
    with Checkpoints(
        job.checkpoint,
        identity=identity,
        fingerprint=numeric_fingerprint(),
        data=job.data.reader.fingerprint(),
        listener=job.hear,
        strict=job.config.saving.strict,
    ) as checkpoints:
        yield checkpoints


def _carried(job: Job, extra: dict[str, Any]) -> DiskW | None:
    if not job.carries_W:
        return None
    n, k = job.plan.n_samples, job.parameters.objective.n_components
    size = 2 * n * k * job.data.problem.dtype.itemsize
    if job.config.w is None and size > 1 << 30:
        job.hear(Note(f"W of every row is carried beside {job.checkpoint}: {size_text(size)}"))
    return DiskW(job.checkpoint, n, k, job.data.problem.dtype, initial_rows(job.config, job.data))


def _companions(carried: DiskW | None) -> Companions:
    return Companions() if carried is None else Companions(flush=carried.flush, saved=carried.claim)
