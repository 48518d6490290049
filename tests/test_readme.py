"""Every command and every line of Python in the README runs, in the order in which it stands there."""

from __future__ import annotations

import re
import subprocess
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest

from nmfstream.cli.main import COMMANDS
from tests.cli.helpers import PROGRAM

README = Path(__file__).resolve().parents[1] / "README.md"
TEXT = README.read_text()
ELSEWHERE = ("bash scripts/", "pip install")
"""What makes environments: the scripts have a test of their own."""


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def commands():
    lines = [line for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]
    bare = [line[2:].split("   #")[0].strip() for line in lines]
    return [line for line in bare if not line.startswith(ELSEWHERE)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Counts of 300 rows and 40 features, and two runs of their rows."""
    path = tmp_path_factory.mktemp("readme")
    g = np.random.default_rng(0)
    X = g.poisson(g.gamma(1.0, 1.0, (300, 3)) @ g.gamma(1.0, 1.0, (3, 40)))
    with h5py.File(path / "counts.h5", "w") as f:
        f["X"] = X
    np.save(path / "a.npy", X[:200].astype(np.float32))
    np.save(path / "b.npy", X[200:].astype(np.float32))
    for line in commands():
        done = shell(line, path)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    return path


def shell(line, folder):
    env = {"PATH": f"{Path(PROGRAM[0]).parent}:/usr/bin:/bin", "HOME": str(folder)}
    return subprocess.run(["/bin/sh", "-c", line], cwd=folder, env=env, capture_output=True, text=True)


def test_every_command_runs(folder):
    assert (folder / "topics.h5").exists()
    assert np.load(folder / "W.npy").shape == (300, 12)


@pytest.mark.parametrize("block", blocks("python"))
def test_every_line_of_python_runs(block, folder, monkeypatch):
    monkeypatch.chdir(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(compile(block, "README.md", "exec"), {})


def test_the_run_that_is_shown_is_the_demonstrations():
    shown = [line[2:] for block in blocks("text") for line in block.splitlines() if line.startswith("$ ")]
    script = (README.parent / "scripts" / "demo.sh").read_text()
    assert shown
    assert all(f"\nrun {line}\n" in script for line in shown)


def test_it_names_both_scripts_and_every_command():
    assert "scripts/demo.sh" in TEXT and "scripts/test.sh" in TEXT
    assert all(f"`{name} " in TEXT for name in COMMANDS)


def test_its_links_lead_somewhere():
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in target]
    assert all((README.parent / target.split("#")[0]).exists() for target in targets)
