"""Signals to a real process, and the clock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nmfstream.errors import StopRequested
from nmfstream.run.signals import StopFlag

PROGRAM = """
import sys, time
from nmfstream.run.signals import StopFlag
with StopFlag() as stop:
    print("ready", flush=True)
    try:
        while True:
            {work}
            stop.check()
    except BaseException as caught:
        {then}
        sys.exit(stop.error().exit_code)
"""


@contextmanager
def running(
    work: str = "time.sleep(0.01)", then: str = "pass", before: str = "", ignored: tuple[int, ...] = ()
) -> Iterator[subprocess.Popen[str]]:
    def start() -> None:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)

    program = before + PROGRAM.format(work=work, then=then)
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, preexec_fn=start)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 75), (signal.SIGHUP, 75), (signal.SIGUSR1, 75), (signal.SIGUSR2, 75), (signal.SIGINT, 130)],
)
def test_fault_05_06_07_10_first_signal(number: int, code: int) -> None:
    with running() as process:
        process.send_signal(number)
        assert process.wait(10) == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_fault_08_second_signal(number: int) -> None:
    with running(then="print('saving', flush=True); time.sleep(30)") as process:
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.readline() == "saving\n"
        process.send_signal(number)
        assert process.wait(2) == 128 + number


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_fault_09_10_ignored_from_the_start_stays_ignored(number: int) -> None:
    with running(ignored=(number,)) as process:
        process.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 75


def test_fault_12_a_save_is_finished() -> None:
    work = "print('saving', flush=True); time.sleep(0.5); print('saved', flush=True)"
    with running(work) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "saving\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "saved\n"
        assert process.wait(10) == 75


def test_fault_13_stopped_and_continued() -> None:
    with running() as process:
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.1)
        process.send_signal(signal.SIGCONT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 75


def test_fault_14_a_signal_does_not_wait_for_a_long_call() -> None:
    """The second one ends the process while the main thread is inside a library."""
    before = "import numpy as np\nX = np.ones((4000, 4000))\n"
    with running("time.sleep(0.01)", "print('computing', flush=True)\n        while True: X @ X", before) as process:
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.readline() == "computing\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(1) == 143


def test_handlers_are_given_back() -> None:
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    with StopFlag() as stop:
        os.kill(os.getpid(), signal.SIGUSR1)
        for _ in range(200):
            time.sleep(0.01)
            if stop():
                break
        assert stop.received == signal.SIGUSR1
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == before


def test_usable_from_another_thread() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def run() -> None:
        with StopFlag(max_time=0.0) as stop:
            seen.append((stop(), signal.getsignal(signal.SIGTERM) is before))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(True, True)]


def test_max_time_leaves_a_margin_that_is_learnt() -> None:
    stop = StopFlag(max_time=100.0, began=time.monotonic() - 80.0)
    stop.check()
    stop.saved(9.9)
    with pytest.raises(StopRequested):
        stop.check()
    assert stop.error().exit_code == 75
    assert "time is up" in str(stop.error())


def test_a_slow_run_still_gets_half_its_time() -> None:
    stop = StopFlag(max_time=100.0, began=time.monotonic() - 40.0)
    stop.saved(1000.0)
    stop.check()
