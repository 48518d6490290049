"""A matrix in memory behind the readers' protocol: converted and checked like any store's, a run of rows a time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmfstream.errors import DataError, UsageError
from nmfstream.stores.checks import DenseOrigin, EntryOrigin, fill, fill_indices
from nmfstream.stores.protocols import ReadPolicy
from nmfstream.types import CSR, Matrix, Task

TASK_ROWS = 4096


class MemoryReader:
    """`RowReader` of an ndarray, or of a scipy sparse matrix or array.

    Parameters
    ----------
    X : array_like or scipy sparse, shape (n_samples, n_features)
    name : str

    Raises
    ------
    UsageError
        If X is no matrix.
    """

    chunk_rows = 1
    task_bytes = direct_bytes = 0

    def __init__(self, X: Any, name: str = "X") -> None:
        sparse = hasattr(X, "tocsr")
        matrix: Any = X.tocsr() if sparse else np.asarray(X)
        self._X = matrix
        if self._X.ndim != 2:
            raise UsageError(f"{name} has {self._X.ndim} dimensions, not 2", hint="give a matrix (samples x features)")
        self.name = name
        self.shape: tuple[int, int] = (int(self._X.shape[0]), int(self._X.shape[1]))
        self.dtype: np.dtype[Any] = self._X.dtype
        if self.dtype.kind not in "buif":
            raise DataError(f"values of type {self.dtype}", where=name, hint="give real numbers")
        self.nnz: int | None = int(self._X.nnz) if sparse else None
        self.stored_bytes = int(self._X.data.nbytes)
        self.feature_names: Sequence[str] | None = _columns(X)

    def check(self) -> None:
        """Nothing can be missing."""

    def fingerprint(self) -> str:
        """Shape, type and a hash of every value."""
        digest = hashlib.blake2b(digest_size=16)
        parts = (self._X.indptr, self._X.indices, self._X.data) if self.nnz is not None else (self._X,)
        for part in parts:
            digest.update(np.ascontiguousarray(part).view(np.uint8).reshape(-1).data)
        return f"{self.shape[0]}x{self.shape[1]} {self.dtype} {digest.hexdigest()}"

    def indptr(self, start: int, stop: int) -> NDArray[np.int64]:
        """See `RowReader.indptr`."""
        bounds: NDArray[np.int64] = np.asarray(self._X.indptr[start : stop + 1], np.int64)
        return bounds

    def tasks(self, start: int, stop: int, out: Matrix, policy: ReadPolicy) -> list[Task]:
        """See `RowReader.tasks`."""
        one = self._sparse if isinstance(out, CSR) else self._dense
        bounds = range(start, stop, TASK_ROWS)
        return [lambda a=a: one(a, min(a + TASK_ROWS, stop), start, out, policy) for a in bounds]  # type: ignore[misc, arg-type]

    def _dense(self, a: int, b: int, start: int, out: Any, policy: ReadPolicy) -> None:
        fill(out[a - start : b - start], self._X[a:b], policy, DenseOrigin(self.name, a, 0))

    def _sparse(self, a: int, b: int, start: int, out: CSR, policy: ReadPolicy) -> None:
        low, high = (int(self._X.indptr[row]) for row in (a, b))
        to = slice(*(int(out.indptr[row - start]) for row in (a, b)))
        origin = EntryOrigin(self.name, low, self.indptr(a, b), a)
        fill_indices(out.indices[to], self._X.indices[low:high], self.shape[1], origin)
        fill(out.data[to], self._X.data[low:high], policy, origin)

    def close(self) -> None:
        """Nothing to release."""

    def __enter__(self) -> MemoryReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _columns(X: Any) -> list[str] | None:
    names = getattr(X, "columns", None)
    return None if names is None else [str(name) for name in names]
