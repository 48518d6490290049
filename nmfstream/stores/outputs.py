"""Where outputs go: a name as the user writes it, and the writer that its suffix stands for."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nmfstream.errors import OutputExistsError, UsageError
from nmfstream.storage import durable
from nmfstream.stores.protocols import RowWriter

WRITERS = {
    ".npy": "nmfstream.stores.npy_writer:open_npy",
    ".npz": "nmfstream.stores.npz_writer:open_npz",
    ".h5": "nmfstream.stores.hdf5_writer:open_hdf5",
    ".hdf5": "nmfstream.stores.hdf5_writer:open_hdf5",
    ".zarr": "nmfstream.stores.zarr_writer:open_zarr",
}
"""Suffix to the function that opens a writer of dense rows."""

CHUNK_BYTES = 4 << 20
"""Bytes of rows that are stored together where the user does not say."""

_CONTENTS = {
    ".npz": "nmfstream.stores.contents:in_npz",
    ".h5": "nmfstream.stores.contents:in_hdf5",
    ".hdf5": "nmfstream.stores.contents:in_hdf5",
    ".zarr": "nmfstream.stores.contents:in_zarr",
}
"""Suffix to the function that lists what a store holds besides a dataset."""

_SINGLE = (".npy",)
_TEXT = (".csv", ".tsv")
_ZARR_SIGNS = ("zarr.json", ".zgroup", ".zarray")


@dataclass(frozen=True)
class Output:
    """An output's parts.

    Attributes
    ----------
    path : Path
        The file (or the folder of a Zarr store).
    dataset : str
        Name inside it; empty for an NPY.
    suffix : str
        Key of `WRITERS`.
    """

    path: Path
    dataset: str
    suffix: str


@dataclass(frozen=True)
class Making:
    """How an output is made.

    Attributes
    ----------
    shape : tuple of int
    dtype : dtype
        Native byte order.
    chunk_rows : int or None
        Rows stored together in chunked formats; None: about `CHUNK_BYTES`.
    partial : Path or None
        Name while in progress; None: a hidden one beside the final name.
    resume : bool
        Continue `partial` where it is there.
    feature_names : sequence of str or None
        Kept where the format can (a dataset ``X`` in HDF5 or Zarr).
    """

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    chunk_rows: int | None = None
    partial: Path | None = None
    resume: bool = False
    feature_names: Sequence[str] | None = None

    @property
    def row_bytes(self) -> int:
        """Bytes a row."""
        return self.shape[1] * self.dtype.itemsize

    @property
    def rows_together(self) -> int:
        """Rows a chunk."""
        by_size = max(1, CHUNK_BYTES // max(1, self.row_bytes))
        return max(1, min(self.chunk_rows or by_size, max(1, self.shape[0])))


def parse_output(spec: str, default: str = "W") -> Output:
    """Split ``STORE[/DATASET]``; `default` names the dataset where none is written.

    Raises
    ------
    UsageError
        If no writer goes by the suffix.
    """
    if "://" in spec:
        raise UsageError("outputs are not written to URLs", where=spec, hint="write it here, then upload it")
    parts = Path(spec).parts
    for i in range(len(parts)):
        path = Path(*parts[: i + 1])
        suffix = path.suffix.lower()
        if suffix in WRITERS and not _mere_folder(path, suffix):
            return _output(spec, path, suffix, "/".join(parts[i + 1 :]), default)
    raise UsageError(f"no output format goes by the name {Path(spec).name!r}", where=spec, hint=_suggest(spec))


def _output(spec: str, path: Path, suffix: str, dataset: str, default: str) -> Output:
    if suffix in _SINGLE:
        if dataset:
            raise UsageError("an NPY file holds one array without a name", where=spec, hint=f"write {path}")
        return Output(path, "", suffix)
    if ".." in dataset.split("/"):
        raise UsageError("'..' has no place in a dataset's name", where=spec, hint=f"write {path}/{default}")
    return Output(path, dataset or default, suffix)


def _mere_folder(path: Path, suffix: str) -> bool:
    """Whether the name with a known suffix is only a folder on the way."""
    if not path.is_dir():
        return False
    return suffix != ".zarr" or not any((path / sign).exists() for sign in _ZARR_SIGNS)


def _suggest(spec: str) -> str:
    suffix = Path(spec).suffix.lower()
    text = f" (as text: transform -o - --output-format {suffix[1:]} > {spec})" if suffix in _TEXT else ""
    close = difflib.get_close_matches(suffix, WRITERS, n=2)
    meant = f"did you mean {' or '.join(str(Path(spec).with_suffix(s)) for s in close)}? " if close else ""
    return f"{meant}outputs end in .npy, .npz, .h5/DATASET or .zarr/DATASET{text}"


def refuse_existing(spec: str, *, overwrite: bool = False) -> None:
    """Refuse an output whose final name is taken, before any work is done.

    Where `spec` names a dataset, `overwrite` replaces a store that holds nothing else: outputs are written as whole
    files, so its other datasets would be lost. A store named alone is replaced as a whole.

    Raises
    ------
    OutputExistsError
    """
    output = parse_output(spec, "")
    if not durable.exists(output.path):
        return
    if not overwrite:
        hint = "give --overwrite to replace it"
        raise OutputExistsError("the output exists already", where=str(output.path), hint=hint)
    if output.dataset:
        _refuse_loss(output)


def _refuse_loss(output: Output) -> None:
    others: list[str] = _function(_CONTENTS[output.suffix])(output.path, output.dataset)
    if others:
        listed = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        hint = f"write to another store, or name {output.path} alone to replace all of it"
        raise OutputExistsError(f"--overwrite would also remove {listed}", where=str(output.path), hint=hint)


def _function(name: str) -> Callable[..., Any]:
    module, attribute = name.split(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return found


def record_folder(path: Path) -> Path:
    """Where jobs that share an output record their ranges."""
    return path.with_name(f"{path.name}.rows")


def forget_ranges(path: Path) -> None:
    """Remove that record, once the output has been replaced as a whole."""
    if durable.exists(record_folder(path)):
        durable.remove_tree(record_folder(path))


def open_writer(
    spec: str,
    shape: tuple[int, int],
    dtype: Any,
    *,
    chunk_rows: int | None = None,
    partial: Path | None = None,
    resume: bool = False,
    dataset: str = "W",
    feature_names: Sequence[str] | None = None,
) -> RowWriter:
    """Begin (or continue) an output of dense rows.

    Parameters
    ----------
    spec : str
        ``STORE[/DATASET]``; the suffix says the format.
    shape : tuple of int
        Rows and columns of the whole.
    dtype : dtype
    chunk_rows : int, optional
        Rows stored together (Zarr); default: about 4 MiB.
    partial : Path, optional
        Name while in progress; default: hidden, beside the final one.
    resume : bool
        Continue `partial` where it is there (``writer.resumed`` tells).
    dataset : str
        Name inside the store where `spec` gives none.
    feature_names : sequence of str, optional
        Kept where the format can (a dataset ``X`` in HDF5 or Zarr).

    Raises
    ------
    UsageError
        Unknown suffix.
    OutputExistsError
        If `partial` exists and `resume` is not given, or a file cannot be created.
    CheckpointMismatchError
        If `resume` finds another array there.
    """
    output = parse_output(spec, dataset)
    opener: Callable[[Output, Making], RowWriter] = _function(WRITERS[output.suffix])
    kind = np.dtype(dtype).newbyteorder("=")
    making = Making((int(shape[0]), int(shape[1])), kind, chunk_rows, partial, resume, feature_names)
    return opener(output, making)
