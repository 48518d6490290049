"""Any store into any other, out of core."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.sparse as sp
import zarr

from nmfstream.config import Inputs, Resources, Saving
from nmfstream.errors import CheckpointMismatchError, DataError, OutputExistsError, UsageError
from nmfstream.run import convert as module
from nmfstream.run.convert import ConvertConfig, convert
from nmfstream.run.events import Advanced, StageFinished, StageStarted
from nmfstream.stores import outputs, sparse_writer
from nmfstream.stores.protocols import Opening, ReadPolicy
from nmfstream.stores.registry import open_reader
from tests.faults.reading import read

ROWS, COLUMNS = 517, 23
X = np.random.default_rng(3).integers(0, 90, (ROWS, COLUMNS)).astype("f4")
S = sp.csr_matrix(np.where(X > 60, X, 0))
S[7] = 0
S.eliminate_zeros()


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many steps and many chunks from small data."""
    for place in (outputs, module):
        monkeypatch.setattr(place, "CHUNK_BYTES", 64 * COLUMNS * 4)
    for place in (sparse_writer, module):
        monkeypatch.setattr(place, "CHUNK", 1000)


def run(source: Any, target: Any, **options: Any) -> Any:
    given = {key: options.pop(key) for key in ("dtype", "transpose", "negative") if key in options}
    options |= {"saving": Saving(overwrite=True)} if options.pop("overwrite", False) else {}
    inputs = Inputs(tuple(map(str, source)) if isinstance(source, list) else (str(source),), **given)
    return convert(ConvertConfig(inputs, str(target), resources=Resources(threads=2), **options))


def npy(folder: Path) -> Path:
    np.save(folder / "x.npy", X)
    return folder / "x.npy"


def tall_zarr(folder: Path) -> Path:
    zarr.create_array(str(folder / "x.zarr"), data=X, chunks=(ROWS, 2), config={"write_empty_chunks": True})
    return folder / "x.zarr"


def tiny_hdf5(folder: Path) -> Path:
    with h5py.File(folder / "in.h5", "w") as f:
        f.create_dataset("X", data=X, chunks=(3, 5), compression="gzip")
    return folder / "in.h5/X"


