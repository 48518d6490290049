"""Faults 72 to 82: values and sparse structure, through files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.sparse as sp

from nmfstream.stores.protocols import Opening, ReadPolicy
from tests.faults.reading import failure, read

ROW, COLUMN = 71, 4


def matrix(dtype: str = "f8") -> np.ndarray:
    return np.arange(1, 1001, dtype=dtype).reshape(100, 10)


def save_npy(path: Path, X: np.ndarray) -> str:
    np.save(path / "x.npy", X)
    return str(path / "x.npy")


def save_npy_f(path: Path, X: np.ndarray) -> str:
    np.save(path / "x.npy", np.asfortranarray(X))
    return str(path / "x.npy")


def save_hdf5(path: Path, X: np.ndarray) -> str:
    with h5py.File(path / "d.h5", "w") as f:
        f.create_dataset("X", data=X, chunks=(16, 3), compression="gzip")
    return str(path / "d.h5/X")


def save_csr(path: Path, X: np.ndarray) -> str:
    sp.save_npz(path / "s.npz", sp.csr_matrix(X))
    return str(path / "s.npz")


def save_csc(path: Path, X: np.ndarray) -> str:
    sp.save_npz(path / "s.npz", sp.csc_matrix(X))
    return str(path / "s.npz")


SAVERS = pytest.mark.parametrize("save", [save_npy, save_npy_f, save_hdf5, save_csr, save_csc])


@SAVERS
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("value, what", [(np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite")])
def test_fault_72_nan_and_infinity(tmp_path: Path, save: Any, dtype: str, value: float, what: str) -> None:
    X = matrix(dtype)
    X[ROW, COLUMN] = X[95, 9] = value
    error = failure(save(tmp_path, X), policy=ReadPolicy(np.dtype(dtype), negative="clip"))
    assert what in error.what
    assert f"row {ROW}, column {COLUMN}" in error.where


@SAVERS
@pytest.mark.parametrize("dtype", ["f4", "f8", "i2"])
def test_fault_73_negative(tmp_path: Path, save: Any, dtype: str) -> None:
    X = matrix(dtype)
    X[ROW, COLUMN], X[80, 2] = -3, -1
    spec = save(tmp_path, X)
    error = failure(spec)
    assert "negative value -3" in error.what
    assert f"row {ROW}, column {COLUMN}" in error.where
    assert "--negative clip" in error.hint
    policy = ReadPolicy(np.dtype("f4"), negative="clip")
    np.testing.assert_array_equal(read(spec, policy=policy), np.maximum(X, 0))
    assert policy.clipped == 2


@SAVERS
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_fault_73_negative_zero_is_fine(tmp_path: Path, save: Any, dtype: str) -> None:
    X = matrix(dtype)
    X[ROW, COLUMN] = -0.0
    np.testing.assert_array_equal(read(save(tmp_path, X)), X)


def test_fault_73_negative_that_rounds_to_zero(tmp_path: Path) -> None:
    X = matrix()
    X[ROW, COLUMN] = -1e-300
    assert "negative" in failure(save_npy(tmp_path, X)).what


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8", "i1", "i8", "?"])
def test_fault_74_integers_are_converted_first(tmp_path: Path, dtype: str) -> None:
    X = (np.arange(1000).reshape(100, 10) % 100).astype(dtype)
    out = read(save_npy(tmp_path, X))
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out.T @ out, X.astype("f8").T @ X.astype("f8"))


@SAVERS
def test_fault_75_overflow_on_conversion(tmp_path: Path, save: Any) -> None:
    X = matrix()
    X[ROW, COLUMN] = 1e39
    spec = save(tmp_path, X)
    error = failure(spec)
    assert "does not fit float32" in error.what
    assert f"row {ROW}, column {COLUMN}" in error.where
    assert "float64" in error.hint
    assert read(spec, policy=ReadPolicy(np.dtype("f8")))[ROW, COLUMN] == 1e39


@pytest.mark.parametrize("dtype", ["c8", "M8[s]", "m8[s]", "S4", "U4"])
def test_fault_76_no_real_numbers(tmp_path: Path, dtype: str) -> None:
    failure(save_npy(tmp_path, np.zeros((3, 3), dtype)))


@pytest.mark.parametrize("dtype", [">f4", ">i2", ">u8", "f2", "g"])
@pytest.mark.parametrize("save", [save_npy, save_npy_f, save_hdf5])
def test_fault_77_layouts_as_native(tmp_path: Path, save: Any, dtype: str) -> None:
    np.testing.assert_array_equal(read(save(tmp_path, matrix(dtype))), matrix("f4"))


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0)])
@pytest.mark.parametrize("save", [save_npy, save_npy_f, save_csr, save_csc])
def test_fault_78_no_rows_or_columns(tmp_path: Path, save: Any, shape: tuple[int, int]) -> None:
    assert read(save(tmp_path, np.zeros(shape))).shape == shape


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_fault_78_in_hdf5(tmp_path: Path, shape: tuple[int, int]) -> None:
    with h5py.File(tmp_path / "d.h5", "w") as f:
        f["X"] = np.zeros(shape)
        f.create_dataset("C", data=np.zeros(shape), chunks=(2, 2), maxshape=(None, None))
    assert read(tmp_path / "d.h5/X").shape == read(tmp_path / "d.h5/C").shape == shape


@SAVERS
def test_fault_79_all_zero(tmp_path: Path, save: Any) -> None:
    assert not read(save(tmp_path, np.zeros((100, 10)))).any()


def broken(path: Path, form: str, **parts: Any) -> str:
    S = getattr(sp, f"{form}_matrix")(matrix())
    whole = {"data": S.data, "indices": S.indices, "indptr": S.indptr, "shape": np.array(S.shape), "format": form}
    np.savez(path / "s.npz", **(whole | parts))
    return str(path / "s.npz")


def changed(values: np.ndarray, at: int, value: int) -> np.ndarray:
    values = values.copy()
    values[at] = value
    return values


INDICES = np.tile(np.arange(10), 100)
INDPTR = np.arange(0, 1001, 10)
BROKEN = {
    "index too large": {"indices": changed(INDICES, 715, 10)},
    "index negative": {"indices": changed(INDICES, 715, -1)},
    "index beyond int32": {"indices": changed(INDICES, 715, 2**32 + 1)},
    "index beyond int64": {"indices": changed(INDICES.astype("u8"), 715, 2**64 - 1)},
    "indptr decreases": {"indptr": changed(INDPTR, 50, 5)},
    "indptr negative": {"indptr": changed(INDPTR, 0, -10)},
    "indptr begins late": {"indptr": changed(INDPTR, 0, 3)},
    "indptr ends early": {"indptr": changed(INDPTR, 100, 995)},
    "indptr leads outside": {"indptr": changed(INDPTR, 100, 10**12)},
    "indptr too short": {"indptr": INDPTR[:-1]},
    "values too few": {"data": np.ones(999)},
    "indices as floats": {"indices": INDICES.astype("f8")},
    "negative shape": {"shape": np.array([-100, 10])},
}


@pytest.mark.parametrize("name", BROKEN)
def test_fault_80_broken_csr(tmp_path: Path, name: str) -> None:
    failure(broken(tmp_path, "csr", **BROKEN[name]))


def test_fault_80_names_the_row(tmp_path: Path) -> None:
    assert "row 71" in failure(broken(tmp_path, "csr", **BROKEN["index too large"])).where


@pytest.mark.parametrize("at, value", [(715, 100), (715, -1), (0, 2**40)])
def test_fault_80_broken_csc(tmp_path: Path, at: int, value: int) -> None:
    rows = np.tile(np.arange(100), 10)
    failure(broken(tmp_path, "csc", indices=changed(rows, at, value)), Opening(scratch=tmp_path))


def test_fault_80_more_columns_than_int32(tmp_path: Path) -> None:
    failure(broken(tmp_path, "csr", shape=np.array([100, 2**31])))


@pytest.mark.parametrize("index", ["i4", "i8", "u4", "u8", ">i8", "u1"])
def test_fault_81_duplicates_and_disorder(tmp_path: Path, index: str) -> None:
    indices = np.tile([9, 3, 3, 0, 9, 1, 3, 0, 2, 8], 100).astype(index)
    dense = np.zeros((100, 10))
    np.add.at(dense, (np.repeat(np.arange(100), 10), indices.astype(int)), matrix().ravel())
    np.testing.assert_array_equal(read(broken(tmp_path, "csr", indices=indices)), dense)


def test_fault_81_duplicates_that_overflow(tmp_path: Path) -> None:
    data = np.full(1000, 2e38)
    assert "duplicates" in failure(broken(tmp_path, "csr", data=data, indices=np.zeros(1000, int))).what


@SAVERS
def test_fault_82_zeros_where_positive_ones_are_needed(tmp_path: Path, save: Any) -> None:
    X = matrix()
    X[ROW, COLUMN] = 0
    positive = ReadPolicy(np.dtype("f8"), positive=True)
    error = failure(save(tmp_path, X), policy=positive)
    assert "When beta_loss <= 0 and X contains zeros, the solver may diverge." in error.what
    assert f"row {ROW}" in error.where
    np.testing.assert_array_equal(read(save(tmp_path, matrix()), policy=positive), matrix())


def test_fault_80_impossible_shape_names_the_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "s.h5", "w") as f:
        group = f.create_group("X")
        group.attrs["shape"] = (4, -6)
        for part in ("data", "indices", "indptr"):
            group[part] = np.zeros(5, "i4")
    assert failure(tmp_path / "s.h5").where == f"{tmp_path}/s.h5/X"
