"""Chunks of rows on their way from a stream or a user's own loader: converted and checked like any store's."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from nmfstream.errors import DataError, UsageError
from nmfstream.stores.checks import DenseOrigin, canonical, fill
from nmfstream.stores.memory import MemoryReader
from nmfstream.stores.protocols import ReadPolicy, allocate
from nmfstream.stores.stream import StreamArray
from nmfstream.types import CSR, Array, Matrix


def is_stream(items: Any) -> bool:
    """Whether the data of a command can be read only once: standard input, or one iterator of chunks."""
    return len(items) == 1 and (items[0] == "-" if isinstance(items[0], str) else isinstance(items[0], Iterator))


class Origin(NamedTuple):
    """What a stream is to whoever gave it.

    Attributes
    ----------
    name : str
        For messages.
    parts : str
        What it consists of, one of them.
    maker : str
        Where to look when it is not what it should be.
    instead : str
        What can be read more than once.
    """

    name: str
    parts: str
    maker: str
    instead: str

    def part(self, number: int) -> str:
        """A message's name for one array of it; chunks make one matrix together."""
        return f"{self.name}, array {number}" if self.parts == "array" else self.name

    def nothing(self) -> DataError:
        """The error of a stream without anything in it."""
        return DataError(f"no {self.parts} came", where=self.name, hint=f"look at {self.maker}")

    def refuse(self, *needs: tuple[bool, str]) -> None:
        """Refuse options (given, name) that need data to be read again, or at a place.

        Raises
        ------
        UsageError
        """
        for given, option in needs:
            if given:
                raise UsageError("a stream is read once, from its start", where=option, hint=self.instead)


PIPE = Origin("standard input", "array", "the command that writes into the pipe", "name a file instead of -")
CHUNKS = Origin("the chunks given", "chunk", "what gives them", "give a matrix or the name of a store, not an iterator")


def origin_of(items: Any) -> Origin:
    """Where the one stream among a command's data comes from."""
    return PIPE if isinstance(items[0], str) else CHUNKS


def of_iterator(chunks: Iterator[Any], name: str = CHUNKS.name) -> Iterator[StreamArray]:
    """The one matrix that an iterator of row chunks (ndarray or scipy sparse) gives; none where it gives nothing.

    Raises
    ------
    DataError
        If a chunk is no matrix, or has another number of columns than the first.
    """
    first = next(chunks, None)
    if first is not None:
        shaped = _shaped(chain([first], chunks), name)
        head = next(shaped)
        yield StreamArray(np.dtype(head.dtype), int(head.shape[1]), None, chain([head], shaped))


def _shaped(chunks: Iterator[Any], name: str) -> Iterator[Any]:
    columns = None
    for number, given in enumerate(chunks):
        chunk = given if hasattr(given, "tocsr") else np.asarray(given)
        columns = chunk.shape[1] if columns is None and chunk.ndim == 2 else columns
        if chunk.ndim != 2 or chunk.shape[1] != columns:
            raise DataError(
                f"has the shape {chunk.shape}",
                where=f"{name}, chunk {number}",
                hint="give matrices with the same columns",
            )
        yield chunk


def checked(array: StreamArray, policy: ReadPolicy, name: str, first_row: int = 0) -> Iterator[Matrix]:
    """The chunks of a matrix, converted and checked.

    Parameters
    ----------
    first_row : int
        Number that messages give the first row.

    Raises
    ------
    DataError
        For NaN, infinity, overflow, or a negative value (or zero), with its row and column.
    """
    row = first_row
    for chunk in array.chunks:
        yield _sparse(chunk, policy, name, row) if hasattr(chunk, "tocsr") else _dense(chunk, policy, name, row)
        row += chunk.shape[0]


def _dense(chunk: Array, policy: ReadPolicy, name: str, row: int) -> Array:
    block = np.ascontiguousarray(chunk, chunk.dtype.newbyteorder("="))
    out = np.empty(block.shape, policy.dtype)
    fill(out, block, policy, DenseOrigin(name, row, 0))
    return out


def _sparse(chunk: Any, policy: ReadPolicy, name: str, row: int) -> CSR:
    reader = MemoryReader(chunk, name)
    out = allocate(reader, 0, reader.shape[0], policy.dtype)
    for task in reader.tasks(0, reader.shape[0], out, policy):
        task()
    assert isinstance(out, CSR)
    return canonical(out, name=name, first_row=row, policy=policy)