def sparse_npz(form: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        sp.save_npz(folder / f"{form}.npz", S.asformat(form))
        return folder / f"{form}.npz"

    return write


def sparse_hdf5(folder: Path) -> Path:
    with h5py.File(folder / "s.h5", "w") as f:
        g = f.create_group("X")
        g.attrs["encoding-type"], g.attrs["shape"] = "csc_matrix", S.shape
        C = S.tocsc()
        g["data"], g["indices"], g["indptr"] = C.data, C.indices, C.indptr
    return folder / "s.h5"


TARGETS = ["y.npy", "y.npz", "y.npz/X", "y.h5", "y.h5/deep/X", "y.zarr", "y.zarr/deep/X"]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", [npy, tall_zarr, tiny_hdf5])
def test_dense(tmp_path: Path, source: Callable[[Path], Path], target: str) -> None:
    report = run(source(tmp_path), tmp_path / target)
    np.testing.assert_array_equal(read(tmp_path / target), X)
    assert (report.rows, report.n_features, report.nnz, report.dtype) == (ROWS, COLUMNS, None, "float32")


@pytest.mark.parametrize("target", [t for t in TARGETS if t != "y.npz/X"])
@pytest.mark.parametrize("source", [sparse_npz("csr"), sparse_npz("csc"), sparse_npz("coo"), sparse_hdf5])
def test_sparse(tmp_path: Path, source: Callable[[Path], Path], target: str) -> None:
    report = run(source(tmp_path), tmp_path / target)
    np.testing.assert_array_equal(read(tmp_path / target), S.toarray())
    dense = target == "y.npy"
    assert report.nnz == (None if dense else S.nnz)
    with open_reader(str(tmp_path / target), Opening()) as reader:
        assert reader.nnz == (None if dense else S.nnz)


def test_what_others_read(tmp_path: Path) -> None:
    source = sparse_npz("csc")(tmp_path)
    for name in ("y.npz", "y.h5", "y.zarr"):
        run(source, tmp_path / name)
    import anndata

    with h5py.File(tmp_path / "y.h5") as f:
        from_hdf5 = anndata.io.read_elem(f["X"])
    from_zarr = anndata.io.read_elem(zarr.open_group(tmp_path / "y.zarr", mode="r")["X"])
    for found in (sp.load_npz(tmp_path / "y.npz"), from_hdf5, from_zarr):
        assert sp.issparse(found)
        np.testing.assert_array_equal(found.toarray(), S.toarray())
        assert found.dtype == np.float32


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("make", [np.array, sp.csr_matrix, sp.csc_matrix])
@pytest.mark.parametrize("target", ["y.h5", "y.h5/X", "y.zarr"])
def test_feature_names_stay(tmp_path: Path, make: Callable[[Any], Any], target: str) -> None:
    import anndata
    import pandas as pd

    names = [f"gene {i} β" for i in range(COLUMNS)]
    anndata.AnnData(make(X), var=pd.DataFrame(index=names)).write_h5ad(tmp_path / "c.h5ad")
    run(tmp_path / "c.h5ad", tmp_path / target)
    with open_reader(str(tmp_path / target), Opening()) as reader:
        assert list(reader.feature_names or ()) == names
    np.testing.assert_array_equal(read(tmp_path / target), X)
    read_back = {"y.h5": anndata.read_h5ad, "y.zarr": anndata.read_zarr}[target.split("/")[0]]
    found = read_back(tmp_path / target.split("/")[0])
    assert list(found.var_names) == names
    assert found.shape == X.shape


@pytest.mark.parametrize("dtype", ["u1", "i4", "u4", "i8", "f2", "f8", "bool", ">f4", ">i2"])
@pytest.mark.parametrize("target", ["y.npy", "y.h5", "y.zarr", "y.npz"])
def test_the_type_stays(tmp_path: Path, dtype: str, target: str) -> None:
    values = X.astype(dtype)
    np.save(tmp_path / "x.npy", values)
    run(tmp_path / "x.npy", tmp_path / target)
    with open_reader(str(tmp_path / target), Opening()) as reader:
        assert reader.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(read(tmp_path / target, policy=ReadPolicy(np.dtype("f8"))), values.astype("f8"))


def test_large_integers_stay_exact(tmp_path: Path) -> None:
    values = np.full((5, 3), 2**31 + 1, "u4")
    np.save(tmp_path / "x.npy", values)
    run(tmp_path / "x.npy", tmp_path / "y.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), values)


def test_integers_that_would_be_rounded_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.full((5, 3), 2**53 + 2, "i8"))
    with pytest.raises(DataError, match="beyond"):
        run(tmp_path / "x.npy", tmp_path / "y.npy")
    assert [p.name for p in tmp_path.iterdir()] == ["x.npy"]


def test_another_type_if_asked_for(tmp_path: Path) -> None:
    assert run(npy(tmp_path), tmp_path / "y.npy", dtype="float64").dtype == "float64"
    assert np.load(tmp_path / "y.npy").dtype == np.float64


def test_several_inputs_and_columns(tmp_path: Path) -> None:
    run([npy(tmp_path), tall_zarr(tmp_path)], tmp_path / "y.zarr")
    np.testing.assert_array_equal(read(tmp_path / "y.zarr"), np.vstack([X, X]))
    run(npy(tmp_path), tmp_path / "t.npy", transpose=True)
    np.testing.assert_array_equal(np.load(tmp_path / "t.npy"), X.T)


def test_chunk_rows(tmp_path: Path) -> None:
    run(tall_zarr(tmp_path), tmp_path / "y.zarr", chunk_rows=50)
    assert zarr.open_group(tmp_path / "y.zarr", mode="r")["X"].chunks == (50, COLUMNS)


@pytest.mark.parametrize("value", [-1, np.nan])
@pytest.mark.parametrize("target", ["y.npy", "y.h5", "y.zarr", "y.npz"])
def test_bad_values_leave_nothing_behind(tmp_path: Path, value: float, target: str) -> None:
    bad = X.copy()
    bad[400, 3] = value
    np.save(tmp_path / "x.npy", bad)
    sp.save_npz(tmp_path / "s.npz", sp.csr_matrix(bad))
    for source in ("x.npy", "s.npz"):
        with pytest.raises(DataError, match="row 400"):
            run(tmp_path / source, tmp_path / target)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.npz", "x.npy"]


def test_negative_values_can_be_clipped(tmp_path: Path) -> None:
    bad = X.copy()
    bad[400, 3] = -1
    np.save(tmp_path / "x.npy", bad)
    assert run(tmp_path / "x.npy", tmp_path / "y.npy", negative="clip").clipped == 1


def test_outputs_that_exist(tmp_path: Path) -> None:
    source = npy(tmp_path)
    (tmp_path / "y.h5").write_bytes(b"precious")
    with pytest.raises(OutputExistsError):
        run(source, tmp_path / "y.h5/X")
    assert (tmp_path / "y.h5").read_bytes() == b"precious"
    run(source, tmp_path / "y.h5/X", overwrite=True)
    np.testing.assert_array_equal(read(tmp_path / "y.h5"), X)


@pytest.mark.parametrize("target", ["x.npy", "x.zarr/other"])
def test_an_input_is_never_an_output(tmp_path: Path, target: str) -> None:
    npy(tmp_path)
    tall_zarr(tmp_path)
    with pytest.raises(UsageError, match="also an input"):
        run(tmp_path / target.split("/")[0], tmp_path / target, overwrite=True)


def test_a_name_in_a_sparse_npz_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="without a name"):
        run(sparse_npz("csr")(tmp_path), tmp_path / "y.npz/counts")


