"""Sparse outputs: rows appended as CSR into HDF5 and Zarr groups (as AnnData writes them) and scipy's NPZ.

In progress the three arrays lie under one name, at places that are known from the start or follow from how many
entries there are, so that writing entries again changes nothing and an output can be continued at any row.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import h5py
import numpy as np

from nmfstream.errors import UsageError
from nmfstream.storage import durable
from nmfstream.storage.durable import DurableFile
from nmfstream.stores import npy_writer, zarr_writer
from nmfstream.stores.anndata_writer import name_hdf5, name_zarr
from nmfstream.stores.hdf5_writer import create_dataset
from nmfstream.stores.npz_writer import publish_archive
from nmfstream.stores.offset_writer import begin
from nmfstream.stores.outputs import Output, forget_ranges, parse_output
from nmfstream.types import CSR, Array, Matrix

CHUNK = 1 << 20
"""Entries that are stored together."""

PARTS = ("data", "indices", "indptr")
Lengths = Mapping[str, int]
_SLICE = 4 << 20


class SparseMaking(NamedTuple):
    """How a sparse output is made.

    Attributes
    ----------
    shape : tuple of int
    nnz : int
        The most entries that can come.
    dtype : dtype
        Of the values, in native byte order; indices are int32, bounds of rows int64.
    partial : Path
        Name while in progress.
    feature_names : sequence of str or None
        Kept where the format can (a group ``X`` in HDF5 or Zarr).
    """

    shape: tuple[int, int]
    nnz: int
    dtype: np.dtype[Any]
    partial: Path
    feature_names: Sequence[str] | None = None

    @property
    def dtypes(self) -> dict[str, np.dtype[Any]]:
        """By part."""
        return {"data": self.dtype, "indices": np.dtype(np.int32), "indptr": np.dtype(np.int64)}

    def lengths(self, n_rows: int, nnz: int) -> dict[str, int]:
        """Of the parts, so many rows and entries having come."""
        return {"data": nnz, "indices": nnz, "indptr": n_rows + 1}

    @property
    def attributes(self) -> dict[str, Any]:
        """By which others know the group."""
        return {"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": list(self.shape)}


class Parts(Protocol):
    """Where the three arrays of a CSR matrix grow."""

    def put(self, part: str, start: int, values: Array) -> None:
        """Values of one of `PARTS`, after those that came before."""
        ...

    def flush(self) -> None:
        """What came so far survives a power cut."""
        ...

    def commit(self, lengths: Lengths, *, overwrite: bool) -> None:
        """Give the whole, of these lengths, its final name."""
        ...

    def abort(self) -> None:
        """Remove what is in progress."""
        ...


class SparseWriter:
    """A `RowWriter` of sparse rows: they come in order, one after the other, into `Parts`.

    Attributes
    ----------
    nnz : int
        Entries written so far.
    """

    chunk_rows = 1

    def __init__(self, parts: Parts, making: SparseMaking, n_rows: int, nnz: int) -> None:
        self.shape = making.shape
        self._parts, self._making = parts, making
        self.n_rows, self.nnz = n_rows, nnz
        if not n_rows:
            parts.put("indptr", 0, np.zeros(1, np.int64))

    def write(self, start: int, rows: Matrix) -> None:
        """The next rows."""
        if start != self.n_rows or not isinstance(rows, CSR):
            raise ValueError(f"sparse rows from {self.n_rows} on are expected, not from {start}")
        block = rows.rebased()
        self._parts.put("data", self.nnz, block.data.astype(self._making.dtype, copy=False))
        self._parts.put("indices", self.nnz, block.indices)
        self._parts.put("indptr", self.n_rows + 1, block.indptr[1:] + self.nnz)
        self.n_rows, self.nnz = self.n_rows + block.shape[0], self.nnz + block.nnz

    def flush(self) -> None:
        """All rows written so far survive a power cut."""
        self._parts.flush()

    def commit(self, *, overwrite: bool = False) -> None:
        """Give the whole its final name.

        Raises
        ------
        OutputExistsError, StorageError
        """
        self._parts.commit(self._making.lengths(self.n_rows, self.nnz), overwrite=overwrite)

    def abort(self) -> None:
        """Remove what is in progress."""
        self._parts.abort()


class HDF5Parts:
    """Three contiguous datasets, allocated early in a file that is closed before their values are written."""

    def __init__(self, output: Output, making: SparseMaking, lengths: Lengths) -> None:
        self._output, self._making = output, making
        self._capacity = making.lengths(making.shape[0], making.nnz)
        resume = lengths["indptr"] > 0
        self._file, self._offsets, _ = begin(
            output.path, making.partial, resume, lambda file: self._lay(file, self._capacity), self._find
        )

    def _lay(self, file: DurableFile, lengths: Lengths) -> dict[str, int]:
        """Create the datasets and close the file; their offsets."""
        dtypes, names = self._making.dtypes, self._making.feature_names
        with h5py.File(file, "w") as store:
            group = store.require_group(self._output.dataset)
            group.attrs.update(self._making.attributes)
            offsets = {part: create_dataset(group, part, (lengths[part],), dtypes[part]) for part in PARTS}
            name_hdf5(store, self._output.dataset, names, self._making.shape[0])
        end = max(offsets[part] + lengths[part] * dtypes[part].itemsize for part in PARTS)
        if file.size() < end:
            file.truncate(end)
        return offsets

    def _find(self, file: DurableFile) -> dict[str, int]:
        with h5py.File(file, "r") as store:
            group = store[self._output.dataset]
            if any(group[part].shape != (self._capacity[part],) for part in PARTS):
                raise ValueError("another array")
            return {part: int(group[part].id.get_offset() or 0) for part in PARTS}

    def put(self, part: str, start: int, values: Array) -> None:
        """See `Parts`."""
        dtype = self._making.dtypes[part]
        if len(values):
            block = np.ascontiguousarray(values, dtype)
            self._file.pwrite(block, self._offsets[part] + start * dtype.itemsize)

    def flush(self) -> None:
        """See `Parts`."""
        self._file.sync()

    def commit(self, lengths: Lengths, *, overwrite: bool) -> None:
        """See `Parts`. Where entries of one place were summed, the parts are shorter than the file has room for."""
        self._file.sync()
        whole = self._file if lengths == self._capacity else self._shortened(lengths)
        durable.publish(whole.path, self._output.path, overwrite=overwrite)
        whole.close()
        if whole is not self._file:
            durable.discard(self._file)
        forget_ranges(self._output.path)

    def _shortened(self, lengths: Lengths) -> DurableFile:
        target = durable.temporary(self._output.path)
        try:
            offsets = self._lay(target, lengths)
            for part in PARTS:
                size = lengths[part] * self._making.dtypes[part].itemsize
                for at in range(0, size, _SLICE):
                    block = self._file.pread(min(_SLICE, size - at), self._offsets[part] + at)
                    target.pwrite(block, offsets[part] + at)
            target.sync()
        except BaseException:
            durable.discard(target)
            raise
        return target

    def abort(self) -> None:
        """See `Parts`."""
        durable.discard(self._file)


class ZarrParts:
    """Three growing arrays in a folder that has its name only when it is whole."""

    def __init__(self, output: Output, making: SparseMaking, lengths: Lengths) -> None:
        self._output, self._making = output, making
        if not lengths["indptr"]:
            self._begin()
        group = making.partial / output.dataset
        self._vectors = {part: _ZarrVector(group / part, making.dtypes[part], lengths[part]) for part in PARTS}

    def _begin(self) -> None:
        making, dataset = self._making, self._output.dataset
        root = durable.temporary_name(making.partial)
        durable.make_folder(root)
        try:
            group = zarr_writer.lay(root, dataset, zarr_writer.group_metadata(making.attributes))
            for part in PARTS:
                durable.make_folder(group / part)
            name_zarr(root, dataset, making.feature_names, making.shape[0])
            durable.publish_tree(root, making.partial)
        except BaseException:
            durable.remove_tree(root)
            raise

    def put(self, part: str, start: int, values: Array) -> None:
        """See `Parts`."""
        self._vectors[part].append(values)

    def flush(self) -> None:
        """See `Parts`; whole chunks are synced as they are written."""
        for vector in self._vectors.values():
            vector.flush()

    def commit(self, lengths: Lengths, *, overwrite: bool) -> None:
        """See `Parts`."""
        for vector in self._vectors.values():
            vector.finish()
        durable.publish_tree(self._making.partial, self._output.path, overwrite=overwrite)
        forget_ranges(self._output.path)

    def abort(self) -> None:
        """See `Parts`."""
        durable.remove_tree(self._making.partial)


class _ZarrVector:
    """A growing Zarr array of one dimension, continued after `length` values."""

    def __init__(self, folder: Path, dtype: np.dtype[Any], length: int) -> None:
        self._folder, self._buffer = folder, np.zeros(CHUNK, dtype)
        self._chunks, self._filled = divmod(length, CHUNK)
        if length:
            zarr_writer.sweep(folder)
        if self._filled:
            stored = zarr_writer.decode(durable.read_bytes(self._path()), (CHUNK,), dtype)
            self._buffer[: self._filled] = stored[: self._filled]

    def _path(self) -> Path:
        return self._folder / f"c.{self._chunks}"

    def append(self, values: Array) -> None:
        at = 0
        while at < len(values):
            n = min(len(values) - at, CHUNK - self._filled)
            self._buffer[self._filled : self._filled + n] = values[at : at + n]
            self._filled, at = self._filled + n, at + n
            if self._filled == CHUNK:
                self.flush()
                self._chunks, self._filled = self._chunks + 1, 0
                self._buffer[:] = 0

    def flush(self) -> None:
        if self._filled:
            durable.write_whole(self._path(), zarr_writer.encode(self._buffer), overwrite=True)

    def finish(self) -> None:
        self.flush()
        length = self._chunks * CHUNK + self._filled
        metadata = zarr_writer.array_metadata((length,), (CHUNK,), self._buffer.dtype)
        zarr_writer.write_json(self._folder / "zarr.json", metadata, overwrite=True)


class NpzParts:
    """Three NPYs in a folder in progress, that become members of scipy's archive."""

    def __init__(self, output: Output, making: SparseMaking, lengths: Lengths) -> None:
        self._final, self._making = output.path, making
        if lengths["indptr"]:
            self._files = {part: durable.reopen(making.partial / part) for part in PARTS}
        else:
            durable.make_folder(making.partial)
            self._files = {part: durable.create(making.partial / part) for part in PARTS}
            durable.sync_folder(making.partial)

    def put(self, part: str, start: int, values: Array) -> None:
        """See `Parts`."""
        dtype = self._making.dtypes[part]
        at = len(npy_writer.header_of((0,), dtype)) + start * dtype.itemsize
        self._files[part].pwrite(np.ascontiguousarray(values, dtype), at)

    def flush(self) -> None:
        """See `Parts`."""
        for file in self._files.values():
            file.sync()

    def commit(self, lengths: Lengths, *, overwrite: bool) -> None:
        """See `Parts`."""
        for part, file in self._files.items():
            head = npy_writer.header_of((lengths[part],), self._making.dtypes[part])
            file.pwrite(head, 0)
            file.truncate(len(head) + lengths[part] * self._making.dtypes[part].itemsize)
        small = [("format", _npy(np.array(b"csr"))), ("shape", _npy(np.array(self._making.shape)))]
        publish_archive(self._final, [*self._files.items(), *small], overwrite=overwrite)
        self.abort()
        forget_ranges(self._final)

    def abort(self) -> None:
        """See `Parts`. The folder goes as a whole: half of it could not be continued."""
        for file in self._files.values():
            file.close()
        aside = durable.temporary_name(self._final)
        durable.publish_tree(self._making.partial, aside)
        durable.remove_tree(aside)


