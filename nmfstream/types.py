"""Array types that every layer shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Float: TypeAlias = NDArray[np.floating[Any]]
Runs: TypeAlias = "tuple[tuple[int, int], ...]"
"""Runs of consecutive rows (start, stop), ascending and disjoint, by absolute row number."""

Task: TypeAlias = Callable[[], None]
"""An independent piece of work that a pool thread may run."""


class CSR(NamedTuple):
    """Rows in compressed sparse form, canonical: indices sorted within a row, no duplicates.

    ``indptr[0]`` need not be zero: a run of rows shares ``indices`` and ``data`` with the whole, so cutting
    blocks copies nothing.

    Attributes
    ----------
    indptr : ndarray of int64, shape (n_rows + 1,)
        Bounds of each row in `indices` and `data`.
    indices : ndarray of int32, shape (nnz,)
        Column of each entry.
    data : ndarray of float32 or float64, shape (nnz,)
        Value of each entry.
    n_cols : int
        Number of columns.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    data: Array
    n_cols: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.indptr) - 1, self.n_cols

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        return self.data.dtype

    @property
    def nnz(self) -> int:
        """Entries in these rows."""
        return int(self.indptr[-1] - self.indptr[0])

    @property
    def values(self) -> Array:
        """The values of these rows alone, as a view."""
        return self.data[self.indptr[0] : self.indptr[-1]]

    def rows(self, start: int, stop: int) -> CSR:
        """Rows ``start:stop`` as a view."""
        return CSR(self.indptr[start : stop + 1], self.indices, self.data, self.n_cols)

    def rebased(self) -> CSR:
        """The same rows with ``indptr[0] == 0`` and arrays that hold these rows alone (views)."""
        low, high = int(self.indptr[0]), int(self.indptr[-1])
        return CSR(self.indptr - low, self.indices[low:high], self.data[low:high], self.n_cols)

    def toarray(self) -> Array:
        """A dense copy."""
        out = np.zeros(self.shape, self.dtype)
        rows = np.repeat(np.arange(self.shape[0]), np.diff(self.indptr))
        out[rows, self.indices[self.indptr[0] : self.indptr[-1]]] = self.values
        return out


Matrix: TypeAlias = "Array | CSR"
"""Rows of X: a C-contiguous array of shape (n_rows, n_features), or `CSR`."""


def cut(X: Matrix, start: int, stop: int) -> Matrix:
    """Rows ``start:stop`` of X as a view."""
    return X.rows(start, stop) if isinstance(X, CSR) else X[start:stop]
