"""The engine on a matrix in memory: executors that live as long as the process, blocks, whole solves."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

from nmfstream.core.blocks import block_rows
from nmfstream.core.protocols import Batch, Executor, Problem
from nmfstream.run.executors import Pool, SerialExecutor, settle
from nmfstream.run.workers import n_threads
from nmfstream.types import CSR, Matrix

SERIAL_WORK = 2_000_000
"""Cells (nonzeros) times components up to which threads cost more than they bring."""

Item = TypeVar("Item")
Result = TypeVar("Result")
_lock = threading.Lock()
_limits: list[Any] = []


class SharingExecutor:
    """The caller works with the helpers: a map of short tasks does not wait for threads to wake up.

    Parameters
    ----------
    helpers : Pool
    """

    def __init__(self, helpers: Pool) -> None:
        self._helpers = helpers
        self.n_workers = helpers.n_workers + 1

    def map(self, task: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """See `nmfstream.core.protocols.Executor.map`."""
        given = list(items)
        results: list[Any] = [None] * len(given)
        turns = iter(range(len(given)))

        def work() -> None:
            for i in turns:
                results[i] = task(given[i])

        helping = [self._helpers.submit(work) for _ in range(min(self._helpers.n_workers, len(given) - 1))]
        try:
            work()
        finally:
            settle(helping)
        for future in helping:
            if not future.cancelled():
                future.result()
        return results


@cache
def _blas() -> Any:
    # Loaded first: what is not there is not found.
    import numpy  # noqa: F401
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


@cache
def _helpers(process: int) -> Pool:
    return Pool(n_threads(None) - 1)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """BLAS on one thread while any call of ours runs; what was set before comes back after the last."""
    with _lock:
        _limits.append(_blas().limit(limits=1) if not _limits else None)
    try:
        yield
    finally:
        with _lock:
            # The first to come set the limit; it is at the bottom, so that the last to go lifts it.
            if (limit := _limits.pop()) is not None:
                limit.restore_original_limits()


@contextmanager
def executor_for(X: Matrix, n_components: int) -> Iterator[Executor]:
    """Where the blocks of X are mapped; the results are the same on every executor."""
    cells = X.nnz if isinstance(X, CSR) else X.shape[0] * X.shape[1]
    with one_blas_thread():
        if cells * n_components <= SERIAL_WORK or n_threads(None) == 1:
            yield SerialExecutor()
        else:
            yield SharingExecutor(_helpers(os.getpid()))


def problem_of(X: Matrix) -> Problem:
    """What X is like."""
    n, m = X.shape
    return Problem(n, m, X.dtype, X.nnz if isinstance(X, CSR) else None)


def one_batch(X: Matrix, n_components: int) -> Batch:
    """All rows as one batch."""
    return Batch(0, X, block_rows(problem_of(X), n_components, X.shape[0]))
