"""The memory of each command, from shapes, before a value is read."""

from __future__ import annotations

from nmfstream.config import FitConfig, Resources
from nmfstream.core.blocks import block_rows, row_bytes
from nmfstream.core.parameters import Parameters
from nmfstream.core.protocols import Solver
from nmfstream.model import Model
from nmfstream.plan import Layout, MemoryPlan, plan_memory
from nmfstream.run.machine import default_memory, resident
from nmfstream.run.opening import Data
from nmfstream.run.solving import UNIT_BLOCKS
from nmfstream.run.workers import n_threads

COMPILED = 110 << 20
"""What numba and its kernels take once they are loaded."""


def fit_memory(
    config: FitConfig, data: Data, name: str, solver: Solver, parameters: Parameters, batch: int
) -> MemoryPlan:
    """The plan of a fit.

    Raises
    ------
    UsageError
        If the budget is too small; names the smallest that works.
    """
    problem, k = data.problem, parameters.objective.n_components
    threads = n_threads(config.resources.threads)
    sample = getattr(solver, "size", 0)
    width = row_bytes(problem)
    cells = k * problem.n_features * 8
    fixed = {
        "interpreter and libraries": resident() + COMPILED,
        "H and statistics": STATES[name] * cells,
        "W of a batch": 6 * batch * k * 8,
    }
    sample_bytes = int(sample * (width + 6 * k * 8))
    return plan_memory(layout(data, batch), fixed, threads, budget(config.resources), resident_rows_bytes=sample_bytes)


STATES = {"mu": 8, "hals": 16, "newton": 20, "accumulated": 16}
"""Matrices of H's shape in float64 that a solver holds at its peak, partial sums included."""


def transform_memory(data: Data, model: Model, resources: Resources) -> MemoryPlan:
    """The plan of a transform.

    Raises
    ------
    UsageError
    """
    k = model.n_components
    size = block_rows(data.problem, k) * UNIT_BLOCKS
    fixed = {
        "interpreter and libraries": resident() + COMPILED,
        "H": 4 * model.components.nbytes,
        "W of a batch": 6 * size * k * 8,
    }
    return plan_memory(layout(data, size), fixed, n_threads(resources.threads), budget(resources))


def layout(data: Data, unit: int) -> Layout:
    """What the plan has to know of the data."""
    n, width, reader = data.problem.n_samples or 0, row_bytes(data.problem), data.reader
    return Layout(
        n, width, unit, int(min(unit, n) * width), int(min(reader.chunk_rows - 1, n) * width), reader.task_bytes
    )


def budget(resources: Resources) -> int:
    """The bytes that the process may use."""
    return resources.memory if resources.memory is not None else default_memory()
