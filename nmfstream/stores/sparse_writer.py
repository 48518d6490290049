"""Sparse outputs: rows appended as CSR into HDF5 and Zarr groups (as AnnData writes them) and scipy's NPZ."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np

from nmfstream.errors import UsageError
from nmfstream.storage import durable
from nmfstream.stores import npy_writer, zarr_writer
from nmfstream.stores.anndata_writer import name_hdf5, name_zarr
from nmfstream.stores.npz_writer import publish_archive
from nmfstream.stores.outputs import Output, forget_ranges, parse_output
from nmfstream.types import CSR, Array

CHUNK = 1 << 20
"""Entries that are stored together."""

PARTS = ("data", "indices", "indptr")
Dtypes = dict[str, np.dtype[Any]]
Names = Sequence[str] | None


class Parts(Protocol):
    """Where the three arrays of a CSR matrix grow."""

    def append(self, part: str, values: Array) -> None:
        """The next values of one of `PARTS`."""
        ...

    def commit(self, shape: tuple[int, int], *, overwrite: bool) -> None:
        """Give the whole its final name."""
        ...

    def abort(self) -> None:
        """Remove what is in progress."""
        ...


class SparseWriter:
    """Rows in order, one after the other, into `Parts`.

    Attributes
    ----------
    nnz : int
        Entries written so far.
    """

    def __init__(self, parts: Parts, n_cols: int, dtype: np.dtype[Any]) -> None:
        self._parts, self._n_cols, self._dtype = parts, n_cols, dtype
        self.n_rows = self.nnz = 0
        parts.append("indptr", np.zeros(1, np.int64))

    def append(self, rows: CSR) -> None:
        """The next rows."""
        block = rows.rebased()
        self._parts.append("data", block.data.astype(self._dtype, copy=False))
        self._parts.append("indices", block.indices)
        self._parts.append("indptr", block.indptr[1:] + self.nnz)
        self.n_rows, self.nnz = self.n_rows + block.shape[0], self.nnz + block.nnz

    def commit(self, *, overwrite: bool = False) -> None:
        """Give the whole its final name.

        Raises
        ------
        OutputExistsError, StorageError
        """
        self._parts.commit((self.n_rows, self._n_cols), overwrite=overwrite)

    def abort(self) -> None:
        """Remove what is in progress."""
        self._parts.abort()


def _attributes(shape: tuple[int, int]) -> dict[str, Any]:
    return {"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": list(shape)}


class HDF5Parts:
    """Three growing datasets in a file that has its name only when it is closed."""

    def __init__(self, output: Output, dtypes: Dtypes, names: Names) -> None:
        self._final, self._dataset, self._names = output.path, output.dataset, names
        self._file = durable.temporary(output.path)
        self._store = h5py.File(self._file, "w")
        group = self._store.require_group(output.dataset)
        self._arrays = {
            part: group.create_dataset(part, (0,), kind, chunks=(CHUNK // 4,), maxshape=(None,))
            for part, kind in dtypes.items()
        }

    def append(self, part: str, values: Array) -> None:
        """See `Parts`."""
        array = self._arrays[part]
        at = array.shape[0]
        array.resize((at + len(values),))
        array[at:] = values

    def commit(self, shape: tuple[int, int], *, overwrite: bool) -> None:
        """See `Parts`."""
        self._store[self._dataset].attrs.update(_attributes(shape))
        name_hdf5(self._store, self._dataset, self._names, shape[0])
        self._store.close()
        self._file.sync()
        self._file.close()
        durable.publish(self._file.path, self._final, overwrite=overwrite)
        forget_ranges(self._final)

    def abort(self) -> None:
        """See `Parts`."""
        self._store.close()
        durable.discard(self._file)


class ZarrParts:
    """Three growing arrays in a folder that has its name only when it is whole."""

    def __init__(self, output: Output, dtypes: Dtypes, names: Names) -> None:
        self._final, self._dataset, self._names = output.path, output.dataset, names
        self._root = durable.temporary_name(output.path)
        durable.make_folder(self._root)
        self._group = zarr_writer.lay(self._root, output.dataset, zarr_writer.group_metadata())
        self._vectors = {part: _ZarrVector(self._group / part, dtypes[part]) for part in PARTS}

    def append(self, part: str, values: Array) -> None:
        """See `Parts`."""
        self._vectors[part].append(values)

    def commit(self, shape: tuple[int, int], *, overwrite: bool) -> None:
        """See `Parts`."""
        for vector in self._vectors.values():
            vector.finish()
        metadata = zarr_writer.group_metadata(_attributes(shape))
        zarr_writer.write_json(self._group / "zarr.json", metadata, overwrite=True)
        name_zarr(self._root, self._dataset, self._names, shape[0])
        durable.publish_tree(self._root, self._final, overwrite=overwrite)
        forget_ranges(self._final)

    def abort(self) -> None:
        """See `Parts`."""
        durable.remove_tree(self._root)


class _ZarrVector:
    """A growing Zarr array of one dimension."""

    def __init__(self, folder: Path, dtype: np.dtype[Any]) -> None:
        self._folder, self._buffer = folder, np.zeros(CHUNK, dtype)
        self._filled = self._chunks = 0
        durable.make_folder(folder)

    def append(self, values: Array) -> None:
        at = 0
        while at < len(values):
            n = min(len(values) - at, CHUNK - self._filled)
            self._buffer[self._filled : self._filled + n] = values[at : at + n]
            self._filled, at = self._filled + n, at + n
            if self._filled == CHUNK:
                self._put()

    def _put(self) -> None:
        durable.write_whole(self._folder / f"c.{self._chunks}", zarr_writer.encode(self._buffer))
        self._chunks, self._filled = self._chunks + 1, 0
        self._buffer[:] = 0

    def finish(self) -> None:
        length = self._chunks * CHUNK + self._filled
        if self._filled:
            self._put()
        metadata = zarr_writer.array_metadata((length,), (CHUNK,), self._buffer.dtype)
        zarr_writer.write_json(self._folder / "zarr.json", metadata)


class NpzParts:
    """Three NPYs in progress that become members of scipy's archive."""

    def __init__(self, output: Output, dtypes: Dtypes, names: Names) -> None:
        self._final, self._dtypes = output.path, dtypes
        self._files = {part: durable.temporary(output.path) for part in PARTS}
        self._lengths = dict.fromkeys(PARTS, 0)

    def append(self, part: str, values: Array) -> None:
        """See `Parts`."""
        dtype = self._dtypes[part]
        block = np.ascontiguousarray(values, dtype)
        at = len(npy_writer.header_of((0,), dtype)) + self._lengths[part] * dtype.itemsize
        self._files[part].pwrite(block, at)
        self._lengths[part] += len(block)

    def commit(self, shape: tuple[int, int], *, overwrite: bool) -> None:
        """See `Parts`."""
        for part, file in self._files.items():
            file.pwrite(npy_writer.header_of((self._lengths[part],), self._dtypes[part]), 0)
        small = [("format", _npy(np.array(b"csr"))), ("shape", _npy(np.array(shape)))]
        publish_archive(self._final, [*self._files.items(), *small], overwrite=overwrite)
        self.abort()
        forget_ranges(self._final)

    def abort(self) -> None:
        """See `Parts`."""
        for file in self._files.values():
            durable.discard(file)


