"""Outputs of rows that are continued."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nmfstream
from nmfstream.config import Saving
from nmfstream.run.rowjob import RowJob
from tests.cli.helpers import run

ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.mark.parametrize("form", ["W.npy", "W.npz", "W.h5/W", "W.zarr/W"])
@pytest.mark.parametrize("done", [0, 2])
def test_a_job_goes_on_wherever_it_was_saved(tmp_path: Path, form: str, done: int) -> None:
    spec = str(tmp_path / form)
    job = RowJob(spec, ROWS.shape, ROWS.dtype, {}, Saving(), chunk_rows=2)
    if done:
        job.write(0, ROWS[:done])
    job.save()
    job = RowJob(spec, ROWS.shape, ROWS.dtype, {}, Saving(resume=True), chunk_rows=2)
    assert job.done == done
    job.write(done, ROWS[done:])
    job.commit()
    with nmfstream.open(spec) as rows:
        np.testing.assert_array_equal(rows[:], ROWS)


def test_a_transform_whose_time_was_up_at_once_goes_on(tmp_path: Path) -> None:
    g = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", g.random((20000, 4), np.float32))
    assert run("fit", "x.npy", "-k", 2, "-o", "m.h5", "--max-iter", 1, cwd=tmp_path).returncode == 0
    command = ("transform", "x.npy", "-m", "m.h5", "-q")
    assert run(*command, "-o", "whole.npy", cwd=tmp_path).returncode == 0
    assert run(*command, "-o", "W.npy", "--max-time", "0.001s", cwd=tmp_path).returncode == 75
    done = run(*command, "-o", "W.npy", "--resume", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "W.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


@pytest.mark.parametrize("command", [("transform", "x.npy", "-m", "m.h5"), ("convert", "x.npy")], ids=lambda c: c[0])
def test_killed_between_the_name_and_the_end_of_the_record(command: tuple[str, ...], tmp_path: Path) -> None:
    """The output is whole, its record is still there: the next run takes it away."""
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((500, 4), np.float32))
    assert run("fit", "x.npy", "-k", 2, "-o", "m.h5", "--max-iter", 1, cwd=tmp_path).returncode == 0
    script = (
        "import os; from nmfstream.run.rowjob import RowJob; RowJob.forget = lambda self: os._exit(9);"
        "from nmfstream.cli.main import run; run()"
    )
    done = subprocess.run([sys.executable, "-c", script, *command, "-o", "y.npy"], cwd=tmp_path, check=False)
    assert done.returncode == 9
    assert {"y.npy", "y.npy.partial.json"} <= {p.name for p in tmp_path.iterdir()}
    before = (tmp_path / "y.npy").stat()
    again = run(*command, "-o", "y.npy", "--resume", cwd=tmp_path)
    assert (again.returncode, b"nothing to do" in again.stderr) == (0, True)
    assert {p.name for p in tmp_path.iterdir()} == {"x.npy", "m.h5", "m.h5.ckpt", "y.npy"}
    assert (tmp_path / "y.npy").stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("solver", ["mu", "hals"])
def test_a_fit_killed_before_it_tidied_is_tidied_by_the_next(solver: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((500, 4), np.float32))
    command = ("fit", "x.npy", "-k", "2", "--max-iter", "2", "--solver", solver)
    assert run(*command, "-o", "whole.h5", "--w", "whole.npy", cwd=tmp_path).returncode == 0
    script = "import os; from nmfstream.run import fit; fit._tidy = lambda *given: os._exit(9);"
    script += "from nmfstream.cli.main import run; run()"
    args = [*command, "-o", "m.h5", "--w", "W.npy"]
    assert subprocess.run([sys.executable, "-c", script, *args], cwd=tmp_path, check=False).returncode == 9
    assert (tmp_path / "W.npy.partial.json").exists()
    again = run(*args, "--resume", cwd=tmp_path)
    assert (again.returncode, b"nothing to do" in again.stderr) == (0, True)
    names = {p.name for p in tmp_path.iterdir()}
    whole = {name for name in names if name.startswith("whole")}
    renamed = {name.replace("whole.npy", "W.npy").replace("whole", "m") for name in whole}
    assert names - whole - {"x.npy"} == renamed
