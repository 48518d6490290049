"""The memory of each command, from shapes, before a value is read.

The constants are measured: what libraries and kernels take once they are loaded, and how often a solver holds what
it works on. Peaks of whole processes are compared with the plan in the tests.
"""

from __future__ import annotations

from collections.abc import Sequence

from nmfstream.config import FitConfig, Resources
from nmfstream.core.blocks import block_rows, row_bytes
from nmfstream.core.mu_model import is_compiled
from nmfstream.core.parameters import Parameters
from nmfstream.core.protocols import Problem, Solver
from nmfstream.model import Model
from nmfstream.plan import Demand, Layout, MemoryPlan, plan_memory
from nmfstream.run.machine import default_memory, resident
from nmfstream.run.opening import Data
from nmfstream.run.solving import UNIT_BLOCKS
from nmfstream.run.workers import n_threads

MiB = 1 << 20
RUNNING = 12 * MiB
"""Modules that a run still loads, and its threads."""
KERNELS = 60 * MiB
"""The compiler's engine and the kernels that it loads."""
STATES = {"mu": 6, "hals": 14, "newton": 20, "accumulated": 14}
"""Matrices of H's shape in float64 that a solver holds at its peak, partial sums included."""


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
    compiled = is_compiled(problem, k) if name in ("mu", "accumulated") and config.w is None else _sweeps(problem, k)
    units = [batch, *_initial_units(solver)]
    if config.w is not None and name != "mu":
        units.append(block_rows(problem, k, batch) * UNIT_BLOCKS)
    always = {**libraries(compiled), "H and statistics": STATES[name] * k * problem.n_features * 8}
    reading = {"W of a batch": 6 * max(units) * k * 8, **_working(name, problem, batch)}
    demand = Demand(always, reading, _sample(name, solver, problem, k))
    return plan_memory(layout(data, *units), demand, n_threads(config.resources.threads), budget(config.resources))


def _sweeps(problem: Problem, n_components: int) -> bool:
    """Whether rows are many enough for compiled sweeps."""
    return (problem.n_samples or 0) * n_components**2 >= 1 << 16


def _initial_units(solver: Solver) -> list[int]:
    initialization = getattr(solver, "initialization", None)
    return [] if initialization is None or not initialization.stages else [initialization.unit]


def _working(name: str, problem: Problem, batch: int) -> dict[str, int]:
    """What a batch is turned into: nonzeros both ways for Kullback-Leibler."""
    if name != "newton":
        return {}
    return {"nonzeros of a batch": int(WAYS * _nonzero_bytes(problem) * min(batch, problem.n_samples or batch))}


WAYS = 3
"""Copies of the nonzeros: by rows, by columns, and on the way from one to the other."""


def _nonzero_bytes(problem: Problem) -> float:
    """Bytes a row as nonzeros; of a dense matrix all might be."""
    width = row_bytes(problem)
    return width if problem.nnz is not None else width * (1 + 4 / problem.dtype.itemsize)


def _sample(name: str, solver: Solver, problem: Problem, n_components: int) -> dict[str, int]:
    """The sample itself, the copy that a smaller level is, W of every start."""
    levels = solver.plan() if hasattr(solver, "plan") else []
    if not levels:
        return {}
    size = int(getattr(solver, "size", 0))
    width = row_bytes(problem)
    times = 0.0 if name != "newton" else WAYS * _nonzero_bytes(problem)
    most = max(
        level.rows * times
        + (level.rows * width if level.rows < size else 0)
        + 3 * level.rows * n_components * problem.dtype.itemsize * max(1, level.starts)
        for level in levels
    )
    return {"sample": int(size * width + most)}


def transform_memory(data: Data, model: Model, resources: Resources) -> MemoryPlan:
    """The plan of a transform.

    Raises
    ------
    UsageError
    """
    problem, k = data.problem, model.n_components
    size = block_rows(problem, k) * UNIT_BLOCKS
    threads = n_threads(resources.threads)
    always = {**libraries(_sweeps(problem, k)), "H": 4 * model.components.nbytes}
    reading = {"W of a batch": 6 * min(size, problem.n_samples or 0) * k * 8}
    return plan_memory(layout(data, size), Demand(always, reading), threads, budget(resources))


def libraries(compiled: bool) -> dict[str, int]:
    """What the process is going to hold without any data, everything heavy loaded now so that it is known."""
    import scipy.linalg  # noqa: F401
    import threadpoolctl  # noqa: F401

    if compiled:
        import numba  # noqa: F401
    return {"interpreter and libraries": resident() + RUNNING + (KERNELS if compiled else 0)}


def layout(data: Data, *units: int) -> Layout:
    """What the plan has to know of the data."""
    n, reader = data.problem.n_samples or 0, data.reader
    rows: Sequence[int] = [max(1, min(unit, n)) for unit in units]
    return Layout(n, row_bytes(data.problem), tuple(rows), max(1, min(reader.chunk_rows, n)), reader.task_bytes)


def budget(resources: Resources) -> int:
    """The bytes that the process may use."""
    return resources.memory if resources.memory is not None else default_memory()
