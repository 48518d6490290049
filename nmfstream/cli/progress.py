"""Progress for people: a bar on a terminal, a plain line every half minute elsewhere."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from nmfstream.cli.meter import Meter
from nmfstream.run.events import Advanced, Event, Note, Saved, StageFinished, StageStarted

if TYPE_CHECKING:
    from nmfstream.run.events import Listener

LINE_SECONDS = 30.0


class Display(Protocol):
    """How far a run is, shown to someone."""

    def show(self, meter: Meter, event: Event) -> None:
        """A stage began, went on, or ended."""
        ...

    def say(self, text: str) -> None:
        """Print a line of text."""
        ...

    def remark(self, text: str) -> None:
        """Print a line that may wait: where it went into a log before an error, the error would not stand alone."""
        ...

    def done(self) -> None:
        """All went well: print what waits."""
        ...

    def close(self) -> None:
        """Clear away what would stand in the way of the last line."""
        ...


class Silent:
    """No progress; notes are still said, remarks when all went well."""

    def __init__(self) -> None:
        self._waiting: list[str] = []

    def show(self, meter: Meter, event: Event) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Print a line of text."""
        print(text, file=sys.stderr, flush=True)

    def remark(self, text: str) -> None:
        """Keep a line until a line of progress is due or all went well."""
        self._waiting.append(text)

    def done(self) -> None:
        """Print what waits."""
        waiting, self._waiting = self._waiting, []
        for text in waiting:
            self.say(text)

    def close(self) -> None:
        """Nothing."""


class Lines(Silent):
    """One plain line every `LINE_SECONDS`.

    Parameters
    ----------
    clock : callable
        Seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, every: float = LINE_SECONDS) -> None:
        super().__init__()
        self._clock, self._every, self._last = clock, every, clock()

    def show(self, meter: Meter, event: Event) -> None:
        """A line, when it is time."""
        if isinstance(event, Advanced) and self._clock() - self._last >= self._every:
            self._last = self._clock()
            self.done()
            self.say(meter.line())


class Bar:
    """A tqdm bar for each stage; it vanishes when it ends."""

    def __init__(self) -> None:
        self._bar: Any = None

    def show(self, meter: Meter, event: Event) -> None:
        """Open, move or close the bar."""
        if isinstance(event, StageStarted):
            self._open(event)
        elif isinstance(event, Advanced) and self._bar is not None:
            self._bar.set_postfix_str(meter.figures(), refresh=False)
            self._bar.update(event.rows - self._bar.n)
        elif isinstance(event, StageFinished):
            self.close()

    def _open(self, event: StageStarted) -> None:
        from tqdm import tqdm

        self.close()
        colour = None if os.environ.get("NO_COLOR") else "green"
        self._bar = tqdm(total=event.rows or None, initial=event.rows_done, desc=event.name, unit=" rows",
                         unit_scale=True, leave=False, file=sys.stderr, colour=colour, **_room())  # fmt: skip

    def say(self, text: str) -> None:
        """Print a line of text above the bar."""
        from tqdm import tqdm

        tqdm.write(text, file=sys.stderr)

    remark = say

    def done(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Clear the bar."""
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()


def _room() -> dict[str, Any]:
    """How much of the terminal a bar may take: where it does not know its size (0 x 0) tqdm would show nothing."""
    try:
        known = all(os.get_terminal_size(sys.stderr.fileno()))
    except (OSError, ValueError):
        known = False
    return {"dynamic_ncols": True} if known else {"ncols": 80, "nrows": 24}


def display(*, wanted: bool | None, quiet: bool) -> Display:
    """The display for this terminal (or log) and these options."""
    if wanted is False or (quiet and not wanted):
        return Silent()
    terminal = sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    return Bar() if terminal else Lines()


class Teller:
    """The listener of a command: shows progress and says notes.

    Parameters
    ----------
    display : Display
    quiet, verbose : bool
        Warnings only; everything.
    """

    def __init__(self, display: Display, *, quiet: bool, verbose: bool) -> None:
        self.display, self.quiet, self.verbose = display, quiet, verbose
        self.meter = Meter()

    def __call__(self, event: Event) -> None:
        """Hear an event."""
        self.meter(event)
        self.display.show(self.meter, event)
        if text := self._text(event):
            may_wait = isinstance(event, Note) and not event.warning and not self.verbose
            say = self.display.remark if may_wait else self.display.say
            say(f"nmfstream: {text}")

    def _text(self, event: Event) -> str:
        if isinstance(event, Note):
            return f"warning: {event.text}" if event.warning else "" if self.quiet else event.text
        if not self.verbose:
            return ""
        if isinstance(event, Saved):
            return f"saved generation {event.generation} in {event.seconds:.2g} s"
        return f"{event.name}: {event.rows} rows in {event.seconds:.2f} s" if isinstance(event, StageFinished) else ""


class Told(logging.Handler):
    """What readers log (scratch that they need, locks that were refused), heard as notes.

    Parameters
    ----------
    hear : callable
        A listener.
    """

    def __init__(self, hear: Listener) -> None:
        super().__init__(logging.INFO)
        self._hear = hear

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a record on."""
        self._hear(Note(record.getMessage(), warning=record.levelno >= logging.WARNING))


@contextmanager
def _logged(hear: Listener) -> Iterator[None]:
    """Let `hear` know what is logged meanwhile."""
    log, handler = logging.getLogger("nmfstream"), Told(hear)
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)


@contextmanager
def listener(given: dict[str, Any]) -> Iterator[Listener]:
    """The listener that the options of a command ask for; cleared away at the end."""
    shown = display(wanted=given["progress"], quiet=given["quiet"])
    teller = Teller(shown, quiet=given["quiet"], verbose=given["verbose"])
    metrics = given.get("metrics")
    try:
        with _logged(teller):
            if metrics is None:
                yield teller
            else:
                from nmfstream.cli.metrics import appending

                with appending(metrics, teller) as both:
                    yield both
        shown.done()
    finally:
        shown.close()
