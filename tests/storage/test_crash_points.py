"""A process killed at every single call: what is found afterwards is the state before or the state after."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nmfstream.config import Saving
from nmfstream.run.rowjob import RowJob
from nmfstream.storage import durable
from nmfstream.storage.disk import RealDisk
from nmfstream.stores import anndata_writer, sparse_writer
from nmfstream.stores.outputs import parse_output
from nmfstream.stores.protocols import Opening, ReadPolicy, RowWriter, allocate
from nmfstream.stores.registry import open_reader
from nmfstream.stores.sparse_writer import SparseMaking, open_sparse_writer
from nmfstream.types import CSR, cut
from tests.storage.faulty import FaultyDisk, Killed, killed_after, killed_within
from tests.storage.memory import ROOT, MemoryDisk, Node
from tests.storage.runs import PATH, checkpoints, count_of, die, state_of

KILLS = {"within": killed_within, "after": killed_after}


def disk_with(n_saves: int) -> MemoryDisk:
    disk = MemoryDisk({ROOT: Node(True, names={"out": 2}), 2: Node(True)})
    with durable.use(disk):
        grow(n_saves)
    die()
    return disk


def grow(n_saves: int, *, finished: bool = False, resume: bool = True, overwrite: bool = False) -> None:
    """A run that dies without a word after its saves."""
    die()
    run = checkpoints()
    begin = count_of(run.open(resume=resume, overwrite=overwrite))
    for count in range(begin + 1, begin + n_saves + 1):
        run.save(state_of(count), finished=finished)


def found() -> int:
    die()
    with checkpoints() as run:
        return count_of(run.open(resume=True))


SCENES: dict[str, tuple[int, Callable[[], None], set[int]]] = {
    "first save": (0, lambda: grow(1), {0, 1}),
    "second save": (1, lambda: grow(1), {1, 2}),
    "retention": (3, lambda: grow(2), {3, 4, 5}),
    "recovery": (3, lambda: grow(0), {3}),
    "finish": (3, lambda: grow(1, finished=True), {3, 4}),
    "discard": (3, lambda: grow(1, resume=False, overwrite=True), {3, 0, 1}),
}


@pytest.mark.parametrize("kill", KILLS)
@pytest.mark.parametrize("scene", SCENES)
def test_fault_01_03_04_killed_at_every_call(scene: str, kill: str) -> None:
    before, play, allowed = SCENES[scene]
    base = disk_with(before).nodes
    rehearsal = FaultyDisk(MemoryDisk(base))
    with durable.use(rehearsal):
        play()
    for n in range(len(rehearsal.calls)):
        inner = MemoryDisk(base)
        with durable.use(FaultyDisk(inner, KILLS[kill], frozenset([n]))), pytest.raises(Killed):
            play()
        with durable.use(inner):
            first = found()
            assert first in allowed, f"call {n}: {rehearsal.calls[n]}"
            assert found() == first
            grow(1)
            assert found() == first + 1
            die()
            checkpoints().open(resume=True)
            assert not [n for n in inner.listdir(str(PATH)) if n.endswith(".tmp")]


ROWS = np.arange(35, dtype=np.float64).reshape(7, 5)
S = CSR(np.arange(0, 36, 5), np.tile(np.arange(5, dtype=np.int32), 7), ROWS.ravel(), 5)
SAVING = Saving(resume=True, every_seconds=0.0)


def dense_job(spec: str) -> RowJob:
    return RowJob(spec, ROWS.shape, ROWS.dtype, {"model": "a"}, SAVING, chunk_rows=2)


def sparse_job(spec: str, room: int = 35) -> RowJob:
    def begin(partial: Path, done: int, entries: int) -> RowWriter:
        making = SparseMaking(ROWS.shape, room, ROWS.dtype, partial, list("abcde"))
        return open_sparse_writer(spec, making, n_rows=done, nnz=entries)

    return RowJob(spec, ROWS.shape, ROWS.dtype, {"sparse": True}, SAVING, dataset="X", opener=begin)


JOBS: dict[str, tuple[str, Callable[[str], RowJob], Any]] = {
    **{form: (form, dense_job, ROWS) for form in ("W.npy", "W.npz", "W.h5/W", "W.zarr/W")},
    **{f"sparse {form}": (form, sparse_job, S) for form in ("X.npz", "X.h5/X", "X.zarr/X")},
    "sparse X.h5/X, shortened": ("X.h5/X", lambda spec: sparse_job(spec, 99), S),
}


def write_rows(name: str, folder: Path) -> None:
    form, begin, rows = JOBS[name]
    job = begin(str(folder / form))
    for start in range(len(ROWS) if job.finished else job.done, len(ROWS), 2):
        job.write(start, cut(rows, start, min(start + 2, len(ROWS))))
    job.commit()


def read_rows(spec: str) -> np.ndarray:
    with open_reader(spec, Opening()) as reader:
        out = allocate(reader, 0, reader.shape[0], np.dtype(np.float64))
        for task in reader.tasks(0, reader.shape[0], out, ReadPolicy(np.dtype(np.float64))):
            task()
    return out.toarray() if isinstance(out, CSR) else out


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in a file system of memory where there is one: ten thousands of calls to sync cost nothing there."""
    shm = Path("/dev/shm")
    if not os.access(shm, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=shm) as folder:
        yield Path(folder)


@pytest.mark.parametrize("kill", KILLS)
@pytest.mark.parametrize("name", JOBS)
def test_fault_01_commit_of_rows_killed_at_every_call(
    name: str, kill: str, in_memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "alive", lambda pid: False)  # the writer is found dead each time
    monkeypatch.setattr(sparse_writer, "CHUNK", 8)
    monkeypatch.setattr(anndata_writer, "CHUNK", 8)
    rehearsal = FaultyDisk(RealDisk())
    (in_memory / "all").mkdir()
    with durable.use(rehearsal):
        write_rows(name, in_memory / "all")
    assert len(rehearsal.calls) > 10
    for n in range(len(rehearsal.calls)):
        folder = in_memory / str(n)
        folder.mkdir()
        spec = str(folder / JOBS[name][0])
        with durable.use(FaultyDisk(RealDisk(), KILLS[kill], frozenset([n]))), pytest.raises(Killed):
            write_rows(name, folder)
        final = parse_output(spec).path
        present = [read_rows(spec) for _ in range(final.exists())]
        write_rows(name, folder)
        for found_rows in [*present, read_rows(spec)]:
            np.testing.assert_array_equal(found_rows, ROWS, err_msg=f"call {n}: {rehearsal.calls[n]}")
        assert [p.name for p in folder.iterdir()] == [final.name], f"call {n}: {rehearsal.calls[n]}"
