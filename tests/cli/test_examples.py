"""The example in the help of each command runs as it stands."""

from __future__ import annotations

import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest

from nmfstream.cli.main import COMMANDS
from tests.cli.helpers import PROGRAM, run

STEPS = {"": 0, "fit": 0, "convert": 0, "completion": 0, "inverse-transform": 2}
FILES = {"x.npy", "a.npy", "b.npy"}


@pytest.fixture
def folder(tmp_path, X):
    """What the examples name: counts.h5/X, topics.h5, W.npy, a.npy, b.npy; and a consumer."""
    counts = np.random.default_rng(0).poisson(X)
    with h5py.File(tmp_path / "counts.h5", "w") as f:
        f["X"] = counts
    for name in FILES:
        np.save(tmp_path / name, counts.astype(np.float32))
    consumer = tmp_path / "bin" / "consumer"
    consumer.parent.mkdir()
    consumer.write_text("#!/bin/sh\nexec cat >/dev/null\n")
    consumer.chmod(0o755)
    (tmp_path / ".local/share/bash-completion/completions").mkdir(parents=True)
    (tmp_path / ".zfunc").mkdir()
    (tmp_path / ".config/fish/completions").mkdir(parents=True)
    return tmp_path


def examples(name):
    text = run(name, "--help").stdout.decode() if name else run("--help").stdout.decode()
    return [line.strip() for line in text.split("Example:\n")[1].splitlines()]


def shell(line, folder):
    path = f"{folder}/bin:{Path(PROGRAM[0]).parent}:/usr/bin:/bin"
    env = {"PATH": path, "HOME": str(folder)}
    return subprocess.run(["/bin/sh", "-e", "-c", line], cwd=folder, env=env, capture_output=True, text=True)


def prepare(folder, needed):
    learn = "nmfstream fit counts.h5/X -o topics.h5 -k 3 --solver mu --max-iter 2"
    solve = "nmfstream transform counts.h5/X -m topics.h5 -o W.npy"
    for step in (learn, solve)[: STEPS.get(needed, 1)]:
        done = shell(step, folder)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_example_runs(name, folder):
    prepare(folder, name)
    for line in examples(name):
        done = shell(line.replace("-k 20", "-k 3"), folder)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
