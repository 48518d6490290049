"""Which way to read a stored array by rows of X."""

from __future__ import annotations

from collections.abc import Sequence

from nmfstream.stores.arrays import ArraySource
from nmfstream.stores.base import Reader
from nmfstream.stores.dense import DenseReader
from nmfstream.stores.protocols import Opening


def rows_of(
    source: ArraySource,
    name: str,
    opening: Opening,
    *,
    transposed: bool,
    feature_names: Sequence[str] | None = None,
) -> Reader:
    """Rows of a dense array."""
    return DenseReader(source, name, transposed=transposed, feature_names=feature_names)
