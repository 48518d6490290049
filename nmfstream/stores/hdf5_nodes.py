"""Finding things inside an HDF5 file: paths walked link by link, matrices listed, each dataset made a source."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from nmfstream.errors import DataError
from nmfstream.stores.arrays import ArraySource, Layout, real
from nmfstream.stores.files import PreadFile
from nmfstream.stores.filters import Filter, Pipeline
from nmfstream.stores.flat import FlatSource
from nmfstream.stores.hdf5_chunks import ChunkedSource, LibrarySource
from nmfstream.stores.hdf5_file import HDF5File
from nmfstream.stores.hdf5_virtual import VirtualSource, refuse_outside
from nmfstream.stores.naming import Candidate, absent
from nmfstream.stores.protocols import Opening

LINK_DEPTH = 16
"""Soft links followed one after the other."""

WALKED = 100_000
"""Objects looked at in a search for candidates."""

LZF_LEAST = 4 << 20
"""Stored bytes from which compiling the LZF decoder pays."""

_PACKAGES = "pip install hdf5plugin"
_EXTERNAL = "--allow-external follows it, if you trust the file"


@dataclass(frozen=True)
class Located:
    """Where the matrix is and how it lies.

    Attributes
    ----------
    path : str
        Of the dataset or group.
    samples_in_columns : bool
        Stored features × samples.
    feature_names : sequence of str or None
    shape : tuple of int or None
        Of a sparse group that does not say it itself.
    kind : str or None
        csr or csc, where the convention knows better than the group.
    parts : tuple of str
        Names of data, indices and indptr in a sparse group.
    without_entries : bool
        The sparse group holds only its indptr.
    """

    path: str
    samples_in_columns: bool = False
    feature_names: Sequence[str] | None = None
    shape: tuple[int, int] | None = None
    kind: str | None = None
    parts: tuple[str, str, str] = ("data", "indices", "indptr")
    without_entries: bool = False


def node_at(file: HDF5File, path: str, opening: Opening) -> Any:
    """The object at a path; no link leads out of the file unless that is allowed.

    Raises
    ------
    InputAbsentError
        With the nearest name.
    DataError
        External link, dangling link, or an object that cannot be opened.
    """
    return _walk(file, file.h5, [part for part in path.split("/") if part], opening, path, 0)


def _walk(file: HDF5File, node: Any, parts: list[str], opening: Opening, path: str, depth: int) -> Any:
    for i, part in enumerate(parts):
        link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
        if link is None:
            raise absent(path, _known(file, path), str(file.path))
        if isinstance(link, h5py.SoftLink):
            return _follow(file, node, link.path, parts[i + 1 :], opening, path, depth)
        if isinstance(link, h5py.ExternalLink) and not opening.allow_external:
            where = f"{file.path}/{path}"
            raise DataError(f"'{part}' is a link to another file ({link.filename})", where=where, hint=_EXTERNAL)
        node = _open(file, node, part, path)
    return node


def _follow(file: HDF5File, node: Any, target: str, rest: list[str], opening: Opening, path: str, depth: int) -> Any:
    if depth >= LINK_DEPTH:
        raise DataError("soft links lead in a circle", where=f"{file.path}/{path}", hint="write the file again")
    start = file.h5 if target.startswith("/") else node
    parts = [part for part in target.split("/") if part and part != "."]
    return _walk(file, start, [*parts, *rest], opening, path, depth + 1)


def _open(file: HDF5File, group: Any, part: str, path: str) -> Any:
    try:
        return group[part]
    except (KeyError, OSError, RuntimeError, ValueError) as error:
        hint = "restore the file from its source, or write it again"
        raise DataError(f"'{part}' cannot be opened ({error})", where=f"{file.path}/{path}", hint=hint) from error


def _known(file: HDF5File, path: str) -> list[str]:
    found = [name for name, _ in _objects(file.h5)]
    near = path.split("/")[0]
    return [name for name in found if name.startswith(near)] or found


def _objects(top: Any) -> Iterator[tuple[str, Any]]:
    """Names and objects below a group, over hard links alone; each object once, unreadable ones left out."""
    seen: set[Any] = set()
    pending = [("", top)]
    while pending and len(seen) < WALKED:
        prefix, group = pending.pop()
        for name in sorted(group):
            node = _readable(group, name)
            if node is None or node.id.__hash__() in seen:
                continue
            seen.add(node.id.__hash__())
            full = f"{prefix}/{name}" if prefix else name
            yield full, node
            if isinstance(node, h5py.Group):
                pending.append((full, node))


def _readable(group: Any, name: str) -> Any:
    try:
        return group[name] if isinstance(group.get(name, getlink=True), h5py.HardLink) else None
    except (KeyError, OSError, RuntimeError, ValueError):
        return None


def sparse_format(node: Any) -> str | None:
    """``"csr"`` or ``"csc"`` where a group is a compressed sparse matrix; None where it is not.

    AnnData writes ``encoding-type`` (``h5sparse_format`` before 0.7); a bare group of data, indices and indptr is CSR.
    """
    if not isinstance(node, h5py.Group) or not {"data", "indices", "indptr"} <= set(node):
        return None
    attributes = node.attrs
    encoding = text(attributes.get("encoding-type", attributes.get("h5sparse_format", attributes.get("format", "csr"))))
    return {"csc_matrix": "csc", "csc": "csc"}.get(encoding, "csr")


def text(value: Any) -> str:
    """An attribute as text, whatever kind of string it was stored as."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def values_of(dataset: Any) -> Any:
    """All values of a short dataset, whose filters may be plugins that are loaded first.

    Raises
    ------
    DataError
    """
    for f in _filters(dataset):
        _require_filter(f, f"{dataset.file.filename}{dataset.name}")
    return dataset[...]


