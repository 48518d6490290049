"""A process killed at every single call: what is found afterwards is the state before or the state after."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nmfstream.config import Saving
from nmfstream.run.rowjob import RowJob
from nmfstream.storage import durable
from nmfstream.storage.disk import RealDisk
from nmfstream.stores.outputs import parse_output
from nmfstream.stores.protocols import Opening, ReadPolicy, allocate
from nmfstream.stores.registry import open_reader
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
FORMATS = ["W.npy", "W.npz", "W.h5/W", "W.zarr/W"]


def write_W(spec: str, *, overwrite: bool) -> None:
    saving = Saving(resume=True, overwrite=overwrite, every_seconds=0.0)
    job = RowJob(spec, ROWS.shape, ROWS.dtype, {"model": "a"}, saving, chunk_rows=2)
    for start in range(len(ROWS) if job.finished else job.done, len(ROWS), 2):
        job.write(start, ROWS[start : start + 2])
    job.commit()


def read_W(spec: str) -> np.ndarray:
    with open_reader(spec, Opening()) as reader:
        out = allocate(reader, 0, reader.shape[0], np.dtype(np.float64))
        for task in reader.tasks(0, reader.shape[0], out, ReadPolicy(np.dtype(np.float64))):
            task()
    return out


@pytest.mark.parametrize("kill", KILLS)
@pytest.mark.parametrize("form", FORMATS)
def test_fault_01_commit_of_W_killed_at_every_call(
    form: str, kill: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "alive", lambda pid: False)  # the writer is found dead each time
    rehearsal = FaultyDisk(RealDisk())
    (tmp_path / "all").mkdir()
    with durable.use(rehearsal):
        write_W(str(tmp_path / "all" / form), overwrite=False)
    assert len(rehearsal.calls) > 10
    for n in range(len(rehearsal.calls)):
        folder = tmp_path / str(n)
        folder.mkdir()
        spec = str(folder / form)
        with durable.use(FaultyDisk(RealDisk(), KILLS[kill], frozenset([n]))), pytest.raises(Killed):
            write_W(spec, overwrite=False)
        final = parse_output(spec).path
        present = [read_W(spec) for _ in range(final.exists())]
        write_W(spec, overwrite=False)
        for W in [*present, read_W(spec)]:
            np.testing.assert_array_equal(W, ROWS, err_msg=f"call {n}: {rehearsal.calls[n]}")
        assert [p.name for p in folder.iterdir()] == [final.name], f"call {n}: {rehearsal.calls[n]}"
