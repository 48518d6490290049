"""Zarr metadata, v2 and v3, read by ourselves: whatever else stands in a store cannot keep its matrix from us."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from nmfstream.errors import DataError
from nmfstream.stores.zarr_codecs import Chain, Codec, Unusual, codec
from nmfstream.stores.zarr_files import Files

_V3_TYPES = {
    "bool": "?", "int8": "i1", "int16": "i2", "int32": "i4", "int64": "i8", "uint8": "u1", "uint16": "u2",
    "uint32": "u4", "uint64": "u8", "float16": "f2", "float32": "f4", "float64": "f8",
    "complex64": "c8", "complex128": "c16",
}  # fmt: skip
_HINT = "the store's metadata are damaged: write it again"


@dataclass(frozen=True)
class Sharding:
    """Inner chunks that lie together in one file.

    Attributes
    ----------
    inner : tuple of int
        Shape of an inner chunk.
    chain : Chain
        Of an inner chunk.
    index_steps : tuple of Codec
        Of the index, after its bytes.
    at_end : bool
        Where in the file the index lies.
    """

    inner: tuple[int, ...]
    chain: Chain
    index_steps: tuple[Codec, ...]
    at_end: bool


@dataclass(frozen=True)
class ArrayMetadata:
    """What a Zarr array says of itself.

    Attributes
    ----------
    zarr_format : int
    shape, chunks : tuple of int
        Of the array and of what lies under one key.
    dtype : dtype
        As stored.
    fill_value : scalar or None
    chain : Chain or None
        None: sharded, or left to the zarr library.
    sharding : Sharding or None
    head, separator : str
        A chunk's key is ``head`` and the grid position joined by ``separator``.
    attributes : dict
    unusual : str
        Why the zarr library must read it; empty: we do.
    """

    zarr_format: int
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    fill_value: Any
    chain: Chain | None
    sharding: Sharding | None
    head: str
    separator: str
    attributes: dict[str, Any]
    unusual: str = ""

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of chunks in every dimension."""
        return tuple(-(-n // c) for n, c in zip(self.shape, self.chunks))

    @property
    def n_chunks(self) -> int:
        """Number of chunks."""
        return math.prod(self.grid)

    def key(self, cell: tuple[int, ...]) -> str:
        """Key of a chunk below the array."""
        return self.head + self.separator.join(map(str, cell)) if cell else (self.head.rstrip("/.") or "0")


@dataclass(frozen=True)
class GroupMetadata:
    """A group: its attributes."""

    attributes: dict[str, Any]


def document(files: Files, key: str) -> dict[str, Any] | None:
    """A JSON object under a key; None where there is none.

    Raises
    ------
    DataError
        If it is cut off or no object.
    """
    data = files.get(key)
    if data is None:
        return None
    try:
        content = json.loads(data)
    except ValueError as error:
        raise DataError(f"metadata cannot be read ({error})", where=f"{files.name}/{key}", hint=_HINT) from error
    if not isinstance(content, dict):
        raise DataError("metadata are no JSON object", where=f"{files.name}/{key}", hint=_HINT)
    return content


def node(files: Files, path: str) -> ArrayMetadata | GroupMetadata | None:
    """The array or group at a path inside the store; None where there is neither.

    Raises
    ------
    DataError
    """
    at = f"{path}/" if path else ""
    where = f"{files.name}/{path}" if path else files.name
    try:
        return _v3(files, at, where) or _v2(files, at, where)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"metadata make no sense ({error!r})", where=where, hint=_HINT) from error


def _v3(files: Files, at: str, where: str) -> ArrayMetadata | GroupMetadata | None:
    content = document(files, f"{at}zarr.json")
    if content is None:
        return None
    attributes, kind = content.get("attributes") or {}, content["node_type"]
    if kind not in ("array", "group"):
        raise ValueError(f"node_type {kind!r}")
    return GroupMetadata(attributes) if kind == "group" else _v3_array(content, attributes, where)


def _v3_array(content: dict[str, Any], attributes: dict[str, Any], where: str) -> ArrayMetadata:
    dtype = _v3_dtype(content["data_type"])
    shape = _extents(content["shape"], where, 0)
    encoding = content["chunk_key_encoding"]
    v2 = encoding["name"] == "v2"
    separator = (encoding.get("configuration") or {}).get("separator", "." if v2 else "/")
    head = "" if v2 else f"c{separator}"
    chunks, chain, sharding, unusual = shape, None, None, ""
    try:
        chunks = _regular(content, where)
        chain, sharding = _v3_codecs(content["codecs"], dtype, len(shape), where)
    except Unusual as reason:
        unusual = str(reason)
    fill = _fill(content.get("fill_value"), dtype)
    return ArrayMetadata(3, shape, chunks, dtype, fill, chain, sharding, head, separator, attributes, unusual)


def _v3_dtype(name: Any) -> np.dtype[Any]:
    """The type, or object for what holds no numbers."""
    return np.dtype(_V3_TYPES.get(name, "O") if isinstance(name, str) else "O")


def _regular(content: dict[str, Any], where: str) -> tuple[int, ...]:
    grid = content["chunk_grid"]
    if grid["name"] != "regular":
        raise Unusual(f"chunk grid {grid['name']!r}")
    if content.get("storage_transformers"):
        raise Unusual("storage transformers")
    return _extents(grid["configuration"]["chunk_shape"], where, 1)


def _extents(values: Any, where: str, least: int) -> tuple[int, ...]:
    if not all(isinstance(v, int) and least <= v < 2**62 for v in values):
        raise DataError(f"shape or chunks {values} make no sense", where=where, hint=_HINT)
    return tuple(values)


def _v3_codecs(
    codecs: list[dict[str, Any]], dtype: np.dtype[Any], ndim: int, where: str
) -> tuple[Chain | None, Sharding | None]:
    listed = [{"name": c} if isinstance(c, str) else c for c in codecs]
    if listed and listed[0]["name"] == "sharding_indexed":
        if len(listed) > 1:
            raise Unusual("codecs over shards")
        return None, _sharding(listed[0]["configuration"], dtype, ndim, where)
    return _v3_chain(listed, dtype, ndim, where), None


def _v3_chain(listed: list[dict[str, Any]], dtype: np.dtype[Any], ndim: int, where: str) -> Chain:
    axes, stored, steps = tuple(range(ndim)), dtype, []
    for item in listed:
        name, config = item["name"], item.get("configuration") or {}
        if name == "transpose":
            axes = tuple(axes[i] for i in _order(config["order"], ndim))
        elif name in ("bytes", "endian"):
            stored = dtype.newbyteorder(">" if config.get("endian") == "big" else "<")
        elif name == "sharding_indexed":
            raise Unusual("shards inside other codecs")
        elif object_builder(name) and dtype.kind == "O":
            stored = np.dtype("O")
        else:
            steps.append(codec(name, config, where))
    return Chain(tuple(reversed(steps)), stored, axes)


def _order(order: Any, ndim: int) -> tuple[int, ...]:
    named = {"C": tuple(range(ndim)), "F": tuple(reversed(range(ndim)))}
    return named[order] if isinstance(order, str) else tuple(order)


def object_builder(name: str) -> bool:
    """Whether a codec makes texts: such arrays give names, never values."""
    return name in ("vlen-utf8", "vlen-bytes")


def _sharding(config: dict[str, Any], dtype: np.dtype[Any], ndim: int, where: str) -> Sharding:
    inner = [{"name": c} if isinstance(c, str) else c for c in config["codecs"]]
    index = _v3_chain(list(config["index_codecs"]), np.dtype("u8"), 1, where)
    if index.dtype != np.dtype("<u8") or any(s.name != "crc32c" for s in index.steps):
        raise Unusual("an index of shards that is neither plain nor crc32c")
    at_end = config.get("index_location", "end") == "end"
    chunk = _extents(config["chunk_shape"], where, 1)
    return Sharding(chunk, _v3_chain(inner, dtype, ndim, where), index.steps, at_end)


def _v2(files: Files, at: str, where: str) -> ArrayMetadata | GroupMetadata | None:
    content = document(files, f"{at}.zarray")
    if content is None:
        group = document(files, f"{at}.zgroup")
        return None if group is None else GroupMetadata(document(files, f"{at}.zattrs") or {})
    return _v2_array(content, document(files, f"{at}.zattrs") or {}, where)


def _v2_array(content: dict[str, Any], attributes: dict[str, Any], where: str) -> ArrayMetadata:
    shape, chunks = _extents(content["shape"], where, 0), _extents(content["chunks"], where, 1)
    dtype = _v2_dtype(content["dtype"])
    axes = tuple(range(len(shape)))
    packed = [content["compressor"]] if content.get("compressor") else []
    listed = packed + list(reversed(content.get("filters") or []))
    steps = [codec(c["id"], c, where) for c in listed if not (dtype.kind == "O" and object_builder(c["id"]))]
    chain = Chain(tuple(steps), dtype, axes[::-1] if content.get("order") == "F" else axes)
    separator = content.get("dimension_separator", ".")
    fill = _fill(content.get("fill_value"), dtype)
    return ArrayMetadata(2, shape, chunks, dtype, fill, chain, None, "", separator, attributes)


def _v2_dtype(described: Any) -> np.dtype[Any]:
    if isinstance(described, str):
        return np.dtype(described)
    return np.dtype([tuple(tuple(x) if isinstance(x, list) else x for x in field) for field in described])


def _fill(value: Any, dtype: np.dtype[Any]) -> Any:
    """The fill value as a number; None where there is none or it is no number."""
    if value is None or dtype.kind not in "biuf":
        return None
    if isinstance(value, str) and value.startswith("0x"):
        raw = int(value, 16).to_bytes(dtype.itemsize, "big")
        return np.frombuffer(raw, dtype.newbyteorder(">"))[0]
    text = value.replace("Infinity", "inf") if isinstance(value, str) else value
    return np.asarray(text, np.float64 if dtype.kind == "f" else None).astype(dtype)[()]
