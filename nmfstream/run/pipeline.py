"""Batches from a store: portions of whole batches are read ahead and decoded by the pool into reused buffers.

A portion is a whole number of batches. The stripe of chunks that its end cuts is decoded with it, once, and the
rows beyond the end are moved to the head of the next portion's buffer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from nmfstream.core.blocks import row_bytes
from nmfstream.core.protocols import Batch, Problem
from nmfstream.plan import Layout, strip_rows, strips_at_once
from nmfstream.run.executors import Pool, collect, settle
from nmfstream.run.sources import batch_bounds, join
from nmfstream.run.strips import StripBatch, Strips, buffer_of, strip_bounds
from nmfstream.stores.checks import canonical
from nmfstream.stores.protocols import ReadPolicy, RowReader
from nmfstream.types import CSR, Matrix, Runs, cut

RUNS_AHEAD = 8
"""Runs of a sparse sample on their way at a time."""


class Reading(NamedTuple):
    """How a store is read; from the plan.

    Attributes
    ----------
    portion_bytes : int
        About this many bytes of X are decoded into one buffer (one batch at the least).
    n_buffers : int
        Buffers that take turns: one is computed on, the others are being filled.
    """

    portion_bytes: int = 64 << 20
    n_buffers: int = 2


def layout_of(problem: Problem, reader: RowReader) -> Layout:
    """What the plan has to know of a store."""
    n = problem.n_samples or 0
    held = reader.direct_bytes if problem.dtype == reader.dtype else reader.task_bytes
    return Layout(n, row_bytes(problem), max(1, min(reader.chunk_rows, n)), held)


class Portion(NamedTuple):
    """Rows ``start:stop`` (whole batches), of which ``first:last`` are decoded now.

    ``start:first`` came with the previous portion, ``stop:last`` is for the next.
    """

    start: int
    stop: int
    first: int
    last: int


def dense_portions(runs: Runs, unit: int, skip: int, portion_rows: int, chunk_rows: int) -> Iterator[Portion]:
    """Portions of a dense store; see the module's text."""
    per_portion = max(portion_rows // unit, -(-chunk_rows // unit), 1) * unit
    for begin, end in remaining(runs, skip):
        first = begin
        for start in range(begin, end, per_portion):
            stop = min(start + per_portion, end)
            last = min(-(-stop // chunk_rows) * chunk_rows, end)
            yield Portion(start, stop, first, max(first, last))
            first = max(first, last)


def remaining(runs: Runs, skip: int) -> Iterator[tuple[int, int]]:
    """The runs without their first `skip` rows."""
    for first, last in runs:
        dropped = min(skip, last - first)
        skip -= dropped
        if first + dropped < last:
            yield first + dropped, last


class StoreSource:
    """A store behind a `RowReader`, as a `Source`.

    Parameters
    ----------
    reader : RowReader
    policy : ReadPolicy
        Its dtype is the model's.
    pool : Pool
    reading : Reading
    """

    def __init__(self, reader: RowReader, policy: ReadPolicy, pool: Pool, reading: Reading) -> None:
        n, m = reader.shape
        self.reader, self.policy, self.pool, self.reading = reader, policy, pool, reading
        self.problem = Problem(n, m, policy.dtype, reader.nnz)
        self._spare: list[Any] = []

    def batches(
        self, rows: Runs | None, unit: int, start: int, block_rows: int, *, by_block: bool = False
    ) -> Iterator[Batch]:
        """See `Source.batches`. A batch is valid until the next one is asked for."""
        runs = rows or ((0, self.reader.shape[0]),)
        layout = layout_of(self.problem, self.reader)
        height = strip_rows(layout, block_rows) if by_block and self.reader.nnz is None else None
        if height is not None:
            yield from self._strip_batches(list(batch_bounds(runs, unit, start)), block_rows, layout, height)
            return
        for loaded in self._loaded(runs, unit, start):
            for a in range(loaded.portion.start, loaded.portion.stop, unit):
                b = min(a + unit, loaded.portion.stop)
                yield Batch(a, loaded.rows(a, b), block_rows)

    def _strip_batches(
        self, bounds: list[tuple[int, int]], block_rows: int, layout: Layout, height: int
    ) -> Iterator[Batch]:
        portion, n_buffers = self.reading
        count = strips_at_once(layout, height, portion, n_buffers, self.pool.n_workers)
        cuts = strip_bounds(bounds, block_rows, layout.stripe_rows, height)
        strips = Strips(self.reader, self.policy, self.pool, cuts, count)
        try:
            for start, stop in bounds:
                yield StripBatch(start, stop, int(layout.row_bytes), block_rows, strips)
                strips.forget(stop)
        finally:
            strips.close()

    def gather(self, rows: Runs) -> Matrix:
        """See `Source.gather`."""
        if self.reader.nnz is not None:
            return self._gather_sparse(rows)
        total = sum(b - a for a, b in rows)
        out = np.empty((total, self.reader.shape[1]), self.policy.dtype)
        futures: list[Future[None]] = []
        at = 0
        for a, b in rows:
            futures += self._submit(self.reader.tasks(a, b, out[at : at + b - a], self.policy))
            at += b - a
        collect(futures)
        return out

    def _gather_sparse(self, rows: Runs) -> CSR:
        """Runs read into one place, some ahead: nothing is held twice, however many entries there are."""
        bounds = [self.reader.indptr(a, b) for a, b in rows]
        ends = np.cumsum([0, *(part[-1] - part[0] for part in bounds)])
        indices, data = np.empty(ends[-1], np.int32), np.empty(ends[-1], self.policy.dtype)
        indptr, at = [np.zeros(1, np.int64)], 0

        def begin(i: int) -> tuple[CSR, list[Future[None]]]:
            place = slice(ends[i], ends[i + 1])
            out = CSR(bounds[i] - bounds[i][0], indices[place], data[place], self.reader.shape[1])
            return out, self._submit(self.reader.tasks(*rows[i], out, self.policy))

        begun: deque[tuple[CSR, list[Future[None]]]] = deque()
        try:
            for i, (start, _) in enumerate(rows):
                begun += map(begin, range(i + len(begun), min(i + RUNS_AHEAD, len(rows))))
                collect(begun[0][1])
                ready = canonical(begun.popleft()[0], name=self.reader.name, first_row=start, policy=self.policy)
                # Summed duplicates leave room, into which the following runs move up.
                indices[at : at + ready.nnz], data[at : at + ready.nnz] = ready.indices, ready.data
                indptr.append(ready.indptr[1:] + at)
                at += ready.nnz
        finally:
            for _, futures in begun:
                settle(futures)
        return CSR(np.concatenate(indptr), indices[:at], data[:at], self.reader.shape[1])

    def _submit(self, tasks: Iterable[Any]) -> list[Future[None]]:
        return [self.pool.submit(task, ahead=True) for task in tasks]

    def _loaded(self, runs: Runs, unit: int, skip: int) -> Iterator[_Loaded]:
        """Loaded portions in order; at most `n_buffers` are alive."""
        waiting = self._portions(runs, unit, skip)
        pending: deque[_Loaded] = deque()
        previous: _Loaded | None = None
        try:
            while True:
                while len(pending) < self.reading.n_buffers - (previous is not None):
                    loaded = next(waiting, None)
                    if loaded is None:
                        break
                    pending.append(loaded)
                if not pending:
                    return
                ready = pending.popleft()
                ready.wait(previous)
                if previous is not None:
                    self._spare.append(previous.buffer)
                    previous = None
                    if (loaded := next(waiting, None)) is not None:
                        pending.append(loaded)
                previous = ready
                yield ready
        finally:
            for loaded in pending:
                settle(loaded.futures)
            self._spare.clear()

    def _portions(self, runs: Runs, unit: int, skip: int) -> Iterator[_Loaded]:
        if self.reader.nnz is not None:
            return self._sparse_portions(runs, unit, skip)
        return self._dense_portions(runs, unit, skip)

    def _dense_portions(self, runs: Runs, unit: int, skip: int) -> Iterator[_Loaded]:
        row_bytes = self.reader.shape[1] * self.policy.dtype.itemsize
        portion_rows = self.reading.portion_bytes // max(1, row_bytes)
        capacity = 0
        for portion in dense_portions(runs, unit, skip, portion_rows, self.reader.chunk_rows):
            needed = portion.last - portion.start
            # The first buffer is made as large as any later one: at most a stripe beyond whole batches.
            capacity = capacity or needed + self.reader.chunk_rows - 1
            buffer = buffer_of(self._spare, max(needed, min(capacity, self.reader.shape[0])), self.reader, self.policy)
            out = buffer[portion.first - portion.start : portion.last - portion.start]
            tasks = self.reader.tasks(portion.first, portion.last, out, self.policy) if len(out) else []
            yield _Dense(portion, self._submit(tasks), buffer)

    def _sparse_portions(self, runs: Runs, unit: int, skip: int) -> Iterator[_Loaded]:
        budget = self.reading.portion_bytes // (self.policy.dtype.itemsize + 4)
        for begin, end in remaining(runs, skip):
            start = begin
            while start < end:
                stop, indptr = self._sparse_extent(start, end, unit, budget)
                yield self._sparse_portion(start, stop, indptr)
                start = stop

    def _sparse_extent(self, start: int, end: int, unit: int, budget: int) -> tuple[int, Any]:
        """As many whole batches as hold `budget` entries, one at the least, and their indptr."""
        stop = min(start + unit, end)
        indptr = self.reader.indptr(start, stop)
        while stop < end:
            following = min(stop + unit, end)
            more = self.reader.indptr(stop, following)
            if int(more[-1] - indptr[0]) > budget:
                break
            indptr, stop = np.concatenate([indptr, more[1:]]), following
        return stop, indptr

    def _sparse_portion(self, start: int, stop: int, indptr: Any) -> _Loaded:
        nnz = int(indptr[-1] - indptr[0])
        indices, data = self._sparse_buffer(nnz)
        out = CSR(indptr - indptr[0], indices[:nnz], data[:nnz], self.reader.shape[1])
        futures = self._submit(self.reader.tasks(start, stop, out, self.policy))
        return _Sparse(Portion(start, stop, start, stop), futures, (indices, data), out, self)

    def _sparse_buffer(self, nnz: int) -> Any:
        while self._spare:
            buffer = self._spare.pop()
            if len(buffer[0]) >= nnz:
                return buffer
        room = nnz + nnz // 8
        return np.empty(room, np.int32), np.empty(room, self.policy.dtype)


@dataclass
class _Loaded:
    """A portion on its way into a buffer."""

    portion: Portion
    futures: list[Future[None]]
    buffer: Any

    def wait(self, previous: _Loaded | None) -> None:
        """Return when the portion is whole."""
        collect(self.futures)

    def rows(self, start: int, stop: int) -> Matrix:
        """Rows by absolute number, as a view."""
        raise NotImplementedError


@dataclass
class _Dense(_Loaded):
    def wait(self, previous: _Loaded | None) -> None:
        collect(self.futures)
        carried = self.portion.first - self.portion.start
        if carried > 0 and previous is not None:
            at = self.portion.start - previous.portion.start
            self.buffer[:carried] = previous.buffer[at : at + carried]

    def rows(self, start: int, stop: int) -> Matrix:
        view: Matrix = self.buffer[start - self.portion.start : stop - self.portion.start]
        return view


@dataclass
class _Sparse(_Loaded):
    out: CSR
    source: StoreSource
    parts: CSR | None = field(default=None)

    def wait(self, previous: _Loaded | None) -> None:
        collect(self.futures)
        self.parts = self._canonical()

    def _canonical(self) -> CSR:
        """Checked and sorted on all threads, a run of rows each; joined again only where duplicates fell."""
        n = self.out.shape[0]
        step = max(1, -(-n // self.source.pool.n_workers))
        bounds = [(a, min(a + step, n)) for a in range(0, n, step)]
        name, first, policy = self.source.reader.name, self.portion.start, self.source.policy

        def check(a: int, b: int) -> CSR:
            return canonical(self.out.rows(a, b), name=name, first_row=first + a, policy=policy)

        parts = collect([self.source.pool.submit(partial(check, a, b)) for a, b in bounds])
        if all(np.may_share_memory(part.indices, self.out.indices) for part in parts):
            return self.out
        joined = join(list(parts))
        assert isinstance(joined, CSR)
        return joined

    def rows(self, start: int, stop: int) -> Matrix:
        assert self.parts is not None
        return cut(self.parts, start - self.portion.start, stop - self.portion.start)
