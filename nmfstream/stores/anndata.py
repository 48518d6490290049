"""AnnData in HDF5: X, layers and raw, of every version of the encoding; names of the variables as feature names.

https://anndata.readthedocs.io/en/latest/fileformat-prose.html
"""

from __future__ import annotations

from typing import Any

import h5py

from nmfstream.errors import DataError, NmfstreamError
from nmfstream.stores.hdf5_file import HDF5File
from nmfstream.stores.hdf5_nodes import Located, matrices, node_at, text
from nmfstream.stores.naming import choose
from nmfstream.stores.protocols import Opening

LEGACY = {"raw/X": "raw.X"}
"""Names that versions before 0.7 wrote otherwise."""


def locate(file: HDF5File, inner: str, opening: Opening) -> Located | None:
    """X by default, else what is named; None where the file is no AnnData."""
    if not _is_anndata(file.h5, file.path.suffix):
        return None
    path = inner or _default(file)
    if path not in file.h5 and LEGACY.get(path, "") in file.h5:
        path = LEGACY[path]
    node_at(file, path, opening)
    return Located(path, feature_names=_feature_names(file, path, opening))


def _is_anndata(root: Any, suffix: str) -> bool:
    return text(root.attrs.get("encoding-type", "")) == "anndata" or (suffix.lower() == ".h5ad" and "var" in root)


def _default(file: HDF5File) -> str:
    if "X" in file.h5:
        return "X"
    found = [one for one in matrices(file) if one.path.startswith(("layers/", "raw"))]
    return choose(found, str(file.path), "AnnData without X, layers or raw").path


def _feature_names(file: HDF5File, path: str, opening: Opening) -> tuple[str, ...] | None:
    """Names from the data frame that goes with X and layers (``var``) or with raw (``raw/var``)."""
    tables = {"X": "var", "layers": "var", "raw.X": "raw.var", "raw": "raw/var"}
    table = tables.get(path.split("/")[0])
    if table is None or table not in file.h5:
        return None
    try:
        return _index_of(node_at(file, table, opening))
    except (NmfstreamError, KeyError, OSError, TypeError, ValueError) as error:
        where = f"{file.path}/{table}"
        raise DataError(
            f"names of the variables cannot be read ({error})", where=where, hint="write the file again"
        ) from error


def _index_of(table: Any) -> tuple[str, ...] | None:
    if isinstance(table, h5py.Dataset):
        column = next((name for name in ("index", "_index") if name in (table.dtype.names or ())), None)
        return None if column is None else _texts(table[column])
    column = text(table.attrs.get("_index", "_index"))
    return _texts(_decoded(table, column)) if column in table else None


def _decoded(table: Any, column: str) -> Any:
    """Values of a column, categories looked up: new ones are groups, old ones refer to ``__categories``."""
    node = table[column]
    if isinstance(node, h5py.Group):
        return node["categories"][...][node["codes"][...]] if "categories" in node else node["values"][...]
    if "__categories" in table and column in table["__categories"]:
        return table["__categories"][column][...][node[...]]
    return node[...]


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(text(value) for value in values)
