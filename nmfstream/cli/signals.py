"""Signals that end the process: half-written outputs are removed first, and no library swallows the end.

Python raises a signal's exception wherever the main thread happens to be. In a callback whose exceptions nobody
sees (a finalizer, an import lock's, a C library's) it is dropped with a remark and the process would go on.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_AGAIN_AFTER = 0.01
"""Seconds: by then the callback that dropped the exception has returned."""


class Terminated(BaseException):
    """A signal that ends the process came while nothing was there to be saved.

    Parameters
    ----------
    number : int
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(number)


@contextmanager
def dying_tidily() -> Iterator[None]:
    """Let a signal that would end the process remove half-written outputs first; a second one ends it at once.

    Raises
    ------
    Terminated, KeyboardInterrupt
        Inside, when a signal comes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    hook = sys.unraisablehook
    before = {n: signal.signal(n, _HANDLERS[n]) for n in _HANDLERS if signal.getsignal(n) is signal.SIG_DFL}
    sys.unraisablehook = _raise_again
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def die(number: int) -> None:
    """Die of the signal, as if nobody had caught it: whoever waits for the process sees what ended it."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    raise Terminated(number)


def _raise_again(dropped: UnraisableHookArgs, /) -> None:
    error = dropped.exc_value
    if not isinstance(error, Terminated | KeyboardInterrupt):
        sys.__unraisablehook__(dropped)
        return

    def again(number: int, frame: FrameType | None) -> None:
        raise error

    signal.signal(signal.SIGALRM, again)
    signal.setitimer(signal.ITIMER_REAL, _AGAIN_AFTER)


_HANDLERS = {
    signal.SIGINT: signal.default_int_handler,
    **dict.fromkeys((signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2), _terminate),
}
