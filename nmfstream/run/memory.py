"""The memory of each command, from shapes, before a value is read.

The constants are measured: what libraries and kernels take once they are loaded, and how often a solver holds what
it works on. Peaks of whole processes are compared with the plan in the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from nmfstream.config import FitConfig, Resources
from nmfstream.core.blocks import block_rows, row_bytes
from nmfstream.core.mu_model import is_compiled
from nmfstream.core.needed import expect_initialization, expect_rows, expect_solver
from nmfstream.core.newton_sample import HELD_BYTES, STRIPES
from nmfstream.core.parameters import Parameters, Schedule
from nmfstream.core.protocols import Problem, Solver
from nmfstream.core.reduction import AT_ONCE, by_stripes
from nmfstream.core.rows_least_squares import tile_rows
from nmfstream.core.sample import Level
from nmfstream.machine_code import compiling_bytes, make, missing, prepare
from nmfstream.model import Model
from nmfstream.plan import Demand, Layout, MemoryPlan, Pass, plan_memory
from nmfstream.run.machine import default_memory, give_back_freed, resident
from nmfstream.run.opening import Data
from nmfstream.run.pipeline import layout_of
from nmfstream.run.solving import UNIT_BLOCKS
from nmfstream.run.workers import n_threads

MiB = 1 << 20
RUNNING = 16 * MiB
"""Modules that a run still loads, and its threads."""
KERNELS = {"mu": 5 * MiB, "hals": 3 * MiB, "newton": 14 * MiB, "accumulated": 12 * MiB, "rows": 6 * MiB}
"""Compiled kernels as they are loaded, by solver and where rows are solved at one H."""
SPARSE = 14 * MiB
"""What sorting and checking sparse rows load, and leave in the allocator's hands."""
STATES = {"mu": 6, "hals": 10, "newton": 10, "accumulated": 14}
"""Matrices of H's shape in float64 that a solver holds at its peak, partial sums included."""
NNDSVD_STATES = 2
"""The same of an NNDSVD of all rows: what maps rows of X to the first W, until all have been seen."""


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
    beta, stages = parameters.objective.beta, _initial_units(solver)
    if stages or (parameters.start.init or "").startswith("nndsvd"):
        expect_initialization(problem, k)
    compiled = _expected(name, problem, k, beta, solves_rows)
    memory, threads = budget(config.resources), n_threads(config.resources.threads)
    before = compiled_first(0 if config.dry_run else memory)
    spectral = NNDSVD_STATES if len(stages) > 1 else 0
    held = {"H and statistics": (STATES[name] + spectral) * k * problem.n_features * 8}
    block = block_rows(problem, k, batch) if problem.nnz is None and getattr(solver, "by_block", False) else None

    def learning(rows: int) -> Pass:
        parts = {**W_of_batch(problem, rows, k), **working(name, problem, k, beta, rows, threads)}
        return Pass(rows, {**parts, **learnt_rows(name, problem, parameters.schedule, rows)}, block)

    steps = {batch, min(getattr(solver, "step_rows", batch), problem.n_samples or batch)}
    passes = [*map(learning, sorted(steps)), *(Pass(unit) for unit in stages[:1])]
    if solves_rows:
        passes.append(_row_pass(problem, beta, k, block_rows(problem, k, batch), threads))
    demand = Demand(
        {**libraries(KERNELS[name] if compiled else 0, problem), **held},
        passes,
        _sample(name, solver, problem, parameters, threads),
        before,
    )
    return plan_memory(layout(data), demand, threads, memory)


def _expected(name: str, problem: Problem, n_components: int, beta: float, solves_rows: bool) -> bool:
    """Expect the kernels of a solver and of its W; whether there are any."""
    learns = COMPILED[name](problem, n_components)
    if learns:
        expect_solver(name, problem, n_components, beta)
    return (solves_rows and expected_rows(problem, n_components, beta)) or learns


def compiled_first(memory: int, held: Mapping[str, int] | None = None) -> dict[str, int]:
    """Compile what is expected and missing, before libraries are loaded, unless the budget forbids it.

    Parameters
    ----------
    memory : int
    held : mapping of str to int, optional
        Bytes by purpose meanwhile, besides the compiler; None: this process as it is.

    Returns
    -------
    dict of str to int
        Bytes by purpose meanwhile: what is held and a compiler beside it; nothing if nothing was missing.
    """
    largest = max(map(compiling_bytes, missing()), default=0)
    there = {"interpreter and libraries": resident()} if held is None else held
    parts = {**there, "compiling": largest} if largest else {}
    if sum(parts.values()) <= memory:
        make()
    return parts


