"""HDF5 files: the convention they follow (AnnData, 10x, Loom, MATLAB or none) says where the matrix is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from nmfstream.errors import DataError
from nmfstream.stores import transpose
from nmfstream.stores.arrays import ArraySource
from nmfstream.stores.base import Reader, resolve
from nmfstream.stores.files import MemoryFile
from nmfstream.stores.flat import FlatSource
from nmfstream.stores.hdf5_file import HDF5File, translated
from nmfstream.stores.hdf5_nodes import Located, matrices, node_at, source_of, sparse_format, sparse_shape
from nmfstream.stores.naming import Candidate, choose
from nmfstream.stores.protocols import Opening
from nmfstream.stores.sparse import inferred_shape

CONVENTIONS = ("anndata", "tenx", "loom", "matlab")
"""Modules with ``locate(file, inner, opening) -> Located | None``, asked in this order."""


def open_dataset(store: str, inner: str, opening: Opening) -> Reader:
    """Open a matrix of an HDF5 file.

    Raises
    ------
    DataError, UsageError, InputAbsentError, AccessDeniedError, StorageError
    """
    file = HDF5File(Path(store))
    try:
        with translated(store):
            return _reader(file, locate(file, inner, opening), f"{store}/{inner}" if inner else store, opening)
    except BaseException:
        file.close()
        raise


def candidates(store: str, opening: Opening) -> list[Candidate]:
    """Matrices of a file, from metadata."""
    file = HDF5File(Path(store))
    try:
        with translated(store):
            return matrices(file)
    finally:
        file.close()


def locate(file: HDF5File, inner: str, opening: Opening) -> Located:
    """Ask each convention, then take the named object or the only candidate."""
    for name in CONVENTIONS:
        found: Located | None = resolve(f"nmfstream.stores.{name}:locate")(file, inner, opening)
        if found is not None:
            return found
    node = node_at(file, inner, opening)
    if isinstance(node, h5py.Dataset) or sparse_format(node):
        return Located(inner)
    return locate(file, choose(matrices(file, inner), f"{file.path}/{inner}".rstrip("/")).path, opening)


def _reader(file: HDF5File, at: Located, name: str, opening: Opening) -> Reader:
    node = node_at(file, at.path, opening)
    transposed = at.samples_in_columns != opening.transpose
    kind = at.kind or sparse_format(node)
    if kind:
        return _sparse(file, node, kind, at, name, opening, transposed)
    if not isinstance(node, h5py.Dataset):
        raise DataError("a group that is no matrix", where=name, hint="name a 2-D dataset or a CSR or CSC group")
    _check_matrix(node, name)
    source = source_of(file, node, name, opening)
    return transpose.rows_of(source, name, opening, transposed=transposed, feature_names=_names(at, opening))


def _names(at: Located, opening: Opening) -> Sequence[str] | None:
    return None if opening.transpose else at.feature_names


def _check_matrix(dataset: Any, name: str) -> None:
    if dataset.shape is None or len(dataset.shape) != 2:
        shape = "an empty dataspace" if dataset.shape is None else f"{len(dataset.shape)}-D of shape {dataset.shape}"
        raise DataError(shape, where=name, hint="a matrix is needed: name a 2-D dataset")


def _sparse(
    file: HDF5File, group: Any, kind: str, at: Located, name: str, opening: Opening, transposed: bool
) -> Reader:
    sources = [_part(file, at, part, name, opening) for part in at.parts]
    by_rows = (kind == "csr") != transposed
    stated = at.shape or sparse_shape(group)
    rows, columns = stated or inferred_shape(sources[1], sources[2], by_rows=kind == "csr")
    return transpose.sparse_rows(
        *sources,
        shape=(columns, rows) if transposed else (rows, columns),
        name=name,
        opening=opening,
        by_rows=by_rows,
        feature_names=_names(at, opening),
    )


def _part(file: HDF5File, at: Located, part: str, name: str, opening: Opening) -> ArraySource:
    if at.without_entries and part != at.parts[2]:
        dtype = np.dtype(np.float64 if part == at.parts[0] else np.int64)
        return FlatSource(MemoryFile(b"", f"{name}/{part}"), 0, (0,), dtype, f"{name}/{part}")
    return source_of(file, _vector(file, at, part, name, opening), f"{name}/{part}", opening)


def _vector(file: HDF5File, at: Located, part: str, name: str, opening: Opening) -> Any:
    dataset = node_at(file, f"{at.path}/{part}".strip("/"), opening)
    if not isinstance(dataset, h5py.Dataset) or len(dataset.shape or ()) != 1:
        raise DataError(
            f"'{part}' is no 1-D dataset", where=name, hint="the sparse structure is damaged: write it again"
        )
    return dataset
