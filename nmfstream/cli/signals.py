"""Signals that end the process: half-written outputs are removed first, and no library swallows the end.

Python raises a signal's exception wherever the main thread happens to be. In a callback whose exceptions nobody
sees (a finalizer, an import lock's) or under a C library that clears errors it is dropped, and the process would
go on: so it is raised again and again until somebody handles it. Elsewhere another error takes its place (a class in
the making gives RuntimeError): whatever ends a command after a signal, it was the signal that ended it.
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

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_AGAIN_EVERY = 0.01
"""Seconds."""


class Terminated(BaseException):
    """A signal that ends the process came while nothing was there to be saved.

    Parameters
    ----------
    number : int
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(number)


_SIGNALLED = (Terminated, KeyboardInterrupt)


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
    ending = _Ending()
    before = {n: signal.signal(n, ending) for n in _ENDING if signal.getsignal(n) is signal.SIG_DFL}
    sys.unraisablehook = _say_other
    try:
        yield
    except BaseException as error:
        signalled = ending.error or error
        if isinstance(signalled, _SIGNALLED):
            _remove_unpublished()  # a signal may come between a file's making and the `try` that guards it
        if signalled is not error:
            raise signalled from error
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def die(number: int) -> None:
    """Die of the signal, as if nobody had caught it: whoever waits for the process sees what ended it."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _remove_unpublished() -> None:
    from nmfstream.storage.durable import remove_unpublished

    remove_unpublished()


class _Ending:
    """Handles the signals that end the process: raises an error, which it keeps, until somebody handles it."""

    error: BaseException | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.error = KeyboardInterrupt() if number == signal.SIGINT else Terminated(number)
        signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGALRM, self._again)
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_EVERY, _AGAIN_EVERY)
        raise self.error

    def _again(self, number: int, frame: FrameType | None) -> None:
        if self.error is not None and not _is_handled(self.error):
            raise self.error


def _is_handled(error: BaseException) -> bool:
    """Whether what runs now does so because of this error: an ``except``, a ``finally``, the end of a ``with``."""
    handled = sys.exception()
    while handled is not None and handled is not error:
        handled = handled.__context__
    return handled is error


def _say_other(dropped: UnraisableHookArgs, /) -> None:
    if not isinstance(dropped.exc_value, _SIGNALLED):
        sys.__unraisablehook__(dropped)
