"""Scratch files: what is rearranged or inflated outside memory and can be made again at any time."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from nmfstream.errors import NmfstreamError, StorageError
from nmfstream.storage import durable
from nmfstream.stores.files import PreadFile
from nmfstream.units import size_text

log = logging.getLogger("nmfstream")

_HINT = "name a folder with more room: --scratch DIR"


class Spill:
    """A nameless file that is gone with the process, however it ends.

    Parameters
    ----------
    folder : Path or None
        None: the system's folder for temporary files.
    size : int
        Bytes it will hold at most; announced.
    what : str
        For whom, and why: the announcement's text.

    Raises
    ------
    StorageError
        Not enough room.
    """

    def __init__(self, folder: Path | None, size: int, what: str) -> None:
        place = Path(folder or tempfile.gettempdir())
        self.name = str(place)
        _require_room(place, size, what)
        log.info("%s: %s of scratch in %s", what, size_text(size), place)
        path = place / f".nmfstream-{os.getpid()}-{os.urandom(6).hex()}.scratch"
        self._out = durable.create(path)
        try:
            self.file = PreadFile(path)
        finally:
            durable.remove(path)
        self._end = 0

    def write(self, data: Any, offset: int) -> None:
        """Put bytes at `offset`.

        Raises
        ------
        StorageError
        """
        try:
            self._out.pwrite(data, offset)
        except NmfstreamError as error:
            raise StorageError(error.what, where=self.name, hint=_HINT) from error
        self._end = max(self._end, offset + memoryview(data).nbytes)
        self.file.size = self._end

    def append(self, data: Any) -> int:
        """Put bytes at the end: where they begin."""
        at = self._end
        self.write(data, at)
        return at

    def close(self) -> None:
        """Give the room back; idempotent."""
        self.file.close()
        self._out.close()


def _require_room(place: Path, size: int, what: str) -> None:
    try:
        free = shutil.disk_usage(place).free
    except OSError as error:
        raise StorageError(f"no scratch folder ({error.strerror})", where=str(place), hint=_HINT) from error
    if free < size:
        raise StorageError(f"{what}: needs {size} bytes of scratch, {free} are free", where=str(place), hint=_HINT)
