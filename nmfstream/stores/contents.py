"""What a store holds besides one dataset: all that would be lost if it were replaced as a whole."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py

from nmfstream.stores.anndata_writer import MARK, MATRIX

_NAMES = ("obs/_index", "var/_index")
"""What we write beside a matrix whose features have names."""

_SPARSE = {"format", "shape", "data", "indices", "indptr", "row", "col", "offsets"}
"""Members of scipy's form of one sparse matrix."""


def in_npz(path: Path, dataset: str) -> list[str]:
    """Other members, all of scipy's form of a sparse matrix being one; none where it is no archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name.removesuffix(".npy") for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError):
        return []
    matrix = _SPARSE if {"format", "shape", "data"} <= set(members) else set()
    return _besides([name for name in members if name not in matrix], dataset)


def in_hdf5(path: Path, dataset: str) -> list[str]:
    """Other datasets and links; none where it is no HDF5 file."""
    found: list[str] = []

    def note(name: str, link: object) -> None:
        if not isinstance(link, h5py.HardLink) or not isinstance(store[name], h5py.Group):
            found.append(name)

    try:
        with h5py.File(path, "r") as store:
            store.visititems_links(note)
            ours = _ours(store.attrs, dataset)
    except OSError:
        return []
    return _besides(found, dataset, ours)


def in_zarr(path: Path, dataset: str) -> list[str]:
    """Other arrays; none where it is no folder."""
    if not path.is_dir():
        return []
    return _besides(_arrays(path, ""), dataset, _ours(_metadata(path / "zarr.json").get("attributes"), dataset))


def _arrays(folder: Path, name: str) -> Iterator[str]:
    """Arrays at and below a folder, whatever their type; their chunks are not looked at."""
    if (folder / ".zarray").exists() or _is_array(folder / "zarr.json"):
        yield name
        return
    for child in sorted(folder.iterdir()):
        if child.is_dir():
            yield from _arrays(child, f"{name}/{child.name}".lstrip("/"))


def _is_array(document: Path) -> bool:
    """Whether Zarr metadata describe an array; those that cannot be read may."""
    return bool(_metadata(document).get("node_type", "array") == "array") and document.exists()


def _metadata(document: Path) -> dict[str, Any]:
    """A JSON object; empty where it cannot be read."""
    try:
        content = json.loads(document.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _ours(attributes: Mapping[str, Any] | None, dataset: str) -> tuple[str, ...]:
    """Names beside the matrix that go with it: those that we wrote. A user's own would be lost."""
    key, mark = MARK
    return _NAMES if dataset == MATRIX and (attributes or {}).get(key) == mark else ()


def _besides(names: Iterable[str], dataset: str, ours: tuple[str, ...] = ()) -> list[str]:
    return [name or "the array at its root" for name in names
            if name not in ours and name != dataset and not name.startswith(f"{dataset}/")]  # fmt: skip