@pytest.mark.parametrize("shape", [(0, 5), (4, 0)])
@pytest.mark.parametrize("target", ["y.npy", "y.h5", "y.zarr", "y.npz"])
def test_empty_matrices(tmp_path: Path, shape: tuple[int, int], target: str) -> None:
    np.save(tmp_path / "x.npy", np.empty(shape, "f4"))
    sp.save_npz(tmp_path / "s.npz", sp.csr_matrix(shape, dtype="f4"))
    for source in ("x.npy", "s.npz"):
        run(tmp_path / source, tmp_path / target, overwrite=True)
        with open_reader(str(tmp_path / target), Opening()) as reader:
            assert reader.shape == shape


class Enough(Exception):
    """Ends a conversion from outside."""


def rows_twice(folder: Path) -> Path:
    """Entries of one place, to be summed: fewer are written than the store says."""
    C = S.tocoo()
    entries = [np.concatenate([part, part]) for part in (C.row, C.col)]
    sp.save_npz(folder / "x.npz", sp.coo_matrix((np.concatenate([C.data, 0 * C.data]), entries), S.shape))
    return folder / "x.npz"


def halt_after(rows: int) -> Callable[[Any], None]:
    def hear(event: Any) -> None:
        if isinstance(event, Advanced) and event.rows > rows:
            raise Enough

    return hear


def contents(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {str(p.relative_to(path.parent)): p.read_bytes() for p in files}


@pytest.mark.parametrize(
    ("source", "target"),
    [
        *((npy, target) for target in TARGETS),
        *((make, t) for make in (sparse_npz("csr"), sparse_npz("csc"), rows_twice) for t in TARGETS if t != "y.npz/X"),
    ],
)
def test_ended_anywhere_and_resumed(
    tmp_path: Path, source: Callable[[Path], Path], target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 16 * COLUMNS * 4)
    given = str(source(tmp_path))
    (tmp_path / "whole").mkdir()
    saving = Saving(every_steps=1, every_seconds=None, resume=True)
    whole = convert(ConvertConfig(Inputs((given,)), str(tmp_path / "whole" / target)))
    config = ConvertConfig(Inputs((given,)), str(tmp_path / target), saving=saving, resources=Resources(threads=2))
    final = tmp_path / target.split("/")[0]
    for rows in (0, 0, 250):
        with pytest.raises(Enough):
            convert(config, halt_after(rows))
        assert not final.exists()
    report = convert(config)
    assert 0 < report.rows_written < report.rows == ROWS
    assert (report.nnz, report.dtype) == (whole.nnz, whole.dtype)
    np.testing.assert_array_equal(read(tmp_path / target), read(tmp_path / "whole" / target))
    if final.suffix in (".npy", ".npz"):
        assert contents(final) == contents(tmp_path / "whole" / final.name)
    before = {p: p.stat().st_mtime_ns for p in [final, *final.rglob("*")]}
    again = convert(config)
    assert (again.rows_written, again.nnz) == (0, whole.nnz)
    assert before == {p: p.stat().st_mtime_ns for p in [final, *final.rglob("*")]}
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(("y.", ".y")) and p != final]


def test_another_conversion_is_not_continued(tmp_path: Path) -> None:
    def asked(**more: Any) -> ConvertConfig:
        saving = Saving(every_steps=1, every_seconds=None, **more)
        return ConvertConfig(Inputs((str(npy(tmp_path)),)), str(tmp_path / "y.npy"), saving=saving)

    with pytest.raises(Enough):
        convert(asked(), halt_after(0))
    with pytest.raises(OutputExistsError, match="in progress"):
        convert(asked())
    X[3, 3] += 1
    try:
        with pytest.raises(CheckpointMismatchError, match="data was"):
            convert(asked(resume=True))
    finally:
        X[3, 3] -= 1
    assert convert(asked(overwrite=True)).rows_written == ROWS


def test_a_budget_that_cannot_be_met(tmp_path: Path) -> None:
    config = ConvertConfig(Inputs((str(npy(tmp_path)),)), str(tmp_path / "y.npy"), resources=Resources(1, 1 << 20))
    with pytest.raises(UsageError, match="memory"):
        convert(config)


def test_progress(tmp_path: Path) -> None:
    heard: list[Any] = []
    convert(ConvertConfig(Inputs((str(npy(tmp_path)),)), str(tmp_path / "y.zarr")), heard.append)
    assert isinstance(heard[0], StageStarted)
    assert isinstance(heard[-1], StageFinished)
    assert [e.rows for e in heard if isinstance(e, Advanced)][-1] == ROWS
