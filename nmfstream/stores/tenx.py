"""10x Genomics matrices: features × cells in compressed columns, which are the rows of cells × features.

https://www.10xgenomics.com/support/software/cell-ranger/latest/analysis/outputs/cr-outputs-h5-matrices
"""

from __future__ import annotations

from typing import Any

import h5py

from nmfstream.errors import UsageError
from nmfstream.stores.hdf5_file import HDF5File
from nmfstream.stores.hdf5_nodes import Located, text, values_of
from nmfstream.stores.protocols import Opening

PARTS = {"data", "indices", "indptr", "shape", "barcodes"}
NAMES = ("features/name", "gene_names")
"""Names of the features since version 3, and before."""


def locate(file: HDF5File, inner: str, opening: Opening) -> Located | None:
    """The group ``matrix`` (version 3) or of the only genome (version 2); None where there is none."""
    groups = [inner] if inner else _groups(file.h5)
    groups = [name for name in groups if _is_matrix(file.h5, name)]
    if len(groups) > 1:
        listed = ", ".join(groups)
        hint = f"name one, as in {file.path}/{groups[0]}"
        raise UsageError(f"holds the matrices of {len(groups)} genomes: {listed}", where=str(file.path), hint=hint)
    return _located(file.h5[groups[0]], groups[0]) if groups else None


def _groups(root: Any) -> list[str]:
    return [name for name in root if isinstance(root.get(name, getlink=True), h5py.HardLink)]


def _is_matrix(root: Any, name: str) -> bool:
    try:
        node = root.get(name) if isinstance(root.get(name, getlink=True), h5py.HardLink) else None
    except (KeyError, OSError, RuntimeError):
        return False
    return isinstance(node, h5py.Group) and set(node) >= PARTS and "encoding-type" not in node.attrs


def _located(group: Any, path: str) -> Located:
    features, cells = (int(n) for n in values_of(group["shape"]).reshape(-1)[:2])
    names = next((group[name] for name in NAMES if name in group), None)
    texts = None if names is None else tuple(text(value) for value in values_of(names))
    return Located(path, feature_names=texts, shape=(cells, features), kind="csr")
