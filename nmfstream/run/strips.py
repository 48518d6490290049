"""Blocks that are read where they are computed on: strips of rows decoded ahead into a few small buffers.

A batch that gives each of its blocks out once need never be in memory as a whole, and what was just decoded is
still in the cache when it is computed on. Whoever wants rows that are not there yet decodes what is next meanwhile.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from nmfstream.core.protocols import Batch, Block
from nmfstream.run.executors import Pool, settle
from nmfstream.stores.protocols import ReadPolicy, RowReader
from nmfstream.types import Array, Runs, Task


def strip_bounds(batches: Iterable[tuple[int, int]], block_rows: int, stripe: int, height: int) -> Iterator[Runs]:
    """Strips that together are the rows of the batches, as (start, stop), those of a batch's end at a time.

    Parameters
    ----------
    batches : iterable of (start, stop)
        Absolute rows, ascending.
    block_rows : int
    stripe : int
        Rows that the store decodes together; where any row can be read alone, a strip is a block.
    height : int
        Rows a strip, a multiple of `stripe`; strips end at multiples of it, or where the rows do.
    """
    rows = batches if stripe == 1 else merged(batches)
    for start, stop in rows:
        if stripe == 1:
            yield tuple((a, min(a + block_rows, stop)) for a in range(start, stop, block_rows))
        else:
            cuts = [start, *range((start // height + 1) * height, stop, height), stop]
            yield tuple(pairwise(cuts))


def merged(bounds: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Bounds of what follows each other without a gap, as one."""
    found: list[tuple[int, int]] = []
    for start, stop in bounds:
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], stop)
        else:
            found.append((start, stop))
    return found


def buffer_of(spare: list[Any], n_rows: int, reader: RowReader, policy: ReadPolicy) -> Array:
    """A buffer of so many rows or more, the spare one that was given back last if it is large enough."""
    while spare:
        buffer: Array = spare.pop()
        if len(buffer) >= n_rows:
            return buffer
    return np.empty((n_rows, reader.shape[1]), policy.dtype)


@dataclass
class _Strip:
    """Rows ``start:stop`` on their way into a buffer."""

    start: int
    stop: int
    buffer: Array
    tasks: int
    """Not done yet."""
    unread: int
    """Rows that no block has given back."""
    error: BaseException | None = None

    def within(self, start: int, stop: int) -> tuple[int, int]:
        """The part of some rows that lies here."""
        return max(start, self.start), min(stop, self.stop)


