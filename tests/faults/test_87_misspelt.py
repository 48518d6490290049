"""87: an unknown command, option, suffix or dataset gets a suggestion."""

from __future__ import annotations

import h5py
import pytest

from tests.cli.helpers import complaint, run


@pytest.fixture
def folder(tmp_path, model, x_npy, W_npy, X):
    with h5py.File(tmp_path / "d.h5", "w") as f:
        f["group/counts"] = X
        f["group/scaled"] = X
    return tmp_path


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("fti", "x"), 2, "did you mean 'fit'"),
        (("fit", "{d}/x.npy", "-o", "{d}/n.h5", "-k", "3", "--max-itr", "2"), 2, "did you mean --max-iter"),
        (("transform", "{d}/x.npy", "-m", "{d}/m.h5", "-o", "{d}/W.npi"), 2, "did you mean {d}/W.np"),
        (("transform", "{d}/x.npy", "-m", "{d}/m.h5", "-o", "{d}/W.csv"), 2, "outputs end in .npy"),
        (("inverse-transform", "{d}/W.npy", "-m", "{d}/m.h5", "-o", "{d}/W.zar"), 2, "did you mean {d}/W.zarr"),
        (("score", "{d}/d.h5/group/count", "-m", "{d}/m.h5"), 66, "did you mean {d}/d.h5/group/counts"),
        (("score", "{d}/d.h5", "-m", "{d}/m.h5"), 2, "group/counts (60 x 12 float32), group/scaled (60 x 12 float32)"),
        (("score", "{d}/y.npy", "-m", "{d}/m.h5"), 66, "did you mean {d}/x.npy"),
        (("score", "{d}/x.npy", "-m", "{d}/n.h5"), 66, "did you mean"),
    ],
)
def test_87_suggests(args, code, said, folder):
    done = run(*(a.format(d=folder) for a in args))
    assert done.returncode == code
    assert said.format(d=folder) in complaint(done)
