"""Ends a run between two blocks: on a signal, or when its time is nearly up."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Any

from nmfstream.errors import RESUME, InterruptedRunError, StopRequested

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
CTRL_C_CODE = 130
_SPARE_SECONDS = 1.0


@dataclass
class StopFlag:
    """Says whether the run shall end. Context manager: signals are handled while it is entered.

    Signals are handled only where it is entered on the main thread; those that the process was started to ignore
    stay ignored. The first one asks the run to stop; a second one ends the process at once with 128 + n. A thread
    of its own takes them, so that neither waits for a long call into a library to return.

    Parameters
    ----------
    max_time : float, optional
        Seconds from `began`, within which the run shall have saved and ended. The margin is learnt: the longest
        time between two questions, and twice the longest save, so far.
    began : float
        ``time.monotonic()`` at the run's begin.

    Attributes
    ----------
    received : int or None
        Number of the signal that asked.
    """

    max_time: float | None = None
    began: float = field(default_factory=time.monotonic)
    received: int | None = None
    _out_of_time: bool = False
    _asked: float | None = None
    _longest_gap: float = 0.0
    _longest_save: float = 0.0
    _before: dict[signal.Signals, Any] = field(default_factory=dict)
    _pipe: tuple[int, int] | None = None
    _old_wakeup: int = -1

    def __call__(self) -> bool:
        """Whether the run shall end; safe from any thread, cheap."""
        if self.max_time is not None and not self._out_of_time:
            self._look_at_clock(time.monotonic())
        return self.received is not None or self._out_of_time

    def check(self) -> None:
        """Raise `StopRequested` if the run shall end."""
        if self():
            raise StopRequested

    def saved(self, seconds: float) -> None:
        """A save took this long."""
        self._longest_save = max(self._longest_save, seconds)

    @property
    def margin(self) -> float:
        """Seconds before the end of `max_time` at which the run is stopped, by what is known now."""
        return _SPARE_SECONDS + self._longest_gap + 2 * self._longest_save

    @property
    def reason(self) -> str:
        """Why, in words."""
        return "the time is up" if self.received is None else signal.Signals(self.received).name

    def error(self, *, where: str = "", hint: str = RESUME) -> InterruptedRunError:
        """The error that the run ends with: 130 for Ctrl-C, else 75."""
        error = InterruptedRunError(f"interrupted ({self.reason}), all saved", where=where, hint=hint)
        if self.received == signal.SIGINT:
            error.exit_code = CTRL_C_CODE
        return error

    def unsaved(self, *, what: str = "nothing was written", where: str = "", hint: str) -> InterruptedRunError:
        """As `error`, for a run that has nothing to go on with."""
        error = InterruptedRunError(f"interrupted ({self.reason}), {what}", where=where, hint=hint)
        error.exit_code = self.error().exit_code
        return error

    def _look_at_clock(self, now: float) -> None:
        if self._asked is not None:
            self._longest_gap = max(self._longest_gap, now - self._asked)
        self._asked = now
        assert self.max_time is not None
        # However slow it is, a run gets half of its time: the margin may be a bad guess.
        self._out_of_time = now - self.began >= self.max_time - min(self.margin, self.max_time / 2)

    def __enter__(self) -> StopFlag:
        if threading.current_thread() is threading.main_thread():
            self._install()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before.clear()
        if self._pipe is not None:
            signal.set_wakeup_fd(self._old_wakeup, warn_on_full_buffer=False)
            os.close(self._pipe[1])  # the thread sees the end and closes the other
            self._pipe = None

    def _install(self) -> None:
        wanted = [s for s in HANDLED if signal.getsignal(s) not in (signal.SIG_IGN, None)]
        if not wanted:
            return
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        threading.Thread(target=self._listen, args=(self._pipe[0],), name="signals", daemon=True).start()
        self._old_wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        for number in wanted:
            self._before[number] = signal.signal(number, _noticed)

    def _listen(self, pipe: int) -> None:
        while numbers := os.read(pipe, 64):
            for number in numbers:
                self._take(number)
        os.close(pipe)

    def _take(self, number: int) -> None:
        if number not in HANDLED:
            return
        if self.received is not None:
            leave(number)
        self.received = number


def leave(number: int) -> None:
    """End the process at once, as a shell would report a death by this signal."""
    with suppress(OSError):
        os.write(2, f"\nnmfstream: {signal.Signals(number).name} again, left at once\n".encode())
    os._exit(128 + number)


def _noticed(number: int, frame: FrameType | None) -> None:
    """The thread behind the wake-up descriptor does what is to be done."""
