"""The memory of each command, from shapes, before a value is read.

The constants are measured: what libraries and kernels take once they are loaded, and how often a solver holds what
it works on. Peaks of whole processes are compared with the plan in the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from nmfstream.config import FitConfig, Resources
from nmfstream.core.blocks import block_rows, row_bytes
from nmfstream.core.mu_model import is_compiled
from nmfstream.core.newton_sample import HELD_BYTES, STRIPES
from nmfstream.core.parameters import Parameters
from nmfstream.core.protocols import Problem, Solver
from nmfstream.core.rows_least_squares import tile_rows
from nmfstream.core.sample import Level
from nmfstream.model import Model
from nmfstream.plan import Demand, Layout, MemoryPlan, plan_memory
from nmfstream.run.machine import default_memory, resident
from nmfstream.run.opening import Data
from nmfstream.run.solving import UNIT_BLOCKS
from nmfstream.run.workers import n_threads

MiB = 1 << 20
RUNNING = 10 * MiB
"""Modules that a run still loads, and its threads."""
KERNELS = {"mu": 48 * MiB, "hals": 50 * MiB, "newton": 64 * MiB, "accumulated": 60 * MiB, "rows": 50 * MiB}
"""The compiler's engine and the kernels that it loads, by solver and where rows are solved at one H."""
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
    solves_rows = config.w is not None and name != "mu"
    compiled = COMPILED[name](problem, k) or (solves_rows and compiled_rows(problem, k, parameters.objective.beta))
    threads = n_threads(config.resources.threads)
    units = [batch, *_initial_units(solver)]
    if solves_rows:
        units.append(block_rows(problem, k, batch) * UNIT_BLOCKS)
    always = {
        **libraries(KERNELS[name] if compiled else 0),
        "H and statistics": STATES[name] * k * problem.n_features * 8,
    }
    W = {"W of a batch": 3 * min(max(units), problem.n_samples or 0) * k * 8}
    last = row_scratch(problem, k, parameters.objective.beta, threads) if solves_rows else {}
    # Rows of W are solved when the passes that learn are over.
    most = max(_working(name, problem, batch, threads), last, key=lambda parts: sum(parts.values()))
    reading = {**W, **most}
    demand = Demand(always, reading, _sample(name, solver, problem, k, threads))
    return plan_memory(layout(data, *units), demand, threads, budget(config.resources))


def _sweeps(problem: Problem, n_components: int, work: int = 1 << 10) -> bool:
    """Whether rows are many enough for compiled sweeps."""
    return (problem.n_samples or 0) * n_components**2 >= work


def _nonzeros(problem: Problem, n_components: int, work: int = 1 << 12) -> bool:
    """Whether nonzeros may be many enough for compiled steps."""
    cells = (problem.n_samples or 0) * problem.n_features if problem.nnz is None else problem.nnz
    return cells * n_components >= work


COMPILED: dict[str, Callable[[Problem, int], bool]] = {
    "mu": is_compiled,
    "hals": _sweeps,
    "newton": _nonzeros,
    "accumulated": is_compiled,
}
"""Whether a solver calls the compiler."""


def compiled_rows(problem: Problem, n_components: int, beta: float) -> bool:
    """Whether solving rows for a fixed H calls the compiler: for most divergences it never does."""
    if beta == 2:
        return _sweeps(problem, n_components, 1 << 16)
    return beta == 1 and _nonzeros(problem, n_components, 1 << 17)


def row_scratch(problem: Problem, n_components: int, beta: float, threads: int) -> dict[str, int]:
    """What solving rows for a fixed H takes: tiles in float64 on every thread."""
    rows = tile_rows(np.broadcast_to(0.0, (n_components, problem.n_features)))
    numbers = 2 * problem.n_features if beta == 2 else 6 * problem.n_features + 2 * n_components**2
    return {"tiles of rows": threads * rows * numbers * 8}


