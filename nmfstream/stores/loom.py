"""Loom files: ``/matrix`` and ``/layers/*`` are stored genes × cells, so they are read transposed.

https://linnarssonlab.org/loompy/format/
"""

from __future__ import annotations

from typing import Any

from nmfstream.stores.hdf5_file import HDF5File
from nmfstream.stores.hdf5_nodes import Located, node_at, text, values_of
from nmfstream.stores.protocols import Opening

NAMES = ("Gene", "gene_names", "Name", "var_names", "Accession", "rownames")
"""Row attributes that name the genes, the usual first."""


def locate(file: HDF5File, inner: str, opening: Opening) -> Located | None:
    """``matrix`` by default; None where the file is no Loom."""
    if not {"matrix", "row_attrs", "col_attrs"} <= set(file.h5):
        return None
    path = inner or "matrix"
    node_at(file, path, opening)
    if path != "matrix" and not path.startswith("layers/"):
        return Located(path)
    return Located(path, samples_in_columns=True, feature_names=_names(node_at(file, "row_attrs", opening)))


def _names(attributes: Any) -> tuple[str, ...] | None:
    found = next((name for name in NAMES if name in attributes), None)
    return None if found is None else tuple(text(value) for value in values_of(attributes[found]))
