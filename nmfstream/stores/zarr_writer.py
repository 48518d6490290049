"""Zarr v3 outputs: whole row chunks, each written beside its place and renamed into it, all-fill ones included."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from nmfstream.errors import NmfstreamError
from nmfstream.storage import durable
from nmfstream.stores.anndata_writer import name_zarr
from nmfstream.stores.offset_writer import another_array, checked_rows
from nmfstream.stores.outputs import Making, Output, forget_ranges
from nmfstream.types import Array

_DTYPES = {"b": "bool", "i": "int", "u": "uint", "f": "float", "c": "complex"}
_ZSTD = {"level": 1, "checksum": True}


def array_metadata(
    shape: tuple[int, ...], chunks: tuple[int, ...], dtype: np.dtype[Any], attributes: dict[str, Any] | None = None
) -> dict[str, Any]:
    """A v3 array's ``zarr.json``: regular chunks in one folder, little-endian, zstd with its checksum."""
    bits = "" if dtype.kind == "b" else str(8 * dtype.itemsize)
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": _DTYPES[dtype.kind] + bits,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunks)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": False if dtype.kind == "b" else 0,
        "codecs": [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "zstd", "configuration": _ZSTD},
        ],
        "attributes": attributes or {},
        "storage_transformers": [],
    }


def metadata_of(making: Making) -> dict[str, Any]:
    """The document of a dense output: chunks of whole rows."""
    return array_metadata(making.shape, (making.rows_together, making.shape[1] or 1), making.dtype)


def group_metadata(attributes: dict[str, Any] | None = None) -> dict[str, Any]:
    """A v3 group's ``zarr.json``."""
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes or {}}


def write_json(path: Path, content: dict[str, Any], *, overwrite: bool = False) -> None:
    """Write a metadata document, whole or not at all."""
    durable.write_whole(path, json.dumps(content, indent=2).encode(), overwrite=overwrite)


def encode(chunk: Array) -> bytes:
    """A chunk's bytes as `array_metadata` says."""
    plain = np.ascontiguousarray(chunk).astype(chunk.dtype.newbyteorder("<"), copy=False)
    return bytes(_zstd().encode(plain.reshape(-1).view(np.uint8)))


