"""Rows of a dense matrix from any two-dimensional `ArraySource`, straight or transposed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from nmfstream.stores.arrays import ArraySource, Box, digest, grouped
from nmfstream.stores.base import Reader
from nmfstream.stores.checks import DenseOrigin, fill
from nmfstream.stores.protocols import ReadPolicy
from nmfstream.types import Array, Matrix, Task


class DenseReader(Reader):
    """A `RowReader` over a dense array.

    Parameters
    ----------
    source : ArraySource
        Of two dimensions: (n_samples, n_features), or the reverse where `transposed`.
    name : str
        As the user wrote it.
    transposed : bool
        Samples are columns of the source. Then its chunks must be narrow enough: see `transpose.rows_of`.
    feature_names : sequence of str, optional
    """

    def __init__(
        self, source: ArraySource, name: str, *, transposed: bool = False, feature_names: Sequence[str] | None = None
    ) -> None:
        self.source, self.name, self.transposed = source, name, transposed
        turn = -1 if transposed else 1
        rows, columns = source.shape[::turn]
        self.shape = (rows, columns)
        self.dtype = source.dtype
        self.chunk_rows = max(1, min(source.chunks[::turn][0], max(1, rows)))
        self.stored_bytes = source.stored_bytes
        self.task_bytes = source.piece_bytes
        self.feature_names = feature_names

    @property
    def direct_bytes(self) -> int:
        """See `RowReader`."""
        return self.task_bytes if self.transposed else self.source.direct_bytes

    def sources(self) -> dict[str, ArraySource]:
        """See `Reader`."""
        return {"X": self.source}

    def check(self) -> None:
        """See `RowReader`."""
        self.source.check()

    def fingerprint(self) -> str:
        """See `RowReader`."""
        return digest(f"dense {self.shape} {self.dtype.str}", self.source.evidence())

    def tasks(self, start: int, stop: int, out: Matrix, policy: ReadPolicy) -> list[Task]:
        """See `RowReader`."""
        assert not isinstance(out, tuple)
        turn = -1 if self.transposed else 1
        low, high = (start, 0)[::turn], (stop, self.shape[1])[::turn]
        groups = grouped(self.source.boxes(low, high), self.dtype.itemsize)
        return [partial(self._fill_group, boxes, start, out, policy) for boxes in groups]

    def _fill_group(self, boxes: Sequence[Box], start: int, out: Array, policy: ReadPolicy) -> None:
        for box in boxes:
            self._fill(box, start, out, policy)

    def _fill(self, box: Box, start: int, out: Array, policy: ReadPolicy) -> None:
        rows, columns = (slice(a, b) for a, b in list(zip(box.low, box.high))[:: -1 if self.transposed else 1])
        target = out[rows.start - start : rows.stop - start, columns]
        direct = target.dtype == self.dtype and not self.transposed and target.flags.c_contiguous
        block = self.source.load(box, target if direct else None)
        origin = DenseOrigin(self.name, rows.start, columns.start, self.source.label(box))
        fill(target, block.T if self.transposed else block, policy, origin)

    def close(self) -> None:
        """See `RowReader`."""
        self.source.close()