def W_of_batch(problem: Problem, rows: int, n_components: int) -> dict[str, int]:
    """W of some rows, and what solving it takes."""
    return {"W of a batch": 3 * min(rows, problem.n_samples or 0) * n_components * 8}


def learnt_rows(name: str, problem: Problem, schedule: Schedule, rows: int) -> dict[str, int]:
    """Where rows are set aside, those of a batch that are not, and those that are: copies."""
    if name == "mu" or schedule.holdout <= 0:
        return {}
    return {"rows apart": int(min(rows, problem.n_samples or rows) * row_bytes(problem))}


def _row_pass(problem: Problem, beta: float, n_components: int, block: int, threads: int) -> Pass:
    """Solving W of every row for a fixed H."""
    unit = block * UNIT_BLOCKS
    parts = {**W_of_batch(problem, unit, n_components), **row_scratch(problem, n_components, beta, threads)}
    return Pass(unit, parts, block if problem.nnz is None else None)


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


def expected_rows(problem: Problem, n_components: int, beta: float) -> bool:
    """Expect the kernels that solve rows for a fixed H; whether there are any."""
    compiled = compiled_rows(problem, n_components, beta)
    if compiled:
        expect_rows(problem, n_components, beta)
    return compiled


def row_scratch(problem: Problem, n_components: int, beta: float, threads: int) -> dict[str, int]:
    """What solving rows for a fixed H takes: tiles in float64 on every thread."""
    rows = tile_rows(np.broadcast_to(0.0, (n_components, problem.n_features)))
    squares = 0 if beta == 2 else 2 * n_components**2
    numbers = ROW_ARRAYS.get(beta, DIVERGENCE_ARRAYS) * problem.n_features + squares
    return {"tiles of rows": threads * rows * numbers * 8}


ROW_ARRAYS, DIVERGENCE_ARRAYS = {2.0: 2, 1.0: 6}, 11
"""Arrays of a tile's shape in hand at once, by β: the last for all others."""


def _initial_units(solver: Solver) -> list[int]:
    """Rows a step of each stage before the passes: one for the mean of X, several for an NNDSVD."""
    initialization = getattr(solver, "initialization", None)
    return [] if initialization is None else [initialization.unit] * len(initialization.stages)


def working(name: str, problem: Problem, n_components: int, beta: float, batch: int, threads: int) -> dict[str, int]:
    """What a batch is turned into: nonzeros both ways for Kullback-Leibler, tiles where rows are solved one by one."""
    rows = min(batch, problem.n_samples or batch)
    if name in ("mu", "accumulated"):
        tiles = row_scratch(problem, n_components, beta, threads) if name == "accumulated" else {}
        return {**tiles, "sums of blocks": _sums_of_blocks(problem, n_components, beta, rows, threads)}
    if name != "newton":
        return {}
    both = _both_ways(problem, rows, threads)
    if by_stripes(n_components, problem.n_features):
        both = max(both, STRIPED * rows * _nonzero_bytes(problem))
    by_rows = 0.0 if _held(problem, rows) else rows * _nonzero_bytes(problem)
    return {"nonzeros of a batch": int(by_rows + both)}


