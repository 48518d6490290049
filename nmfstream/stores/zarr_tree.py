"""What a Zarr store holds: its nodes, which of them are matrices, and the names of AnnData's variables."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from nmfstream.errors import DataError
from nmfstream.stores.naming import Candidate
from nmfstream.stores.zarr_array import ZarrArray, small
from nmfstream.stores.zarr_chunks import name_chunks
from nmfstream.stores.zarr_files import Files
from nmfstream.stores.zarr_metadata import ArrayMetadata, GroupMetadata, document, node

LIMIT = 10_000
"""Nodes looked at in one store."""

_PARTS = ("data", "indices", "indptr")
_KINDS = {"csr_matrix": "csr", "csc_matrix": "csc", "csr": "csr", "csc": "csc"}


def walk(files: Files, path: str = "") -> Iterator[tuple[str, ArrayMetadata | GroupMetadata]]:
    """All nodes below a path, in the order of their names; what cannot be understood is left out."""
    pending, seen = [path], 0
    while pending and seen < LIMIT:
        here = pending.pop()
        seen += 1
        try:
            found = node(files, here)
        except DataError:
            continue
        if found is None and here != path:
            continue
        if found is not None:
            yield here, found
        if not isinstance(found, ArrayMetadata) and sparse_kind(files, here, found) is None:
            pending.extend(f"{here}/{name}".lstrip("/") for name in reversed(children(files, here)))


def children(files: Files, path: str) -> list[str]:
    """Names of the nodes one level below a group."""
    if files.listable:
        return sorted(e.name for e in files.entries(path) if e.folder)
    return sorted({key.split("/")[0] for key in _consolidated(files, path)})


def _consolidated(files: Files, path: str) -> list[str]:
    """Keys below a group, from the document that lists them where nothing can list folders."""
    v3 = (document(files, "zarr.json") or {}).get("consolidated_metadata") or {}
    keys = list(v3.get("metadata") or {})
    v2 = (document(files, ".zmetadata") or {}).get("metadata") or {}
    keys += [key.rpartition("/")[0] for key in v2]
    prefix = f"{path}/" if path else ""
    return [key[len(prefix) :] for key in keys if key.startswith(prefix) and len(key) > len(prefix)]


def sparse_kind(files: Files, path: str, found: GroupMetadata | ArrayMetadata | None) -> str | None:
    """csr or csc where a group is a sparse matrix; a group of the three arrays that says nothing is CSR."""
    if not isinstance(found, GroupMetadata):
        return None
    declared = found.attributes.get("encoding-type") or found.attributes.get("h5sparse_format")
    if declared in _KINDS:
        return _KINDS[str(declared)]
    if declared is not None or not set(_PARTS) <= set(children(files, path)):
        return None
    return "csr"


def sparse_shape(files: Files, path: str, group: GroupMetadata) -> tuple[int, int] | None:
    """(rows, columns) that a sparse group states."""
    stated = group.attributes.get("shape", group.attributes.get("h5sparse_shape"))
    if stated is None:
        found = node(files, f"{path}/shape".lstrip("/"))
        if not isinstance(found, ArrayMetadata) or len(found.shape) != 1:
            return None
        stated = small(ZarrArray(files, f"{path}/shape".lstrip("/"), found), 2)
    if len(stated) != 2 or any(int(n) < 0 for n in stated):
        raise DataError(f"shape {list(stated)} of a sparse matrix", where=f"{files.name}/{path}", hint="write it again")
    return int(stated[0]), int(stated[1])


def candidates_below(files: Files, path: str = "") -> list[Candidate]:
    """The matrices at or below a path."""
    found = []
    for at, one in walk(files, path):
        candidate = _candidate(files, at, one)
        if candidate is not None:
            found.append(candidate)
    return found


def _candidate(files: Files, path: str, found: ArrayMetadata | GroupMetadata) -> Candidate | None:
    if isinstance(found, ArrayMetadata):
        honest = len(found.shape) == 2 and found.dtype.kind in "biuf"
        return Candidate(path, found.shape, found.dtype.newbyteorder("=").name) if honest else None
    kind = sparse_kind(files, path, found)
    if kind is None:
        return None
    data = node(files, f"{path}/data".lstrip("/"))
    if not isinstance(data, ArrayMetadata):
        return None
    shape = sparse_shape(files, path, found) or _implied(files, path, kind)
    return Candidate(path, shape, data.dtype.newbyteorder("=").name, kind)


def _implied(files: Files, path: str, kind: str) -> tuple[int, ...]:
    indptr = node(files, f"{path}/indptr".lstrip("/"))
    return (indptr.shape[0] - 1,) if isinstance(indptr, ArrayMetadata) else ()


def anndata_at(files: Files, path: str) -> str | None:
    """The outermost group on a path that is an AnnData; None where there is none.

    The store itself says so, or holds observations and variables; groups inside it (MuData, SpatialData) say so.
    """
    root = node(files, "")
    if isinstance(root, GroupMetadata) and (_says_anndata(root) or {"obs", "var"} <= set(children(files, ""))):
        return ""
    for group in accumulate(path.split("/"), "{}/{}".format):
        found = node(files, group)
        if not isinstance(found, GroupMetadata):
            return None
        if _says_anndata(found):
            return group
    return None


def _says_anndata(group: GroupMetadata) -> bool:
    return group.attributes.get("encoding-type") == "anndata"


def variable_names(files: Files, path: str, anndata: str = "") -> list[str] | None:
    """Names of the features of a matrix (``X``, ``layers/*``, ``raw/X``) of the AnnData at a path, if it has any."""
    below = f"{anndata}/" if anndata else ""
    frame = {"X": "var", "raw": "raw/var", "layers": "var"}.get(path.removeprefix(below).split("/")[0])
    if frame is None:
        return None
    try:
        found = node(files, below + frame)
        if isinstance(found, ArrayMetadata):
            return _from_records(files, below + frame, found)
        index = str(found.attributes.get("_index", "_index")) if found is not None else ""
        return _column(files, f"{below}{frame}/{index}")
    except DataError:
        return None


def _column(files: Files, path: str) -> list[str] | None:
    """Texts of a data frame's column: an array, or a group of values and mask, or of categories and codes."""
    found = node(files, path)
    if isinstance(found, ArrayMetadata):
        return _texts(files, path, found)
    values, categories, codes = (node(files, f"{path}/{part}") for part in ("values", "categories", "codes"))
    if isinstance(values, ArrayMetadata):
        return _texts(files, f"{path}/values", values)
    if not isinstance(categories, ArrayMetadata) or not isinstance(codes, ArrayMetadata) or len(codes.shape) != 1:
        return None
    names = _texts(files, f"{path}/categories", categories)
    numbers = small(ZarrArray(files, f"{path}/codes", codes), codes.shape[0])
    return None if names is None else [names[number] for number in numbers]


def _from_records(files: Files, path: str, metadata: ArrayMetadata) -> list[str] | None:
    """Names in the first field of a structured array, as the oldest files have them."""
    field = next((f for f in ("index", "_index") if f in (metadata.dtype.names or ())), None)
    if field is None or metadata.chain is None or len(metadata.shape) != 1:
        return None
    return [_text(v) for part in name_chunks(files, path, metadata) for v in part[field]][: metadata.shape[0]]


def _texts(files: Files, path: str, metadata: ArrayMetadata) -> list[str] | None:
    if len(metadata.shape) != 1:
        return None
    if metadata.dtype.kind == "V":
        return None
    return [_text(v) for part in name_chunks(files, path, metadata) for v in part][: metadata.shape[0]]


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
