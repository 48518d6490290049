"""Batches from a store are those of the matrix in memory, and each chunk is decoded once a pass."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from nmfstream.core.protocols import Block
from nmfstream.errors import DataError, StopRequested
from nmfstream.run.executors import Pool, SerialExecutor, ThreadExecutor
from nmfstream.run.pipeline import Reading, StoreSource, dense_portions
from nmfstream.run.sources import MemorySource, from_scipy
from nmfstream.stores.memory import MemoryReader
from nmfstream.stores.protocols import ReadPolicy
from nmfstream.types import CSR, Task

F32 = np.dtype(np.float32)


class ChunkedReader(MemoryReader):
    """A dense store in stripes of `chunk_rows` rows; counts how often each is decoded."""

    def __init__(self, X: Any, chunk_rows: int) -> None:
        super().__init__(X)
        self.chunk_rows = chunk_rows
        self.decoded: Counter[int] = Counter()

    def tasks(self, start: int, stop: int, out: Any, policy: ReadPolicy) -> list[Task]:
        def one(chunk: int) -> None:
            a = max(start, chunk * self.chunk_rows)
            b = min(stop, (chunk + 1) * self.chunk_rows)
            self.decoded[chunk] += 1
            out[a - start : b - start] = self._X[a:b]

        chunks = range(start // self.chunk_rows, -(-stop // self.chunk_rows))
        return [lambda c=c: one(c) for c in chunks]  # type: ignore[misc]


def matrix(n: int, m: int = 3) -> np.ndarray:
    return np.arange(n * m, dtype=np.float32).reshape(n, m)


@settings(max_examples=150, deadline=None)
@given(
    n=st.integers(1, 200),
    unit=st.integers(1, 80),
    chunk=st.integers(1, 120),
    portion=st.integers(1, 1000),
    buffers=st.integers(2, 4),
    start=st.integers(0, 3),
)
def test_dense_batches(n: int, unit: int, chunk: int, portion: int, buffers: int, start: int) -> None:
    X, skip = matrix(n), min(start * unit, n // unit * unit)
    reader = ChunkedReader(X, chunk)
    with Pool(2) as pool:
        source = StoreSource(reader, ReadPolicy(F32), pool, Reading(portion, buffers))
        got = [(b.start, np.array(b.X)) for b in source.batches(None, unit, skip, 7)]
    want = [(b.start, b.X) for b in MemorySource(X).batches(None, unit, skip, 7)]
    assert [a for a, _ in got] == [a for a, _ in want]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(got, want, strict=True))
    assert set(reader.decoded.values()) <= {1}


@settings(max_examples=300, deadline=None)
@given(
    n=st.integers(1, 200),
    unit=st.integers(1, 80),
    chunk=st.integers(1, 120),
    block=st.integers(1, 40),
    portion=st.integers(1, 1000),
    workers=st.integers(1, 5),
    start=st.integers(0, 3),
    in_parts=st.booleans(),
)
def test_batches_by_their_blocks(
    n: int, unit: int, chunk: int, block: int, portion: int, workers: int, start: int, in_parts: bool
) -> None:
    """Every block is that of the matrix in memory, on however many threads; each chunk is decoded once a run."""
    X, runs = matrix(n), ((0, n // 3), (n // 3 + 1, n)) if n > 9 else ((0, n),)
    skip = min(start * unit, runs[0][1] // unit * unit)
    reader, wanted = ChunkedReader(X, chunk), list(MemorySource(X).batches(runs, unit, skip, block))

    def read(of: Block) -> tuple[np.ndarray, np.ndarray]:
        if in_parts:
            with of.parts() as parts:
                assert all(part.flags.c_contiguous for part in parts)  # type: ignore[union-attr]
                return np.concatenate(parts), of.X  # type: ignore[arg-type, return-value]
        with of.reading() as rows:
            return rows.copy(), of.X  # type: ignore[union-attr, return-value]

    with Pool(workers) as pool:
        source = StoreSource(reader, ReadPolicy(F32), pool, Reading(portion, 2))
        given = source.batches(runs, unit, skip, block, by_block=True)
        for batch, want in zip(given, wanted, strict=True):
            assert (batch.start, batch.stop, batch.n_rows, batch.nbytes) == (
                want.start, want.stop, want.n_rows, want.nbytes,
            )  # fmt: skip
            np.testing.assert_array_equal(batch.blocks()[0].X, want.blocks()[0].X)
            parts = ThreadExecutor(pool).map(read, batch.blocks())
            for (once, again), block_of in zip(parts, want.blocks(), strict=True):
                np.testing.assert_array_equal(once, block_of.X)
                np.testing.assert_array_equal(again, block_of.X)


def test_a_chunk_of_a_run_is_decoded_once_however_blocks_cut_it() -> None:
    X = matrix(300)
    reader = ChunkedReader(X, 7)
    with Pool(3) as pool:
        source = StoreSource(reader, ReadPolicy(F32), pool, Reading(64, 2))
        for batch in source.batches(None, 50, 0, 11, by_block=True):
            for of in batch.blocks():
                with of.reading() as rows:
                    np.testing.assert_array_equal(rows, X[batch.start + of.start : batch.start + of.stop])
    assert set(reader.decoded.values()) == {1}


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_by_blocks_too_the_first_fault_in_row_order_is_told(threads: int) -> None:
    X = matrix(5000)
    X[4100, 0] = X[4500, 1] = np.nan

    def read(of: Block) -> float:
        with of.reading() as rows:
            return float(rows[0, 0])  # type: ignore[index]

    with Pool(threads) as pool, pytest.raises(DataError, match="row 4100, column 0"):
        source = StoreSource(MemoryReader(X), ReadPolicy(F32), pool, Reading(1 << 10, 2))
        for batch in source.batches(None, 600, 0, 50, by_block=True):
            ThreadExecutor(pool).map(read, batch.blocks())


def test_what_is_clipped_is_counted_once_however_often_it_is_read() -> None:
    X = matrix(100)
    X[::7, 1] = -1
    policy = ReadPolicy(F32, "clip")
    with Pool(2) as pool:
        source = StoreSource(MemoryReader(X), policy, pool, Reading(1 << 8, 2))
        for batch in source.batches(None, 40, 0, 10, by_block=True):
            for of in batch.blocks():
                for _ in range(2):
                    with of.reading() as rows:
                        assert rows.min() >= 0  # type: ignore[union-attr]
    assert policy.clipped == 15


@settings(max_examples=100, deadline=None)
@given(
    n=st.integers(1, 150),
    unit=st.integers(1, 60),
    portion=st.integers(1, 3000),
    density=st.sampled_from([0.0, 0.1, 0.7]),
)
def test_sparse_batches(n: int, unit: int, portion: int, density: float) -> None:
    A = sparse.random(n, 9, density, format="csr", dtype=np.float32, random_state=n)
    with Pool(2) as pool:
        source = StoreSource(MemoryReader(A), ReadPolicy(F32), pool, Reading(portion, 2))
        got = []
        for batch in source.batches(None, unit, 0, 7):
            assert isinstance(batch.X, CSR)
            got.append(batch.X.toarray())
    want = [b.X.toarray() for b in MemorySource(from_scipy(A, F32)).batches(None, unit, 0, 7)]
    assert len(got) == len(want)
    assert all(np.array_equal(a, b) for a, b in zip(got, want, strict=True))


def test_runs_of_rows_are_read_alone() -> None:
    X, runs = matrix(100), ((3, 10), (40, 41), (90, 100))
    with Pool(2) as pool:
        source = StoreSource(ChunkedReader(X, 8), ReadPolicy(F32), pool, Reading(64, 2))
        got = np.concatenate([b.X.copy() for b in source.batches(runs, 4, 0, 4)])
        gathered = source.gather(runs)
    want = np.concatenate([X[a:b] for a, b in runs])
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(gathered, want)


def test_runs_of_sparse_rows_move_up_where_duplicates_were_summed() -> None:
    half = sparse.random_array((60, 9), density=0.4, format="csr", dtype=np.float32, rng=np.random.default_rng(0))
    parts = np.repeat(half.data, 2), np.repeat(half.indices, 2), 2 * half.indptr
    runs = ((3, 20), (20, 21), (40, 60))
    with Pool(2) as pool:
        reader = MemoryReader(sparse.csr_array(parts, shape=half.shape))
        gathered = StoreSource(reader, ReadPolicy(F32), pool, Reading()).gather(runs)
    assert isinstance(gathered, CSR)
    np.testing.assert_array_equal(gathered.toarray(), 2 * np.concatenate([half.toarray()[a:b] for a, b in runs]))
    assert gathered.nnz == sum(half.indptr[b] - half.indptr[a] for a, b in runs)


@given(unit=st.integers(1, 50), rows=st.integers(1, 400), chunk=st.integers(1, 90), portion=st.integers(1, 300))
def test_portions_cover_the_rows_once_at_chunk_bounds(unit: int, rows: int, chunk: int, portion: int) -> None:
    portions = list(dense_portions(((0, rows),), unit, 0, portion, chunk))
    assert [p.start for p in portions] == [0, *(p.stop for p in portions[:-1])]
    assert [p.first for p in portions] == [0, *(p.last for p in portions[:-1])]
    assert portions[-1].stop == portions[-1].last == rows
    assert all(p.start % unit == 0 for p in portions)
    assert all(p.first % chunk == 0 or p.first == rows for p in portions)


def test_the_first_fault_in_row_order_is_told() -> None:
    X = matrix(5000)
    X[4500, 1] = np.nan
    with Pool(2) as pool, pytest.raises(DataError, match="row 4500, column 1"):
        source = StoreSource(MemoryReader(X), ReadPolicy(F32), pool, Reading(1 << 10, 2))
        list(source.batches(None, 100, 0, 50))


@pytest.mark.parametrize("workers", [1, 3])
def test_executors_keep_the_order_and_stop(workers: int) -> None:
    stop = [False]
    with Pool(workers) as pool:
        executor = ThreadExecutor(pool, lambda: stop[0])
        assert executor.map(lambda i: i * i, range(50)) == [i * i for i in range(50)]
        with pytest.raises(ZeroDivisionError):
            executor.map(lambda i: 1 // i, [1, 0, 2])
        stop[0] = True
        with pytest.raises(StopRequested):
            executor.map(lambda i: i, range(5))
    with pytest.raises(StopRequested):
        SerialExecutor(lambda: True).map(lambda i: i, [1])
