"""85: the output is also an input: 2, and the input keeps every byte, ``--overwrite`` or not."""

from __future__ import annotations

import h5py
import pytest

from tests.cli.helpers import complaint, run

CASES = [
    ("fit", "{d}/d.h5/X", "-o", "{d}/d.h5", "-k", "3"),
    ("fit", "{d}/x.npy", "-o", "{d}/new.h5", "-k", "3", "--w", "{d}/x.npy"),
    ("fit", "{d}/x.npy", "-o", "{d}/new.h5", "-k", "3", "--components", "{d}/./x.npy"),
    ("fit", "{d}/x.npy", "-o", "{d}/m.h5", "--from", "{d}/m.h5"),
    ("transform", "{d}/x.npy", "-m", "{d}/m.h5", "-o", "{d}/x.npy"),
    ("transform", "{d}/x.npy", "-m", "{d}/m.h5", "-o", "{d}/link.npy"),
    ("transform", "{d}/x.npy", "-m", "{d}/m.h5", "-o", "{d}/m.h5/W"),
    ("transform", "{d}/d.h5/X", "-m", "{d}/m.h5", "-o", "{d}/d.h5/W"),
    ("transform", "-", "-m", "{d}/m.h5", "-o", "{d}/m.h5/W"),
    ("inverse-transform", "{d}/W.npy", "-m", "{d}/m.h5", "-o", "{d}/W.npy"),
    ("inverse-transform", "{d}/W.npy", "-m", "{d}/m.h5", "-o", "{d}/m.h5"),
]


@pytest.fixture
def folder(tmp_path, model, x_npy, W_npy, X):
    with h5py.File(tmp_path / "d.h5", "w") as f:
        f["X"] = X
    (tmp_path / "link.npy").symlink_to("x.npy")
    return tmp_path


@pytest.mark.parametrize("more", [(), ("--overwrite",)])
@pytest.mark.parametrize("args", CASES, ids=lambda args: " ".join(args))
def test_85_refused(args, more, folder):
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    done = run(*(a.format(d=folder) for a in args), *more, stdin=before["x.npy"])
    assert done.returncode == 2
    assert "the output is also an input" in complaint(done)
    assert "write elsewhere" in complaint(done)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
