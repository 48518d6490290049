"""Names of data, as a user writes them."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.sparse as sp

from nmfstream.errors import AccessDeniedError, DataError, InputAbsentError, NmfstreamError, UsageError
from nmfstream.stores.describe import describe
from nmfstream.stores.protocols import Opening, ReadPolicy, allocate
from nmfstream.stores.registry import open_inputs, open_reader, split
from nmfstream.types import CSR


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.ones((4, 3)))
    np.savez("x.npz", counts=np.ones((5, 3)), other=np.ones((2, 2)), names=np.arange(5))
    with h5py.File("d.h5", "w") as f:
        f["group/X"] = np.ones((6, 3))
        f["group/y"] = np.arange(6)
        f["Z"] = np.ones((2, 2), "i2")
    with h5py.File("one", "w") as f:
        f["deep/inside"] = np.ones((7, 3))
    with h5py.File("none.h5", "w") as f:
        f["y"], f["cube"], f["text"] = np.arange(3), np.ones((2, 2, 2)), "abc"
    Path("notes.txt").write_text("hello")
    Path("classic.nc").write_bytes(b"CDF\x01" + bytes(60))
    Path("notes.csv").write_text("1,2")
    Path("plain").mkdir()
    return tmp_path


READ = [
    ("x.npy", (4, 3)),
    ("./x.npy", (4, 3)),
    ("plain/../x.npy", (4, 3)),
    ("x.npz/counts", (5, 3)),
    ("x.npz/counts.npy", (5, 3)),
    ("d.h5/group/X", (6, 3)),
    ("d.h5//group/X/", (6, 3)),
    ("d.h5/group", (6, 3)),
    ("one", (7, 3)),
    ("one/deep/inside", (7, 3)),
]


@pytest.mark.parametrize("spec, shape", READ)
@pytest.mark.parametrize("absolute", [False, True])
def test_found(folder: Path, spec: str, shape: tuple[int, int], absolute: bool) -> None:
    with open_reader(f"{folder}/{spec}" if absolute else spec, Opening()) as reader:
        assert reader.shape == shape


REFUSED = [
    ("x.npz", UsageError, "counts (5 x 3 float64), other (2 x 2 float64)"),
    ("d.h5", UsageError, "Z (2 x 2 int16), group/X (6 x 3 float64)"),
    ("d.h5/group/x", InputAbsentError, "did you mean d.h5/group/X?"),
    ("d.h5/nothing-like-it", InputAbsentError, "it holds"),
    ("d.h5/group/X/more", InputAbsentError, "no dataset"),
    ("d.h5/../x.npy", UsageError, "'..'"),
    ("x.npz/count", InputAbsentError, "did you mean x.npz/counts?"),
    ("x.npz/names", DataError, "1-D"),
    ("x.npy/X", InputAbsentError, "one array"),
    ("none.h5", DataError, "no matrix"),
    ("none.h5/cube", DataError, "3-D"),
    ("none.h5/text", DataError, ""),
    ("y.npy", InputAbsentError, "did you mean x.npy?"),
    ("nowhere/x.npy", InputAbsentError, "no such file"),
    ("notes.txt", UsageError, "no known format"),
    ("classic.nc", DataError, "nccopy"),
    ("notes.csv", UsageError, "--input-format csv < notes.csv"),
    ("plain", DataError, "folder"),
    ("/dev/null", UsageError, "not a regular file"),
    ("-", UsageError, "stream"),
]


@pytest.mark.parametrize("spec, error, text", REFUSED)
def test_refused(folder: Path, spec: str, error: type[NmfstreamError], text: str) -> None:
    with pytest.raises(error) as caught:
        open_reader(spec, Opening())
    assert text in str(caught.value)
    assert caught.value.hint


def test_permission(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuse(path: Any, *rest: Any, **more: Any) -> int:
        if str(path) == "x.npy":
            raise PermissionError(13, "Permission denied")
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(AccessDeniedError, match="Permission denied"):
        open_reader("x.npy", Opening())


@pytest.mark.parametrize(
    "spec, parts", [("a/x.h5/X/Y", ("a/x.h5", "X/Y")), ("s3://b/c.zarr/X", ("s3://b/c.zarr", "X"))]
)
def test_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, parts: tuple[str, str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a").mkdir()
    Path("a/x.h5").touch()
    assert split(spec) == parts


def read(specs: list[str], start: int, stop: int) -> np.ndarray:
    policy = ReadPolicy(np.dtype("f8"))
    with open_inputs(specs, Opening()) as reader:
        reader.check()
        out = allocate(reader, start, stop, policy.dtype)
        for task in reader.tasks(start, stop, out, policy):
            task()
    return out.toarray() if isinstance(out, CSR) else out


@pytest.mark.parametrize("start, stop", [(0, 30), (4, 12), (9, 10), (10, 20), (10, 10), (30, 30)])
def test_several_inputs_are_rows_one_after_the_other(tmp_path: Path, start: int, stop: int) -> None:
    X = np.arange(120.0).reshape(30, 4) * (np.arange(120).reshape(30, 4) % 3 > 0)
    bounds = [0, 10, 10, 23, 30]
    dense, sparse = [], []
    for i, (low, high) in enumerate(pairwise(bounds)):
        np.save(tmp_path / f"{i}.npy", X[low:high])
        sp.save_npz(tmp_path / f"{i}.npz", sp.csr_matrix(X[low:high]))
        dense.append(str(tmp_path / f"{i}.npy"))
        sparse.append(str(tmp_path / f"{i}.npz"))
    np.testing.assert_array_equal(read(dense, start, stop), X[start:stop])
    np.testing.assert_array_equal(read(sparse, start, stop), X[start:stop])


def test_inputs_that_do_not_fit_together(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((2, 3)))
    np.save(tmp_path / "b.npy", np.ones((2, 4)))
    sp.save_npz(tmp_path / "c.npz", sp.csr_matrix((2, 3)))
    a, b, c = (str(tmp_path / name) for name in ("a.npy", "b.npy", "c.npz"))
    with pytest.raises(DataError, match="4 features, but"):
        open_inputs([a, b], Opening())
    with pytest.raises(UsageError, match="sparse, unlike"):
        open_inputs([a, c], Opening())
    with pytest.raises(UsageError):
        open_inputs([], Opening())


WARNED = [
    ({}, ["flipped bit"]),
    ({"chunks": (8, 8)}, ["256 B", "split over 100 chunks"]),
    ({"chunks": (500, 800), "fletcher32": True}, []),
    ({"chunks": (500, 800), "compression": "gzip"}, ["flipped bit"]),
]


@pytest.mark.parametrize("layout, texts", WARNED)
def test_description(tmp_path: Path, layout: dict[str, Any], texts: list[str]) -> None:
    with h5py.File(tmp_path / "d.h5", "w") as f:
        f.create_dataset("X", data=np.ones((1000, 800), "f4"), **layout)
    found = describe(str(tmp_path / "d.h5"), Opening())
    assert (found.shape, found.dtype, found.kind, found.format) == ((1000, 800), "float32", "dense", "HDF5")
    assert found.raw_bytes == 3_200_000
    assert found.chunks == layout.get("chunks")
    assert found.checksums == ("fletcher32" in layout)
    assert all(any(text in warning for warning in found.warnings) for text in texts)
    assert bool(found.warnings) == bool(texts)
