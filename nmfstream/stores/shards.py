"""An output that several jobs write: any ranges of rows into one ``.npy`` or ``.zarr``, in any order, at any time.

Beside the output ``NAME`` the folder ``NAME.rows`` holds

* ``output.json``: what the output is; written once by whoever comes first, and compared by all others;
* ``START-STOP.done``: a range whose rows are durable;
* ``CHUNK.START-STOP.piece``: rows of a chunk that one range covers only in part. Whoever finds that the pieces cover
  the chunk writes it. Nothing is ever changed in place, so jobs need no locks: two that come to the same chunk at the
  same time write the same bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nmfstream.errors import InputAbsentError, OutputExistsError, UsageError
from nmfstream.storage import durable
from nmfstream.stores import npy_writer, zarr_writer
from nmfstream.stores.offset_writer import checked_rows
from nmfstream.stores.outputs import Making, Output, parse_output, record_folder
from nmfstream.stores.shard_record import Range, covers, finished, numbered
from nmfstream.stores.shard_record import missing_rows as missing_rows
from nmfstream.types import Array

_PIECE = re.compile(r"(\d+)\.(\d+)-(\d+)\.piece")


class Target(Protocol):
    """The rows of one range on their way into the shared output."""

    def write(self, start: int, rows: Array) -> None:
        """The next rows."""
        ...

    def finish(self) -> None:
        """All rows of the range are durable."""
        ...

    def close(self) -> None:
        """Release handles."""
        ...


class SharedRows:
    """One range of a shared output; its rows come in order.

    Attributes
    ----------
    done : int
        Rows up to here need not be made: the start of the range, or its end where it is recorded already.
    """

    def __init__(self, path: Path, rows: Range, target: Target) -> None:
        self.path, self.rows = path, rows
        self._target = target
        self.done = rows[1] if covers(finished(path), rows) else rows[0]

    def write(self, start: int, rows: Array) -> None:
        """The next rows, by absolute row number."""
        self._target.write(start, rows)
        self.done = start + len(rows)

    def save(self) -> None:
        """Nothing: a range that was not finished is run again."""

    def commit(self) -> None:
        """Record the range, once all its rows are durable."""
        start, stop = self.rows
        if start < stop and not covers(finished(self.path), self.rows):
            self._target.finish()
            record = json.dumps({"start": start, "stop": stop}).encode()
            durable.write_whole(record_folder(self.path) / f"{start}-{stop}.done", record, overwrite=True)


class NpyTarget:
    """Rows by `pwrite` into the shared NPY."""

    def __init__(self, path: Path, making: Making) -> None:
        self._making, self._file = making, durable.reopen(path)
        try:
            self._offset = npy_writer.find(self._file, making)
        except ValueError as error:
            self._file.close()
            hint = "choose another name"
            raise OutputExistsError("the output is another array", where=str(path), hint=hint) from error

    def write(self, start: int, rows: Array) -> None:
        """See `Target`."""
        block = checked_rows(start, rows, self._making.shape, self._making.dtype)
        if block.size:
            self._file.pwrite(block, self._offset + start * self._making.row_bytes)

    def finish(self) -> None:
        """See `Target`."""
        self._file.sync()

    def close(self) -> None:
        """See `Target`."""
        self._file.close()


class ZarrTarget:
    """Whole chunks into the shared Zarr array; parts of chunks as pieces beside it.

    A chunk has its name only when all its rows are known.
    """

    def __init__(self, path: Path, dataset: str, making: Making, rows: Range) -> None:
        self._folder, self._rows = record_folder(path), rows
        self._chunks = zarr_writer.ChunkFolder(path / dataset, making)
        self._index, self._held = -1, np.empty((0, making.shape[1]), making.dtype)

    def write(self, start: int, rows: Array) -> None:
        """See `Target`."""
        block = checked_rows(start, rows, self._chunks.shape, self._chunks.dtype)
        for index in self._chunks.indices(start, start + len(block)) if len(block) else ():
            low, high = self._part(index)
            a, b = max(low, start), min(high, start + len(block))
            if index != self._index:
                self._index, self._held = index, np.empty((high - low, block.shape[1]), block.dtype)
            self._held[a - low : b - low] = block[a - start : b - start]
            if b == high:
                self._put(index, low, high)

    def _part(self, index: int) -> Range:
        low, high = self._chunks.bounds(index)
        return max(low, self._rows[0]), min(high, self._rows[1])

    def _put(self, index: int, low: int, high: int) -> None:
        if (low, high) == self._chunks.bounds(index):
            self._chunks.store(index, self._whole([(low, self._held)], index))
        elif not durable.exists(self._chunks.path(index)):
            name = self._folder / f"{index}.{low}-{high}.piece"
            durable.write_whole(name, zarr_writer.encode(self._held), overwrite=True)
            self._assemble(index)

    def _assemble(self, index: int) -> None:
        """Write a chunk whose pieces are all there, and let go of them."""
        pieces = sorted((a, b) for i, a, b in numbered(self._folder, _PIECE) if i == index)
        if not covers(pieces, self._chunks.bounds(index)):
            return
        try:
            parts = [(a, self._piece(index, a, b)) for a, b in pieces]
        except InputAbsentError:  # another job has written the chunk and removed them
            return
        self._chunks.store(index, self._whole(parts, index))
        for a, b in pieces:
            durable.remove(self._folder / f"{index}.{a}-{b}.piece")

    def _piece(self, index: int, start: int, stop: int) -> Array:
        data = durable.read_bytes(self._folder / f"{index}.{start}-{stop}.piece")
        return zarr_writer.decode(data, (stop - start, self._chunks.shape[1]), self._chunks.dtype)

    def _whole(self, parts: Iterable[tuple[int, Array]], index: int) -> Array:
        chunk = np.zeros((self._chunks.chunk_rows, self._chunks.shape[1]), self._chunks.dtype)
        first = self._chunks.bounds(index)[0]
        for start, rows in parts:
            chunk[start - first : start - first + len(rows)] = rows
        return chunk

    def finish(self) -> None:
        """Every chunk and piece is durable as it is written."""

    def close(self) -> None:
        """Nothing is held open."""


@contextmanager
def open_shard(
    spec: str, shape: tuple[int, int], dtype: Any, rows: Range, identity: dict[str, Any], *, dataset: str = "W"
) -> Iterator[SharedRows]:
    """Take part in a shared output; the first job creates it.

    Parameters
    ----------
    spec : str
        ``.npy`` or ``.zarr[/DATASET]``.
    shape : tuple of int
        Of the whole output.
    dtype : dtype
    rows : tuple of int
        The range (start, stop) of this job.
    identity : dict
        Plain values that decide on the rows; all jobs must agree on them.

    Raises
    ------
    UsageError
        Another format.
    OutputExistsError
        The name is taken by something else, or by an output of another shape, type or identity.
    """
    output = parse_output(spec, dataset)
    if output.suffix not in _KINDS:
        raise UsageError("separate jobs cannot share this format", where=spec, hint="give --rows with .npy or .zarr")
    making = Making((int(shape[0]), int(shape[1])), np.dtype(dtype).newbyteorder("="))
    _join(output, making, identity)
    target = _KINDS[output.suffix][1](output, making, rows)
    try:
        yield SharedRows(output.path, rows, target)
    finally:
        target.close()


def _join(output: Output, making: Making, identity: dict[str, Any]) -> None:
    folder = record_folder(output.path)
    ticket = folder / "output.json"
    if durable.exists(output.path) and not durable.exists(ticket):
        hint = "choose another name: --rows adds to outputs that were begun with --rows"
        raise OutputExistsError("the output exists already", where=str(output.path), hint=hint)
    _made(folder)
    content = {"shape": list(making.shape), "dtype": making.dtype.name, "dataset": output.dataset, **identity}
    _agree(ticket, json.loads(json.dumps(content)), str(output.path))
    if durable.exists(output.path):
        return
    if finished(output.path):
        what, hint = "finished ranges are recorded, but the output is gone", f"remove {folder} to begin anew"
        raise OutputExistsError(what, where=str(output.path), hint=hint)
    _KINDS[output.suffix][0](output, making)


def _made(folder: Path) -> None:
    if not durable.is_folder(folder):
        try:
            durable.make_folder(folder)
        except OutputExistsError:
            if not durable.is_folder(folder):
                raise


def _agree(ticket: Path, content: dict[str, Any], where: str) -> None:
    """Write what the output is, or find that it says the same already."""
    if not durable.exists(ticket):
        try:
            durable.write_whole(ticket, json.dumps(content, indent=1).encode())
            return
        except OutputExistsError:
            pass
    theirs = json.loads(durable.read_bytes(ticket))
    differ = sorted(k for k in {*theirs, *content} if theirs.get(k) != content.get(k))
    if differ:
        shown = ", ".join(f"{k} is {theirs.get(k)!r} there, {content.get(k)!r} here" for k in differ)
        hint = "give every range the same model, data and options, or choose another name"
        raise OutputExistsError(f"the output was begun differently: {shown}", where=where, hint=hint)


def _create_npy(output: Output, making: Making) -> None:
    file = durable.temporary(output.path)
    try:
        npy_writer.lay(file, making)
        file.sync()
        file.close()
        durable.publish(file.path, output.path)
    except OutputExistsError:  # another job came first; what it made is compared when it is opened
        durable.discard(file)
    except BaseException:
        durable.discard(file)
        raise


def _create_zarr(output: Output, making: Making) -> None:
    root = durable.temporary_name(output.path)
    durable.make_folder(root)
    try:
        zarr_writer.lay(root, output.dataset, zarr_writer.metadata_of(making))
        durable.publish_tree(root, output.path)
    except OutputExistsError:
        durable.remove_tree(root)
    except BaseException:
        durable.remove_tree(root)
        raise


def _npy_target(output: Output, making: Making, rows: Range) -> NpyTarget:
    return NpyTarget(output.path, making)


def _zarr_target(output: Output, making: Making, rows: Range) -> ZarrTarget:
    return ZarrTarget(output.path, output.dataset, making, rows)


_KINDS: dict[str, tuple[Any, Any]] = {".npy": (_create_npy, _npy_target), ".zarr": (_create_zarr, _zarr_target)}
