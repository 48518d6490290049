"""A sample in memory, of which a level's rows are brought to the front, so that a level is a view and no copy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nmfstream.core.sample import spaced, take
from nmfstream.types import CSR, Array, Matrix, cut

Numbers = NDArray[np.int64]

MOVED_BYTES = 1 << 20
"""Rows that are in hand while they are moved."""


class SampleRows:
    """The rows of a sample, levels of which are asked for one after the other.

    Parameters
    ----------
    X : Matrix
        A dense array that is writeable has its rows moved; of any other, rows are copied.
    kept : ndarray of bool, optional
        The rows that the sample is made of; None: all.
    """

    def __init__(self, X: Matrix, kept: NDArray[np.bool_] | None = None) -> None:
        self._begin(X)
        if kept is not None:
            self._begin(self._front(np.flatnonzero(kept)))

    def _begin(self, X: Matrix) -> None:
        self._X = X
        self._row_at = np.arange(X.shape[0], dtype=np.int64)
        self._place_of = self._row_at.copy()

    def level(self, rows: int) -> Matrix:
        """So many evenly spaced rows in their order; valid until others are asked for."""
        return self._front(spaced(self._X.shape[0], rows))

    def whole(self) -> Matrix:
        """All rows in their order; valid until others are asked for."""
        return self.level(self._X.shape[0])

    def _front(self, rows: Numbers) -> Matrix:
        X = self._X
        if not isinstance(X, CSR) and X.flags.writeable:
            self._move(X, rows)
            return cut(X, 0, len(rows))
        return X if len(rows) == X.shape[0] else take(X, rows)

    def _move(self, X: Array, rows: Numbers) -> None:
        """Put these rows first; whatever is in their way goes where they were."""
        step = max(1, MOVED_BYTES // max(1, X[:1].nbytes))
        for a in range(0, len(rows), step):
            wanted = rows[a : a + step]
            to, places = np.arange(a, a + len(wanted)), self._place_of[wanted]
            if np.array_equal(to, places):
                continue
            arriving, freed, leaving = X[places], np.setdiff1d(places, to), np.setdiff1d(to, places)
            self._settle(freed, self._row_at[leaving])
            X[freed] = X[leaving]
            self._settle(to, wanted)
            X[to] = arriving

    def _settle(self, places: Numbers, rows: Numbers) -> None:
        self._row_at[places] = rows
        self._place_of[rows] = places
