"""What is said while a run goes on."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import struct
import subprocess
import termios

import numpy as np
import pytest
import scipy.sparse as sp

from nmfstream.cli.meter import Meter, duration
from nmfstream.cli.metrics import appending
from nmfstream.cli.progress import Lines, Silent, Teller, display, listener
from nmfstream.core.state import PassRecord
from nmfstream.run.events import Advanced, Note, StageFinished, StageStarted
from tests.cli.helpers import PROGRAM, npy, run


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_plain_line_comes_every_interval(capsys):
    clock = Clock()
    meter, lines = Meter(clock), Lines(clock, every=30)
    for second in range(0, 91, 10):
        clock.now = float(second)
        event = Advanced(second * 100, 10 * 100 * 40, second, 2.5) if second else StageStarted("pass 2", 10000)
        meter(event)
        lines.show(meter, event)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3
    assert said[0] == "pass 2: 3000 of 10000 (30%) rows, 100 rows/s, 0.004 MB/s, loss 2.5, ETA 1 min 10 s"


def test_rows_of_an_earlier_run_do_not_count_for_the_speed():
    clock = Clock()
    meter = Meter(clock)
    meter(StageStarted("pass 1", 1000, rows_done=500))
    clock.now = 10.0
    meter(Advanced(600, 0, 1, float("nan")))
    assert meter.rows_per_second == 10
    assert meter.eta == 40


@pytest.mark.parametrize(
    ("quiet", "note", "said"),
    [
        (False, Note("hello"), "nmfstream: hello\n"),
        (True, Note("hello"), ""),
        (True, Note("careful", warning=True), "nmfstream: warning: careful\n"),
    ],
)
def test_notes(capsys, quiet, note, said):
    shown = Silent()
    Teller(shown, quiet=quiet, verbose=False)(note)
    at_once = capsys.readouterr().err
    shown.done()
    assert at_once + capsys.readouterr().err == said
    assert bool(at_once) == note.warning


@pytest.mark.parametrize(
    ("wanted", "quiet", "kind"),
    [(None, False, Lines), (True, False, Lines), (False, False, Silent), (None, True, Silent), (True, True, Lines)],
)
def test_a_log_gets_lines(wanted, quiet, kind):
    assert type(display(wanted=wanted, quiet=quiet)) is kind


def test_metrics_are_json_lines_appended(tmp_path):
    path = tmp_path / "m.jsonl"
    record = PassRecord("pass 1", 10, 0.5, 1.5, np.nan)
    for _ in range(2):
        with appending(path, lambda event: None) as hear:
            hear(StageStarted("pass 1", 10))
            hear(Advanced(10, 400, 1, 2.0))
            hear(StageFinished("pass 1", 10, 0.5, record))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["stage"] for line in lines] == ["pass 1", "pass 1"]
    assert (lines[0]["loss"], lines[0]["H_change"], lines[0]["rows_total"]) == (1.5, None, 10)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.96, "10 s"), (59.6, "1 min 0 s"), (185, "3 min 5 s"), (7800, "2 h 10 min")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def csc(folder):
    """Data that no command can read by rows before they are turned outside memory."""
    sp.save_npz(folder / "s.npz", sp.csc_matrix(np.eye(40, 6, dtype="f4")))
    return folder / "s.npz"


@pytest.mark.parametrize("args", [("fit", "-k", "2", "--max-iter", "1", "-o", "m.h5"), ("convert", "-o", "x.npy")])
def test_scratch_is_announced_with_its_size(args, tmp_path):
    command, *rest = args
    (tmp_path / "room").mkdir()
    done = run(command, csc(tmp_path), *rest, "--scratch", "room", cwd=tmp_path)
    assert done.returncode == 0
    assert re.search(r"^nmfstream: .*s\.npz.*[\d.]+ k?B of scratch in .*room$", done.stderr.decode(), re.M)


def test_an_error_stands_alone_though_scratch_was_used(tmp_path):
    X = sp.csc_matrix(np.eye(40, 6, dtype="f4"))
    X.data[3] = np.nan
    sp.save_npz(tmp_path / "s.npz", X)
    for args in (("fit", "-k", "2", "-o", "m.h5"), ("convert", "-o", "x.npy")):
        done = run(args[0], tmp_path / "s.npz", *args[1:], cwd=tmp_path)
        assert done.returncode == 65
        assert len(done.stderr.decode().splitlines()) == 1


def test_scratch_is_not_announced_to_the_quiet(tmp_path):
    done = run("convert", csc(tmp_path), "-o", "x.npy", "-q", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")


def test_warnings_of_readers_are_said_even_to_the_quiet(capsys):
    with listener({"progress": None, "quiet": True, "verbose": False}):
        logging.getLogger("nmfstream").warning("%s: read without a lock", "d.h5")
    logging.getLogger("nmfstream").info("not heard any more")
    assert capsys.readouterr().err == "nmfstream: warning: d.h5: read without a lock\n"


def on_a_terminal(*args, size=(24, 100), cwd=None, **env):
    """What a command shows on a terminal of so many lines and columns."""
    ours, theirs = os.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm"} | env
    command = [*PROGRAM, *map(str, args)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=theirs, cwd=cwd, env=environment)
    os.close(theirs)
    shown = b""
    while piece := _read(ours):
        shown += piece
    os.close(ours)
    assert process.wait(60) == 0, shown
    return shown.decode()


def _read(terminal):
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # nobody holds the other end any more
        return b""


@pytest.mark.parametrize("size", [(24, 100), (0, 0)], ids=["window", "without a size"])
def test_a_terminal_gets_a_bar_that_vanishes(model, x_npy, tmp_path, size):
    shown = on_a_terminal("transform", x_npy, "-m", model, "-o", "W.npy", size=size, cwd=tmp_path)
    assert "\rtransform:   0%|" in shown
    assert re.search(r"\r *\r(\x1b\[0m)?nmfstream transform: 60 rows solved", shown), shown


@pytest.mark.parametrize(("value", "coloured"), [("1", False), ("", True)])
def test_no_color(model, x_npy, tmp_path, value, coloured):
    shown = on_a_terminal("transform", x_npy, "-m", model, "-o", "W.npy", cwd=tmp_path, NO_COLOR=value)
    assert ("\x1b[32m" in shown) == coloured


def test_a_dumb_terminal_gets_no_bar(model, x_npy, tmp_path):
    shown = on_a_terminal("transform", x_npy, "-m", model, "-o", "W.npy", cwd=tmp_path, TERM="dumb")
    assert shown.count("\r") == shown.count("\n") == 1


def test_metrics_of_a_stream_count_its_rows(tmp_path, X):
    args = ("fit", "-", "-k", 3, "-o", "m.h5", "--metrics", "m.jsonl")
    assert run(*args, stdin=npy(X[:25], X[25:]), cwd=tmp_path).returncode == 0
    lines = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert [line["rows"] for line in lines if line["stage"].startswith("pass")] == [60]
