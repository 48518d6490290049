"""Feature names beside a matrix ``X``: the store becomes an AnnData whose variables are named.

https://anndata.readthedocs.io/en/latest/fileformat-prose.html
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from nmfstream.storage import durable

MATRIX = "X"
"""Name of the dataset that names belong to."""

CHUNK = 1 << 20
"""Row numbers that are stored together."""

MARK = ("written-by", "nmfstream")
"""Attribute of a store whose names are ours, to be replaced with its matrix."""

_ROOT = {"encoding-type": "anndata", "encoding-version": "0.1.0", MARK[0]: MARK[1]}
_TEXTS = {"encoding-type": "string-array", "encoding-version": "0.2.0"}


def _frame(columns: Any) -> dict[str, Any]:
    return {"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index", "column-order": columns}


def name_hdf5(store: h5py.File, dataset: str, names: Sequence[str] | None, n_rows: int) -> None:
    """Add names to an open file, where they are known and `dataset` is the store's X.

    Rows are named by their numbers, without which the file could not be read as an AnnData.
    """
    if names is None or dataset != MATRIX:
        return
    store.attrs.update(_ROOT)
    for part in ("var", "obs"):
        store.create_group(part).attrs.update(_frame(np.array([], h5py.string_dtype())))
    store["var"].create_dataset("_index", data=list(names), dtype=h5py.string_dtype()).attrs.update(_TEXTS)
    layout: dict[str, Any] = {"chunks": (CHUNK,), "maxshape": (None,), "compression": 1, "shuffle": True}
    index = store["obs"].create_dataset("_index", (n_rows,), np.int64, **layout)
    for start in range(0, n_rows, CHUNK):
        stop = min(start + CHUNK, n_rows)
        index[start:stop] = np.arange(start, stop)


def name_zarr(root: Path, dataset: str, names: Sequence[str] | None, n_rows: int) -> None:
    """Add names to a store in progress; see `name_hdf5`."""
    if names is None or dataset != MATRIX:
        return
    from numcodecs import VLenUTF8, Zstd

    from nmfstream.stores.zarr_writer import array_metadata, encode, group_metadata, write_json

    write_json(root / "zarr.json", group_metadata(dict(_ROOT)), overwrite=True)
    for part in ("var", "obs"):
        durable.make_folder(root / part)
        write_json(root / part / "zarr.json", group_metadata(_frame([])))
        durable.make_folder(root / part / "_index")
    write_json(root / "var/_index/zarr.json", _texts_metadata(len(names)))
    texts = np.array([*names, ""], object)[: len(names)]
    durable.write_whole(root / "var/_index/c.0", bytes(Zstd(1, True).encode(VLenUTF8().encode(texts))))
    for i, start in enumerate(range(0, n_rows, CHUNK)):
        durable.write_whole(root / f"obs/_index/c.{i}", encode(np.arange(start, start + CHUNK)))
    write_json(root / "obs/_index/zarr.json", array_metadata((n_rows,), (CHUNK,), np.dtype(np.int64)))


def _texts_metadata(n: int) -> dict[str, Any]:
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [n],
        "data_type": "string",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [max(1, n)]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": "",
        "codecs": [
            {"name": "vlen-utf8", "configuration": {}},
            {"name": "zstd", "configuration": {"level": 1, "checksum": True}},
        ],
        "attributes": dict(_TEXTS),
        "storage_transformers": [],
    }
