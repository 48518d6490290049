"""What a store is and how fast it can be read, from its metadata alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from nmfstream.stores.arrays import ArraySource
from nmfstream.stores.base import Reader
from nmfstream.stores.naming import Candidate
from nmfstream.stores.protocols import Opening
from nmfstream.stores.registry import candidates as list_candidates
from nmfstream.stores.registry import format_of, open_metadata, split
from nmfstream.units import size_text

SMALL_CHUNK = 256 << 10
"""Decoded bytes under which the work for a chunk outweighs its decoding."""

WIDE_CHUNK = 64 << 20
"""Decoded bytes above which few chunks fit in memory together."""

UNCHUNKED = ("contiguous", "compact", "external", "stored member", "compressed member")

_CONVERT = "nmfstream convert rewrites it"


@dataclass(frozen=True)
class Description:
    """A matrix in a store.

    Attributes
    ----------
    name : str
        As the user wrote it.
    format : str
        NPY, NPZ, HDF5 or Zarr.
    kind : str
        dense, csr, csc or coo.
    shape : tuple of int
        (n_samples, n_features).
    dtype : str
    nnz : int or None
        Stored entries of a sparse matrix.
    layout : str
        contiguous, chunked, sharded, virtual…
    chunks : tuple of int or None
        Of what is stored: the matrix, or the values of a sparse one.
    filters : tuple of str
    stored_bytes, raw_bytes : int
        On disk, and decoded.
    checksums : bool
        Whether the store would notice a flipped bit.
    n_feature_names : int
        0 where features have no names.
    warnings : tuple of str
        What makes reading slow or unsafe, and what helps.
    """

    name: str
    format: str
    kind: str
    shape: tuple[int, int]
    dtype: str
    nnz: int | None
    layout: str
    chunks: tuple[int, ...] | None
    filters: tuple[str, ...]
    stored_bytes: int
    raw_bytes: int
    checksums: bool
    n_feature_names: int
    warnings: tuple[str, ...]


def describe(spec: str, opening: Opening) -> Description:
    """Describe one ``STORE[/DATASET]`` without reading a value.

    Raises
    ------
    UsageError
        Several candidates: `candidates` lists them.
    DataError, InputAbsentError, AccessDeniedError
    """
    with open_metadata(spec, opening) as reader:
        assert isinstance(reader, Reader)
        sources = reader.sources()
        main = sources.get("X") or sources["data"]
        chunked = main.layout.kind not in UNCHUNKED
        return Description(
            name=spec,
            format=format_of(split(spec)[0]).name,
            kind=reader.kind,
            shape=reader.shape,
            dtype=str(reader.dtype),
            nnz=reader.nnz,
            layout=main.layout.kind,
            chunks=main.chunks if chunked else None,
            filters=main.layout.filters,
            stored_bytes=reader.stored_bytes,
            raw_bytes=sum(math.prod(s.shape) * s.dtype.itemsize for s in sources.values()),
            checksums=all(source.layout.checksums for source in sources.values()),
            n_feature_names=len(reader.feature_names or ()),
            warnings=tuple(_warnings(reader, main, chunked)),
        )


def candidates(spec: str, opening: Opening) -> list[Candidate]:
    """All matrices that a store offers."""
    return list_candidates(spec, opening)


def _warnings(reader: Reader, main: ArraySource, chunked: bool) -> Iterator[str]:
    chunk = math.prod(main.chunks) * main.dtype.itemsize
    total = math.prod(main.shape) * main.dtype.itemsize
    if chunked and chunk < SMALL_CHUNK < total:
        yield f"chunks of {size_text(chunk)} are decoded slowly: {_CONVERT} in chunks of megabytes"
    if chunked and chunk > WIDE_CHUNK:
        yield f"chunks of {size_text(chunk)} need much memory: {_CONVERT} in smaller ones"
    yield from _shape_warnings(reader, main, chunked)
    if "rearranged" in main.layout.kind or reader.kind in ("csc", "coo"):
        yield f"not stored by rows: every command first rearranges it in scratch; {_CONVERT} once"
    if not all(source.layout.checksums for source in reader.sources().values()):
        yield "no checksums: a flipped bit in the store cannot be seen"


def _shape_warnings(reader: Reader, main: ArraySource, chunked: bool) -> Iterator[str]:
    if len(main.shape) != 2:
        return
    transposed = main.shape != reader.shape or bool(getattr(reader, "transposed", False))
    width = main.chunks[0 if transposed else 1]
    if chunked and width < reader.shape[1]:
        yield f"each row is split over {-(-reader.shape[1] // width)} chunks: {_CONVERT} in chunks of whole rows"
    elif transposed:
        yield f"samples are columns of what is stored, read in narrow strips: {_CONVERT} by rows"
