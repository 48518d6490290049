"""What a run tells while it goes on; progress bars, metrics and history are listeners that it does not know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from nmfstream.core.state import PassRecord


@dataclass(frozen=True)
class StageStarted:
    """A read of the data begins."""

    name: str
    rows: int
    """Rows it will read (0 where unknown)."""
    rows_done: int = 0
    """Rows of it that a resumed run has behind it."""


@dataclass(frozen=True)
class Advanced:
    """A step was taken."""

    rows: int
    """Rows of this stage done so far."""
    bytes: int
    """Bytes of X they held in memory."""
    n_steps: int
    loss: float


@dataclass(frozen=True)
class StageFinished:
    """A read of the data ended."""

    name: str
    rows: int
    seconds: float
    record: PassRecord | None = None
    """The history's row, for passes over the data."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint generation is durable."""

    generation: int
    seconds: float


@dataclass(frozen=True)
class Note:
    """Something the user should know, one line (``--quiet`` hides it; warnings stay)."""

    text: str
    warning: bool = False


Event: TypeAlias = "StageStarted | Advanced | StageFinished | Saved | Note"
Listener: TypeAlias = Callable[[Event], None]


def silent(event: Event) -> None:
    """The listener that hears nothing."""
