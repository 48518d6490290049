"""A first look at an HDF5 file from a process of its own: a crafted file that crashes the library costs only that.

The process is a bare interpreter that loads the HDF5 library and nothing else, so that a look takes some hundredths
of a second. What it finds readable or not is of no interest here: only whether it lives.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

import h5py

from nmfstream.errors import DataError

TIMEOUT = 30.0
"""Seconds after which a file that keeps the library busy is given up."""

_CHILD = Path(__file__).with_name("probe_child.py")
_seen: set[tuple[int, int, int, int]] = set()


def probe(path: Path) -> None:
    """Have another process open the file and walk over its objects.

    Raises
    ------
    DataError
        That process crashed, or did not come to an end.
    """
    library = _library()
    status = path.stat()
    key = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
    if library is None or key in _seen:
        return
    command = [sys.executable, "-I", "-S", str(_CHILD), library, str(path)]
    environment = {"HDF5_USE_FILE_LOCKING": "FALSE", "HDF5_PLUGIN_PRELOAD": "::"}
    try:
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired as error:
        raise _bad(path, f"keeps the HDF5 library busy for more than {TIMEOUT:.0f} s") from error
    except OSError:
        return
    if done.returncode < 0:
        raise _bad(path, f"crashes the HDF5 library ({_signal_name(-done.returncode)})")
    _seen.add(key)


def _bad(path: Path, what: str) -> DataError:
    return DataError(what, where=str(path), hint="the file is damaged or hostile: get it again from its source")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@cache
def _library() -> str | None:
    """The HDF5 library that h5py uses; None where it cannot be told."""
    bundled = sorted((Path(h5py.__file__).parents[1] / "h5py.libs").glob("libhdf5-*.so*"))
    if bundled:
        return str(bundled[0])
    try:
        mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libhdf5" in line}
    except OSError:
        return None
    return next((name for name in sorted(mapped) if "_hl" not in name), None)
