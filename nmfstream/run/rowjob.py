"""An output of rows that can be continued: what is done is recorded beside the file in progress."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nmfstream.config import Saving
from nmfstream.errors import CheckpointMismatchError, DataError, NmfstreamError, OutputExistsError
from nmfstream.storage import durable
from nmfstream.stores.outputs import open_writer, parse_output, refuse_existing
from nmfstream.stores.protocols import Opening, RowWriter
from nmfstream.types import Matrix

Opener = Callable[[Path, int, int], RowWriter]
"""Opens a writer under an in-progress name that holds so many rows and (sparse) entries already."""


class RowJob:
    """Rows on their way into an output, in order; continued where an earlier job with the same identity stopped.

    In progress the rows are in ``OUTPUT.partial`` and their number, with the identity, in ``OUTPUT.partial.json``.
    Rows are made durable before the record claims them.

    Parameters
    ----------
    spec : str
        ``STORE[/DATASET]``.
    shape : tuple of int
    dtype : dtype
    identity : dict
        Plain values that decide on the rows: the model, the data, the parameters.
    saving : Saving
        Interval, `resume`, `overwrite`.
    chunk_rows : int, optional
    dataset : str
        Name inside the store where `spec` gives none.
    opener : callable, optional
        Opens the writer; default: dense rows, `chunk_rows` stored together.
    trust : bool
        With `resume`, a whole output of the same shape and type without a record is taken for finished.

    Attributes
    ----------
    done : int
        Rows that need not be made again.
    finished : bool
        The output is whole under its final name.

    Raises
    ------
    OutputExistsError
        If the output, or one in progress, is there and neither `resume` nor `overwrite` is given.
    CheckpointMismatchError
        If `resume` finds another job's rows.
    """

    def __init__(
        self,
        spec: str,
        shape: tuple[int, int],
        dtype: Any,
        identity: dict[str, Any],
        saving: Saving,
        *,
        chunk_rows: int | None = None,
        dataset: str = "W",
        opener: Opener | None = None,
        trust: bool = True,
    ) -> None:
        self.spec, self.saving = spec, saving
        self._entries = 0
        self.identity = {
            **identity,
            "shape": list(shape),
            "dtype": str(dtype),
            "dataset": parse_output(spec, dataset).dataset,
        }
        final = parse_output(spec, dataset).path
        self._partial = final.with_name(f"{final.name}.partial")
        self._record = final.with_name(f"{final.name}.partial.json")
        for path in (final, self._partial, self._record):
            durable.sweep(path)
        self.done = self._begin(final, trust)
        self.finished = self.done < 0
        self.done = shape[0] if self.finished else self.done
        self._saved_at, self._steps = time.monotonic(), 0
        self._writer: RowWriter | None = None
        if not self.finished:
            begin = opener or dense_opener(spec, shape, dtype, chunk_rows=chunk_rows, dataset=dataset)
            self._writer = begin(self._partial, self.done, self._entries)

    def _begin(self, final: Path, trust: bool) -> int:
        """Rows that are done already; -1 where all is."""
        if durable.exists(self._record):
            if self.saving.resume:
                return self._recorded(final)
            if not self.saving.overwrite:
                raise OutputExistsError(
                    "an unfinished output is in progress",
                    where=str(self._partial),
                    hint="--resume continues it, --overwrite begins anew",
                )
            self._discard()
        if trust and self.saving.resume and durable.exists(final) and self._is_ours():
            return -1
        refuse_existing(self.spec, overwrite=self.saving.overwrite)
        self._discard()
        return 0

    def _recorded(self, final: Path) -> int:
        try:
            record = json.loads(durable.read_bytes(self._record))
            theirs, rows = dict(record["identity"]), int(record["rows"])
            self._entries = int(record.get("entries") or 0)
        except (ValueError, KeyError, TypeError):
            self._discard()
            return 0
        differ = sorted(k for k in {*theirs, *self.identity} if theirs.get(k) != self.identity.get(k))
        if differ and self.saving.overwrite:
            self._discard()
            return 0
        if differ:
            shown = ", ".join(f"{k} was {theirs.get(k)!r}, is {self.identity.get(k)!r}" for k in differ)
            raise CheckpointMismatchError(
                f"the output in progress is another job's: {shown}",
                where=str(self._partial),
                hint="repeat the same command, or begin anew with --overwrite",
            )
        if durable.exists(self._partial):
            if not rows:
                durable.remove_tree(self._partial)
            return rows
        return -1 if rows == self.identity["shape"][0] and durable.exists(final) else 0

    def _is_ours(self) -> bool:
        """Whether the finished output has the shape and type that this job makes."""
        from nmfstream.stores.registry import open_reader

        try:
            with open_reader(self.spec, Opening()) as reader:
                form = {"shape": list(reader.shape), "dtype": str(reader.dtype), "sparse": reader.nnz is not None}
                return form == {"sparse": False, **{k: v for k, v in self.identity.items() if k in form}}
        except (NmfstreamError, DataError):
            return False

    @property
    def nnz(self) -> int | None:
        """Entries written so far of a sparse output."""
        return None if self._writer is None else self._writer.nnz

    def write(self, start: int, rows: Matrix) -> None:
        """The next rows."""
        assert self._writer is not None
        self._writer.write(start, rows)
        self.done = start + rows.shape[0]
        self._steps += 1
        if self._due():
            self.save()

    def _due(self) -> bool:
        steps, seconds = self.saving.every_steps, self.saving.every_seconds
        late = seconds is not None and time.monotonic() - self._saved_at >= seconds
        return late or (steps is not None and self._steps >= steps)

    def save(self) -> None:
        """Make the rows so far durable, then claim them."""
        if self._writer is None:
            return
        self._writer.flush()
        record = {"rows": self.done, "entries": self._writer.nnz, "identity": self.identity}
        durable.write_whole(self._record, json.dumps(record).encode(), overwrite=True)
        self._saved_at, self._steps = time.monotonic(), 0

    def commit(self, *, keep_record: bool = False) -> None:
        """Give the whole its final name; the record goes, unless more is to be committed first (`forget`)."""
        if self._writer is not None:
            self.save()
            self._writer.commit(overwrite=self.saving.overwrite or self.saving.resume)
            self._writer, self.finished = None, True
        if not keep_record:
            self.forget()

    def forget(self) -> None:
        """Remove the record of a committed output."""
        if durable.exists(self._record):
            durable.remove(self._record)

    def abort(self) -> None:
        """Remove what is in progress, unless a record claims it for a later resume."""
        if self._writer is not None and not durable.exists(self._record):
            self._writer.abort()

    def _discard(self) -> None:
        for path in (self._record, self._partial):
            if durable.exists(path):
                durable.remove_tree(path)


def forget_record(spec: str) -> None:
    """Remove the record of an output that was committed by a job which ended before it could do so itself."""
    final = parse_output(spec).path
    partial, record = (final.with_name(f"{final.name}.{end}") for end in ("partial", "partial.json"))
    if durable.exists(record) and durable.exists(final) and not durable.exists(partial):
        durable.remove(record)


def dense_opener(spec: str, shape: tuple[int, int], dtype: Any, **options: Any) -> Opener:
    """Of a dense output; `options` as for `open_writer`."""

    def begin(partial: Path, done: int, entries: int) -> RowWriter:
        return open_writer(spec, shape, dtype, partial=partial, resume=done > 0, **options)

    return begin
