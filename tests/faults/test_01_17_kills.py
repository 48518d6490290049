"""Kills and signals, against the program itself. (Rows 1 to 4 at every call: tests/storage/test_crash_points.py.)"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from nmfstream.checkpoint_reading import load
from tests.cli.helpers import complaint, run
from tests.faults.signals import FIT, FOREVER, saved, under_way, wait_for

TELLING = """
import sys
class Telling:
    def find_spec(name, path, target=None):
        if name == "nmfstream.cli.main":
            print("up", flush=True)
sys.meta_path.insert(0, Telling)
from nmfstream.cli.entry import run
run()
"""
"""Says when the program's import begins: what the interpreter does before that is not ours."""


def components(path: Path) -> np.ndarray:
    with h5py.File(path) as h5:
        return h5["components"][()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP])
def test_05_06_10_saved_and_75(number: int, x_npy: Path) -> None:
    folder = x_npy.parent
    with under_way(folder) as process:
        began = time.monotonic()
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
        assert time.monotonic() - began < 10
    assert process.returncode == 75
    assert [signal.Signals(number).name in said, "m.h5.ckpt" in said, "--resume" in said] == [True] * 3
    assert len(said.splitlines()) == 1
    assert load(saved(folder)[-1]).state.solver.H is not None
    assert not list(folder.glob("*.lease"))
    assert not (folder / "m.h5").exists()


def test_05_resumed_it_ends_with_the_same_bits(x_npy: Path) -> None:
    folder = x_npy.parent
    args = [*FIT, "--max-iter", "600"]
    whole = folder / "whole"
    whole.mkdir()
    np.save(whole / "x.npy", np.load(x_npy))
    assert run(*args, cwd=whole).returncode == 0
    with under_way(folder, args) as process:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        assert process.returncode == 75
    done = run(*args, "--resume", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert components(folder / "m.h5").tobytes() == components(whole / "m.h5").tobytes()


def test_07_ctrl_c(x_npy: Path) -> None:
    with under_way(x_npy.parent) as process:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "nmfstream fit" in said
    assert "--resume" in said
    assert len(said.splitlines()) == 1


def test_08_a_second_signal_leaves_the_last_commit_valid(x_npy: Path) -> None:
    folder = x_npy.parent
    with under_way(folder) as process:
        for _ in range(20):
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=10)
    assert process.returncode in (75, 143)
    assert load(saved(folder)[0]).state.n_steps > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_09_10_ignored_stays_ignored(number: int, x_npy: Path) -> None:
    with under_way(x_npy.parent, ignored=(number,)) as process:
        process.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.send_signal(signal.SIGUSR1)
        process.communicate(timeout=30)
    assert process.returncode == 75


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.1, 0.2])
def test_11_during_import_or_parsing(number: int, delay: float, x_npy: Path) -> None:
    folder = x_npy.parent
    before = sorted(os.listdir(folder))
    process = subprocess.Popen(
        [sys.executable, "-c", TELLING, *FOREVER], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    time.sleep(delay)
    process.send_signal(number)
    out, said = process.communicate(timeout=30)
    assert process.returncode in (-number, 75, 130), said
    assert out == ""
    assert "Traceback" not in said
    # A run that was further than its first steps by then has saved them; nothing else is left.
    assert set(os.listdir(folder)) - set(before) <= {"m.h5.ckpt", *[p.name for p in folder.glob("m.h5.ckpt.*")]}


def test_13_stopped_and_continued(x_npy: Path) -> None:
    folder = x_npy.parent
    with under_way(folder) as process:
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.1)
        newest = saved(folder)[-1].name
        process.send_signal(signal.SIGCONT)
        wait_for(lambda: saved(folder)[-1].name > newest)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 75


def test_16_resumed_with_less_memory(x_npy: Path) -> None:
    folder = x_npy.parent
    args = [*FIT, "--max-iter", "600"]
    with under_way(folder, [*args, "--memory", "1GiB"]) as process:
        process.kill()
        process.communicate()
    assert run(*args, "--resume", "--memory", "400MiB", "--threads", "1", cwd=folder).returncode == 0
    killed = components(folder / "m.h5").tobytes()
    assert run(*args, "--overwrite", cwd=folder).returncode == 0
    assert components(folder / "m.h5").tobytes() == killed


def test_17_max_time_that_is_too_short_for_a_step(tmp_path: Path) -> None:
    """One step takes longer than the run may."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.random((20000, 100), dtype=np.float32))
    args = ["fit", "x.npy", "-o", "m.h5", "-k", "40", "--solver", "mu", "--batch-size", "20000", "--init", "random",
            "--fresh-restarts", "--fresh-restarts-max-iter", "100000", "--tol", "0", "--resume",
            "--max-no-improvement", "none", "--max-time", "3", "--checkpoint-every", "0.2s", "--seed", "0"]  # fmt: skip
    done = [run(*args, cwd=tmp_path) for _ in range(4)]
    # The first one saves the mean of X, which the start needs.
    assert [d.returncode for d in done] == [75, 75, 75, 70]
    assert "3 runs in a row" in complaint(done[3])
    assert "--batch-size" in complaint(done[3])
