"""The threads of a run, each with a single-threaded BLAS while it lasts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from nmfstream.run.executors import Pool, Stop, ThreadExecutor, never


def n_threads(asked: int | None) -> int:
    """The number asked for, or the cores this process may use."""
    return asked if asked is not None else len(os.sched_getaffinity(0))


@contextmanager
def workers(threads: int | None = None, stop: Stop = never) -> Iterator[tuple[Pool, ThreadExecutor]]:
    """A pool and an executor on it; every BLAS and LAPACK call runs on one thread until the end.

    Parameters
    ----------
    threads : int, optional
        None: all cores that the process may use.
    stop : callable
        Says that the run is to end.
    """
    with one_blas_thread(), Pool(n_threads(threads)) as pool:
        yield pool, ThreadExecutor(pool, stop)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """BLAS on one thread; what was set before comes back at the end."""
    # Loaded first: a library that is loaded later would keep all its threads.
    import numpy  # noqa: F401
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="blas"):
        yield
