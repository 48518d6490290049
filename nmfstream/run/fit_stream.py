"""`nmfstream fit -`: learn in one pass from a stream; a signal saves what was learnt."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from nmfstream.checkpoint import STREAM, Checkpoints
from nmfstream.config import FitConfig
from nmfstream.core.blocks import block_rows
from nmfstream.core.parameters import Parameters
from nmfstream.core.protocols import Solver
from nmfstream.core.solvers import make_solver, resolve
from nmfstream.errors import InterruptedRunError, StopRequested
from nmfstream.fingerprint import numeric_fingerprint
from nmfstream.model import flat_parameters
from nmfstream.plan import MemoryPlan
from nmfstream.run.events import Listener
from nmfstream.run.fit_report import FitPlan, FitReport, commit_model, continued, goes_on_from, make_model
from nmfstream.run.fit_stream_memory import check_fit_memory, kernels
from nmfstream.run.saver import Saver
from nmfstream.run.signals import StopFlag
from nmfstream.run.stages import Hooks, run_stages
from nmfstream.run.stream_memory import loaded
from nmfstream.run.streaming import StreamSource
from nmfstream.run.workers import n_threads, workers
from nmfstream.stores.chunks import of_iterator, origin_of
from nmfstream.stores.stream import open_stream
from nmfstream.stores.stream_writer import standard_input


def fit_stream(config: FitConfig, listener: Listener) -> FitReport:
    """Learn H from standard input, or from an iterator of row chunks.

    Raises
    ------
    UsageError
        For what needs data that can be read again: ``--w``, ``--resume``, more than one pass.
    NmfstreamError
    """
    origin_of(config.inputs.data).refuse(
        (config.w is not None, "--w"),
        (config.saving.resume, "--resume"),
        (config.w_init is not None, "--w-init"),
        (config.dry_run, "--dry-run"),
        (config.inputs.transpose, "--transpose"),
        (config.parameters.schedule.max_iter > 1, "--max-iter"),
    )
    began = time.perf_counter()
    name, piped = resolve(config.solver, config.parameters.objective.beta), isinstance(config.inputs.data[0], str)
    held = loaded(config.resources, kernels(name, config.parameters.objective.beta, sparse=not piped))
    with StopFlag(config.saving.max_time) as stop:
        source = _source(config, stop)
        parameters = continued(config, config.parameters, source.problem.n_features)
        solver = make_solver(name, source.problem, parameters)
        check_fit_memory(name, solver, parameters, source, config.resources, held)
        report = _learn(config, parameters, solver, source, stop, listener)
    report.clipped, report.seconds = source.policy.clipped, time.perf_counter() - began
    return report


def _source(config: FitConfig, stop: StopFlag) -> StreamSource:
    inputs, data, origin = config.inputs, config.inputs.data[0], origin_of(config.inputs.data)
    piped = isinstance(data, str)
    arrays = open_stream(standard_input(), inputs.input_format, stop=stop) if piped else of_iterator(data)
    try:
        positive = config.parameters.objective.beta <= 0
        return StreamSource(arrays, inputs.dtype, inputs.negative, positive, origin)
    except StopRequested:
        raise stop.unsaved(what="no row had come", where=origin.name, hint="run the same command again") from None


def _learn(
    config: FitConfig, parameters: Parameters, solver: Solver, source: StreamSource, stop: StopFlag, listener: Listener
) -> FitReport:
    state, name = solver.start(), solver.name
    batch = parameters.schedule.batch_size
    size = block_rows(source.problem, parameters.objective.n_components, batch)
    path = config.saving.path or Path(f"{config.model}.ckpt")
    identity = {**flat_parameters(parameters, name), "dtype": str(source.problem.dtype)}
    with Checkpoints(path, identity=identity, fingerprint=numeric_fingerprint(), data=STREAM) as checkpoints:
        checkpoints.open(resume=False, overwrite=config.saving.overwrite, after=goes_on_from(config, path))
        checkpoints.start()
        saver = Saver(checkpoints, config.saving, stop, listener)
        try:
            with workers(config.resources.threads, stop) as (_, executor):
                run_stages(solver, state, source, executor, size, hooks=Hooks(saver.after_step, listener))
        except StopRequested:
            saver.interrupted(state)
            if saver.generation is None:
                raise _nothing_learnt(stop, batch, source.name) from None
            hint = f"go on with more data by: nmfstream fit - --from {path} -o {config.model}"
            raise stop.error(where=str(path), hint=hint) from None
        state.stop_reason = "the stream ended"
        model = make_model(state, parameters, name, source.problem.dtype, None, STREAM)
        memory = MemoryPlan({}, 0, 0)
        plan = FitPlan(
            name, str(source.problem.dtype), source.rows, source.problem.n_features, batch, size, 0,
            n_threads(config.resources.threads), memory, 0, 1,
        )  # fmt: skip
        report = FitReport(model, plan, source.rows, 1.0)
        commit_model(config, model)
        saver.finish(state)
        return replace(report, revived=int(getattr(state.solver, "revived", 0)))


def _nothing_learnt(stop: StopFlag, batch: int, name: str) -> InterruptedRunError:
    what = f"nothing was learnt: the first {batch} rows had not been worked through"
    return stop.unsaved(what=what, where=name, hint="run the same command again; a smaller --batch-size learns sooner")
