"""Where tasks run: one after the other, or on the threads of a `Pool`. The results are the same."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, TypeVar

from nmfstream.errors import StopRequested

Item = TypeVar("Item")
Result = TypeVar("Result")
Stop = Callable[[], bool]


def never() -> bool:
    """The stop that nobody asks for."""
    return False


class SerialExecutor:
    """The reference: every task in the caller's thread.

    Parameters
    ----------
    stop : callable
        Asked before each task; `StopRequested` is raised when it says yes.
    """

    n_workers = 1

    def __init__(self, stop: Stop = never) -> None:
        self._stop = stop

    def map(self, task: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """See `nmfstream.core.protocols.Executor.map`."""
        return [_checked(self._stop, task, item) for item in items]


class Pool:
    """Threads that serve two queues: computing first, reading ahead when there is nothing to compute.

    Work is conserved: a thread is idle only when both queues are empty. Context manager.

    Parameters
    ----------
    n_workers : int
    """

    def __init__(self, n_workers: int) -> None:
        self.n_workers = n_workers
        self._queues: tuple[deque[Any], deque[Any]] = (deque(), deque())
        self._ready = threading.Condition()
        self._closed = False
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(n_workers)]
        for thread in self._threads:
            thread.start()

    def submit(self, task: Callable[[], Result], *, ahead: bool = False) -> Future[Result]:
        """Queue a task; `ahead` marks reading ahead, which computing overtakes."""
        future: Future[Result] = Future()
        with self._ready:
            self._queues[ahead].append((future, task))
            self._ready.notify()
        return future

    def _next(self) -> Any:
        with self._ready:
            while not (self._queues[0] or self._queues[1]):
                if self._closed:
                    return None
                self._ready.wait()
            return (self._queues[0] or self._queues[1]).popleft()

    def _serve(self) -> None:
        while (job := self._next()) is not None:
            future, task = job
            if future.set_running_or_notify_cancel():
                try:
                    result = task()
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)
            # A waiting thread must not keep the last task's buffers alive.
            del job, future, task
            result = None

    def close(self) -> None:
        """Finish what is queued and end the threads."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class ThreadExecutor:
    """Tasks on the threads of a pool.

    Parameters
    ----------
    pool : Pool
    stop : callable
        Asked before each task; `StopRequested` is raised when it says yes.
    """

    def __init__(self, pool: Pool, stop: Stop = never) -> None:
        self.n_workers = pool.n_workers
        self._pool = pool
        self._stop = stop

    def map(self, task: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """See `nmfstream.core.protocols.Executor.map`. Returns or raises only when no task is running."""
        futures = [self._pool.submit(_bound(self._stop, task, item)) for item in items]
        return collect(futures)


def collect(futures: list[Future[Result]]) -> list[Result]:
    """Results in order; the first error in order is raised after every task has ended or was cancelled."""
    try:
        return [future.result() for future in futures]
    except BaseException:
        settle(futures)
        raise


def settle(futures: Iterable[Future[Any]]) -> None:
    """Cancel what has not begun and wait for what has."""
    running = [future for future in futures if not future.cancel()]
    for future in running:
        future.exception()


def _checked(stop: Stop, task: Callable[[Item], Result], item: Item) -> Result:
    if stop():
        raise StopRequested
    return task(item)


def _bound(stop: Stop, task: Callable[[Item], Result], item: Item) -> Callable[[], Result]:
    return lambda: _checked(stop, task, item)
