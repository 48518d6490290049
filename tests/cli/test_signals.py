"""Signals that come where their exceptions are dropped."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nmfstream.cli.signals import Terminated, dying_tidily
from nmfstream.storage import durable
from nmfstream.stores.growing import GrowingNpy

DROPPING = """
import os, sys, time, weakref
from nmfstream.cli import main, top

class Held: ...

def sent(_):
    os.kill(os.getpid(), {number})

def dropped():  # by the interpreter, in a callback
    held = Held()
    ref = weakref.ref(held, sent)
    del held

def caught():  # by a library
    try:
        sent(None)
    except BaseException:
        pass

def turned():  # into another error, by what calls back
    try:
        sent(None)
    except BaseException as error:
        raise RuntimeError("the class was not made") from error

def command(*args, **given):
    {way}()
    open("going on", "x").close()
    try:
        while True:
            sum(range(1000))
    finally:
        time.sleep(0.3)  # removing what is half-written may take a while
        open("tidied", "x").close()

top.top.callback = command
from nmfstream.cli.entry import run
sys.argv = ["nmfstream", "top", "m.h5"]
run()
"""


ENDS = [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)]


def signalled(number: signal.Signals, way: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "m.h5").touch()
    return subprocess.run(
        [sys.executable, "-c", DROPPING.format(number=int(number), way=way)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("way", ["dropped", "caught"])
@pytest.mark.parametrize(("number", "code"), ENDS)
def test_where_exceptions_are_dropped(number: signal.Signals, code: int, way: str, tmp_path: Path) -> None:
    done = signalled(number, way, tmp_path)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert [(tmp_path / name).exists() for name in ("going on", "tidied")] == [True, True]


@pytest.mark.parametrize(("number", "code"), ENDS)
def test_where_another_error_takes_its_place(number: signal.Signals, code: int, tmp_path: Path) -> None:
    done = signalled(number, "turned", tmp_path)
    assert done.returncode == code
    assert done.stderr == ("nmfstream top: stopped by Ctrl-C\n" if number == signal.SIGINT else "")
    assert not (tmp_path / "going on").exists()


@pytest.mark.parametrize("end", [Terminated(signal.SIGTERM), KeyboardInterrupt()], ids=["SIGTERM", "Ctrl-C"])
def test_a_signal_before_anything_guards_the_file_in_the_making(end: BaseException, tmp_path: Path) -> None:
    with pytest.raises(type(end)), dying_tidily():
        whole = GrowingNpy(tmp_path / "whole.npy", 2, np.dtype(np.float32))
        whole.commit()
        (durable.temporary_name(tmp_path / "Y.zarr") / "c").mkdir(parents=True)
        GrowingNpy(tmp_path / "Y.npy", 2, np.dtype(np.float32))
        raise end
    assert [path.name for path in tmp_path.iterdir()] == ["whole.npy"]
