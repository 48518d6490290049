"""One table of stores that all hold the same matrix, written by the libraries that users write them with.

A line is a name, a function that writes the matrix and gives the name a user would type, and how to open it. Every
reader test runs over every line: a new format or layout is one more line here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.sparse as sp

from nmfstream.stores.protocols import Opening

ROWS, COLUMNS = 301, 47


def matrix() -> np.ndarray:
    """Small integers, exact in every type, a third of them positive; an empty row and an empty column."""
    rng = np.random.default_rng(7)
    X = rng.integers(1, 120, (ROWS, COLUMNS)) * (rng.random((ROWS, COLUMNS)) < 0.35)
    X[17], X[:, 5] = 0, 0
    return X.astype(np.float32)


@dataclass(frozen=True)
class Case:
    """A store that holds `matrix()`.

    Attributes
    ----------
    name : str
    write : callable
        (folder, X) to the text that names the data.
    opening : dict
        Arguments of `Opening`.
    sparse : bool
        The reader gives CSR.
    """

    name: str
    write: Callable[[Path, np.ndarray], str]
    opening: dict[str, Any] = field(default_factory=dict)
    sparse: bool = False

    def open_with(self, folder: Path) -> Opening:
        return Opening(scratch=folder, **self.opening)


def npy(dtype: str, order: str = "C") -> Callable[[Path, np.ndarray], str]:
    def write(folder: Path, X: np.ndarray) -> str:
        np.save(folder / "x.npy", np.array(X, dtype=dtype, order=order))
        return str(folder / "x.npy")

    return write


def npy_columns(folder: Path, X: np.ndarray) -> str:
    np.save(folder / "x.npy", np.ascontiguousarray(X.T))
    return str(folder / "x.npy")


def npz(save: Callable[..., None], order: str = "C") -> Callable[[Path, np.ndarray], str]:
    def write(folder: Path, X: np.ndarray) -> str:
        save(folder / "x.npz", counts=np.array(X, order=order), labels=np.arange(len(X)))
        return str(folder / "x.npz")

    return write


def npz_sparse(form: str, compressed: bool) -> Callable[[Path, np.ndarray], str]:
    def write(folder: Path, X: np.ndarray) -> str:
        sp.save_npz(folder / "x.npz", getattr(sp, f"{form}_matrix")(X), compressed=compressed)
        return str(folder / "x.npz")

    return write


def hdf5(dtype: str = "<f4", *, columns: bool = False, userblock: int = 0, **layout: Any) -> Callable[..., str]:
    def write(folder: Path, X: np.ndarray) -> str:
        with h5py.File(folder / "d.h5", "w", userblock_size=userblock) as f:
            f.create_dataset("group/X", data=(X.T if columns else X).astype(dtype), **layout)
            f["names"] = np.arange(5)
        return str(folder / "d.h5/group/X")

    return write


def hdf5_compact(folder: Path, X: np.ndarray) -> str:
    with h5py.File(folder / "d.h5", "w") as f:
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple(X.shape)
        h5py.h5d.create(f.id, b"X", h5py.h5t.STD_U8LE, space, plan).write(h5py.h5s.ALL, h5py.h5s.ALL, X.astype("u1"))
    return str(folder / "d.h5")


def hdf5_virtual(folder: Path, X: np.ndarray) -> str:
    half = ROWS // 2
    layout = h5py.VirtualLayout(X.shape, "f4")
    for i, rows in enumerate((slice(0, half), slice(half, ROWS))):
        with h5py.File(folder / f"part{i}.h5", "w") as f:
            f["X"] = X[rows]
        layout[rows] = h5py.VirtualSource(str(folder / f"part{i}.h5"), "X", X[rows].shape)
    with h5py.File(folder / "d.h5", "w") as f:
        f.create_virtual_dataset("X", layout)
    return str(folder / "d.h5/X")


def hdf5_soft_link(folder: Path, X: np.ndarray) -> str:
    with h5py.File(folder / "d.h5", "w") as f:
        f["a/b"] = X
        f["c"] = h5py.SoftLink("/a")
    return str(folder / "d.h5/c/b")


def hdf5_sparse(form: str, index: str = "i4", **layout: Any) -> Callable[[Path, np.ndarray], str]:
    layout |= {"maxshape": (None,)} if layout else {}

    def write(folder: Path, X: np.ndarray) -> str:
        S = getattr(sp, f"{form}_matrix")(X)
        with h5py.File(folder / "s.h5", "w") as f:
            g = f.create_group("X")
            g.attrs["encoding-type"], g.attrs["shape"] = f"{form}_matrix", X.shape
            g.create_dataset("data", data=S.data, **layout)
            g.create_dataset("indices", data=S.indices.astype(index), **layout)
            g.create_dataset("indptr", data=S.indptr.astype(index), **layout)
        return str(folder / "s.h5/X")

    return write


def hdf5_scrambled(folder: Path, X: np.ndarray) -> str:
    """CSR with unsorted indices, and every entry in two halves."""
    S = sp.csr_matrix(X)
    indices = np.concatenate([np.tile(part[::-1], 2) for part in np.split(S.indices, S.indptr[1:-1])])
    data = np.concatenate([np.tile(part[::-1] / 2, 2) for part in np.split(S.data, S.indptr[1:-1])])
    with h5py.File(folder / "s.h5", "w") as f:
        g = f.create_group("X")
        g.attrs["encoding-type"], g.attrs["shape"] = "csr_matrix", X.shape
        g["data"], g["indices"], g["indptr"] = data, indices, 2 * S.indptr
    return str(folder / "s.h5")


def h5ad(make: Callable[[np.ndarray], Any], part: str = "X", **saving: Any) -> Callable[[Path, np.ndarray], str]:
    def write(folder: Path, X: np.ndarray) -> str:
        import anndata
        import pandas as pd

        names = pd.DataFrame(index=[f"gene{i}" for i in range(COLUMNS)])
        table = anndata.AnnData(make(X), var=names)
        table.layers["counts"] = make(X)
        table.raw = table
        table.write_h5ad(folder / "c.h5ad", **saving)
        return str(folder / "c.h5ad") + {"X": ""}.get(part, f"/{part}")

    return write


def tenx(version: int) -> Callable[[Path, np.ndarray], str]:
    def write(folder: Path, X: np.ndarray) -> str:
        S = sp.csr_matrix(X)
        names = np.array([f"gene{i}" for i in range(COLUMNS)], "S")
        with h5py.File(folder / "m.h5", "w") as f:
            g = f.create_group({2: "hg19", 3: "matrix"}[version])
            g.create_dataset("data", data=S.data.astype("i4"), compression="gzip", chunks=(512,))
            g.create_dataset("indices", data=S.indices.astype("i8"), compression="gzip", shuffle=True, chunks=(700,))
            g["indptr"], g["shape"] = S.indptr.astype("i8"), np.array(X.shape[::-1], "i4")
            g["barcodes"] = np.array([f"cell{i}" for i in range(ROWS)], "S")
            g[{2: "gene_names", 3: "features/name"}[version]] = names
        return str(folder / "m.h5")

    return write


def loom(folder: Path, X: np.ndarray) -> str:
    with h5py.File(folder / "c.loom", "w") as f:
        f.create_dataset("matrix", data=X.T, chunks=(16, 64), compression="gzip")
        f["row_attrs/Gene"] = np.array([f"gene{i}" for i in range(COLUMNS)], "S")
        f["col_attrs/CellID"] = np.arange(ROWS)
    return str(folder / "c.loom")


def zarr_array(version: int, columns: bool = False, dtype: str = "f4", **layout: Any) -> Callable[..., str]:
    def write(folder: Path, X: np.ndarray) -> str:
        import zarr

        values = (X.T if columns else X).astype(dtype)
        group = zarr.open_group(folder / "d.zarr", mode="w", zarr_format=version)
        group.create_array("X", data=values, config={"write_empty_chunks": True}, **layout)
        return str(folder / "d.zarr/X")

    return write


def zarr_anndata(make: Callable[[np.ndarray], Any], version: int = 2) -> Callable[[Path, np.ndarray], str]:
    def write(folder: Path, X: np.ndarray) -> str:
        import anndata

        with anndata.settings.override(zarr_write_format=version):
            anndata.AnnData(make(X)).write_zarr(folder / "c.zarr")
        return str(folder / "c.zarr")

    return write


def zarr_zip(folder: Path, X: np.ndarray) -> str:
    import zarr

    with zarr.storage.ZipStore(folder / "d.zip", mode="w") as store:
        zarr.create_array(store, data=X, chunks=(32, 10), config={"write_empty_chunks": True})
    return str(folder / "d.zip")


TINY = {"memory": 1 << 14}
"""So little that what does not lie by rows is rearranged in scratch."""

CASES = [
    *(Case(f"npy {dtype}", npy(dtype)) for dtype in ("<f4", ">f4", "<f8", ">f8", "<f2", "u1", ">i2", "<u4", "<i8")),
    Case("npy fortran", npy("<f4", "F")),
    Case("npy fortran big-endian", npy(">f8", "F")),
    Case("npy fortran rearranged", npy("<f4", "F"), TINY),
    Case("npy samples in columns", npy_columns, {"transpose": True}),
    Case("npz stored", npz(np.savez)),
    Case("npz deflated", npz(np.savez_compressed)),
    Case("npz deflated fortran spilled", npz(np.savez_compressed, "F"), TINY),
    Case("npz csr", npz_sparse("csr", True), sparse=True),
    Case("npz csr spilled", npz_sparse("csr", True), TINY, sparse=True),
    Case("npz csc stored", npz_sparse("csc", False), sparse=True),
    Case("npz coo", npz_sparse("coo", True), sparse=True),
    Case("hdf5 contiguous", hdf5()),
    Case("hdf5 contiguous big-endian", hdf5(">f8")),
    Case("hdf5 contiguous user block", hdf5(userblock=512)),
    Case("hdf5 contiguous columns", hdf5(columns=True), {"transpose": True}),
    Case("hdf5 compact", hdf5_compact),
    Case("hdf5 virtual", hdf5_virtual, {"allow_external": True}),
    Case("hdf5 soft link", hdf5_soft_link),
    Case("hdf5 row chunks", hdf5(chunks=(32, COLUMNS))),
    Case("hdf5 one chunk", hdf5(chunks=(ROWS, COLUMNS), compression="gzip")),
    Case("hdf5 gzip", hdf5(chunks=(32, COLUMNS), compression="gzip")),
    Case("hdf5 gzip user block", hdf5(chunks=(32, COLUMNS), compression="gzip", userblock=1024)),
    Case("hdf5 gzip shuffle", hdf5(chunks=(32, COLUMNS), compression="gzip", shuffle=True)),
    Case("hdf5 gzip shuffle f8", hdf5("<f8", chunks=(32, COLUMNS), compression="gzip", shuffle=True)),
    Case("hdf5 shuffle bytes", hdf5("u1", chunks=(32, COLUMNS), compression="gzip", shuffle=True)),
    Case("hdf5 gzip shuffle big-endian", hdf5(">f4", chunks=(32, COLUMNS), compression="gzip", shuffle=True)),
    Case("hdf5 fletcher32", hdf5(chunks=(32, COLUMNS), fletcher32=True)),
    Case("hdf5 all", hdf5(chunks=(32, COLUMNS), compression="gzip", shuffle=True, fletcher32=True)),
    Case("hdf5 lzf", hdf5(chunks=(32, COLUMNS), compression="lzf", shuffle=True)),
    Case("hdf5 scale-offset", hdf5("<i4", chunks=(32, COLUMNS), scaleoffset=0)),
    Case("hdf5 feature chunks", hdf5(chunks=(64, 10), compression="gzip")),
    Case("hdf5 feature chunks uncompressed", hdf5(chunks=(64, 10))),
    Case("hdf5 tall chunks rearranged", hdf5(chunks=(ROWS, 3), compression="gzip"), TINY),
    Case("hdf5 columns", hdf5(columns=True, chunks=(16, 50), compression="gzip"), {"transpose": True}),
    Case("hdf5 columns rearranged", hdf5(columns=True, chunks=(3, ROWS)), {"transpose": True, **TINY}),
    Case("hdf5 columns big-endian", hdf5(">i4", columns=True, chunks=(5, 50), shuffle=True), {"transpose": True}),
    Case("hdf5 bool", hdf5("u1", chunks=(7, 9))),
    Case("hdf5 csr", hdf5_sparse("csr"), sparse=True),
    Case("hdf5 csr chunked", hdf5_sparse("csr", "i8", chunks=(300,), compression="gzip", shuffle=True), sparse=True),
    Case("hdf5 csr unsigned", hdf5_sparse("csr", "u8", chunks=(77,), fletcher32=True), sparse=True),
    Case("hdf5 csr big-endian", hdf5_sparse("csr", ">i4", chunks=(300,), compression="lzf"), sparse=True),
    Case("hdf5 csr scrambled", hdf5_scrambled, sparse=True),
    Case("hdf5 csc", hdf5_sparse("csc"), sparse=True),
    Case("hdf5 csc chunked", hdf5_sparse("csc", "i8", chunks=(300,), compression="gzip"), TINY, sparse=True),
    Case("h5ad dense", h5ad(np.array, compression="gzip")),
    Case("h5ad csr", h5ad(sp.csr_matrix), sparse=True),
    Case("h5ad csc", h5ad(sp.csc_matrix), sparse=True),
    Case("h5ad layer", h5ad(sp.csr_matrix, "layers/counts", compression="gzip"), sparse=True),
    Case("h5ad raw", h5ad(sp.csr_matrix, "raw/X"), sparse=True),
    Case("10x version 2", tenx(2), sparse=True),
    Case("10x version 3", tenx(3), sparse=True),
    Case("loom", loom),
    *(
        Case(f"zarr {version} {name}", zarr_array(version, **layout), opening)
        for version in (2, 3)
        for name, layout, opening in (
            ("rows", {"chunks": (32, COLUMNS)}, {}),
            ("feature chunks", {"chunks": (64, 10)}, {}),
            ("big-endian", {"chunks": (64, 10), "dtype": ">f8"}, {}),
            ("uncompressed", {"chunks": (50, COLUMNS), "compressors": None}, {}),
            ("columns", {"chunks": (16, 50), "columns": True}, {"transpose": True}),
            ("tall chunks rearranged", {"chunks": (ROWS, 3)}, TINY),
        )
    ),
    Case("zarr 3 zip without its suffix", zarr_zip),
    Case("zarr 3 shards", zarr_array(3, chunks=(16, 10), shards=(64, 50))),
    *(
        Case(f"zarr {version} anndata {make.__name__[:3]}", zarr_anndata(make, version), sparse=True)
        for version in (2, 3)
        for make in (sp.csr_matrix, sp.csc_matrix)
    ),
]
