"""W on disk between the passes of ``mu``: a file a generation, never overwritten while a checkpoint needs it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nmfstream.errors import CheckpointMismatchError, InputAbsentError
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
        self._held: deque[int] = deque(maxlen=2)
        self._before: durable.DurableFile | None = None
        self._now: durable.DurableFile | None = None
        self._generation = 0

    def path(self, generation: int) -> Path:
        """File of a generation."""
        return self._prefix.with_name(f"{self._prefix.name}.W.{generation}")

    def begin(self, generation: int, row: int) -> None:
        """See `CarriedW.begin`.

        Raises
        ------
        CheckpointMismatchError
            If rows that a checkpoint claims are gone.
        """
        self.close()
        if self._generation == 0 and (generation > 1 or row > 0):
            self._held.extend([min(map(self._number, self._files()), default=generation)] * 2)
        self._before = self._claimed(generation - 1) if generation > 1 else None
        self._now = self._claimed(generation) if row > 0 else self._begun(generation)
        self._generation = generation
        self._retire()

    def _begun(self, generation: int) -> durable.DurableFile:
        """The file of a pass that begins. One that is there is kept: a run that lost its output may write to it yet,
        and would write the same rows."""
        path = self.path(generation)
        durable.make_folder(self._prefix.parent)
        try:
            file = durable.create(path)
        except FileExistsError:
            file = self._claimed(generation)
        durable.sync_folder(self._prefix.parent)
        return file

    def _claimed(self, generation: int) -> durable.DurableFile:
        path = self.path(generation)
        try:
            return durable.reopen(path)
        except InputAbsentError as error:
            raise CheckpointMismatchError(
                "rows of W that the checkpoint goes on from are gone",
                where=str(path),
                hint="bring the file back, or begin anew with --overwrite",
            ) from error

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
        self._held.append(self._generation - 1)

    def last(self, generation: int) -> Callable[[int, int], Array]:
        """Reads rows of a finished generation."""
        self.close()
        self._before = self._claimed(generation)

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

    def _retire(self) -> None:
        """Remove generations older than any that this pass or a kept checkpoint needs, and never a newer one."""
        lowest = min([self._generation - 1, *self._held])
        for path in self._files():
            if self._number(path) < lowest:
                self._remove(path)

    @staticmethod
    def _number(path: Path) -> int:
        return int(path.suffix[1:])

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
