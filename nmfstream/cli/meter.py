"""Speed and time left, from a run's events."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from nmfstream.run.events import Advanced, Event, StageStarted


class Meter:
    """Hears events; knows the rows a second, the bytes a second, and when the stage will end.

    Parameters
    ----------
    clock : callable
        Seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.began = self.stage_began = clock()
        self.stage, self.total, self.rows, self.bytes, self.n_steps = "", 0, 0, 0, 0
        self.loss = math.nan
        self._first = 0

    def __call__(self, event: Event) -> None:
        """Hear an event."""
        if isinstance(event, StageStarted):
            self.stage, self.total, self.rows, self.bytes = event.name, event.rows, event.rows_done, 0
            self._first, self.stage_began = event.rows_done, self._clock()
        elif isinstance(event, Advanced):
            self.rows, self.n_steps, self.loss = event.rows, event.n_steps, event.loss
            self.bytes += event.bytes

    @property
    def seconds(self) -> float:
        """Since the stage began."""
        return max(self._clock() - self.stage_began, 1e-9)

    @property
    def rows_per_second(self) -> float:
        """Mean over the stage, rows of an earlier run not counted."""
        return (self.rows - self._first) / self.seconds

    @property
    def bytes_per_second(self) -> float:
        """Mean over the stage, of X as it lies in memory."""
        return self.bytes / self.seconds

    @property
    def eta(self) -> float | None:
        """Seconds until the stage ends; None while nobody knows."""
        rate = self.rows_per_second
        return (self.total - self.rows) / rate if self.total and rate > 0 else None

    def figures(self) -> str:
        """MB/s and loss."""
        megabytes = self.bytes_per_second / 1e6
        speed = f"{megabytes:.0f} MB/s" if megabytes >= 10 else f"{megabytes:.1g} MB/s"
        return speed if math.isnan(self.loss) else f"{speed}, loss {self.loss:.6g}"

    def line(self) -> str:
        """How far the stage is, in one line."""
        share = f" of {self.total} ({self.rows / self.total:.0%})" if self.total else ""
        left = "" if self.eta is None else f", ETA {duration(self.eta)}"
        return f"{self.stage}: {self.rows}{share} rows, {self.rows_per_second:.0f} rows/s, {self.figures()}{left}"


def duration(seconds: float) -> str:
    """``0.8 s``, ``42 s``, ``3 min 5 s``, ``2 h 10 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
