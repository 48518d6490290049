"""Work on a stream block by block: serial while little comes, on threads when much does."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import TypeVar

from nmfstream.run.executors import Stop, never
from nmfstream.types import Matrix, cut

Result = TypeVar("Result")


class BlockMap:
    """Applies a task to the blocks of each chunk, in order. Context manager.

    The threads and what they need are brought up with the first chunk that has more than one block: a single row
    through a pipe is answered before they would be there.

    Parameters
    ----------
    block_rows : int
        Rows a block.
    threads : int or None
    stop : callable
        Asked between two blocks.
    """

    def __init__(self, block_rows: int, threads: int | None, stop: Stop = never) -> None:
        self.block_rows = block_rows
        self._threads, self._stop = threads, stop
        self._stack = ExitStack()
        self._pooled: Callable[[Callable[[Matrix], Result], list[Matrix]], list[Result]] | None = None

    def __call__(self, task: Callable[[Matrix], Result], chunk: Matrix) -> list[Result]:
        """Results of the chunk's blocks in order."""
        n = chunk.shape[0]
        blocks = [cut(chunk, a, min(a + self.block_rows, n)) for a in range(0, n, self.block_rows)]
        if len(blocks) == 1:
            from nmfstream.run.executors import SerialExecutor

            return SerialExecutor(self._stop).map(task, blocks)
        if self._pooled is None:
            from nmfstream.run.workers import workers

            _, executor = self._stack.enter_context(workers(self._threads, self._stop))
            self._pooled = executor.map
        return self._pooled(task, blocks)

    def __enter__(self) -> BlockMap:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
