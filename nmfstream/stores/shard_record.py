"""Which rows of a shared output are there: the record that its jobs keep beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from nmfstream.errors import DataError, NmfstreamError
from nmfstream.storage import durable
from nmfstream.stores.outputs import record_folder

_DONE = re.compile(r"(\d+)-(\d+)\.done")
Range = tuple[int, int]


def numbered(folder: Path, pattern: re.Pattern[str]) -> Iterator[tuple[int, ...]]:
    """The numbers in the names in a folder that follow a pattern."""
    for name in durable.names(folder):
        found = pattern.fullmatch(name)
        if found:
            yield tuple(int(number) for number in found.groups())


def finished(path: Path) -> list[Range]:
    """The ranges that are recorded as finished, sorted."""
    folder = record_folder(path)
    return sorted((a, b) for a, b in numbered(folder, _DONE)) if durable.is_folder(folder) else []


def gaps(ranges: Iterable[Range], whole: Range) -> list[Range]:
    """The parts of `whole` that sorted `ranges` leave out."""
    at, found = whole[0], []
    for start, stop in ranges:
        if start > at:
            found.append((at, min(start, whole[1])))
        at = max(at, stop)
        if at >= whole[1]:
            break
    return found if at >= whole[1] else [*found, (at, whole[1])]


def covers(ranges: Iterable[Range], whole: Range) -> bool:
    """Whether sorted `ranges` leave nothing of `whole` out."""
    return whole[0] >= whole[1] or not gaps(ranges, whole)


def missing_rows(store: str | Path) -> list[Range]:
    """Ranges that a shared output still lacks; empty for one that is whole, and for anything that is not shared."""
    path = Path(store)
    ticket = record_folder(path) / "output.json"
    if "://" in str(store) or not ticket.is_file():
        return []
    try:
        n_rows = int(json.loads(durable.read_bytes(ticket))["shape"][0])
    except (NmfstreamError, ValueError, KeyError, TypeError, IndexError) as error:
        hint = "run every range again under another name"
        raise DataError(f"the record of its ranges cannot be read ({error!r})", where=str(ticket), hint=hint) from error
    return gaps(finished(path), (0, n_rows)) if n_rows else []


def refuse_unfinished(store: str | Path) -> None:
    """Refuse to read a shared output while ranges are missing.

    Raises
    ------
    DataError
    """
    missing = missing_rows(store)
    if missing:
        listed = ", ".join(f"{a}:{b}" for a, b in missing[:8])
        more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
        hint = "run transform with --rows START:STOP for each of them"
        raise DataError(f"rows {listed}{more} are not written yet", where=str(store), hint=hint)
