"""Opening an HDF5 file, and saying what is wrong with one that does not open."""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from nmfstream.errors import DataError, NmfstreamError, StorageError
from nmfstream.stores.files import PreadFile, translate
from nmfstream.stores.probe import probe

log = logging.getLogger("nmfstream")

_LOCK_REFUSED = (errno.EAGAIN, errno.EACCES, 524)
_MATLAB = b"MATLAB 5.0"
_NETCDF = b"CDF"


class HDF5File:
    """One file, open twice: by the library for its structure, by us for positioned reads of chunks.

    Attributes
    ----------
    path : Path
    raw : PreadFile
    h5 : h5py.File
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.raw = PreadFile(path)
        try:
            probe(path)
            self.h5: Any = _open(path, self.raw)
        except BaseException:
            self.raw.close()
            raise

    def close(self) -> None:
        """Release both; idempotent."""
        self.h5.close()
        self.raw.close()


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Whatever the HDF5 library says about a damaged file becomes a `DataError`."""
    try:
        yield
    except NmfstreamError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError) as error:
        what = f"the HDF5 library cannot make sense of it ({error})"
        raise DataError(what, where=where, hint="the file is damaged: restore or write it again") from error


def _open(path: Path, raw: PreadFile) -> Any:
    start = raw.read(len(_MATLAB), 0)
    if start == _MATLAB and not h5py.is_hdf5(path):
        raise DataError(
            "a MATLAB file older than v7.3, not HDF5", where=str(path), hint="save it with '-v7.3' in MATLAB"
        )
    try:
        return h5py.File(path, "r")
    except OSError as error:
        if _number(error) in _LOCK_REFUSED and "lock" in str(error):
            return _open_unlocked(path, error)
        raise _explain(error, path, raw) from error


def _open_unlocked(path: Path, refused: OSError) -> Any:
    """Read-only without a lock: some network file systems refuse every one, and readers need none."""
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise StorageError(
            f"the file system refuses to lock it ({refused})",
            where=str(path),
            hint="close it in the program that writes it, or set HDF5_USE_FILE_LOCKING=FALSE",
        ) from error
    log.warning("%s: the file system refuses to lock it; read without a lock", path)
    return file


def _number(error: OSError) -> int:
    found = re.search(r"errno = (\d+)", str(error))
    return error.errno or (int(found[1]) if found else 0)


def _explain(error: OSError, path: Path, raw: PreadFile) -> NmfstreamError:
    text = str(error)
    if _number(error) in (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EIO):
        return translate(OSError(_number(error), text), path)
    if raw.size == 0:
        return DataError("the file is empty", where=str(path), hint="write it again")
    if "truncated" in text or "eof" in text:
        hint = "its writer was killed or the copy is short: try h5clear --increment, or copy it again"
        return DataError(f"truncated HDF5 file of {raw.size} bytes", where=str(path), hint=hint)
    if "h5clear" in text or "already open for write" in text:
        hint = "its writer is at work or was killed: close it, or run h5clear -s on it"
        return DataError("marked as open for writing", where=str(path), hint=hint)
    if raw.read(3, 0) == _NETCDF:
        hint = "turn it into netCDF-4, which is HDF5: nccopy -k nc4 in.nc out.nc"
        return DataError("a netCDF file of the classic format, not HDF5", where=str(path), hint=hint)
    if "signature not found" in text:
        return DataError("not an HDF5 file", where=str(path), hint="check what wrote it, or its suffix")
    return DataError(f"the HDF5 library cannot open it ({text})", where=str(path), hint="restore or write it again")
