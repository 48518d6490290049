"""Signals that come where Python drops exceptions."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

DROPPING = """
import os, sys, weakref
from nmfstream.cli import main, top

class Held: ...

def sent(_):
    os.kill(os.getpid(), {number})

def command(*args, **given):
    held = Held()
    ref = weakref.ref(held, sent)
    del held  # the callback's exception is seen by nobody
    open("going on", "x").close()
    while True:
        sum(range(1000))

top.top.callback = command
from nmfstream.cli.entry import run
sys.argv = ["nmfstream", "top", "m.h5"]
run()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)])
def test_where_exceptions_are_dropped(number: signal.Signals, code: int, tmp_path: Path) -> None:
    (tmp_path / "m.h5").touch()
    done = subprocess.run(
        [sys.executable, "-c", DROPPING.format(number=int(number))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert (tmp_path / "going on").exists()
