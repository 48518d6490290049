"""The memory of a stream's rows, from shapes, before a value is read; loads little where the budget is far away."""

from __future__ import annotations

import numpy as np

from nmfstream.config import Resources
from nmfstream.core.protocols import Problem
from nmfstream.run.machine import default_memory
from nmfstream.stores.readahead import CAPACITY
from nmfstream.stores.stream import CHUNK_BYTES, WHOLE_BYTES

ENDLESS = 1 << 40
"""Rows of a stream, as far as anybody knows."""
IN_FLIGHT = 6
"""Chunks of a stream between what came and what went: as they came, converted, solved, on their way out."""
GATHERED = 3
"""Copies of gathered rows: as they came, joined, and those joined before them."""
LOADED = 512 << 20
"""More than all libraries take."""


def check_stream_memory(
    problem: Problem, n_components: int, beta: float, resources: Resources, *, gathered: int = 0
) -> None:
    """Refuse a stream whose rows cannot be solved within the budget.

    Where nobody set one, and it is far away, the libraries are not loaded to be weighed: one row through a pipe is
    answered before they would be there.

    Parameters
    ----------
    gathered : int
        Rows that are collected before they are worked on.

    Raises
    ------
    UsageError
        If the budget is too small; names the smallest that works.
    """
    width = problem.n_features * problem.dtype.itemsize
    held = {
        "H": 6 * n_components * problem.n_features * 8,
        "rows in hand": rows_in_hand(width) + GATHERED * gathered * width,
    }
    if resources.memory is not None or sum(held.values()) + LOADED > default_memory():
        _weigh(problem, n_components, beta, resources, held)


def rows_in_hand(row_bytes: int) -> int:
    """Bytes of a stream's rows on their way, a row of so many; an array may come by its columns."""
    return WHOLE_BYTES + max(CAPACITY, row_bytes) + IN_FLIGHT * max(CHUNK_BYTES, 2 * row_bytes)


def loaded(resources: Resources, kernels: int = 0) -> dict[str, int]:
    """What libraries and kernels take, where a budget is set; to be asked before a stream reads ahead."""
    if resources.memory is None:
        return {}
    from nmfstream.run.memory import libraries

    return libraries(kernels, Problem(None, 0, np.dtype(np.float64)))


def check_rows_memory(held: dict[str, int], row_bytes: int, resources: Resources) -> None:
    """Refuse a budget that does not hold a stream's rows as they come and what is made of them.

    Parameters
    ----------
    held : dict of str to int
        Bytes by purpose besides the rows in hand, what is `loaded` included.
    row_bytes : int
        Of a row as it comes.

    Raises
    ------
    UsageError
        If the budget is too small; names the smallest that works.
    """
    if resources.memory is None:
        return
    from nmfstream.plan import MemoryPlan, refuse_beyond

    refuse_beyond(MemoryPlan({**held, "rows in hand": rows_in_hand(row_bytes)}, 0, 0), resources.memory)


def _weigh(problem: Problem, n_components: int, beta: float, resources: Resources, held: dict[str, int]) -> None:
    from nmfstream.plan import MemoryPlan, larger, refuse_beyond
    from nmfstream.run.memory import KERNELS, budget, compiled_first, expected_rows, libraries, row_scratch
    from nmfstream.run.workers import n_threads

    compiled = expected_rows(problem._replace(n_samples=ENDLESS), n_components, beta)
    memory = budget(resources)
    before = compiled_first(memory)
    scratch = row_scratch(problem, n_components, beta, n_threads(resources.threads))
    parts = {**libraries(KERNELS["rows"] if compiled else 0, problem), **held, **scratch}
    refuse_beyond(MemoryPlan(larger(before, parts), 0, 0), memory)
