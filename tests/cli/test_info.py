"""``info`` of what there is: stores, several matrices, models, checkpoints; ranges for shards."""

from __future__ import annotations

import json

import h5py
import pytest

from nmfstream.run.inform import aligned_ranges
from tests.cli.helpers import complaint, run


@pytest.mark.parametrize(
    ("n", "chunk", "shards", "ranges"),
    [
        (100, 1, 4, [(0, 25), (25, 50), (50, 75), (75, 100)]),
        (100, 30, 2, [(0, 60), (60, 100)]),
        (100, 64, 4, [(0, 64), (64, 100)]),
        (5, 10, 3, [(0, 5)]),
        (0, 10, 3, []),
    ],
)
def test_ranges_are_whole_chunks_and_cover_all_rows(n, chunk, shards, ranges):
    assert aligned_ranges(n, chunk, shards) == ranges


def test_store(x_npy):
    text = run("info", x_npy).stdout.decode()
    assert "60 rows x 12 features, float32, dense" in text
    assert "NPY, contiguous" in text


def test_several_matrices_are_listed(tmp_path, X):
    with h5py.File(tmp_path / "d.h5", "w") as f:
        f["a/X"], f["b"] = X, X.T
    text = run("info", tmp_path / "d.h5").stdout.decode()
    assert "2 matrices; name one of them" in text
    assert f"{tmp_path}/d.h5/a/X  60 x 12 float32" in text


def test_model(model):
    text = run("info", model).stdout.decode()
    assert "model of 3 components x 12 features, float32" in text
    assert "with feature names" in text


def test_checkpoint_of_a_run_that_this_process_never_made(tmp_path, x_npy):
    args = ("fit", x_npy, "-o", tmp_path / "n.h5", "-k", 3, "--solver", "mu", "--max-iter", 3, "-q")
    assert run(*args).returncode == 0
    text = run("info", tmp_path / "n.h5.ckpt").stdout.decode()
    assert "checkpoint, generation" in text
    assert "3 x 12 components, 3 passes" in text


def test_shards(x_npy):
    found = json.loads(run("info", x_npy, "--shards", 4, "--json").stdout)
    assert found["paths"][0]["shards"] == [[0, 15], [15, 30], [30, 45], [45, 60]]


@pytest.mark.parametrize(("name", "code"), [("none.npy", 66), ("m.h5", 2)])
def test_what_cannot_be_told(tmp_path, model, name, code):
    done = run("info", tmp_path / name, "--shards", 2)
    assert done.returncode == code
    assert name in complaint(done)


def test_rows_that_a_shared_output_lacks(tmp_path, model, x_npy):
    for rows in ("0:10", "30:60"):
        assert run("transform", x_npy, "-m", model, "-o", tmp_path / "W.npy", "--rows", rows, "-q").returncode == 0
    assert "missing rows 10:30" in run("info", tmp_path / "W.npy").stdout.decode()
    assert json.loads(run("info", tmp_path / "W.npy", "--json").stdout)["paths"][0]["missing_rows"] == [[10, 30]]