def _sums_of_blocks(problem: Problem, n_components: int, beta: float, rows: int, threads: int) -> int:
    """Sums that wait for their turn, beyond those counted among `STATES`, and numbers at nonzeros in hand."""
    size, terms = block_rows(problem, n_components, rows), 1 if beta in (1.0, 2.0) else 2
    waiting = 0 if by_stripes(n_components, problem.n_features) else min(-(-rows // size), AT_ONCE * threads)
    sums = max(0, waiting - 2) * terms * n_components * problem.n_features * problem.dtype.itemsize
    return sums + (0 if problem.nnz is None or terms == 1 else int(threads * AT_NONZEROS * size * row_bytes(problem)))


AT_NONZEROS = 2.5
"""Row numbers, WH, and what becomes of it, where they are not compiled."""


STRIPED = 2.0
"""Ratios and their squares by columns, where H is large."""


def _held(problem: Problem, rows: int) -> bool:
    return problem.nnz is not None or rows * row_bytes(problem) <= HELD_BYTES


STRIPE = 2.0
"""A stripe of the nonzeros by columns in hand: WH and ratios of it."""


def _nonzero_bytes(problem: Problem) -> float:
    """Bytes a row as nonzeros; of a dense matrix all might be."""
    width = row_bytes(problem)
    return width if problem.nnz is not None else width * (1 + 4 / problem.dtype.itemsize)


def _sample(name: str, solver: Solver, problem: Problem, parameters: Parameters, threads: int) -> dict[str, int]:
    """The sample itself; where it is sparse, the copies that a smaller level is and that it is without rows held out.

    Rows of a dense one are moved (see `core.sample_rows`).
    """
    levels, size = solver.plan() if hasattr(solver, "plan") else [], int(getattr(solver, "size", 0))
    k, copies = parameters.objective.n_components, problem.sparse
    parts = sample_bytes(name, levels, size, problem, k, threads, copies=copies)
    if parts and copies and parameters.schedule.holdout > 0:
        parts["sample"] += int(size * row_bytes(problem))
    return parts


def sample_bytes(
    name: str,
    levels: list[Level],
    size: int,
    problem: Problem,
    n_components: int,
    threads: int,
    *,
    copies: bool = True,
) -> dict[str, int]:
    """What fitting `size` rows in these levels takes, the rows included; `copies`: a smaller level is a copy."""
    if not levels:
        return {}
    width = row_bytes(problem)

    def at(level: Level) -> float:
        copied = level.rows * width if copies and level.rows < size else 0.0
        starts = max(1, level.starts + (level.spectral and level.starts > 0))
        W = 3 * starts * level.rows * n_components * problem.dtype.itemsize
        together = starts * n_components
        partial = 0 if by_stripes(together, problem.n_features) else PARTIALS * threads * problem.dtype.itemsize
        H = together * problem.n_features * (START_BYTES + partial)
        return copied + W + H + (_both_ways(problem, level.rows, threads) if name == "newton" else 0.0)

    return {"sample": FITTING.get(name, 0) + int(size * width + max(map(at, levels)))}


FITTING = {"hals": 8 * MiB}
"""Modules, kernels and LAPACK of a sample fit, by solver, where its passes need less."""


START_BYTES, PARTIALS = 20, 4
"""Bytes a start for each cell of its H: H before and after a step, side by side with the others, WᵀX in float64; sums
of blocks, by thread, that wait for their turn."""


def _both_ways(problem: Problem, rows: int, threads: int) -> float:
    """Nonzeros by rows and by columns; of large dense rows only the pieces in hand."""
    if _held(problem, rows):
        return (1 + STRIPE * min(1.0, threads / STRIPES)) * rows * _nonzero_bytes(problem)
    return threads * IN_HAND * max(rows / STRIPES, 64) * _nonzero_bytes(problem)


IN_HAND = 3
"""A piece, its nonzeros, and what picking them out takes."""


def transform_memory(data: Data, model: Model, resources: Resources) -> MemoryPlan:
    """The plan of a transform.

    Raises
    ------
    UsageError
    """
    problem, k, beta = data.problem, model.n_components, model.objective.beta
    threads = n_threads(resources.threads)
    kernels = KERNELS["rows"] if expected_rows(problem, k, beta) else 0
    memory = budget(resources)
    before = compiled_first(memory)
    always = {**libraries(kernels, problem), "H": 6 * k * model.n_features * 8}
    demand = Demand(always, [_row_pass(problem, beta, k, block_rows(problem, k), threads)], before=before)
    return plan_memory(layout(data), demand, threads, memory)


def libraries(kernels: int, problem: Problem) -> dict[str, int]:
    """What the process is going to hold without any data, everything heavy loaded now so that it is known.

    Parameters
    ----------
    kernels : int
        Bytes of compiled kernels; 0 where the compiler is not called.
    """
    import threadpoolctl  # noqa: F401

    if kernels:
        prepare()
    give_back_freed()
    return {"interpreter and libraries": resident() + RUNNING + kernels + (0 if problem.nnz is None else SPARSE)}


def layout(data: Data) -> Layout:
    """What the plan has to know of the data."""
    return layout_of(data.problem, data.reader)


def budget(resources: Resources) -> int:
    """The bytes that the process may use."""
    return resources.memory if resources.memory is not None else default_memory()