def matrices(file: HDF5File, top: str = "") -> list[Candidate]:
    """Two-dimensional real datasets and sparse groups in a file, over its hard links."""
    found: list[Candidate] = []
    parts: list[str] = []
    for path, node in sorted(_objects(file.h5), key=lambda item: item[0]):
        if (top and not path.startswith(f"{top}/")) or any(path.startswith(f"{part}/") for part in parts):
            continue
        one = _candidate(path, node)
        if one is not None:
            found.append(one)
            parts += [path] if isinstance(node, h5py.Group) else []
    return found


def _candidate(path: str, node: Any) -> Candidate | None:
    kind = sparse_format(node)
    if "MATLAB_sparse" in node.attrs:
        dtype = str(node["data"].dtype) if "data" in node else "float64"
        return Candidate(path, (max(0, node["jc"].shape[0] - 1), int(node.attrs["MATLAB_sparse"])), dtype, "csr")
    if kind:
        return Candidate(path, sparse_shape(node) or node["indptr"].shape, str(node["data"].dtype), kind)
    try:
        usable = isinstance(node, h5py.Dataset) and len(node.shape or ()) == 2 and node.dtype.kind in "biuf"
        usable = usable and text(node.attrs.get("MATLAB_class", "")) != "char"
        return Candidate(path, node.shape, str(node.dtype)) if usable else None
    except (TypeError, ValueError):
        return None


def sparse_shape(group: Any) -> tuple[int, int] | None:
    """Shape of a sparse group, from its attributes or its ``shape`` dataset; None where neither is there.

    Raises
    ------
    DataError
    """
    stored = group.attrs.get("shape", group.attrs.get("h5sparse_shape"))
    if stored is None and isinstance(group.get("shape"), h5py.Dataset):
        stored = values_of(group["shape"])
    if stored is None:
        return None
    numbers = np.asarray(stored).reshape(-1)
    if len(numbers) != 2 or numbers.dtype.kind not in "iuf" or min(numbers) < 0:
        raise DataError(
            f"impossible shape {stored}", where=f"{group.file.filename}{group.name}", hint="write the store again"
        )
    return int(numbers[0]), int(numbers[1])


