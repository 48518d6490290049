"""From a name as the user writes it, ``STORE[/DATASET]``, to a reader. A format is one line of `FORMATS`."""

from __future__ import annotations

import difflib
import re
import resource
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nmfstream.errors import DataError, InputAbsentError, NmfstreamError, UsageError
from nmfstream.stores.base import Reader, reopen, resolve
from nmfstream.stores.concat import ConcatReader
from nmfstream.stores.files import LOCAL, translate
from nmfstream.stores.naming import Candidate
from nmfstream.stores.outputs import open_writer as open_writer
from nmfstream.stores.protocols import Opening, RowReader
from nmfstream.stores.shard_record import refuse_unfinished


@dataclass(frozen=True)
class Format:
    """A kind of store.

    Attributes
    ----------
    name : str
        For messages.
    suffixes : tuple of str
        Ends of names, lower case.
    signatures : tuple of (int, bytes)
        Offset and bytes that tell it where the suffix does not.
    module : str
        Has ``open_dataset(store, inner, opening) -> Reader`` and ``candidates(store, opening) -> list[Candidate]``.
    """

    name: str
    suffixes: tuple[str, ...]
    signatures: tuple[tuple[int, bytes], ...]
    module: str


HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_ZIP = b"PK\x03\x04"
_HDF5_OFFSETS = (0, 512, 1024, 2048, 4096, 8192)

FORMATS = (
    Format("NPY", (".npy",), ((0, b"\x93NUMPY"),), "nmfstream.stores.npy"),
    Format("Zarr", (".zarr", ".zarr.zip"), (), "nmfstream.stores.zarr"),
    Format("NPZ", (".npz",), ((0, _ZIP), (0, b"PK\x05\x06")), "nmfstream.stores.npz"),
    Format(
        "HDF5",
        (".h5", ".hdf5", ".hdf", ".he5", ".h5ad", ".h5mu", ".loom", ".mat", ".nc", ".hspy"),
        (*((at, HDF5_SIGNATURE) for at in _HDF5_OFFSETS), (0, b"MATLAB 5.0")),
        "nmfstream.stores.hdf5",
    ),
)

_TEXT = (".csv", ".tsv")
_ZARR_SIGNS = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://|[a-z0-9]+::", re.IGNORECASE)


def open_reader(spec: str, opening: Opening) -> RowReader:
    """Open one ``STORE[/DATASET]``; only metadata are read.

    Parameters
    ----------
    spec : str
    opening : Opening

    Returns
    -------
    RowReader

    Raises
    ------
    UsageError
        Several candidates and none named, or a suffix of no known format.
    DataError
        No matrix there, a damaged store, or an output whose jobs have not all finished.
    InputAbsentError
        No such store or dataset.
    AccessDeniedError
    """
    refuse_unfinished(split(spec)[0])
    return open_metadata(spec, opening)


def open_metadata(spec: str, opening: Opening) -> RowReader:
    """As `open_reader`, for looking at a store whose rows may still be on their way."""
    store, inner = split(spec)
    reader: Reader = reopen(f"{_readable(store).module}:open_dataset", (store, inner, opening))
    return reader


def _readable(store: str) -> Format:
    """The format of a store that is where it can be read from: only Zarr is behind a URL."""
    form = format_of(store)
    if _URL.match(store) and form.name != "Zarr":
        hint = "download it first, or use a Zarr store"
        raise UsageError(f"{form.name} is not read from a URL", where=store, hint=hint)
    return form


def open_inputs(specs: Sequence[str], opening: Opening) -> RowReader:
    """Open several inputs as one: rows one after the other in the order given.

    Raises
    ------
    DataError
        Different numbers or names of features; else as `open_reader`.
    """
    if not specs:
        raise UsageError("no input", hint="name at least one STORE[/DATASET]")
    _allow_open_files(len(specs))
    readers: list[RowReader] = []
    try:
        readers.extend(open_reader(spec, opening) for spec in specs)
        return readers[0] if len(readers) == 1 else ConcatReader(readers)
    except BaseException:
        for reader in readers:
            reader.close()
        raise


