"""Power fails at any moment: unsynced writes and names are dropped, torn and reordered by a seed."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nmfstream.checkpoint import Saved
from nmfstream.storage import durable
from tests.storage.memory import ROOT, MemoryDisk, Node
from tests.storage.runs import PATH, checkpoints, count_of, die, state_of

OUT = PATH.parent
W_FILE = OUT / "model.h5.ckpt.W.1"
MODEL = OUT / "model.h5"
ROW = 8
SCHEDULES = int(os.environ.get("NMFSTREAM_SCHEDULES", "10000"))


def empty() -> MemoryDisk:
    return MemoryDisk({ROOT: Node(True, names={"out": 2}), 2: Node(True)})


@dataclass
class Story:
    """A run on a disk, and what it was told is durable after how many changes."""

    disk: MemoryDisk
    acknowledged: list[tuple[int, int]] = field(default_factory=list)
    finished_at: float = float("inf")

    def durable_count(self, at: int) -> int:
        return max((count for when, count in self.acknowledged if when <= at), default=0)


def row(number: int) -> bytes:
    return bytes([number % 251]) * ROW


def tell(story: Story, n_saves: int, *, finish: bool, sizes: tuple[int, ...] = (3, 40, 7)) -> None:
    """Resume, save some states, each after the row of W that it claims; then give model and W their names."""
    die()
    with durable.use(story.disk), checkpoints() as run:
        saved = run.open(resume=True)
        begin = count_of(saved)
        exists = durable.exists(W_FILE)
        W = durable.reopen(W_FILE) if exists else durable.create(W_FILE)
        if not exists:
            durable.sync_folder(OUT)
        for count in range(begin + 1, begin + n_saves + 1):
            W.pwrite(row(count), count * ROW)
            W.sync()
            run.save(state_of(count, sizes[count % len(sizes)]))
            story.acknowledged.append((len(story.disk.journal), count))
        W.close()
        if finish:
            durable.write_whole(MODEL, row(begin + n_saves) * 100, overwrite=True)
            run.save(state_of(begin + n_saves), finished=True)
            story.finished_at = len(story.disk.journal)


def fresh(n_saves: int, *, finish: bool) -> Story:
    story = Story(empty())
    tell(story, n_saves, finish=finish)
    return story


def continued() -> Story:
    """A second run takes over from one that died without giving back its lease."""
    first = fresh(3, finish=False)
    story = Story(MemoryDisk(first.disk.nodes), [(0, 3)])
    tell(story, 3, finish=True)
    return story


STORIES = {"fresh": fresh(5, finish=False), "short": fresh(1, finish=True), "finished": fresh(3, finish=True),
           "continued": continued()}  # fmt: skip


def examine(disk: MemoryDisk, least: int, finished: bool) -> tuple[int, Saved | None]:
    """What a new start finds is whole, and nothing that was acknowledged is missing."""
    die()
    with durable.use(disk), checkpoints() as run:
        saved = run.open(resume=True)
        count = count_of(saved)
        rows = durable.read_bytes(W_FILE) if count else b""
        models = {durable.read_bytes(path) for path in [MODEL] if durable.exists(path)}
    assert count >= least
    for number in range(1, count + 1):
        assert rows[number * ROW : (number + 1) * ROW] == row(number), f"row {number} of {count}"
    assert models <= {row(n) * 100 for n in (1, 3, 5, 6)}
    assert not finished or models
    return count, saved


def lose_power(seed: int) -> None:
    rng = random.Random(seed)
    story = STORIES[rng.choice(list(STORIES))]
    at = rng.randrange(len(story.disk.journal) + 1)
    left = story.disk.after_power_loss(at, rng)
    count, _ = examine(MemoryDisk(left.base), story.durable_count(at), at >= story.finished_at)
    again = Story(left, [(0, count)])  # what recovery found, it finds again when power fails during recovery
    tell(again, rng.randrange(3), finish=False)
    at = rng.randrange(len(left.journal) + 1)
    examine(left.after_power_loss(at, rng), again.durable_count(at), False)


@pytest.mark.parametrize("part", range(4))
def test_fault_21_no_schedule_is_unrecoverable(part: int) -> None:
    for seed in range(part * SCHEDULES // 4, (part + 1) * SCHEDULES // 4):
        try:
            lose_power(seed)
        except BaseException as error:
            raise AssertionError(f"schedule {seed}: {error!r}") from error


def test_the_simulation_loses_what_is_not_synced() -> None:
    story = Story(empty())
    with durable.use(story.disk):
        file = durable.create(Path("/out/a"))
        file.pwrite(b"x" * 64, 0)
        file.close()
    found = set()
    for seed in range(200):
        left = story.disk.after_power_loss(len(story.disk.journal), random.Random(seed))
        with durable.use(left):
            found.add(durable.read_bytes(Path("/out/a")) if durable.exists(Path("/out/a")) else None)
    assert None in found
    assert b"" in found
    assert b"x" * 64 in found
    assert len(found) > 10
