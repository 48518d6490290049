"""Zarr stores behind URLs, through fsspec."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from nmfstream.errors import RemoteError
from nmfstream.stores.zarr_files import Bytes, Entry, span

ATTEMPTS = 4
"""Times a remote request is made before the remote counts as gone."""


class RemoteFiles:
    """A store behind a URL. Only the remote's clear "not found" is an absence; any other failure is tried again.

    Parameters
    ----------
    url : str
    pause : callable
        Waits some seconds (tests replace it).
    """

    def __init__(self, url: str, pause: Callable[[float], None] | None = None) -> None:
        self.name = self._url = url.rstrip("/")
        self._pause = pause or time.sleep
        self._connect()
        self.listable = not url.startswith(("http://", "https://"))

    def _connect(self) -> None:
        try:
            import fsspec
        except ImportError as error:
            raise RemoteError("URLs need fsspec", where=self._url, hint="pip install 'nmfstream[remote]'") from error
        try:
            self._fs, self._root = fsspec.core.url_to_fs(self._url)
        except (ImportError, ValueError) as error:
            hint = "install what it names, or copy the store to this machine"
            raise RemoteError(f"this kind of URL cannot be read: {error}", where=self._url, hint=hint) from error

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self._url}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["url"])  # type: ignore[misc]

    def get(self, key: str) -> bytes | None:
        """All bytes of a small document."""
        data = self._asked(key, lambda: self._fs.cat_file(self._path(key)))
        return None if data is None else bytes(data)

    def read(self, key: str, offset: int = 0, size: int | None = None) -> Bytes | None:
        """Bytes as the remote gives them."""
        end = None if size is None else (offset + size if offset >= 0 or offset + size < 0 else None)
        data = self._asked(key, lambda: self._fs.cat_file(self._path(key), start=offset or None, end=end))
        if data is None:
            return None
        if size is not None and len(data) > size:  # the server knows no ranges and has sent the whole
            start, count = span(len(data), offset, size)
            data = data[start : start + count]
        return np.frombuffer(data, np.uint8)

    def size(self, key: str) -> int | None:
        """Bytes under a key."""
        size = self._asked(key, lambda: self._fs.size(self._path(key)))
        return None if size is None else int(size)

    def entries(self, prefix: str) -> list[Entry]:
        """Names one level below a prefix."""
        if not self.listable:
            return []
        found = self._asked(prefix, lambda: self._fs.ls(self._path(prefix), detail=True)) or []
        return [Entry(f["name"].rstrip("/").rsplit("/", 1)[-1], f["type"] == "directory") for f in found]

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}" if key else self._root

    def _asked(self, key: str, request: Callable[[], Any]) -> Any:
        for attempt in range(ATTEMPTS):
            try:
                return request()
            except FileNotFoundError:
                return None
            except Exception as error:  # whatever a remote's library raises
                last = error
            if attempt + 1 < ATTEMPTS:
                self._pause(0.25 * 4**attempt)
        what = f"the remote failed {ATTEMPTS} times ({type(last).__name__}: {last})"
        raise RemoteError(what, where=f"{self._url}/{key}", hint="run the same command again later") from last

    def close(self) -> None:
        """Nothing is held open."""
