"""Outputs of rows that are continued."""

from __future__ import annotations

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
