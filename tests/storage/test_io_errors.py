"""An error at every single call: the exit is the documented one, the older generation stays, and nothing is left."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from nmfstream.config import Saving
from nmfstream.errors import NmfstreamError, StorageError
from nmfstream.run.events import Event, Note
from nmfstream.run.saver import Saver
from nmfstream.storage import durable
from tests.storage.faulty import Fault, FaultyDisk, done_but_failing, failing, short, torn
from tests.storage.memory import MemoryDisk
from tests.storage.runs import PATH, checkpoints, count_of, die, state_of
from tests.storage.test_crash_points import disk_with, found

ERRORS: dict[str, Fault] = {
    "ENOSPC": failing(errno.ENOSPC),
    "EDQUOT": failing(errno.EDQUOT),
    "EIO": failing(errno.EIO),
    "ESTALE": failing(errno.ESTALE),
    "ENOENT": failing(errno.ENOENT),
    "EIO after all": done_but_failing(errno.EIO),
    "torn": torn,
}
EXITS = {73, 74, 66}


def attempt(act: Callable[[], object]) -> int:
    try:
        act()
    except NmfstreamError as error:
        assert error.what
        assert error.hint
        return error.exit_code
    return 0


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("before", [0, 1, 4])
def test_fault_18_19_26_one_error_in_a_save(before: int, name: str) -> None:
    base = disk_with(before).nodes
    rehearsal = FaultyDisk(MemoryDisk(base))
    calls, *_ = save_with(rehearsal, before + 1)
    for n in calls:
        inner = MemoryDisk(base)
        _, code, then = save_with(FaultyDisk(inner, ERRORS[name], frozenset([n])), before + 1)
        assert code in {0, *EXITS}, f"call {n}: {rehearsal.calls[n]}"
        assert then == 0, f"call {n}: {rehearsal.calls[n]}: the run could not save again"
        with durable.use(inner):
            assert found() == before + 2


def save_with(disk: FaultyDisk, count: int) -> tuple[range, int, int]:
    """Numbers of a save's calls; what it came to; what the next one came to."""
    die()
    with durable.use(disk):
        run = checkpoints()
        run.open(resume=True)
        first = len(disk.calls)
        code = attempt(lambda: run.save(state_of(count)))
        calls = range(first, len(disk.calls))
        return calls, code, attempt(lambda: run.save(state_of(count + 1)))


@pytest.mark.parametrize("name", ["ENOSPC", "EIO", "ESTALE"])
def test_fault_18_the_device_stays_bad(name: str) -> None:
    """From any call on nothing can be written: the old generations load, and one error is told."""
    base = disk_with(3).nodes
    writes = frozenset({"pwrite", "fsync", "link"})
    rehearsal = FaultyDisk(MemoryDisk(base), only=writes)
    calls, *_ = save_with(rehearsal, 4)
    for n in calls:
        inner = MemoryDisk(base)
        _, code, then = save_with(FaultyDisk(inner, ERRORS[name], range(n, 10**6), writes), 4)
        assert 74 in (code, then)
        with durable.use(inner):
            assert found() in (3, 4)


@pytest.mark.parametrize("before", [0, 4])
def test_fault_20_short_and_interrupted_calls_are_completed(before: int) -> None:
    base = disk_with(before).nodes
    rehearsal = FaultyDisk(MemoryDisk(base))
    save_with(rehearsal, before + 1)
    for n in range(len(rehearsal.calls)):
        inner = MemoryDisk(base)
        _, code, then = save_with(FaultyDisk(inner, short, frozenset([n])), before + 1)
        assert (code, then) == (0, 0), f"call {n}: {rehearsal.calls[n]}"
        with durable.use(inner):
            assert found() == before + 2


def test_fault_19_a_failed_sync_is_not_tried_again_on_that_file() -> None:
    disk = FaultyDisk(disk_with(1), failing(errno.EIO), frozenset([0]), only=frozenset({"fsync"}))
    with durable.use(disk):
        file = durable.create(PATH.parent / "a")
        file.pwrite(b"x", 0)
        for _ in range(2):
            with pytest.raises(StorageError):
                file.sync()
        with pytest.raises(StorageError):
            file.pwrite(b"y", 0)
        assert disk.calls == ["fsync"]
        file.close()


def test_fault_19_another_name_is_used_after_a_failed_sync() -> None:
    die()
    inner = disk_with(1)
    disk = FaultyDisk(inner, failing(errno.EIO), frozenset(), only=frozenset({"pwrite", "link"}))
    with durable.use(disk):
        run = checkpoints()
        run.open(resume=True)
        disk.calls.clear()
        disk.paths.clear()
        disk.at = frozenset([disk_link_number(MemoryDisk(inner.nodes))])
        assert attempt(lambda: run.save(state_of(2))) == 74
        run.save(state_of(2))
    links = [path for call, path in zip(disk.calls, disk.paths, strict=True) if call == "link"]
    assert len(links) == len(set(links)) == 2


def disk_link_number(disk: MemoryDisk) -> int:
    die()
    rehearsal = FaultyDisk(disk, only=frozenset({"pwrite", "link"}))
    with durable.use(rehearsal):
        run = checkpoints()
        run.open(resume=True)
        begin = len(rehearsal.calls)
        run.save(state_of(2))
    return rehearsal.calls[begin:].index("link")


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def test_fault_18_the_run_goes_on_and_ends_with_74_after_three() -> None:
    die()
    inner = disk_with(2)
    disk = FaultyDisk(inner, failing(errno.ENOSPC), frozenset(), only=frozenset({"pwrite"}))
    heard: list[Event] = []
    clock = Clock()
    with durable.use(disk):
        run = checkpoints()
        run.open(resume=True)
        disk.at = range(10**6)
        saver = Saver(run, Saving(every_steps=1, every_seconds=None), listener=heard.append, clock=clock)
        for _ in range(2):
            saver.after_step(state_of(3))
            clock.time += 31
        with pytest.raises(StorageError) as caught:
            saver.after_step(state_of(3))
        assert (caught.value.exit_code, caught.value.hint) == (74, "free some space, then run the same command again")
        assert [type(e) for e in heard] == [Note, Note]
    with durable.use(inner):
        assert found() == 2


def test_fault_18_space_comes_back() -> None:
    die()
    disk = FaultyDisk(disk_with(2), failing(errno.ENOSPC), frozenset(), only=frozenset({"pwrite"}))
    clock = Clock()
    with durable.use(disk):
        run = checkpoints()
        count = count_of(run.open(resume=True))
        saver = Saver(run, Saving(every_steps=1, every_seconds=None), clock=clock)
        disk.at = range(10**6)
        saver.after_step(state_of(count + 1))
        assert saver.generation is None
        disk.at = frozenset()
        saver.after_step(state_of(count + 2))
        assert saver.generation is None  # not yet: not at every step
        clock.time += 31
        saver.after_step(state_of(count + 3))
        assert saver.generation is not None
        assert found() == count + 3
