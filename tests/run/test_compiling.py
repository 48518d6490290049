"""The first run on a machine: kernels are foreseen, compiled one by one before the rest, within the budget."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.sparse

import nmfstream
from nmfstream import machine_code
from nmfstream.cli.main import main
from nmfstream.machine_code import Kernel, Needed
from nmfstream.run import memory

MiB = 1 << 20
N, M, K = 4000, 300, 8
FITS = {
    "mu": ("--solver", "mu", "--max-iter", "1", "--init", "random"),
    "mu nndsvda": ("--solver", "mu", "--max-iter", "1", "--init", "nndsvda"),
    "mu kl": ("--solver", "mu", "--max-iter", "1", "--beta-loss", "1"),
    "mu 1.5": ("--solver", "mu", "--max-iter", "1", "--beta-loss", "1.5"),
    "hals": ("--max-iter", "2"),
    "hals nndsvd": ("--max-iter", "1", "--init", "nndsvd"),
    "kl": ("--max-iter", "1", "--beta-loss", "1", "--sample-rows", "1000"),
    "1.5": ("--max-iter", "1", "--beta-loss", "1.5", "--sample-rows", "200", "--n-init", "1"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compiling")
    rng = np.random.default_rng(0)
    X = rng.poisson(rng.gamma(0.5, 2.0, (N, K)) @ rng.gamma(0.5, 1.0, (K, M))).astype(np.float32)
    np.save(folder / "dense.npy", X)
    scipy.sparse.save_npz(folder / "sparse.npz", scipy.sparse.csr_matrix(X), compressed=False)
    with h5py.File(folder / "lzf.h5", "w") as file:
        file.create_dataset("X", data=np.tile(X, (3, 1)), chunks=(500, M), compression="lzf")
    return folder


@pytest.fixture
def seen(monkeypatch):
    """What was expected when the memory was planned, and what was called."""
    expected, called = set(), set()
    missing, call = memory.missing, Kernel.__call__

    def noted():
        expected.update(machine_code._EXPECTED)
        return missing()

    def noting(self, *args):
        called.add(Needed(self.module, self.name, tuple(map(machine_code._kind, args))))
        return call(self, *args)

    monkeypatch.setattr(memory, "missing", noted)
    monkeypatch.setattr(Kernel, "__call__", noting)
    return expected, called


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["dense.npy", "sparse.npz"])
@pytest.mark.parametrize("how", FITS)
def test_what_a_fit_calls_was_expected(data, tmp_path, seen, name, how, dtype):
    out = ("-o", str(tmp_path / "m.h5"), "--w", str(tmp_path / "W.npy"))
    assert main(["fit", str(data / name), "-k", str(K), *out, *FITS[how], "--dtype", dtype, "-q"]) == 0
    expected, called = seen
    assert called
    assert called <= expected


@pytest.mark.parametrize(("columns", "k", "whole"), [(2 * M, 20, True), (M, K, False)])
def test_a_kernel_for_whole_blocks_is_expected_where_they_are_large_enough(data, tmp_path, seen, columns, k, whole):
    X = np.load(data / "dense.npy")
    np.save(tmp_path / "X.npy", np.tile(X, (3, 2))[:, :columns])
    assert main(["fit", str(tmp_path / "X.npy"), "-k", str(k), "-o", str(tmp_path / "m.h5"), *FITS["hals"], "-q"]) == 0
    expected, called = ({needed.name for needed in those} for those in seen)
    assert ("solve_block" in expected, "solve_block" in called) == (whole, whole)


@pytest.mark.parametrize("beta", ["2", "1"])
@pytest.mark.parametrize("name", ["dense.npy", "sparse.npz", "lzf.h5"])
def test_what_other_commands_call_was_expected(data, tmp_path, seen, name, beta):
    model = str(tmp_path / "m.h5")
    fit = ["fit", str(data / name), "-k", str(K), "-o", model, "--beta-loss", beta, "--sample-rows", "0", "-q"]
    assert main([*fit, "--max-iter", "1"]) == 0
    expected, called = seen
    expected.clear()
    called.clear()
    assert main(["transform", str(data / name), "-m", model, "-o", str(tmp_path / "W.npy"), "-q"]) == 0
    assert main(["score", str(data / name), "-m", model, "-q"]) == 0
    assert called
    assert called <= expected


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(("solver", "beta"), [("mu", 2), ("mu", 1), ("auto", 2), ("auto", 1)])
def test_what_learning_from_a_stream_calls_was_expected(data, seen, solver, beta, sparse):
    X = np.load(data / "dense.npy")
    chunks = [scipy.sparse.csr_matrix(part) if sparse else part for part in np.array_split(X, 4)]
    nmfstream.fit(iter(chunks), K, solver=solver, beta_loss=beta, memory=2 << 30)
    expected, called = seen
    assert called or solver == "mu"
    assert called <= expected


def test_what_reading_calls_was_expected(data, tmp_path, seen):
    assert main(["convert", str(data / "lzf.h5"), "-o", str(tmp_path / "X.npy"), "-q"]) == 0
    expected, called = seen
    assert {needed.name for needed in called} == {"decompress"}
    assert called <= expected


@pytest.fixture
def fresh(tmp_path):
    """How to run a copy of the program that never compiled anything; its folder is the second."""
    copy = tmp_path / "copy" / "nmfstream"
    shutil.copytree(Path(nmfstream.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    env = os.environ | {"PYTHONPATH": str(copy.parent), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    program = [sys.executable, "-c", "from nmfstream.cli.entry import run; run()"]

    def start(*arguments):
        command = [*program, *map(str, arguments), "-q"]
        return subprocess.Popen(command, cwd=copy.parent, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    return start, copy


def resident_of_all(pid):
    """Resident bytes of a process and of its children."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        tasks = [task.read_text().split() for task in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(resident_of_all(child) for task in tasks for child in task)


def peak_of_all(process):
    most = 0
    while process.poll() is None:
        most = max(most, resident_of_all(process.pid))
        time.sleep(0.005)
    return most


def test_the_first_run_stays_within_the_smallest_budget(data, tmp_path, fresh):
    start, copy = fresh
    fit = ("fit", data / "dense.npy", "-k", K, "-o", tmp_path / "m.h5", "--w", tmp_path / "W.npy")
    fit += ("--solver", "mu", "--max-iter", 1)
    planned = json.loads(start(*fit, "--dry-run", "--json").communicate()[0])["plan"]["memory"]["parts"]
    assert planned["compiling"] > 100 * MiB
    refused = start(*fit, "--memory", "100MiB")
    said = refused.communicate()[1].decode()
    assert refused.returncode == 2
    assert "for compiling" in said
    least = int(re.search(r"smallest that works is --memory (\d+)MiB", said)[1])
    assert not list(copy.rglob("*.machine"))

    first = start(*fit, "--memory", f"{least}MiB")
    most = peak_of_all(first)
    assert first.communicate()[1] == b""
    assert first.returncode == 0
    assert 150 * MiB < most <= least * MiB
    assert list(copy.rglob("*.machine"))

    again = json.loads(start(*fit, "--overwrite", "--dry-run", "--json").communicate()[0])
    assert "compiling" not in again["plan"]["memory"]["parts"]
