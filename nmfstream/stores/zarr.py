"""Zarr stores, v2 and v3, in folders, zips and behind URLs: arrays, sparse groups, AnnData."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nmfstream.errors import DataError, InputAbsentError, UsageError
from nmfstream.stores import transpose
from nmfstream.stores.arrays import ArraySource
from nmfstream.stores.base import Reader
from nmfstream.stores.naming import Candidate, absent, choose
from nmfstream.stores.protocols import Opening
from nmfstream.stores.sparse import inferred_shape
from nmfstream.stores.zarr_array import ZarrArray
from nmfstream.stores.zarr_files import Files, FolderFiles
from nmfstream.stores.zarr_library import LibraryArray
from nmfstream.stores.zarr_metadata import ArrayMetadata, GroupMetadata, node
from nmfstream.stores.zarr_remote import RemoteFiles
from nmfstream.stores.zarr_tree import anndata_at, candidates_below, sparse_kind, sparse_shape, variable_names, walk
from nmfstream.stores.zarr_zip import ZipFiles


@dataclass(frozen=True)
class Place:
    """A node of a store that is being opened."""

    files: Files
    store: str
    path: str
    opening: Opening

    @property
    def name(self) -> str:
        """As the user writes it."""
        return f"{self.store}/{self.path}" if self.path else self.store

    def below(self, part: str) -> Place:
        """A node inside this group."""
        return Place(self.files, self.store, f"{self.path}/{part}".lstrip("/"), self.opening)


def open_dataset(store: str, inner: str, opening: Opening) -> Reader:
    """Open an array or sparse group of a Zarr store.

    Parameters
    ----------
    store : str
        Folder, zip or URL.
    inner : str
        Path inside it; empty for the only candidate (``X`` of an AnnData).
    opening : Opening

    Raises
    ------
    UsageError
        Several candidates.
    DataError, InputAbsentError, RemoteError, StorageError
    """
    files = open_files(store)
    try:
        return _open(files, store, inner, opening)
    except BaseException:
        files.close()
        raise


def open_files(location: str) -> Files:
    """The files of a store by its path or URL.

    Raises
    ------
    InputAbsentError
        If there is nothing at that path.
    """
    if "://" in location:
        return RemoteFiles(location)
    path = Path(location)
    if path.is_dir():
        return FolderFiles(path)
    if path.is_file():
        return ZipFiles(path)
    raise InputAbsentError("there is no such store", where=location, hint="check the path")


def candidates(store: str, opening: Opening) -> list[Candidate]:
    """The matrices of a store."""
    files = open_files(store)
    try:
        return candidates_below(files)
    finally:
        files.close()


def _open(files: Files, store: str, inner: str, opening: Opening) -> Reader:
    root = node(files, "")
    if root is None and not isinstance(files, RemoteFiles) and not any(files.entries("")):
        raise DataError("the store is empty", where=store, hint="write it again")
    anndata = anndata_at(files, inner)
    path = _default(files, store, anndata) if anndata == inner else inner
    place = Place(files, store, path, opening)
    found = node(files, path)
    if found is None and root is None and isinstance(files, RemoteFiles) and not files.entries(""):
        hint = "check the URL; zipped stores and other formats are downloaded first"
        raise InputAbsentError("there is no Zarr store", where=store, hint=hint)
    if found is None and isinstance(root, ArrayMetadata):
        raise InputAbsentError(f"the store is one array, without '{inner}'", where=store, hint=f"name {store} alone")
    if found is None and inner:
        raise absent(inner, (at for at, _ in walk(files) if at), store)
    return _reader(place, found, None if anndata is None else variable_names(files, path, anndata))


def _default(files: Files, store: str, anndata: str) -> str:
    """X of an AnnData; without X its only other matrix."""
    below = f"{anndata}/" if anndata else ""
    if node(files, f"{below}X") is not None:
        return f"{below}X"
    found = [one for one in candidates_below(files, anndata) if one.path.startswith((f"{below}layers/", f"{below}raw"))]
    return choose(found, f"{store}/{anndata}".rstrip("/"), "AnnData without X, layers or raw").path


def _reader(place: Place, found: ArrayMetadata | GroupMetadata | None, names: Sequence[str] | None) -> Reader:
    if isinstance(found, ArrayMetadata):
        return _dense(place, found, names)
    kind = sparse_kind(place.files, place.path, found)
    if kind is not None and isinstance(found, GroupMetadata):
        return _sparse(place, found, kind, names)
    chosen = choose(candidates_below(place.files, place.path), place.name)
    below = Place(place.files, place.store, chosen.path, place.opening)
    return _reader(below, node(place.files, chosen.path), names)


def _dense(place: Place, metadata: ArrayMetadata, names: Sequence[str] | None) -> Reader:
    if len(metadata.shape) != 2:
        what = f"{len(metadata.shape)}-D array of shape {metadata.shape}"
        raise DataError(what, where=place.name, hint="a matrix is needed: reshape it to 2-D")
    transposed = place.opening.transpose
    source = array_source(place, metadata)
    names = None if transposed else names
    return transpose.rows_of(source, place.name, place.opening, transposed=transposed, feature_names=names)


def array_source(place: Place, metadata: ArrayMetadata) -> ArraySource:
    """The array's chunks, decoded by ourselves where we can."""
    if metadata.unusual and not place.files.listable:
        what = f"{metadata.unusual} cannot be read where nothing lists the chunks"
        raise UsageError(what, where=place.name, hint="download the store first")
    if metadata.unusual:
        return LibraryArray(place.store, place.path)
    return ZarrArray(place.files, place.path, metadata, place.opening.missing_chunks)


def _sparse(place: Place, group: GroupMetadata, kind: str, names: Sequence[str] | None) -> Reader:
    data, indices, indptr = (_vector(place.below(part)) for part in ("data", "indices", "indptr"))
    stated = sparse_shape(place.files, place.path, group)
    rows, columns = stated or inferred_shape(indices, indptr, by_rows=kind == "csr")
    transposed = place.opening.transpose
    return transpose.sparse_rows(
        data,
        indices,
        indptr,
        shape=(columns, rows) if transposed else (rows, columns),
        name=place.name,
        opening=place.opening,
        by_rows=(kind == "csr") != transposed,
        feature_names=None if transposed else names,
    )


def _vector(place: Place) -> ArraySource:
    found = node(place.files, place.path)
    if not isinstance(found, ArrayMetadata) or len(found.shape) != 1:
        hint = "the sparse group is damaged: write it again"
        raise DataError("no one-dimensional array", where=place.name, hint=hint)
    return array_source(place, found)
