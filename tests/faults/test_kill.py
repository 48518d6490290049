"""SIGKILL at random moments of real commands: resumed, they end with the bits of a run that nobody disturbed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.sparse as sp

KILLS = int(os.environ.get("NMFSTREAM_KILLS", "30"))
COMMAND = [sys.executable, "-c", "from nmfstream.cli.main import run; run()"]
SMALL = ["--batch-size", "200", "--tol", "0", "--seed", "3", "--threads", "2"]

CASES = {
    "mu": ["fit", "X.npy", "-o", "OUT.h5", "-k", "5", "--solver", "mu", "--max-iter", "12", "--w", "OUT.npy",
           "--max-no-improvement", "none", "--checkpoint-every", "9steps", *SMALL],
    "mu restarts": ["fit", "X.npy", "-o", "OUT.h5", "-k", "5", "--solver", "mu", "--max-iter", "4", "--w", "OUT.zarr",
                    "--fresh-restarts", "--max-no-improvement", "none", "--checkpoint-every", "3steps", *SMALL],
    "hals": ["fit", "X.npy", "-o", "OUT.h5", "-k", "5", "--solver", "hals", "--max-iter", "10", "--w", "OUT.npy",
             "--sample-rows", "1500", "--checkpoint-every", "8steps", *SMALL],
    "sparse KL": ["fit", "S.npz", "-o", "OUT.h5", "-k", "5", "--beta-loss", "1", "--max-iter", "6", "--w", "OUT.w.h5/W",
                  "--sample-rows", "1500", "--checkpoint-every", "8steps", *SMALL],
    "transform": ["transform", "X.npy", "-m", "model.h5", "-o", "OUT.npy", "--tol", "1e-6",
                  "--checkpoint-every", "1steps", "--threads", "2"],
    "convert": ["convert", "X.npy", "-o", "OUT.zarr", "--dtype", "float64", "--checkpoint-every", "1steps"],
    "convert sparse": ["convert", "S.npz", "-o", "OUT.h5/X", "--checkpoint-every", "1steps"],
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    rng = np.random.default_rng(0)
    X = rng.random((6000, 5)) @ rng.random((5, 60)) + 0.1 * rng.random((6000, 60))
    np.save(folder / "X.npy", X.astype(np.float32))
    sp.save_npz(folder / "S.npz", sp.random(6000, 200, 0.05, format="csr", random_state=0, dtype=np.float32))
    command("fit", "X.npy", "-o", "model.h5", "-k", "5", "--solver", "mu", "--max-iter", "2", *SMALL, folder=folder)
    return folder


def command(*args: str, folder: Path) -> None:
    done = subprocess.run([*COMMAND, *args], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def values(path: Path) -> bytes:
    if path.suffix != ".h5":
        return path.read_bytes()
    with h5py.File(path) as h5:
        return b"".join(h5[name][()].tobytes() for name in ("components", "W") if name in h5)


def result(folder: Path) -> dict[str, bytes]:
    """All values in the outputs of a command, by file."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and ".ckpt" not in str(path)]
    return {str(path.relative_to(folder)): values(path) for path in files}


def arguments(case: str, place: Path) -> list[str]:
    place.mkdir(parents=True)
    return [argument.replace("OUT", str(place / "out")) for argument in CASES[case]]


def killed_after(seconds: float, args: list[str], folder: Path) -> int:
    """The exit code of a command that is killed unless it ends before; a second start finds what the first left."""
    process = subprocess.Popen([*COMMAND, *args], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    _, said = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), said.decode()
    return process.returncode


@pytest.mark.parametrize("case", CASES)
def test_fault_01_02_killed_at_random(case: str, folder: Path) -> None:
    place = folder / case.replace(" ", "")
    began = time.monotonic()
    command(*arguments(case, place / "whole"), folder=folder)
    seconds = time.monotonic() - began
    whole = result(place / "whole")
    assert whole
    kills, round_ = 0, 0
    rng = random.Random(case)
    while kills < KILLS / len(CASES):
        round_ += 1
        args = [*arguments(case, place / str(round_)), "--resume"]
        longest = 0.2 + 0.4 * seconds
        while killed_after(rng.uniform(0.1, longest), args, folder):
            kills, longest = kills + 1, 1.15 * longest
        assert result(place / str(round_)) == whole, f"round {round_}"
        shutil.rmtree(place / str(round_))