def decode(data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """The inverse of `encode`."""
    plain = np.frombuffer(bytes(_zstd().decode(data)), dtype.newbyteorder("<"))
    return plain.reshape(shape).astype(dtype)


def _zstd() -> Any:
    from numcodecs import Zstd

    return Zstd(**_ZSTD)


class ChunkFolder:
    """Row chunks of one dense array in a folder. Another process may write other chunks at the same time."""

    def __init__(self, folder: Path, making: Making) -> None:
        self.folder, self.shape, self.dtype = folder, making.shape, making.dtype
        self.chunk_rows = making.rows_together

    def path(self, index: int) -> Path:
        """The file of row chunk `index`."""
        return self.folder / f"c.{index}.0"

    def load(self, index: int) -> Array:
        """A copy of a chunk, zeros where there is none yet."""
        shape = (self.chunk_rows, self.shape[1])
        if not durable.exists(self.path(index)):
            return np.zeros(shape, self.dtype)
        return decode(durable.read_bytes(self.path(index)), shape, self.dtype)

    def store(self, index: int, chunk: Array) -> None:
        """Write a whole chunk, durably."""
        durable.write_whole(self.path(index), encode(chunk), overwrite=True)

    def bounds(self, index: int) -> tuple[int, int]:
        """Rows (start, stop) of a chunk; the last may be shorter than what is stored."""
        start = index * self.chunk_rows
        return start, min(start + self.chunk_rows, self.shape[0])

    def indices(self, start: int, stop: int) -> range:
        """Chunks that rows ``start:stop`` touch."""
        return range(start // self.chunk_rows, math.ceil(stop / self.chunk_rows))


class ZarrWriter:
    """A `RowWriter` over a Zarr store in progress; a chunk that is not whole yet is kept until another comes."""

    nnz = None

    def __init__(self, root: Path, chunks: ChunkFolder, final: Path, *, resumed: bool) -> None:
        self.shape, self.dtype, self.chunk_rows = chunks.shape, chunks.dtype, chunks.chunk_rows
        self.final, self.resumed = final, resumed
        self._root, self._chunks = root, chunks
        self._pending: tuple[int, Array] | None = None

    def write(self, start: int, rows: Array) -> None:
        """Put rows at ``start``."""
        block = checked_rows(start, rows, self.shape, self.dtype)
        for index in self._chunks.indices(start, start + len(block)) if block.size else ():
            low, high = self._chunks.bounds(index)
            a, b = max(low, start), min(high, start + len(block))
            self._put(index, a - low, block[a - start : b - start], whole=(a, b) == (low, high))

    def _put(self, index: int, at: int, rows: Array, *, whole: bool) -> None:
        if self._pending is None or self._pending[0] != index:
            self._settle()
            self._pending = (index, self._blank() if whole else self._chunks.load(index))
        self._pending[1][at : at + len(rows)] = rows
        if whole:
            self._settle()

    def _blank(self) -> Array:
        return np.zeros((self.chunk_rows, self.shape[1]), self.dtype)

    def _settle(self) -> None:
        if self._pending is not None:
            self._chunks.store(*self._pending)
            self._pending = None

    def flush(self) -> None:
        """Write the chunk in hand; every chunk is synced as it is written."""
        self._settle()

    def commit(self, *, overwrite: bool = False) -> None:
        """Flush, then give the store its final name."""
        self.flush()
        durable.publish_tree(self._root, self.final, overwrite=overwrite)
        forget_ranges(self.final)

    def abort(self) -> None:
        """Remove the store in progress."""
        self._pending = None
        durable.remove_tree(self._root)

    def close(self) -> None:
        """Write the chunk in hand; the store in progress stays for a resume."""
        self.flush()


def lay(root: Path, dataset: str, metadata: dict[str, Any]) -> Path:
    """Fill the (empty) folder `root` with its groups and one array; returns the array's folder."""
    folder = root
    for part in dataset.split("/"):
        write_json(folder / "zarr.json", group_metadata(), overwrite=True)
        folder = folder / part
        durable.make_folder(folder)
    write_json(folder / "zarr.json", metadata)
    return folder


def open_zarr(output: Output, making: Making) -> ZarrWriter:
    """Begin or continue a Zarr output."""
    metadata = metadata_of(making)
    partial = making.partial
    if making.resume and partial is not None and durable.exists(partial):
        if not _same(partial / output.dataset, metadata):
            raise another_array(partial)
        sweep(partial / output.dataset)
        return ZarrWriter(partial, ChunkFolder(partial / output.dataset, making), output.path, resumed=True)
    root = _begin(partial or output.path, output.dataset, metadata, making)
    return ZarrWriter(root, ChunkFolder(root / output.dataset, making), output.path, resumed=False)


def _begin(beside: Path, dataset: str, metadata: dict[str, Any], making: Making) -> Path:
    root, partial = durable.temporary_name(beside), making.partial
    durable.make_folder(root)
    try:
        lay(root, dataset, metadata)
        name_zarr(root, dataset, making.feature_names, making.shape[0])
        if partial is not None:
            durable.publish_tree(root, partial)
    except BaseException:
        durable.remove_tree(root)
        raise
    return partial or root


def _same(folder: Path, metadata: dict[str, Any]) -> bool:
    try:
        return bool(json.loads(durable.read_bytes(folder / "zarr.json")) == metadata)
    except (NmfstreamError, ValueError):
        return False


def sweep(folder: Path) -> None:
    """Remove what a killed write left beside its chunk."""
    for name in durable.names(folder):
        if name.startswith(".") and name.endswith(".tmp"):
            durable.remove(folder / name)
