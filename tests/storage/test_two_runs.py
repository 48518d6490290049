"""Two runs on one output in every order: nothing that was acknowledged is lost, no generation is committed twice."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

from nmfstream import ownership
from nmfstream.errors import OutputExistsError, StorageError
from nmfstream.storage import durable
from tests.storage.memory import ROOT, MemoryDisk, Node
from tests.storage.runs import checkpoints, checkpoints_on, count_of, die, state_of

SCHEDULES = int(os.environ.get("NMFSTREAM_SCHEDULES", "10000"))


class Turns:
    """Lets one of several threads run at a time, and hands over at the calls that a seed chooses."""

    def __init__(self, disk: MemoryDisk, rng: random.Random) -> None:
        self.disk, self.rng = disk, rng
        # Either one run sleeps a few times and the other goes far meanwhile, or they change at every other call.
        self.sleeps = {rng.randrange(250) for _ in range(rng.randrange(1, 4))}
        self.pace = rng.choice((0.0, 0.0, 0.0, 0.06, 0.2))
        self.calls = 0
        self.gates: list[threading.Semaphore] = []
        self.alive: set[int] = set()
        self.local = threading.local()
        self.done = threading.Semaphore(0)
        self.faults: list[BaseException] = []

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.disk, name)
        return lambda *args: self._call(call, args)

    def _call(self, call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        number = getattr(self.local, "number", None)
        self.calls += 1
        if number is not None and len(self.alive) > 1 and self._changes():
            self._pass_on(number)
        return call(*args)

    def _changes(self) -> bool:
        return self.calls in self.sleeps or self.rng.random() < self.pace

    def _pass_on(self, number: int) -> None:
        other = self.rng.choice(sorted(self.alive - {number}))
        self.gates[other].release()
        self.gates[number].acquire()

    def play(self, runs: list[Callable[[], None]]) -> None:
        self.gates = [threading.Semaphore(0) for _ in runs]
        self.alive = set(range(len(runs)))
        for number, run in enumerate(runs):
            WORKERS[number].submit(lambda number=number, run=run: self._thread(number, run))
        self.gates[self.rng.randrange(len(runs))].release()
        self.done.acquire()
        if self.faults:
            raise self.faults[0]

    def _thread(self, number: int, run: Callable[[], None]) -> None:
        self.gates[number].acquire()
        self.local.number = number
        try:
            run()
        except BaseException as error:
            self.faults.append(error)
        finally:
            self.alive.discard(number)
            if self.alive:
                self.gates[min(self.alive)].release()
            else:
                self.done.release()


class Worker:
    """A thread that is kept: making one for each schedule would take most of the time."""

    def __init__(self) -> None:
        self.job: Callable[[], None] = lambda: None
        self.ready = threading.Semaphore(0)
        threading.Thread(target=self._serve, daemon=True).start()

    def submit(self, job: Callable[[], None]) -> None:
        self.job = job
        self.ready.release()

    def _serve(self) -> None:
        while True:
            self.ready.acquire()
            self.job()


WORKERS = [Worker(), Worker(), Worker()]


def make_run(host: str, n_saves: int, log: list[tuple[int, str, list[str]]], refused: list[str]) -> Callable[[], None]:
    """Resume, then save n times; each state names all commits that it builds on."""

    def run() -> None:
        checkpoint = checkpoints_on(host)
        try:
            saved = checkpoint.open(resume=True)
            names = list(saved.state.solver.names) if saved is not None else []  # type: ignore[attr-defined]
            for i in range(n_saves):
                names = [*names, f"{host}{i}"]
                generation = checkpoint.save(state_of(count_of(saved) + i + 1, names=names))
                log.append((generation, names[-1], names))
        except (OutputExistsError, StorageError) as error:
            refused.append(f"{host}: {error}")
        checkpoint.close()

    return run


def interleave(seed: int) -> tuple[int, int]:
    rng = random.Random(seed)
    disk = MemoryDisk({ROOT: Node(True, names={"out": 2}), 2: Node(True)})
    with durable.use(disk):
        die()
        begun = checkpoints()
        begun.open(resume=True)
        for count in range(1, 1 + rng.randrange(3)):
            begun.save(state_of(count))
        die()
    log: list[tuple[int, str, list[str]]] = []
    refused: list[str] = []
    hosts = ["a", "b", "c"][: rng.choice((2, 2, 3))]
    runs = [make_run(host, rng.randrange(1, 5), log, refused) for host in hosts]
    turns = Turns(disk, rng)
    with durable.use(turns):
        turns.play(runs)
    with durable.use(disk):
        die()
        saved = checkpoints_on("d").open(resume=True)
        numbers = [generation for generation, _, _ in log]
        assert len(numbers) == len(set(numbers)), f"committed twice: {numbers}"
        newest = [] if saved is None else saved.state.solver.names  # type: ignore[attr-defined]
        lost = {name for _, name, _ in log} - set(newest)
        assert not lost, f"acknowledged, but not part of what is left: {lost}"
        count_of(saved)
    return len(log), len(refused)


@pytest.mark.parametrize("part", range(4))
def test_fault_28_29_no_interleaving_commits_twice(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "_POLL_SECONDS", 40.0)
    committed = refused = 0
    for seed in range(part * SCHEDULES // 4, (part + 1) * SCHEDULES // 4):
        try:
            more = interleave(seed)
        except BaseException as error:
            raise AssertionError(f"interleaving {seed}: {error!r}") from error
        committed, refused = committed + more[0], refused + more[1]
    assert committed > 0
    assert refused > 0
