"""What a store holds besides one dataset: all that would be lost if it were replaced as a whole."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import h5py

from nmfstream.stores.anndata_writer import MATRIX

_NAMES = ("obs/_index", "var/_index")
"""What we write beside a matrix whose features have names."""


def in_npz(path: Path, dataset: str) -> list[str]:
    """Other members; none where it is scipy's form of one sparse matrix, or no archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name.removesuffix(".npy") for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError):
        return []
    return [] if {"format", "shape", "data"} <= set(members) else _besides(members, dataset)


def in_hdf5(path: Path, dataset: str) -> list[str]:
    """Other datasets and links; none where it is no HDF5 file."""
    found: list[str] = []

    def note(name: str, link: object) -> None:
        if not isinstance(link, h5py.HardLink) or not isinstance(store[name], h5py.Group):
            found.append(name)

    try:
        with h5py.File(path, "r") as store:
            store.visititems_links(note)
    except OSError:
        return []
    return _besides(found, dataset)


def in_zarr(path: Path, dataset: str) -> list[str]:
    """Other arrays; none where it is no folder."""
    return _besides(_arrays(path, ""), dataset) if path.is_dir() else []


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
    try:
        return bool(json.loads(document.read_bytes()).get("node_type") == "array")
    except FileNotFoundError:
        return False
    except (OSError, ValueError, AttributeError):
        return True


def _besides(names: Iterator[str] | list[str], dataset: str) -> list[str]:
    ours = _NAMES if dataset == MATRIX else ()
    return [name or "the array at its root" for name in names
            if name not in ours and name != dataset and not name.startswith(f"{dataset}/")]  # fmt: skip