def _initial_units(solver: Solver) -> list[int]:
    initialization = getattr(solver, "initialization", None)
    return [] if initialization is None or not initialization.stages else [initialization.unit]


def _working(name: str, problem: Problem, batch: int, threads: int) -> dict[str, int]:
    """What a batch is turned into: nonzeros both ways for Kullback-Leibler."""
    if name != "newton":
        return {}
    rows = min(batch, problem.n_samples or batch)
    by_rows = 0 if _held(problem, rows) else rows * _nonzero_bytes(problem)
    return {"nonzeros of a batch": int(by_rows + _both_ways(problem, rows, rows, threads))}


def _held(problem: Problem, rows: int) -> bool:
    return problem.nnz is not None or rows * row_bytes(problem) <= HELD_BYTES


WAYS = 3
"""Copies of the nonzeros: by rows, by columns, and on the way from one to the other."""


def _nonzero_bytes(problem: Problem) -> float:
    """Bytes a row as nonzeros; of a dense matrix all might be."""
    width = row_bytes(problem)
    return width if problem.nnz is not None else width * (1 + 4 / problem.dtype.itemsize)


def _sample(name: str, solver: Solver, problem: Problem, n_components: int, threads: int) -> dict[str, int]:
    """The sample itself, the copy that a smaller level is, W of every start."""
    levels = solver.plan() if hasattr(solver, "plan") else []
    if not levels:
        return {}
    size, width = int(getattr(solver, "size", 0)), row_bytes(problem)

    def at(level: Level) -> float:
        copied = level.rows * width if level.rows < size else 0.0
        W = 3 * level.rows * n_components * problem.dtype.itemsize * max(1, level.starts)
        return copied + W + (_both_ways(problem, level.rows, level.rows, threads) if name == "newton" else 0.0)

    return {"sample": int(size * width + max(map(at, levels)))}


def _both_ways(problem: Problem, rows: int, block_rows: int, threads: int) -> float:
    """Nonzeros by rows and by columns; of large dense rows only the pieces in hand."""
    if _held(problem, rows):
        return WAYS * rows * _nonzero_bytes(problem)
    piece = max(min(block_rows, rows / STRIPES), 64) * _nonzero_bytes(problem)
    return threads * (WAYS + 1) * piece


def transform_memory(data: Data, model: Model, resources: Resources) -> MemoryPlan:
    """The plan of a transform.

    Raises
    ------
    UsageError
    """
    problem, k = data.problem, model.n_components
    size = block_rows(problem, k) * UNIT_BLOCKS
    threads = n_threads(resources.threads)
    beta = model.objective.beta
    always = {**libraries(KERNELS["rows"] if compiled_rows(problem, k, beta) else 0), "H": 6 * k * model.n_features * 8}
    reading = {"W of a batch": 3 * min(size, problem.n_samples or 0) * k * 8, **row_scratch(problem, k, beta, threads)}
    return plan_memory(layout(data, size), Demand(always, reading), threads, budget(resources))


def libraries(kernels: int) -> dict[str, int]:
    """What the process is going to hold without any data, everything heavy loaded now so that it is known.

    Parameters
    ----------
    kernels : int
        Bytes of compiled kernels; 0 where the compiler is not called.
    """
    import scipy.linalg  # noqa: F401
    import threadpoolctl  # noqa: F401

    if kernels:
        import numba  # noqa: F401
    return {"interpreter and libraries": resident() + RUNNING + kernels}


def layout(data: Data, *units: int) -> Layout:
    """What the plan has to know of the data."""
    n, reader = data.problem.n_samples or 0, data.reader
    rows: Sequence[int] = [max(1, min(unit, n)) for unit in units]
    return Layout(n, row_bytes(data.problem), tuple(rows), max(1, min(reader.chunk_rows, n)), reader.task_bytes)


def budget(resources: Resources) -> int:
    """The bytes that the process may use."""
    return resources.memory if resources.memory is not None else default_memory()
