"""Virtual datasets: HDF5 reads zeros where a source is absent, so each is looked for before anything is read."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from nmfstream.errors import DataError
from nmfstream.stores.hdf5_chunks import LibrarySource
from nmfstream.stores.hdf5_file import HDF5File


def refuse_outside(file: HDF5File, dataset: Any, name: str) -> None:
    """Refuse a virtual dataset that leads to files outside its own folder.

    A file from elsewhere could name any other on this machine, as it could in an external link.

    Raises
    ------
    DataError
    """
    found = list(dict.fromkeys(_outside(dataset, file.path.parent, set())))
    if found:
        hint = "--allow-external follows it, if you trust the file"
        raise DataError(f"virtual dataset of files outside its folder ({', '.join(found)})", where=name, hint=hint)


def _outside(dataset: Any, folder: Path, seen: set[tuple[str, str]]) -> Iterator[str]:
    """Files outside `folder` that a dataset, or what it is made of, takes values from."""
    if not _within(Path(dataset.file.filename), folder):
        yield str(dataset.file.filename)
        return
    yield from (entry[0] for entry in dataset.external or ())
    for source in dataset.virtual_sources() if dataset.is_virtual else ():
        path = _path(source.file_name, Path(dataset.file.filename))
        if not _within(path, folder):
            yield str(source.file_name)
        elif (str(path), source.dset_name) not in seen:
            seen.add((str(path), source.dset_name))
            yield from _inside(path, source.dset_name, folder, seen)


def _inside(path: Path, dataset: str, folder: Path, seen: set[tuple[str, str]]) -> Iterator[str]:
    try:
        with h5py.File(path, "r") as other:
            found = other.get(dataset)
            if isinstance(found, h5py.Dataset):
                yield from _outside(found, folder, seen)
    except OSError:  # `check` says what is missing
        return


def _within(path: Path, folder: Path) -> bool:
    """Whether a path lies below a folder, as it is written or where its links lead."""
    ways = (os.path.abspath, os.path.realpath)
    return any(Path(way(path)).is_relative_to(way(folder)) for way in ways)


def _path(name: str, holder: Path) -> Path:
    """Where the library looks for a source: beside the file that names it, then from the working directory."""
    if name == ".":
        return holder
    beside = holder.parent / name
    return beside if beside.exists() else Path(name)


class VirtualSource(LibrarySource):
    """A virtual dataset, read through the library once every source is known to be there. See `ArraySource`."""

    def check(self) -> None:
        """Every source file and dataset exists and is whole, and together they cover the dataset."""
        if self._fill_missing:
            return
        sources = self._dataset.virtual_sources()
        problems = [problem for problem in map(self._problem, sources) if problem]
        if problems:
            listed = ", ".join(dict.fromkeys(problems))
            hint = "bring them beside the file, or say --missing-chunks fill to read the fill value for them"
            raise DataError(f"virtual dataset without its sources: {listed}", where=self._name, hint=hint)
        covered, total = sum(_points(source.vspace) for source in sources), math.prod(self.shape)
        if covered < total:
            hint = f"if they stand for the fill value {self._dataset.fillvalue}, say --missing-chunks fill"
            raise DataError(f"{total - covered} of {total} values have no source", where=self._name, hint=hint)

    def _problem(self, source: Any) -> str:
        """What is wrong with a source; empty where it is whole."""
        if source.file_name == ".":
            return _missing(self._file.h5, source.dset_name, source.dset_name)
        try:
            with h5py.File(_path(source.file_name, self._file.path), "r") as other:
                return _missing(other, source.dset_name, f"{source.file_name}:{source.dset_name}")
        except OSError:
            return str(source.file_name)


def _missing(file: Any, path: str, name: str) -> str:
    dataset = file.get(path)
    if not isinstance(dataset, h5py.Dataset):
        return name
    if dataset.chunks:
        total = math.prod(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks))
        return f"{name} (chunks never written)" if dataset.id.get_num_chunks() < total else ""
    unwritten = math.prod(dataset.shape) and not dataset.is_virtual and not dataset.id.get_storage_size()
    return f"{name} (never written)" if unwritten else ""


def _points(space: Any) -> int:
    """Values that a source covers; one that grows covers whatever there is."""
    try:
        return int(space.get_select_npoints())
    except (RuntimeError, OverflowError):
        return 1 << 62
