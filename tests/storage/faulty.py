"""A `Disk` that misbehaves at the n-th call, whatever disk is below."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

READS = frozenset({"pread", "size", "stat", "listdir"})
UNCOUNTED = frozenset({"now", "pause"})


class Killed(BaseException):
    """The process is gone: nothing may catch this."""


Fault = Callable[[Callable[..., Any], tuple[Any, ...]], Any]


def failing(code: int) -> Fault:
    """The call does nothing and reports an error."""

    def fault(call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        raise OSError(code, os.strerror(code))

    return fault


def done_but_failing(code: int) -> Fault:
    """The call does its work and reports an error all the same."""

    def fault(call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        call(*args)
        raise OSError(code, os.strerror(code))

    return fault


def short(call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """A write or read of half of what was asked; other calls are interrupted before they begin."""
    cut = {
        "pwrite": lambda fd, data, offset: (fd, data[: (len(data) + 1) // 2], offset),
        "pread": lambda fd, size, offset: (fd, (size + 1) // 2, offset),
    }.get(call.__name__, _interrupted)
    return call(*cut(*args))


def _interrupted(*args: Any) -> Any:
    raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))


def torn(call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Half of a write happens, then the device fails."""
    if call.__name__ == "pwrite":
        call(args[0], args[1][: len(args[1]) // 2], args[2])
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def killed_before(call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    raise Killed


def killed_after(call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    with suppress(OSError):
        call(*args)
    raise Killed


def killed_within(call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Half of a write happens."""
    if call.__name__ == "pwrite":
        call(args[0], args[1][: len(args[1]) // 2], args[2])
    raise Killed


@dataclass
class FaultyDisk:
    """Counts calls; the ones numbered in `at` (from 0) meet `fault`.

    After a kill every further call is as if the process were gone.
    """

    inner: Any
    fault: Fault = killed_before
    at: frozenset[int] | range = frozenset()
    only: frozenset[str] | None = None
    calls: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    dead: bool = False

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.inner, name)
        return call if name in UNCOUNTED else lambda *args: self._call(name, call, args)

    def _call(self, name: str, call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        if self.dead:
            raise Killed
        if self.only is not None and name not in self.only:
            return call(*args)
        self.calls.append(name)
        self.paths.append(str(args[0]))
        if len(self.calls) - 1 not in self.at:
            return call(*args)
        try:
            return self.fault(call, args)
        except Killed:
            self.dead = True
            raise

    def close(self, fd: int) -> None:
        """Destructors run in a simulated death too; they close nothing then."""
        if not self.dead:
            self._call("close", self.inner.close, (fd,))