def _npy(array: Array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


_PARTS: dict[str, Callable[[Output, Dtypes, Names], Parts]] = {
    ".npz": NpzParts,
    ".h5": HDF5Parts,
    ".hdf5": HDF5Parts,
    ".zarr": ZarrParts,
}


def holds_sparse(spec: str) -> bool:
    """Whether an output's format has a sparse form."""
    return parse_output(spec).suffix in _PARTS


def open_sparse_writer(
    spec: str, n_cols: int, dtype: Any, *, dataset: str = "X", feature_names: Names = None
) -> SparseWriter:
    """Begin a sparse output.

    Parameters
    ----------
    spec : str
        ``STORE[/DATASET]``; HDF5, Zarr or NPZ.
    n_cols : int
        Columns; rows are counted as they come.
    dtype : dtype
        Of the values; indices are int32, bounds of rows int64.
    dataset : str
        Name inside the store where `spec` gives none.
    feature_names : sequence of str, optional
        Kept where the format can (a group ``X`` in HDF5 or Zarr).

    Raises
    ------
    UsageError
        A format without a sparse form, or a name inside a sparse NPZ.
    """
    output, kind = parse_output(spec, dataset), np.dtype(dtype).newbyteorder("=")
    if output.suffix not in _PARTS:
        raise UsageError("this format holds no sparse matrix", where=spec, hint="write .h5, .zarr or .npz")
    if output.suffix == ".npz" and parse_output(spec, "").dataset:
        raise UsageError("a sparse NPZ holds one matrix without a name", where=spec, hint=f"write {output.path}")
    dtypes = {"data": kind, "indices": np.dtype(np.int32), "indptr": np.dtype(np.int64)}
    return SparseWriter(_PARTS[output.suffix](output, dtypes, feature_names), n_cols, kind)
