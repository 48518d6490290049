"""What values and sparse structure must satisfy, tested while they are still in the cache.

A healthy block costs one reduction over its bits: seen as unsigned integers, every finite non-negative float lies
below the bits of infinity, and every NaN, infinity and negative number does not. Only a block that fails is searched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nmfstream.errors import DataError
from nmfstream.stores.protocols import ReadPolicy
from nmfstream.types import CSR, Array

WINDOW = 1 << 15
"""Values converted and checked at a time: they stay in the second-level cache."""

TILE = 128
"""Side of the square tiles in which a transposed block is copied."""

_BITS: dict[int, tuple[np.dtype[Any], int]] = {
    4: (np.dtype(np.uint32), 0x7F800000),
    8: (np.dtype(np.uint64), 0x7FF0000000000000),
}

ZEROS = (
    "When beta_loss <= 0 and X contains zeros, the solver may diverge. "
    "Please add small values to X, or use a positive beta_loss."
)


class Origin(Protocol):
    """Where a block lies in its store."""

    def where(self, index: tuple[int, ...]) -> str:
        """File, dataset, row, column and chunk of an entry of the block."""
        ...


@dataclass(frozen=True)
class DenseOrigin:
    """Origin of a dense block, by rows of X."""

    name: str
    row: int
    column: int
    chunk: str = ""

    def where(self, index: tuple[int, ...]) -> str:
        """See `Origin`."""
        place = f"{self.name}: row {self.row + index[0]}, column {self.column + index[1]}"
        return f"{place}, {self.chunk}" if self.chunk else place


@dataclass(frozen=True)
class EntryOrigin:
    """Origin of a run of stored entries of a sparse matrix.

    Attributes
    ----------
    offset : int
        Place of the run's first entry in those that `indptr` bounds.
    indptr : ndarray
        Bounds of the rows from `first_row` on.
    column : callable, optional
        Looks up the column of an entry (only after a fault).
    """

    name: str
    offset: int
    indptr: NDArray[np.int64]
    first_row: int
    chunk: str = ""
    column: Callable[[int], int] | None = None

    def where(self, index: tuple[int, ...]) -> str:
        """See `Origin`."""
        entry = self.offset + index[0]
        row = self.first_row + int(np.searchsorted(self.indptr, entry, side="right")) - 1
        nth = f"stored entry {entry - int(self.indptr[row - self.first_row])} of it"
        place = f"{self.name}: row {row}, {f'column {self.column(entry)}' if self.column else nth}"
        return f"{place}, {self.chunk}" if self.chunk else place


def fill(out: Array, block: Array, policy: ReadPolicy, origin: Origin) -> None:
    """Convert `block` into `out` of the same shape and check every value.

    Parameters
    ----------
    out : ndarray of float32 or float64
        May be `block` itself: then it is only checked.
    block : ndarray
        Of any real type, byte order and layout.

    Raises
    ------
    DataError
        NaN, infinity, overflow, a negative value (unless the policy clips) or a zero (if it asks for positive ones).
    """
    trusted = block.dtype.kind in "bu" and not policy.positive
    # One look at all of it does not come back to the interpreter, for which other threads wait.
    if block is out and out.flags.c_contiguous and (trusted or _healthy(out.reshape(-1), policy.positive)):
        return
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        for window in _windows(block):
            target, source = out[window], block[window]
            if block is not out:
                np.copyto(target, source, casting="unsafe")
            if not trusted and not _healthy(target, policy.positive):
                _judge(target, source, policy, origin, tuple(part.start for part in window))


def _windows(block: Array) -> Iterator[tuple[slice, ...]]:
    if block.ndim == 1:
        yield from ((slice(at, at + WINDOW),) for at in range(0, len(block), WINDOW))
        return
    rows, columns = block.shape
    turned = abs(block.strides[0]) < abs(block.strides[1])
    tall, wide = (TILE, TILE) if turned else (max(1, WINDOW // max(1, columns)), max(1, columns))
    for top in range(0, rows, tall):
        for left in range(0, columns, wide):
            yield slice(top, top + tall), slice(left, left + wide)


def healthy(values: Array, policy: ReadPolicy) -> bool:
    """Whether these values, as they are, are what the policy wants (if not, `fill` says what to do)."""
    return all(_healthy(values[at], policy.positive) for at in _windows(values))


def _healthy(values: Array, positive: bool) -> bool:
    bits, infinity = _BITS[values.dtype.itemsize]
    if values.size == 0:
        return True
    return bool(values.view(bits).max() < infinity) and not (positive and values.min() <= 0)


def _judge(target: Array, source: Array, policy: ReadPolicy, origin: Origin, corner: tuple[int, ...]) -> None:
    """Raise for the first bad value, or clip; a negative zero is fine."""
    negative = source < 0
    bad = ~np.isfinite(target)
    if policy.negative != "clip":
        bad |= negative
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        where = origin.where(tuple(a + i for a, i in zip(corner, index)))
        raise _fault(source[index], target.dtype, where)
    if negative.any():
        policy.count_clipped(int(np.count_nonzero(negative)))
        target[negative] = 0
    if policy.positive and (target <= 0).any():
        index = tuple(int(i) for i in np.argwhere(target <= 0)[0])
        raise DataError(f"zero: {ZEROS}", where=origin.where(tuple(a + i for a, i in zip(corner, index))))


def _fault(value: Any, dtype: np.dtype[Any], where: str) -> DataError:
    if np.isnan(value):
        return DataError("NaN", where=where, hint="replace missing values before factorizing")
    if np.isinf(value):
        return DataError("infinite value", where=where, hint="replace it before factorizing")
    if value < 0:
        return DataError(f"negative value {value}", where=where, hint="--negative clip sets negative values to zero")
    return DataError(f"{value} does not fit {dtype}", where=where, hint="read the data with --dtype float64")


def in_range(indices: Array, n_cols: int) -> bool:
    """Whether signed indices lie in ``[0, n_cols)``."""
    return indices.size == 0 or int(indices.view(indices.dtype.str.replace("i", "u")).max()) < n_cols


def fill_indices(out: Array, block: Array, n_cols: int, origin: Origin, axis: str = "column") -> None:
    """Convert indices of any integer type to that of `out`, each checked to lie in ``[0, n_cols)``.

    Raises
    ------
    DataError
    """
    native = block.astype(block.dtype.newbyteorder("="), copy=False)
    seen = native.view(native.dtype.str.replace("i", "u")) if native.dtype.kind == "i" else native
    if seen.size and int(seen.max()) >= n_cols:
        at = int(np.argmax(seen >= np.asarray(n_cols, np.uint64)))
        raise DataError(
            f"{axis} index {native[at]} outside 0 to {n_cols - 1}",
            where=origin.where((at,)),
            hint="the sparse structure is damaged: write the store again",
        )
    np.copyto(out, native, casting="unsafe")


def check_indptr(indptr: NDArray[np.int64], nnz: int, where: str, first_row: int = 0) -> None:
    """Bounds of rows must not decrease and must lie in the stored entries.

    Raises
    ------
    DataError
    """
    hint = "the sparse structure is damaged: write the store again"
    steps = np.diff(indptr)
    if steps.size and steps.min() < 0:
        row = first_row + int(np.argmax(steps < 0))
        raise DataError(f"indptr decreases after row {row}", where=where, hint=hint)
    if indptr.size and (indptr[0] < 0 or indptr[-1] > nnz):
        raise DataError(f"indptr leads outside the {nnz} stored entries", where=where, hint=hint)


def canonical(rows: CSR, *, name: str = "", first_row: int = 0, policy: ReadPolicy | None = None) -> CSR:
    """Sort indices within each row and sum duplicates; the same object where there is nothing to do.

    Parameters
    ----------
    rows : CSR
        As `RowReader.tasks` filled it: indices in range, in stored order.
    name, first_row
        For messages.
    policy : ReadPolicy, optional
        With ``positive`` a row that does not store all its columns holds zeros and is refused.

    Raises
    ------
    DataError
    """
    rows = rows if rows.indptr[0] == 0 and rows.indptr[-1] == len(rows.indices) else rows.rebased()
    if not _ascending(rows):
        rows = _sorted_and_summed(rows, name, first_row)
    if policy is not None and policy.positive:
        _check_full(rows, name, first_row)
    return rows


def _check_full(rows: CSR, name: str, first_row: int) -> None:
    short = np.diff(rows.indptr) < rows.n_cols
    if short.any():
        raise DataError(f"zero: {ZEROS}", where=f"{name}: row {first_row + int(np.argmax(short))}")


def _ascending(rows: CSR) -> bool:
    indptr, indices = rows.indptr, rows.indices
    for low in range(0, max(0, len(indices) - 1), WINDOW):
        high = min(low + WINDOW, len(indices) - 1)
        rises = indices[low + 1 : high + 1] > indices[low:high]
        if not rises.all():
            bounds = indptr[np.searchsorted(indptr, low + 1) : np.searchsorted(indptr, high, side="right")]
            rises[bounds - low - 1] = True
            if not rises.all():
                return False
    return True


def _sorted_and_summed(rows: CSR, name: str, first_row: int) -> CSR:
    n_rows = rows.shape[0]
    row = np.repeat(np.arange(n_rows, dtype=np.int64), np.diff(rows.indptr))
    key = row * rows.n_cols + rows.indices
    order = np.argsort(key, kind="stable")
    key = key[order]
    first = np.flatnonzero(np.concatenate(([True], key[1:] != key[:-1])))
    data = rows.data[order]
    if len(first) < len(key):
        with np.errstate(over="ignore"):
            data = np.add.reduceat(data, first, dtype=np.float64).astype(rows.data.dtype)
    indices = (key[first] % rows.n_cols).astype(np.int32)
    indptr = np.searchsorted(key[first], np.arange(n_rows + 1, dtype=np.int64) * rows.n_cols).astype(np.int64)
    if not np.isfinite(data).all():
        at = int(np.argmax(~np.isfinite(data)))
        where = f"{name}: row {first_row + int(np.searchsorted(indptr, at, side='right')) - 1}, column {indices[at]}"
        raise DataError(f"duplicates sum to more than {data.dtype} holds", where=where, hint="use --dtype float64")
    return CSR(indptr, indices, data, rows.n_cols)
