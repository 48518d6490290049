"""When a run is saved, and what a run that gets nowhere is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nmfstream.checkpoint import Checkpoints
from nmfstream.config import Saving
from nmfstream.errors import NumericError, StopRequested
from nmfstream.run.saver import Companions, Saver
from nmfstream.run.signals import StopFlag
from tests.storage.runs import checkpoints, count_of, state_of


class Clock:
    """Seconds pass when told, and while a save is under way."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time

    def passes(self, seconds: float) -> None:
        self.time += seconds


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Checkpoints]:
    with checkpoints(tmp_path / "m.h5.ckpt") as run:
        run.open(resume=True)
        yield run


def saves(saver: Saver, clock: Clock, steps: int, seconds: float) -> int:
    before = saver.generation or 0
    for count in range(steps):
        clock.passes(seconds)
        saver.after_step(state_of(count))
    return (saver.generation or 0) - before


def test_by_steps(run: Checkpoints) -> None:
    clock = Clock()
    assert saves(Saver(run, Saving(every_seconds=None, every_steps=4), clock=clock), clock, 13, 1000.0) == 3


def test_by_time(run: Checkpoints) -> None:
    clock = Clock()
    assert saves(Saver(run, Saving(every_seconds=30.0), clock=clock), clock, 12, 10.0) == 4


def test_by_default_saving_costs_one_percent(run: Checkpoints) -> None:
    clock = Clock()
    slow = Companions(flush=lambda: clock.passes(10.0))
    n = saves(Saver(run, Saving(), clock=clock, companions=slow), clock, 600, 10.0)
    assert 4 <= n <= 7
    assert n * 10.0 <= 0.015 * clock.time


def test_rows_are_durable_before_the_checkpoint_claims_them(run: Checkpoints) -> None:
    order: list[str] = []
    companions = Companions(
        flush=lambda: order.append(f"flush {len(list(run.path.glob('*.gen')))}"),
        extra=lambda: {"rows": 5},
        saved=lambda: order.append(f"saved {len(list(run.path.glob('*.gen')))}"),
    )
    Saver(run, Saving(every_steps=1), companions=companions).after_step(state_of(1))
    assert order == ["flush 0", "saved 1"]
    saved = run.newest()
    assert saved is not None
    assert saved.extra == {"rows": 5}


def test_stopped_between_two_saves(run: Checkpoints) -> None:
    stop = StopFlag()
    saver = Saver(run, Saving(), stop)
    saver.after_step(state_of(1))
    stop.received = 15
    with pytest.raises(StopRequested):
        saver.after_step(state_of(2))
    saver.interrupted(state_of(2))
    assert count_of(run.newest()) == 2


def test_fault_17_three_fruitless_runs_in_a_row(run: Checkpoints) -> None:
    clock = Clock()
    for _ in range(2):
        saver = Saver(run, Saving(every_seconds=60.0), clock=clock)
        clock.passes(61.0)
        saver.interrupted(state_of(0))
    saver = Saver(run, Saving(every_seconds=60.0), clock=clock)
    clock.passes(61.0)
    with pytest.raises(NumericError, match="3 runs in a row") as caught:
        saver.interrupted(state_of(0))
    assert caught.value.exit_code == 70


def test_fault_17_a_generation_or_a_short_run_in_between(run: Checkpoints) -> None:
    clock = Clock()
    for _ in range(3):
        for seconds in (61.0, 61.0, 1.0):
            saver = Saver(run, Saving(every_seconds=60.0), clock=clock)
            clock.passes(seconds)
            saver.interrupted(state_of(0))
        saver = Saver(run, Saving(every_seconds=60.0), clock=clock)
        clock.passes(61.0)
        saver.after_step(state_of(1))
    assert not run.path.with_name("m.h5.ckpt.stalls").exists()
