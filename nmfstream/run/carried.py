"""W on disk between the passes of ``mu``: a file a generation, never overwritten while a checkpoint needs it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nmfstream.storage import durable
from nmfstream.types import Array

Initial = Callable[[int, int], "Array | None"]


def no_initial(start: int, stop: int) -> Array | None:
    """The first pass makes its own W."""
    return None


class DiskW:
    """`CarriedW` in raw files ``PREFIX.W.<generation>`` of shape (n_samples, n_components), row after row.

    Pass e reads generation e-1 and writes e, so that every block can be written again with the same bytes.

    Parameters
    ----------
    prefix : Path
        The checkpoint's name, of which the files are companions.
    n_samples, n_components : int
    dtype : dtype
    initial : callable
        Rows of the custom W for the first pass.
    """

    def __init__(
        self, prefix: Path, n_samples: int, n_components: int, dtype: Any, initial: Initial = no_initial
    ) -> None:
        self._prefix, self._shape, self._dtype = prefix, (n_samples, n_components), np.dtype(dtype)
        self._initial = initial
        self._claimed: deque[set[int]] = deque(maxlen=2)
        self._before: durable.DurableFile | None = None
        self._now: durable.DurableFile | None = None
        self._generation = 0

    def path(self, generation: int) -> Path:
        """File of a generation."""
        return self._prefix.with_name(f"{self._prefix.name}.W.{generation}")

    def begin(self, generation: int, row: int) -> None:
        """See `CarriedW.begin`."""
        self.close()
        if row == 0:
            durable.make_folder(self._prefix.parent)
            self._remove(self.path(generation))
        self._now = (durable.create if row == 0 else durable.reopen)(self.path(generation))
        if row == 0:
            durable.sync_folder(self._prefix.parent)
        self._before = durable.reopen(self.path(generation - 1)) if generation > 1 else None
        self._generation = generation
        self._retire(generation)

    def read(self, start: int, stop: int) -> Array | None:
        """See `CarriedW.read`."""
        if self._before is None:
            return self._initial(start, stop)
        width = self._shape[1] * self._dtype.itemsize
        raw = self._before.pread((stop - start) * width, start * width)
        return np.frombuffer(bytearray(raw), self._dtype).reshape(-1, self._shape[1])

    def write(self, start: int, W: Array) -> None:
        """See `CarriedW.write`."""
        assert self._now is not None
        rows = np.ascontiguousarray(W, self._dtype)
        self._now.pwrite(rows.data.cast("B"), start * self._shape[1] * self._dtype.itemsize)

    def flush(self) -> None:
        """All rows written so far survive a power cut; called before a checkpoint claims them."""
        if self._now is not None:
            self._now.sync()

    def claim(self) -> None:
        """A checkpoint was saved that needs this generation and the one before."""
        self._claimed.append({self._generation - 1, self._generation})

    def last(self, generation: int) -> Callable[[int, int], Array]:
        """Reads rows of a finished generation."""
        self.close()
        self._before = durable.reopen(self.path(generation))

        def rows(start: int, stop: int) -> Array:
            W = self.read(start, stop)
            assert W is not None
            return W

        return rows

    def close(self) -> None:
        """Close the files; they stay."""
        for file in (self._now, self._before):
            if file is not None:
                file.close()
        self._now = self._before = None

    def _retire(self, generation: int) -> None:
        """Remove generations that neither this pass nor a kept checkpoint needs."""
        needed = {generation, generation - 1}.union(*self._claimed)
        if len(self._claimed) < 2:
            return
        for path in self._files():
            if int(path.suffix[1:]) not in needed:
                self._remove(path)

    def _files(self) -> list[Path]:
        found = self._prefix.parent.glob(f"{self._prefix.name}.W.*")
        return [path for path in found if path.suffix[1:].isdigit()]

    @staticmethod
    def _remove(path: Path) -> None:
        if path.exists():
            durable.remove(path)

    def discard(self, keep: int | None = None) -> None:
        """Remove every generation but `keep`."""
        self.close()
        for path in self._files():
            if path.suffix[1:] != str(keep):
                self._remove(path)
