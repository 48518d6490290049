"""86: the output exists: 73, it stays as it is; ``--overwrite`` replaces it."""

from __future__ import annotations

import numpy as np
import pytest

from tests.cli.helpers import complaint, run

CASES = [
    ("fit", "{d}/x.npy", "-k", "3", "--max-iter", "1", "-o", "{d}/out.h5"),
    ("fit", "{d}/x.npy", "-k", "3", "--max-iter", "1", "-o", "{d}/new.h5", "--w", "{d}/out.npy"),
    ("fit", "{d}/x.npy", "-k", "3", "--max-iter", "1", "-o", "{d}/new.h5", "--components", "{d}/out.npy"),
    ("transform", "{d}/x.npy", "-m", "{d}/m.h5", "-o", "{d}/out.npy"),
    ("transform", "-", "-m", "{d}/m.h5", "-o", "{d}/out.npy"),
    ("transform", "-", "-m", "{d}/m.h5", "-o", "{d}/out.h5/W"),
    ("inverse-transform", "{d}/W.npy", "-m", "{d}/m.h5", "-o", "{d}/out.npy"),
    ("inverse-transform", "{d}/W.npy", "-m", "{d}/m.h5", "-o", "{d}/out.h5"),
]


@pytest.fixture
def folder(tmp_path, model, x_npy, W_npy):
    for name in ("out.npy", "out.h5"):
        (tmp_path / name).write_bytes(b"precious")
    return tmp_path


@pytest.mark.parametrize("args", CASES, ids=lambda args: " ".join(args))
def test_86_refused(args, folder, X):
    before = {p.name for p in folder.iterdir()}
    done = run(*(a.format(d=folder) for a in args), stdin=(folder / "x.npy").read_bytes())
    assert done.returncode == 73
    assert "exists" in complaint(done)
    assert "--overwrite" in complaint(done)
    assert (folder / "out.npy").read_bytes() == (folder / "out.h5").read_bytes() == b"precious"
    assert {p.name for p in folder.iterdir()} == before


@pytest.mark.parametrize("args", CASES, ids=lambda args: " ".join(args))
def test_86_replaced_when_told(args, folder):
    done = run(*(a.format(d=folder) for a in args), "--overwrite", stdin=(folder / "x.npy").read_bytes())
    assert done.returncode == 0, done.stderr
    left = [(folder / name).read_bytes() for name in ("out.npy", "out.h5")]
    assert left.count(b"precious") == 1
    assert not [p for p in folder.iterdir() if p.name.endswith(".tmp")]


def test_86_a_folder_that_is_not_there(tmp_path, model, x_npy):
    done = run("transform", x_npy, "-m", model, "-o", tmp_path / "nowhere" / "W.npy")
    assert done.returncode == 73
    assert "nowhere" in complaint(done)


def test_86_what_is_written_is_the_new_one(folder, X):
    done = run("transform", folder / "x.npy", "-m", folder / "m.h5", "-o", folder / "out.npy", "--overwrite")
    assert done.returncode == 0
    assert np.load(folder / "out.npy").shape == (len(X), 3)
