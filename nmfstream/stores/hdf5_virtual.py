"""Virtual datasets: HDF5 reads zeros where a source is absent, so each is looked for before anything is read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import h5py

from nmfstream.errors import DataError
from nmfstream.stores.hdf5_chunks import LibrarySource


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
        beside = self._file.path.parent / source.file_name
        path = beside if beside.exists() else Path(source.file_name)
        try:
            with h5py.File(path, "r") as other:
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
