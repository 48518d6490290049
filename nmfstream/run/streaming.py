"""Batches from a stream that can be read once, whose length nobody knows."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import numpy as np

from nmfstream.core.protocols import Batch, Problem
from nmfstream.errors import DataError
from nmfstream.run.opening import model_dtype
from nmfstream.run.sources import join
from nmfstream.stores.chunks import PIPE, Origin, checked
from nmfstream.stores.protocols import ReadPolicy
from nmfstream.stores.stream import StreamArray
from nmfstream.types import CSR, Matrix, Runs, cut


class StreamSource:
    """Rows of all arrays of a stream, one after the other, as a `Source` for one pass.

    Parameters
    ----------
    arrays : iterator of StreamArray
    dtype : str
        auto, float32 or float64.
    negative : str
        ``"error"`` or ``"clip"``.
    positive : bool
        Zeros are refused.
    origin : Origin
        For messages.

    Raises
    ------
    DataError
        If nothing comes.
    """

    def __init__(
        self, arrays: Iterator[StreamArray], dtype: str, negative: str, positive: bool, origin: Origin = PIPE
    ) -> None:
        first = next(arrays, None)
        if first is None:
            raise origin.nothing()
        self.name, self._origin = origin.name, origin
        self.policy = ReadPolicy(model_dtype(dtype, first.dtype), negative, positive)
        self.rows = 0
        self._chunks = self._checked(chain([first], arrays), first.n_features)
        head = next(self._chunks, None)
        if head is None:
            raise origin._replace(parts="row").nothing()
        self._chunks = chain([head], self._chunks)
        nnz = 0 if isinstance(head, CSR) else None
        self.problem = Problem(None, first.n_features, self.policy.dtype, nnz)
        self.row_bytes = first.n_features * first.dtype.itemsize
        self._head_rows, self._head_nnz = head.shape[0], head.nnz if isinstance(head, CSR) else None

    def first_rows(self, count: int) -> Problem:
        """The problem that so many rows like the first are."""
        nnz = None if self._head_nnz is None else -(-self._head_nnz * count // self._head_rows)
        return self.problem._replace(n_samples=count, nnz=nnz)

    def _checked(self, arrays: Iterator[StreamArray], n_features: int) -> Iterator[Matrix]:
        for number, array in enumerate(arrays):
            if array.n_features != n_features:
                raise DataError(
                    f"has {array.n_features} features, the first array {n_features}",
                    where=self._origin.part(number),
                    hint="send arrays with the same columns",
                )
            for chunk in checked(array, self.policy, self.name, self.rows):
                if chunk.shape[0]:
                    yield chunk
                    self.rows += chunk.shape[0]

    def batches(
        self, rows: Runs | None, unit: int, start: int, block_rows: int, *, by_block: bool = False
    ) -> Iterator[Batch]:
        """See `Source.batches`; what was read is gone."""
        waiting: list[Matrix] = []
        held, at = 0, 0
        for chunk in self._chunks:
            waiting.append(chunk)
            held += chunk.shape[0]
            while held >= unit:
                X = _same_kind(waiting)
                yield Batch(at, _contiguous(cut(X, 0, unit)), block_rows)
                at, held = at + unit, held - unit
                waiting = [cut(X, unit, unit + held)] if held else []
        if held:
            yield Batch(at, _contiguous(_same_kind(waiting)), block_rows)

    def gather(self, rows: Runs) -> Matrix:
        """A stream cannot be read at a place."""
        raise NotImplementedError("a stream has no rows to gather")


def _same_kind(parts: list[Matrix]) -> Matrix:
    if len({isinstance(part, CSR) for part in parts}) > 1:
        return join([part.toarray() if isinstance(part, CSR) else part for part in parts])
    return join(parts)


def _contiguous(X: Matrix) -> Matrix:
    return X if isinstance(X, CSR) else np.ascontiguousarray(X)