class Strips:
    """Rows in ascending order, each given out once, from buffers that take turns. Safe from any thread.

    Two buffers are enough to go on, as long as a block lies in two strips at the most.

    Parameters
    ----------
    reader : RowReader
        Of a dense store.
    policy : ReadPolicy
    pool : Pool
        Decodes ahead when it has nothing to compute.
    bounds : iterable of Runs
        See `strip_bounds`.
    n_buffers : int
    """

    def __init__(self, reader: RowReader, policy: ReadPolicy, pool: Pool, bounds: Iterable[Runs], n_buffers: int):
        self._reader, self._policy, self._pool, self._n_buffers = reader, policy, pool, n_buffers
        self._bounds = (bound for run in bounds for bound in run)
        self._live: deque[_Strip] = deque()
        self._loads: deque[tuple[_Strip, Task]] = deque()
        self._spare: list[Array] = []
        self._blocks: list[Array] = []
        self._given: set[int] = set()
        self._calls, self._futures = 0, deque[Future[None]]()
        self._changed = threading.Condition()
        with self._changed:
            self._call_ahead()

    @contextmanager
    def reading(self, start: int, stop: int) -> Iterator[Array]:
        """Rows ``start:stop`` until the context is left, a view or a copy."""
        if start in self._given:
            yield self.again(start, stop)
            return
        strips = self._ready(start, stop)
        self._given.add(start)
        if len(strips) == 1:
            try:
                yield _view(strips[0], start, stop)
            finally:
                self._give_back(strips, start, stop)
            return
        block = self._joined(strips, start, stop)
        try:
            yield block[: stop - start]
        finally:
            self._blocks.append(block)

    @contextmanager
    def parts(self, start: int, stop: int) -> Iterator[list[Array]]:
        """As `reading`, but what lies in several strips is not brought together."""
        if start in self._given:
            yield [self.again(start, stop)]
            return
        strips = self._ready(start, stop)
        self._given.add(start)
        try:
            yield [_view(strip, *strip.within(start, stop)) for strip in strips]
        finally:
            self._give_back(strips, start, stop)

    def again(self, start: int, stop: int) -> Array:
        """A copy of rows, whether or not they have been given out."""
        out = np.empty((stop - start, self._reader.shape[1]), self._policy.dtype)
        if start in self._given:
            for task in self._reader.tasks(start, stop, out, replace(self._policy, clipped=0)):
                task()
        else:
            for strip in self._ready(start, stop):
                a, b = strip.within(start, stop)
                out[a - start : b - start] = _view(strip, a, b)
        return out

    def forget(self, row: int) -> None:
        """Rows before this one will not be asked for again."""
        self._given = {start for start in self._given if start >= row}

    def close(self) -> None:
        """Wait for what is being decoded; nothing more is."""
        with self._changed:
            self._n_buffers = 0
            self._loads.clear()
        settle(self._futures)

    def _joined(self, strips: list[_Strip], start: int, stop: int) -> Array:
        """A copy of rows of several strips, which are given back; a list is as good as a lock for spare blocks."""
        try:
            block = self._blocks.pop()
        except IndexError:
            block = np.empty((0, 0), self._policy.dtype)
        if len(block) < stop - start:
            block = np.empty((stop - start, self._reader.shape[1]), self._policy.dtype)
        for strip in strips:
            a, b = strip.within(start, stop)
            block[a - start : b - start] = _view(strip, a, b)
        self._give_back(strips, start, stop)
        return block

    def _ready(self, start: int, stop: int) -> list[_Strip]:
        """The strips of these rows, decoded; decodes what is next while others decode them."""
        while True:
            with self._changed:
                strips = [strip for strip in self._live if strip.start < stop and strip.stop > start]
                there = sum(b - a for a, b in (strip.within(start, stop) for strip in strips))
                if there == stop - start and not any(strip.tasks for strip in strips):
                    break
                load = self._next_load()
                if load is None:
                    # What failed keeps its buffers, so that later strips may never begin.
                    self._raise(self._live if there < stop - start else ())
                    self._changed.wait()
                    continue
            self._load(*load)
        self._raise(strips)
        return strips

    @staticmethod
    def _raise(strips: Iterable[_Strip]) -> None:
        for strip in strips:
            if strip.error is not None:
                raise strip.error

    def _give_back(self, strips: list[_Strip], start: int, stop: int) -> None:
        with self._changed:
            for strip in strips:
                a, b = strip.within(start, stop)
                strip.unread -= b - a
                if strip.unread == 0:
                    self._live.remove(strip)
                    self._spare.append(strip.buffer)
            self._changed.notify_all()
            self._call_ahead()

    def _next_load(self) -> tuple[_Strip, Task] | None:
        """Something to decode, if there is a buffer for it; under the lock.

        A strip gets its buffer only now: the one that was given back last is still in the cache.
        """
        while not self._loads and len(self._live) < self._n_buffers:
            bounds = next(self._bounds, None)
            if bounds is None:
                break
            start, stop = bounds
            buffer = buffer_of(self._spare, stop - start, self._reader, self._policy)
            tasks = self._reader.tasks(start, stop, buffer[: stop - start], self._policy)
            strip = _Strip(start, stop, buffer, len(tasks), stop - start)
            self._live.append(strip)
            self._loads.extend((strip, task) for task in tasks)
        return self._loads.popleft() if self._loads else None

    def _call_ahead(self) -> None:
        """Have every idle thread of the pool decode what is next; under the lock."""
        while self._futures and self._futures[0].done():
            self._futures.popleft()
        while self._calls < self._pool.n_workers and (self._loads or len(self._live) < self._n_buffers):
            self._calls += 1
            self._futures.append(self._pool.submit(self._load_ahead, ahead=True))

    def _load_ahead(self) -> None:
        """One load; then others may want the thread."""
        with self._changed:
            load = self._next_load()
        if load is not None:
            self._load(*load)
        with self._changed:
            self._calls -= 1
            if load is not None:
                self._call_ahead()

    def _load(self, strip: _Strip, task: Task) -> None:
        error: BaseException | None = None
        try:
            task()
        except BaseException as failure:
            error = failure
        with self._changed:
            strip.tasks -= 1
            strip.error = strip.error or error
            if strip.tasks == 0:
                self._changed.notify_all()


def _view(strip: _Strip, start: int, stop: int) -> Array:
    view: Array = strip.buffer[start - strip.start : stop - strip.start]
    return view


class StripBlock(Block):
    """A block of a `StripBatch`: rows ``start:stop`` of the batch that begins at `first`."""

    def __init__(self, strips: Strips, first: int, start: int, stop: int) -> None:
        self.start, self.stop = start, stop
        self._strips, self._rows = strips, (first + start, first + stop)

    @property
    def X(self) -> Array:
        """A copy of the rows."""
        return self._strips.again(*self._rows)

    def reading(self) -> AbstractContextManager[Array]:
        """The rows for one task: valid until the context is left. A second time they are read again."""
        return self._strips.reading(*self._rows)

    def parts(self) -> AbstractContextManager[Sequence[Array]]:
        """See `Block.parts`."""
        return self._strips.parts(*self._rows)


class StripBatch(Batch):
    """Rows ``start:stop``, known by their blocks.

    Parameters
    ----------
    start, stop : int
    row_bytes : int
    block_rows : int
    strips : Strips
    """

    def __init__(self, start: int, stop: int, row_bytes: int, block_rows: int, strips: Strips) -> None:
        self.start, self.block_rows, self.W = start, block_rows, None
        self._n_rows, self._row_bytes, self._strips = stop - start, row_bytes, strips

    @property
    def X(self) -> Array:
        """A copy of all rows."""
        return np.concatenate([block.X for block in self.blocks()])

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return self._n_rows

    @property
    def nbytes(self) -> int:
        """Bytes of the rows in memory, were they all there."""
        return self._n_rows * self._row_bytes

    def blocks(self) -> list[Block]:
        """See `Batch.blocks`."""
        return [StripBlock(self._strips, self.start, a, b) for a, b in self.bounds()]
