"""A run's figures as JSON lines, appended to a file."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nmfstream.cli.meter import Meter
from nmfstream.run.events import Advanced, Event, StageFinished
from nmfstream.storage import durable

if TYPE_CHECKING:
    from nmfstream.run.events import Listener

INTERVAL = 30.0


class Metrics:
    """A listener that appends a line an interval, and one at the end of each stage.

    Parameters
    ----------
    append : callable
        Takes a line.
    every : float
        Seconds.
    """

    def __init__(self, append: Callable[[str], None], every: float = INTERVAL) -> None:
        self._append, self._every, self._last = append, every, time.monotonic()
        self._meter = Meter()

    def __call__(self, event: Event) -> None:
        """Hear an event."""
        self._meter(event)
        due = isinstance(event, Advanced) and time.monotonic() - self._last >= self._every
        if due or isinstance(event, StageFinished):
            self._last = time.monotonic()
            self._append(json.dumps(self._figures(event), allow_nan=False) + "\n")

    def _figures(self, event: Event) -> dict[str, Any]:
        meter = self._meter
        record = event.record if isinstance(event, StageFinished) else None
        return {
            "time": time.time(),
            "stage": meter.stage,
            "finished": isinstance(event, StageFinished),
            "rows": event.rows if isinstance(event, StageFinished) else meter.rows,
            "rows_total": meter.total or None,
            "seconds": meter.seconds,
            "rows_per_second": meter.rows_per_second,
            "bytes_per_second": meter.bytes_per_second,
            "n_steps": meter.n_steps,
            "loss": _number(record.loss if record is not None else meter.loss),
            "H_change": _number(record.H_change if record is not None else math.nan),
            "eta": meter.eta,
        }


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


@contextmanager
def appending(path: Path, first: Listener) -> Iterator[Listener]:
    """`first`, and a `Metrics` listener that appends to `path`, as one.

    Raises
    ------
    OutputExistsError, AccessDeniedError, StorageError
        If the file cannot be created or written.
    """
    file = durable.reopen(path) if durable.exists(path) else durable.create(path)
    metrics = Metrics(lambda line: file.pwrite(line.encode(), file.size()))

    def both(event: Event) -> None:
        first(event)
        metrics(event)

    try:
        yield both
    finally:
        file.close()
