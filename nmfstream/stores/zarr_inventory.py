"""Which of an array's chunks are there: one listing a folder, never a look at every chunk."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from nmfstream.stores.zarr_files import Files, folder_in_place
from nmfstream.stores.zarr_metadata import ArrayMetadata


def present(files: Files, prefix: str, metadata: ArrayMetadata) -> NDArray[np.int64]:
    """Numbers (in C order over the grid) of the chunks that a store holds, sorted.

    Raises
    ------
    DataError
        A folder stands where a chunk should.
    """
    found = array("q")
    for cell in _cells(files, prefix + metadata.head, metadata):
        found.append(_number(cell, metadata.grid))
    return np.sort(np.frombuffer(found, np.int64)) if found else np.empty(0, np.int64)


def first_missing(there: NDArray[np.int64]) -> int:
    """The first number that is not among the sorted ones."""
    gaps = np.flatnonzero(there != np.arange(len(there)))
    return int(gaps[0]) if len(gaps) else len(there)


def cell_at(number: int, grid: tuple[int, ...]) -> tuple[int, ...]:
    """Grid position of a chunk number."""
    cell = []
    for n in reversed(grid):
        number, i = divmod(number, n)
        cell.append(i)
    return tuple(reversed(cell))


def _number(cell: tuple[int, ...], grid: tuple[int, ...]) -> int:
    number = 0
    for i, n in zip(cell, grid):
        number = number * n + i
    return number


def _cells(files: Files, folder: str, metadata: ArrayMetadata) -> Iterator[tuple[int, ...]]:
    if metadata.separator == "/":
        yield from _nested(files, folder, (), metadata)
        return
    # Names such as c.0.1: what precedes the first number is part of the name, not a folder.
    at, _, head = folder.rpartition("/")
    for entry in files.entries(at):
        if entry.name.startswith(head):
            cell = _parse(entry.name[len(head) :].split("."), metadata.grid)
            if cell is not None:
                yield _file(files, f"{at}/{entry.name}".lstrip("/"), entry.folder, cell)


def _nested(files: Files, folder: str, above: tuple[int, ...], metadata: ArrayMetadata) -> Iterator[tuple[int, ...]]:
    depth = len(above) + 1
    for entry in files.entries(folder.rstrip("/")):
        part = _parse([entry.name], metadata.grid[depth - 1 : depth])
        if part is None:
            continue
        path = f"{folder.rstrip('/')}/{entry.name}".lstrip("/")
        if depth == len(metadata.grid):
            yield _file(files, path, entry.folder, above + part)
        elif entry.folder:
            yield from _nested(files, path, above + part, metadata)


def _file(files: Files, path: str, folder: bool, cell: tuple[int, ...]) -> tuple[int, ...]:
    if folder:
        raise folder_in_place(f"{files.name}/{path}")
    return cell


def _parse(parts: list[str], grid: tuple[int, ...]) -> tuple[int, ...] | None:
    """Numbers inside the grid, as zarr writes them (no leading zeros); None for any other name."""
    if len(parts) != len(grid):
        return None
    cell = tuple(int(p) if p.isascii() and p.isdigit() else -1 for p in parts)
    honest = all(str(i) == p and i < n for i, p, n in zip(cell, parts, grid))
    return cell if honest else None