def _allow_open_files(inputs: int) -> None:
    """Every input holds two descriptors: ask the system for as many as it gives."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * inputs + 256
    if soft < wanted:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
        )


def candidates(spec: str, opening: Opening) -> list[Candidate]:
    """All matrices in a store (or below a group of it), from metadata."""
    store, inner = split(spec)
    found: list[Candidate] = resolve(f"{_readable(store).module}:candidates")(store, opening)
    return [one for one in found if not inner or one.path == inner or one.path.startswith(f"{inner}/")]


def split(spec: str) -> tuple[str, str]:
    """The store and the path inside it, without slashes at its ends.

    The store is the outermost file or Zarr folder on the path, so names inside may look like anything.

    Raises
    ------
    InputAbsentError, AccessDeniedError, DataError, UsageError
    """
    if spec == "-":
        raise UsageError("standard input is a stream, not a store", where="-", hint="name a file here")
    spec = spec.removeprefix(LOCAL)
    if _URL.match(spec):
        return _split_url(spec)
    path = Path(spec)
    for part in (*reversed(path.parents), path):
        if _is_store(part):
            return str(part), _inside(str(path)[len(str(part)) :], spec)
    raise _no_store(path, spec)


def _is_store(path: Path) -> bool:
    try:
        if path.is_dir():
            return path.suffix.lower() == ".zarr" or any((path / sign).exists() for sign in _ZARR_SIGNS)
        return path.is_file()
    except OSError as error:
        raise translate(error, path) from error


def _inside(rest: str, spec: str) -> str:
    parts = [part for part in rest.split("/") if part]
    if ".." in parts:
        raise UsageError("'..' inside a store", where=spec, hint="name the dataset by its full path in the store")
    return "/".join(parts)


def _split_url(spec: str) -> tuple[str, str]:
    suffixes = [suffix for form in FORMATS for suffix in form.suffixes]
    parts = spec.split("/")
    for i, part in enumerate(parts):
        if i and any(part.lower().endswith(suffix) for suffix in suffixes):
            return "/".join(parts[: i + 1]), _inside("/".join(parts[i + 1 :]), spec)
    return spec.rstrip("/"), ""


def _no_store(path: Path, spec: str) -> NmfstreamError:
    if path.is_dir():
        return DataError("a folder that is no Zarr store", where=spec, hint="name a file or a .zarr folder")
    if path.exists():
        return UsageError("not a regular file", where=spec, hint="pipe it in and name - as the input")
    missing = next(part for part in (*reversed(path.parents), path) if not part.exists())
    beside = [entry.name for entry in missing.parent.iterdir()] if missing.parent.is_dir() else []
    close = difflib.get_close_matches(missing.name, beside, 1)
    hint = f"did you mean {missing.parent / close[0]}?" if close else "check the path"
    return InputAbsentError("no such file", where=str(missing), hint=hint)


def format_of(store: str) -> Format:
    """The format of an existing store, by its suffix, else by its first bytes.

    Raises
    ------
    UsageError
        Neither is known.
    """
    low = store.lower()
    for form in FORMATS:
        if low.endswith(form.suffixes):
            return form
    if _URL.match(store) or Path(store).is_dir():
        return _named("Zarr")
    return _by_signature(store)


def _holds_zarr(store: str) -> bool:
    """Whether a zip is a Zarr store, by the names of its members."""
    try:
        with zipfile.ZipFile(store) as archive:
            return any(name.rpartition("/")[2] in _ZARR_SIGNS for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


def _named(name: str) -> Format:
    return next(form for form in FORMATS if form.name == name)


def _by_signature(store: str) -> Format:
    try:
        with Path(store).open("rb") as file:
            start = file.read(_HDF5_OFFSETS[-1] + 8)
    except OSError as error:
        raise translate(error, store) from error
    if start.startswith(_ZIP) and _holds_zarr(store):
        return _named("Zarr")
    for form in FORMATS:
        if any(start[at : at + len(magic)] == magic for at, magic in form.signatures):
            return form
    if (suffix := Path(store).suffix.lower()) in _TEXT:
        hint = f"text is read from a pipe: nmfstream ... - --input-format {suffix[1:]} < {store}"
        raise UsageError("text is no store", where=store, hint=hint)
    suffixes = [suffix for form in FORMATS for suffix in form.suffixes]
    close = difflib.get_close_matches(Path(store).suffix.lower(), suffixes, 1)
    hint = f"did you mean a {close[0]} file?" if close else f"known are {', '.join(suffixes)}"
    raise UsageError("no known format, by its suffix or its first bytes", where=store, hint=hint)
