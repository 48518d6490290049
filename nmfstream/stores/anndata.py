"""AnnData in HDF5: X, layers and raw, of every version of the encoding; names of the variables as feature names.

https://anndata.readthedocs.io/en/latest/fileformat-prose.html
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import h5py

from nmfstream.errors import DataError, NmfstreamError
from nmfstream.stores.hdf5_file import HDF5File
from nmfstream.stores.hdf5_nodes import Located, matrices, node_at, text, values_of
from nmfstream.stores.naming import choose
from nmfstream.stores.protocols import Opening

LEGACY = {"raw/X": "raw.X"}
"""Names that versions before 0.7 wrote otherwise."""


def locate(file: HDF5File, inner: str, opening: Opening) -> Located | None:
    """X by default, else what is named; None where neither the file nor a group on the path is an AnnData."""
    anndata = _anndata_at(file, inner, opening)
    if anndata is None:
        return None
    below = f"{anndata}/" if anndata else ""
    path = _default(file, below) if anndata == inner else inner
    legacy = below + LEGACY.get(path.removeprefix(below), "")
    if path not in file.h5 and legacy != below and legacy in file.h5:
        path = legacy
    node_at(file, path, opening)
    return Located(path, feature_names=_feature_names(file, path, below, opening))


def _anndata_at(file: HDF5File, inner: str, opening: Opening) -> str | None:
    """The outermost AnnData on a path: the file itself, or a group that says so (as in MuData)."""
    if _says_anndata(file.h5) or (file.path.suffix.lower() == ".h5ad" and "var" in file.h5):
        return ""
    for group in accumulate(inner.split("/"), "{}/{}".format) if inner else ():
        node = node_at(file, group, opening)
        if not isinstance(node, h5py.Group):
            return None
        if _says_anndata(node):
            return group
    return None


def _says_anndata(group: Any) -> bool:
    return text(group.attrs.get("encoding-type", "")) == "anndata"


def _default(file: HDF5File, below: str) -> str:
    if f"{below}X" in file.h5:
        return f"{below}X"
    found = [one for one in matrices(file) if one.path.startswith((f"{below}layers/", f"{below}raw"))]
    return choose(found, f"{file.path}/{below}".rstrip("/"), "AnnData without X, layers or raw").path


def _feature_names(file: HDF5File, path: str, below: str, opening: Opening) -> tuple[str, ...] | None:
    """Names from the data frame that goes with X and layers (``var``) or with raw (``raw/var``)."""
    tables = {"X": "var", "layers": "var", "raw.X": "raw.var", "raw": "raw/var"}
    table = tables.get(path.removeprefix(below).split("/")[0])
    if table is None or below + table not in file.h5:
        return None
    try:
        return _index_of(node_at(file, below + table, opening))
    except (NmfstreamError, KeyError, OSError, TypeError, ValueError) as error:
        where = f"{file.path}/{below}{table}"
        raise DataError(
            f"names of the variables cannot be read ({error})", where=where, hint="write the file again"
        ) from error


def _index_of(table: Any) -> tuple[str, ...] | None:
    if isinstance(table, h5py.Dataset):
        column = next((name for name in ("index", "_index") if name in (table.dtype.names or ())), None)
        return None if column is None else _texts(values_of(table)[column])
    column = text(table.attrs.get("_index", "_index"))
    return _texts(_decoded(table, column)) if column in table else None


def _decoded(table: Any, column: str) -> Any:
    """Values of a column, categories looked up: new ones are groups, old ones refer to ``__categories``."""
    node = table[column]
    if isinstance(node, h5py.Group):
        if "categories" in node:
            return values_of(node["categories"])[values_of(node["codes"])]
        return values_of(node["values"])
    if "__categories" in table and column in table["__categories"]:
        return values_of(table["__categories"][column])[values_of(node)]
    return values_of(node)


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(text(value) for value in values)
