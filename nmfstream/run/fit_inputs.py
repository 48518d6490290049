"""Custom starts of a fit: H at once, W row by row."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from nmfstream.config import FitConfig
from nmfstream.core.parameters import Parameters
from nmfstream.errors import DataError, UsageError
from nmfstream.run.carried import Initial, no_initial
from nmfstream.run.opening import Data
from nmfstream.stores.protocols import Opening, ReadPolicy, RowReader, allocate
from nmfstream.types import CSR, Array


def custom_start(config: FitConfig, data: Data) -> Parameters:
    """The parameters with H of ``--h-init`` in them.

    Raises
    ------
    UsageError
        If ``init="custom"`` and the matrices do not go together.
    DataError
        If a matrix has another shape than the data ask for.
    """
    parameters = config.parameters
    if parameters.start.init != "custom":
        if config.h_init is not None or (config.w_init is not None and config.continue_from is None):
            hint = "give --h-init too, or leave --w-init out"
            raise UsageError("--h-init and --w-init go with --init custom", where="--init", hint=hint)
        return parameters
    if config.h_init is None and parameters.start.H is None:
        raise UsageError("--init custom needs a start for H", where="--h-init", hint="name a matrix (k x features)")
    if config.h_init is None:
        return parameters
    if config.solver == "mu" and config.w_init is None and not parameters.schedule.fresh_restarts:
        hint = "name a matrix (rows x k), or give --fresh-restarts"
        raise UsageError("--solver mu begins from W too", where="--w-init", hint=hint)
    shape = (parameters.objective.n_components, data.problem.n_features)
    H = matrix(config.h_init, shape, data.problem.dtype, "--h-init")
    return replace(parameters, start=replace(parameters.start, H=H))


def initial_rows(config: FitConfig, data: Data) -> Initial:
    """Rows of ``--w-init``; where a run goes on from a model, equal ones (the first step on W forgets their size)."""
    k = config.parameters.objective.n_components
    if config.w_init is None and config.continue_from is not None:
        return lambda start, stop: np.ones((stop - start, k), data.problem.dtype)
    if config.w_init is None:
        return no_initial
    shape = (data.problem.n_samples or 0, k)
    reader = _reader(config.w_init, shape, "--w-init")
    policy = ReadPolicy(data.problem.dtype)
    return lambda start, stop: read_rows(reader, start, stop, policy)


def matrix(given: str | Array, shape: tuple[int, int], dtype: Any, option: str) -> Array:
    """All rows of a small matrix, checked."""
    with _reader(given, shape, option) as reader:
        return read_rows(reader, 0, shape[0], ReadPolicy(np.dtype(dtype)))


def _reader(given: str | Array, shape: tuple[int, int], option: str) -> RowReader:
    from nmfstream.stores.memory import MemoryReader
    from nmfstream.stores.registry import open_reader

    reader: RowReader = open_reader(given, Opening()) if isinstance(given, str) else MemoryReader(given, option)
    if reader.shape != shape:
        raise DataError(f"{option} has shape {reader.shape}, not {shape}", where=reader.name)
    return reader


def read_rows(reader: RowReader, start: int, stop: int, policy: ReadPolicy) -> Array:
    """Rows of a store, dense, in this thread."""
    out = allocate(reader, start, stop, policy.dtype)
    for task in reader.tasks(start, stop, out, policy):
        task()
    return out.toarray() if isinstance(out, CSR) else out
