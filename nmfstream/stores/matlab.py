"""MATLAB v7.3 files: plain HDF5, in which MATLAB's column order shows every matrix transposed.

Dense variables are read as HDF5 shows them (``--transpose`` gives MATLAB's view). Sparse ones are groups of data,
ir and jc: compressed columns, which are the rows of that same transposed view.
"""

from __future__ import annotations

from typing import Any

import h5py

from nmfstream.errors import DataError
from nmfstream.stores.hdf5_file import HDF5File
from nmfstream.stores.hdf5_nodes import Located, node_at, text
from nmfstream.stores.protocols import Opening

_SAVE = "save a full or sparse matrix of numbers with '-v7.3'"


def locate(file: HDF5File, inner: str, opening: Opening) -> Located | None:
    """A sparse variable; text, empty and dense ones are told apart. None for whatever MATLAB did not write."""
    node = node_at(file, inner, opening) if inner else None
    if node is None or "MATLAB_class" not in node.attrs:
        return None
    _refuse_text_and_empty(node, f"{file.path}/{inner}")
    if "MATLAB_sparse" not in node.attrs:
        return None
    if "jc" not in node:
        raise DataError("a sparse matrix without 'jc'", where=f"{file.path}/{inner}", hint=_SAVE)
    bare = not {"data", "ir"} & set(node)  # MATLAB leaves both out of a matrix that is all zero
    shape = node["jc"].shape[0] - 1, int(node.attrs["MATLAB_sparse"])
    return Located(inner, shape=shape, kind="csr", parts=("data", "ir", "jc"), without_entries=bare)


def _refuse_text_and_empty(node: Any, where: str) -> None:
    if isinstance(node, h5py.Dataset) and "MATLAB_empty" in node.attrs:
        raise DataError("an empty MATLAB array", where=where, hint=_SAVE)
    if text(node.attrs["MATLAB_class"]) in ("char", "cell", "struct", "function_handle"):
        raise DataError(f"a MATLAB {text(node.attrs['MATLAB_class'])} array", where=where, hint=_SAVE)