def source_of(file: HDF5File, dataset: Any, name: str, opening: Opening) -> ArraySource:
    """The array source that serves a dataset: direct where its layout and filters are known, else the library.

    Raises
    ------
    DataError
        No real numbers, raw data outside the file, or a filter that nothing here decodes.
    """
    _check_type(dataset, name)
    plan = dataset.id.get_create_plist()
    if dataset.external and not opening.allow_external:
        files = ", ".join(sorted({entry[0] for entry in dataset.external}))
        raise DataError(f"its raw data lie in another file ({files})", where=name, hint=_EXTERNAL)
    fill = opening.missing_chunks == "fill"
    layout = plan.get_layout()
    if dataset.is_virtual:
        if not opening.allow_external:
            refuse_outside(file, dataset, name)
        return VirtualSource(file, dataset, name, fill, Layout("virtual"))
    if layout == h5py.h5d.CONTIGUOUS and not dataset.external:
        return _contiguous(file, dataset, name) or LibrarySource(file, dataset, name, fill, Layout("contiguous"))
    if layout == h5py.h5d.CHUNKED:
        return _chunked(file, dataset, name, fill)
    return LibrarySource(file, dataset, name, fill, Layout("external" if dataset.external else "compact"))


def _check_type(dataset: Any, name: str) -> None:
    try:
        real(dataset.dtype, name)
    except (TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"its number type is unknown ({error})", where=name, hint="store float32 or float64") from error


def _plain(dataset: Any) -> bool:
    """Whether values lie in the file just as numpy holds them (no odd precision or padding)."""
    return bool(dataset.id.get_type().equal(h5py.h5t.py_create(dataset.dtype)))


class _Contiguous(FlatSource):
    """A contiguous dataset: closes the HDF5 file with its own."""

    def __init__(self, file: HDF5File, offset: int, dataset: Any, name: str) -> None:
        super().__init__(PreadFile(file.path), offset, dataset.shape, dataset.dtype, name)
        self._hdf5 = file

    def close(self) -> None:
        """See `ArraySource`."""
        super().close()
        self._hdf5.close()


def _contiguous(file: HDF5File, dataset: Any, name: str) -> ArraySource | None:
    offset = dataset.id.get_offset()
    _check_extent(dataset, name)
    if offset is None or len(dataset.shape) not in (1, 2) or not _plain(dataset) or not math.prod(dataset.shape):
        return None
    first = np.asarray(dataset[tuple(slice(1) for _ in dataset.shape)], dataset.dtype).tobytes()
    return _Contiguous(file, offset, dataset, name) if file.raw.read(len(first), offset) == first else None


def _check_extent(dataset: Any, name: str) -> None:
    """The room that the file gives a contiguous dataset is what its shape and type need."""
    room, needed = dataset.id.get_storage_size(), math.prod(dataset.shape) * dataset.id.get_type().get_size()
    if room not in (0, needed):
        what = f"{room} bytes are stored, {needed} expected for shape {dataset.shape}"
        raise DataError(what, where=name, hint="the file is damaged: restore or write it again")


def _chunked(file: HDF5File, dataset: Any, name: str, fill: bool) -> ArraySource:
    filters = _filters(dataset)
    pipeline = Pipeline(filters, math.prod(dataset.chunks) * dataset.dtype.itemsize)
    small = any(f.number == 32000 for f in filters) and dataset.id.get_storage_size() < LZF_LEAST
    if pipeline.known and _plain(dataset) and not small:
        pipeline.announce()
        return ChunkedSource(file, dataset, name, fill, pipeline)
    for f in filters:
        _require_filter(f, name)
    return LibrarySource(
        file, dataset, name, fill, Layout("chunked", tuple(f.name for f in filters), pipeline.checksums)
    )


def _filters(dataset: Any) -> list[Filter]:
    plan = dataset.id.get_create_plist()
    entries = map(plan.get_filter, range(plan.get_nfilters()))
    return [Filter(code, tuple(values)) for code, _, values, _ in entries]


def _require_filter(f: Filter, name: str) -> None:
    if h5py.h5z.filter_avail(f.number):
        return
    if importlib.util.find_spec("hdf5plugin"):
        importlib.import_module("hdf5plugin")
    if not h5py.h5z.filter_avail(f.number):
        known = not f.name.startswith("filter ")
        hint = f"{_PACKAGES} brings it" if known else f"install its plugin ({_PACKAGES} has the common ones)"
        number = "" if not known else f" (filter {f.number})"
        raise DataError(f"compressed with {f.name}{number}, which is not installed", where=name, hint=hint)
