"""HDF5 outputs: a contiguous dataset, allocated early, whose file is closed before its rows are written.

Rows go by `pwrite` to the dataset's place in the file, so that no state of the library can be lost with the process.
"""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np

from nmfstream.storage.durable import DurableFile
from nmfstream.stores.anndata_writer import name_hdf5
from nmfstream.stores.offset_writer import OffsetWriter, begin
from nmfstream.stores.outputs import Making, Output


def lay(file: DurableFile, dataset: str, making: Making) -> int:
    """Create the dataset and close the file.

    Returns
    -------
    int
        Offset of the dataset's first byte.
    """
    with h5py.File(file, "w") as store:
        offset = create_dataset(store, dataset, making.shape, making.dtype)
        name_hdf5(store, dataset, making.feature_names, making.shape[0])
    end = offset + making.shape[0] * making.row_bytes
    if file.size() < end:
        file.truncate(end)
    return offset


def create_dataset(group: h5py.Group, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Allocate a contiguous dataset whose values are left to be written; the offset of its first byte."""
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.CONTIGUOUS)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    kind, space = h5py.h5t.py_create(dtype), h5py.h5s.create_simple(shape)
    made = h5py.h5d.create(group.id, name.encode(), kind, space, layout, links)
    return int(made.get_offset() or 0)


def find(file: DurableFile, dataset: str, making: Making) -> int:
    """Offset of the rows in a file that `lay` made.

    Raises
    ------
    ValueError, KeyError, OSError
        If it is another array.
    """
    with h5py.File(file, "r") as store:
        found = store[dataset]
        if found.shape != making.shape or found.dtype != making.dtype or found.chunks is not None:
            raise ValueError("another array")
        return int(found.id.get_offset() or 0)


def open_hdf5(output: Output, making: Making) -> OffsetWriter:
    """Begin or continue an HDF5 output."""
    name = output.dataset
    file, offset, resumed = begin(
        output.path, making.partial, making.resume, lambda f: lay(f, name, making), lambda f: find(f, name, making)
    )
    return OffsetWriter(file, offset, making, output.path, resumed=resumed)
