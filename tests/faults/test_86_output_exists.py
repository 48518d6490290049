"""86: the output exists: 73, it stays as it is; ``--overwrite`` replaces it."""

from __future__ import annotations

from functools import partial

import anndata
import h5py
import numpy as np
import pytest
import zarr
from scipy import sparse

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


def hdf5_neighbour(path):
    with h5py.File(path, "w") as f:
        f["W"], f["deep/labels"] = np.ones((3, 2)), np.arange(4)


def hdf5_link(path):
    with h5py.File(path, "w") as f:
        f["deep/labels"] = h5py.ExternalLink("other.h5", "labels")


def zarr_neighbour(path, version):
    group = zarr.open_group(path, mode="w", zarr_format=version)
    group.create_array("W", data=np.ones((3, 2)))
    group.create_array("deep/labels", data=np.arange(4))


def npz_neighbour(path):
    np.savez(path, **{"W": np.ones((3, 2)), "deep/labels": np.arange(4)})


NEIGHBOURS = {
    "a.h5": hdf5_neighbour,
    "b.hdf5": hdf5_link,
    "c.zarr": partial(zarr_neighbour, version=3),
    "d.zarr": partial(zarr_neighbour, version=2),
    "e.npz": npz_neighbour,
}


@pytest.mark.parametrize("name", NEIGHBOURS)
@pytest.mark.parametrize("command", ["transform", "fit --w", "convert"])
def test_86_overwriting_a_dataset_never_removes_its_neighbours(name, command, tmp_path, model, x_npy):
    NEIGHBOURS[name](tmp_path / name)
    before = listing(tmp_path / name)
    target = f"{tmp_path / name}/W"
    args = {
        "transform": ("transform", x_npy, "-m", model, "-o", target),
        "fit --w": ("fit", x_npy, "-k", "3", "--max-iter", "1", "-o", tmp_path / "new.h5", "--w", target),
        "convert": ("convert", x_npy, "-o", target),
    }[command]
    done = run(*args, "--overwrite")
    assert done.returncode == 73
    assert "deep/labels" in complaint(done)
    assert listing(tmp_path / name) == before
    assert not (tmp_path / "new.h5").exists()


def listing(path):
    return {str(p): p.read_bytes() for p in (path, *path.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("name", ["own.h5", "own.zarr", "own.npz"])
def test_86_names_that_are_not_ours_are_neighbours(name, tmp_path, x_npy):
    if name == "own.npz":
        matrix = sparse.csr_array(np.eye(3))
        np.savez(tmp_path / name, format=b"csr", shape=(3, 3), data=matrix.data, indices=matrix.indices,
                 indptr=matrix.indptr, var=np.arange(3))  # fmt: skip
    else:
        table = anndata.AnnData(np.ones((6, 4), "f4"))
        (table.write_h5ad if name == "own.h5" else table.write_zarr)(tmp_path / name)
    before = listing(tmp_path / name)
    done = run("convert", x_npy, "-o", f"{tmp_path / name}/X", "--overwrite")
    assert done.returncode == 73
    assert "var" in complaint(done)
    assert listing(tmp_path / name) == before


@pytest.mark.parametrize("name", ["W.h5", "W.zarr", "W.npz"])
def test_86_what_holds_nothing_else_is_replaced(name, tmp_path, model, x_npy):
    target = f"{tmp_path / name}/W"
    for again in ((), ("--overwrite",)):
        assert run("transform", x_npy, "-m", model, "-o", target, *again).returncode == 0
    NEIGHBOURS[{"W.h5": "a.h5", "W.zarr": "c.zarr", "W.npz": "e.npz"}[name]](tmp_path / f"other{name[1:]}")
    done = run("transform", x_npy, "-m", model, "-o", tmp_path / f"other{name[1:]}", "--overwrite")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["X.h5", "X.zarr"])
def test_86_our_own_feature_names_are_no_neighbours(name, tmp_path):
    table = anndata.AnnData(np.ones((6, 4), "f4"))
    table.write_h5ad(tmp_path / "c.h5ad")
    for again in ((), ("--overwrite",)):
        done = run("convert", tmp_path / "c.h5ad", "-o", f"{tmp_path / name}/X", *again)
        assert done.returncode == 0, done.stderr