def _npy(array: Array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


_PARTS: dict[str, Callable[[Output, SparseMaking, Lengths], Parts]] = {
    ".npz": NpzParts,
    ".h5": HDF5Parts,
    ".hdf5": HDF5Parts,
    ".zarr": ZarrParts,
}


def holds_sparse(spec: str) -> bool:
    """Whether an output's format has a sparse form."""
    return parse_output(spec).suffix in _PARTS


def open_sparse_writer(
    spec: str, making: SparseMaking, *, dataset: str = "X", n_rows: int = 0, nnz: int = 0
) -> SparseWriter:
    """Begin a sparse output, or continue one after so many rows and entries.

    Parameters
    ----------
    spec : str
        ``STORE[/DATASET]``; HDF5, Zarr or NPZ.
    making : SparseMaking
    dataset : str
        Name inside the store where `spec` gives none.
    n_rows, nnz : int
        What ``making.partial`` holds already.

    Raises
    ------
    UsageError
        A format without a sparse form, or a name inside a sparse NPZ.
    CheckpointMismatchError
        If another array is in progress.
    """
    output = parse_output(spec, dataset)
    if output.suffix not in _PARTS:
        raise UsageError("this format holds no sparse matrix", where=spec, hint="write .h5, .zarr or .npz")
    if output.suffix == ".npz" and parse_output(spec, "").dataset:
        raise UsageError("a sparse NPZ holds one matrix without a name", where=spec, hint=f"write {output.path}")
    lengths = making.lengths(n_rows, nnz) if n_rows else dict.fromkeys(PARTS, 0)
    return SparseWriter(_PARTS[output.suffix](output, making, lengths), making, n_rows, nnz)
