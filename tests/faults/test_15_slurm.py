"""The cluster's scripts, with stand-ins for the cluster's programs that deliver real signals."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.cli.helpers import PROGRAM, run
from tests.faults.signals import FIT, saved, wait_for

SCRIPTS = Path(__file__).parents[2] / "scripts" / "slurm"
# srun gives its task's exit code and hands signals on, as the real one does.
SRUN = """#!/usr/bin/env python3
import signal, subprocess, sys
child = subprocess.Popen([a for a in sys.argv[1:] if not a.startswith("--ntasks")])
for name in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
    signal.signal(name, lambda n, f: child.send_signal(n))
code = child.wait()
sys.exit(code if code >= 0 else 128 - code)
"""
SCONTROL = """#!/bin/sh
echo "$@" >> "$CLUSTER/requeued"
"""
# sbatch runs the script at once, again for as long as it was requeued, an array's tasks one after the other.
SBATCH = """#!/usr/bin/env python3
import os, pathlib, subprocess, sys
cluster = pathlib.Path(os.environ["CLUSTER"])
args = sys.argv[1:]
options = {}
while args[0].startswith("--"):
    name, _, value = args.pop(0)[2:].partition("=")
    options[name] = value
number = sum(1 for _ in cluster.glob("job-*")) + 1
(cluster / f"job-{number}").write_text(" ".join([f"{k}={v}" for k, v in options.items()] + args))
wanted = options.get("dependency", "afterok:0").split(":")[1]
assert wanted == "0" or (cluster / f"done-{wanted}").exists()
low, high = map(int, options.get("array", "0-0").split("-"))
for task in range(low, high + 1):
    env = {**os.environ, "SLURM_JOB_ID": f"{number}{task}", "SLURM_ARRAY_TASK_ID": str(task),
           "SLURM_ARRAY_TASK_COUNT": str(high - low + 1), "SLURM_ARRAY_TASK_MIN": str(low)}
    code = 75
    while code == 75:
        code = subprocess.run(["bash", *args], env=env, stdout=2).returncode
    assert code == 0, code
(cluster / f"done-{number}").touch()
print(number)
"""


@pytest.fixture
def cluster(tmp_path: Path, x_npy: Path) -> dict[str, str]:
    folder = tmp_path / "cluster"
    folder.mkdir()
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "sbatch": SBATCH}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    path = f"{folder}:{Path(PROGRAM[0]).parent}:{os.environ['PATH']}"
    return {**os.environ, "CLUSTER": str(folder), "PATH": path, "SLURM_JOB_ID": "7"}


def components(path: Path) -> bytes:
    with h5py.File(path) as h5:
        return h5["components"][()].tobytes()


def options(n_passes: int) -> list[str]:
    return [*FIT[4:], "--max-iter", str(n_passes), "--checkpoint-every", "30steps", "--memory", "1GiB"]


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_15_fit_is_saved_and_requeued(number: int, cluster: dict[str, str], x_npy: Path) -> None:
    folder = x_npy.parent
    job = ["bash", str(SCRIPTS / "fit.sbatch"), "x.npy", "m.h5", *options(500)]
    process = subprocess.Popen(job, cwd=folder, env=cluster, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: saved(folder) or process.poll() is not None)
    process.send_signal(number)  # to the batch shell alone, as --signal=B: does
    _, said = process.communicate(timeout=30)
    assert process.returncode == 75, said
    assert (Path(cluster["CLUSTER"]) / "requeued").read_text() == "requeue 7\n"
    assert not (folder / "m.h5").exists()
    again = subprocess.run(job, cwd=folder, env=cluster, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    H = components(folder / "m.h5")
    assert subprocess.run(job, cwd=folder, env=cluster, capture_output=True, check=False).returncode == 0
    assert run("fit", "x.npy", "-o", "whole.h5", *options(500), cwd=folder).returncode == 0
    assert components(folder / "whole.h5") == H


def test_15_an_error_is_not_requeued(cluster: dict[str, str], x_npy: Path) -> None:
    job = ["bash", str(SCRIPTS / "fit.sbatch"), "absent.npy", "m.h5", "-k", "3"]
    done = subprocess.run(job, cwd=x_npy.parent, env=cluster, capture_output=True, check=False)
    assert done.returncode == 66
    assert not (Path(cluster["CLUSTER"]) / "requeued").exists()


@pytest.mark.parametrize("name", ["W.zarr", "W.npy"])
def test_15_chain_of_fit_and_array(name: str, cluster: dict[str, str], x_npy: Path) -> None:
    folder = x_npy.parent
    chain = [str(SCRIPTS / "chain.sh"), "x.npy", "m.h5", name, "60", "4", *options(20)]
    done = subprocess.run(chain, cwd=folder, env=cluster, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "fit 1, transform 2\n"
    submitted = (Path(cluster["CLUSTER"]) / "job-2").read_text()
    assert "dependency=afterok:1 array=0-3" in submitted
    assert run("transform", "x.npy", "-m", "m.h5", "-o", "whole.npy", cwd=folder).returncode == 0
    converted = run("convert", name, "-o", "read.npy", cwd=folder)
    assert converted.returncode == 0, converted.stderr
    W = np.load(folder / "whole.npy")
    np.testing.assert_allclose(np.load(folder / "read.npy"), W, atol=1e-4 * W.max())
