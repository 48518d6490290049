"""What every reader has in common: a name, a way to be opened again elsewhere (pickle), a context."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np

from nmfstream.stores.arrays import ArraySource
from nmfstream.stores.protocols import ReadPolicy
from nmfstream.types import Array, Matrix, Task


def resolve(target: str) -> Callable[..., Any]:
    """The function that ``"module:name"`` names, imported now."""
    module, _, name = target.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def reopen(target: str, arguments: tuple[Any, ...]) -> Any:
    """Open a reader as it was opened before; what a pickled reader becomes."""
    reader = resolve(target)(*arguments)
    reader.opened_by = (target, arguments)
    return reader


class Reader(ABC):
    """Base of the readers: see `nmfstream.stores.protocols.RowReader`."""

    name: str
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    nnz: int | None = None
    chunk_rows: int = 1
    stored_bytes: int = 0
    task_bytes: int = 0
    feature_names: Sequence[str] | None = None
    kind = "dense"
    opened_by: tuple[str, tuple[Any, ...]] | None = None

    @property
    def direct_bytes(self) -> int:
        """See `RowReader`."""
        return self.task_bytes

    @abstractmethod
    def fingerprint(self) -> str:
        """See `RowReader`."""

    @abstractmethod
    def tasks(self, start: int, stop: int, out: Matrix, policy: ReadPolicy) -> list[Task]:
        """See `RowReader`."""

    @abstractmethod
    def sources(self) -> dict[str, ArraySource]:
        """The stored arrays by name: X, or data, indices and indptr."""

    @abstractmethod
    def check(self) -> None:
        """See `RowReader`."""

    @abstractmethod
    def close(self) -> None:
        """See `RowReader`."""

    def indptr(self, start: int, stop: int) -> Array:
        """Only sparse stores have it."""
        raise TypeError(f"{self.name} is dense: it has no indptr")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        if self.opened_by is None:
            raise TypeError(f"{self.name} was not opened by name: it cannot be sent to another process")
        return reopen, self.opened_by

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.shape} {self.dtype}>"
