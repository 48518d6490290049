"""The memory of `nmfstream fit -`: from the shape of the first rows, before more is read."""

from __future__ import annotations

from typing import Any

from nmfstream.config import Resources
from nmfstream.core.blocks import BLOCK_BYTES, row_bytes
from nmfstream.core.needed import expect_initialization, expect_stream
from nmfstream.core.parameters import Parameters
from nmfstream.core.protocols import Problem
from nmfstream.plan import MemoryPlan, larger, refuse_beyond
from nmfstream.run.machine import default_memory
from nmfstream.run.memory import (
    KERNELS,
    STATES,
    W_of_batch,
    budget,
    compiled_first,
    learnt_rows,
    libraries,
    row_scratch,
    sample_bytes,
    working,
)
from nmfstream.run.stream_memory import LOADED, rows_in_hand
from nmfstream.run.streaming import StreamSource
from nmfstream.run.workers import n_threads

BATCHES = 3
"""Batches of rows: the one in hand, its chunks as they came, and the one before it, from which they were cut."""
CELLS = 4
"""Arrays of a block's shape that multiplicative updates without kernels make."""
LET_IN = 3
"""Reservoirs while rows are let in: the old one, it with the new rows, and what is taken of that."""
STARTS = 8
"""Starts side by side: a kernel may be called from an eighth of the work."""


def kernels(name: str, beta: float, *, sparse: bool) -> int:
    """Bytes of the kernels that a solver calls on a stream; 0 where it calls none."""
    rows = name != "mu" and beta in (1.0, 2.0)
    called = (KERNELS[name] if name in ("hals", "newton") or sparse else 0) + (KERNELS["rows"] if rows else 0)
    return int(called)


def check_fit_memory(
    name: str, solver: Any, parameters: Parameters, source: StreamSource, resources: Resources, held: dict[str, int]
) -> None:
    """Refuse a stream that cannot be learnt from within the budget; compile what is missing if it can.

    Parameters
    ----------
    name : str
        Of the solver.
    solver : Solver
    parameters : Parameters
    source : StreamSource
    resources : Resources
    held : dict of str to int
        What libraries and kernels take, where a budget is set (see `stream_memory.loaded`).

    Raises
    ------
    UsageError
        If the budget is too small; names the smallest that works.
    """
    k, batch = parameters.objective.n_components, parameters.schedule.batch_size
    reservoir = _reservoir(name, source.problem, parameters)
    problem = source.first_rows(max(batch, reservoir))
    width = int(row_bytes(problem))
    rows = {"rows in hand": rows_in_hand(max(width, source.row_bytes)) + BATCHES * batch * width}
    always = {**rows, "H and statistics": STATES[name] * k * problem.n_features * 8}
    threads = n_threads(resources.threads)
    most = larger(*_times(name, solver, problem, parameters, reservoir, threads))
    if resources.memory is None and sum(always.values()) + sum(most.values()) + LOADED <= default_memory():
        return
    held = held or libraries(kernels(name, parameters.objective.beta, sparse=problem.sparse), problem)
    _expect(name, problem, parameters)
    memory = budget(resources)
    before = compiled_first(memory, {**held, **rows})
    refuse_beyond(MemoryPlan(larger(before, {**held, **always, **most}), 0, 0), memory)


def _reservoir(name: str, problem: Problem, parameters: Parameters) -> int:
    """Rows that are kept to look back at; ``mu`` keeps none."""
    if name == "mu":
        return 0
    from nmfstream.core.stream import capacity

    return capacity(problem, parameters.objective.n_components)


def _times(
    name: str, solver: Any, problem: Problem, parameters: Parameters, reservoir: int, threads: int
) -> list[dict[str, int]]:
    """What is there while a batch is learnt from, while its rows are fitted as a sample, and at the end."""
    k, beta, batch = parameters.objective.n_components, parameters.objective.beta, parameters.schedule.batch_size
    width, scratch = int(row_bytes(problem)), _scratch(name, problem, parameters, threads)
    kept = {"reservoir": reservoir * width}
    apart = learnt_rows(name, problem, parameters.schedule, batch)
    learning = {**W_of_batch(problem, batch, k), **working(name, problem, k, beta, batch, threads), **apart, **scratch}
    times = [{**learning, **kept}, {"reservoir": (LET_IN * reservoir + batch) * width} if reservoir else {}]
    if reservoir and parameters.start.sample_rows != 0:
        from nmfstream.core.stream import levels

        for rows, beside in ((batch, {}), (reservoir, kept)):
            size, plan = levels(solver, rows)
            times.append({**scratch, **beside, **sample_bytes(name, plan, size, problem, k, threads)})
    return times


def _scratch(name: str, problem: Problem, parameters: Parameters, threads: int) -> dict[str, int]:
    """What blocks are turned into on every thread, and rows that are solved at one H."""
    k, beta = parameters.objective.n_components, parameters.objective.beta
    cells = {"cells of blocks": threads * CELLS * BLOCK_BYTES} if name in ("mu", "accumulated") else {}
    return {**cells, **({} if name == "mu" else row_scratch(problem, k, beta, threads))}


def _expect(name: str, problem: Problem, parameters: Parameters) -> None:
    """Say which kernels are going to be called."""
    k, beta = parameters.objective.n_components, parameters.objective.beta
    n, nnz = problem.n_samples or 0, problem.nnz
    work = problem._replace(n_samples=STARTS * n, nnz=None if nnz is None else STARTS * nnz)
    expect_stream(name, work, k, beta)
    if parameters.start.init not in ("random", "custom"):
        expect_initialization(work, k)
