"""Decides when a run is saved, and what happens when that fails."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nmfstream.checkpoint import Checkpoints
from nmfstream.config import Saving
from nmfstream.core.state import RunState
from nmfstream.errors import (
    AccessDeniedError,
    InputAbsentError,
    NmfstreamError,
    NumericError,
    OutputExistsError,
    StorageError,
)
from nmfstream.ownership import OwnershipLostError
from nmfstream.run.events import Listener, Note, Saved, silent
from nmfstream.run.signals import StopFlag
from nmfstream.storage import disk, durable

ATTEMPTS = 3
"""Failed saves in a row after which the run ends."""

RETRY_SECONDS = 30.0
COST_FACTOR = 100.0
"""By default the time between two saves is at least this many times what a save takes: 1 % of the run."""

FRUITLESS = 3
"""Interrupted runs in a row without a new generation that are one too many."""

_FAULTS = (StorageError, InputAbsentError, AccessDeniedError, OutputExistsError)


@dataclass
class Companions:
    """What else a checkpoint claims.

    Attributes
    ----------
    flush : callable
        Makes rows of W durable; called before the checkpoint that claims them is written.
    extra : callable
        Plain values to keep with the state.
    saved : callable
        Called once the checkpoint is durable.
    """

    flush: Callable[[], None] = lambda: None
    extra: Callable[[], dict[str, Any]] = dict
    saved: Callable[[], None] = lambda: None


@dataclass
class Saver:
    """Saves between two steps.

    Parameters
    ----------
    checkpoints : Checkpoints
    saving : Saving
        The intervals. The default interval stretches so that saving costs 1 % of the time.
    stop : StopFlag
        Asked after each step; learns how long a save takes.
    listener : callable
    companions : Companions
    clock : callable
    """

    checkpoints: Checkpoints
    saving: Saving
    stop: StopFlag = field(default_factory=StopFlag)
    listener: Listener = silent
    companions: Companions = field(default_factory=Companions)
    clock: Callable[[], float] = time.monotonic
    generation: int | None = None
    """The newest that this run saved."""
    _steps: int = 0
    _failures: int = 0
    _cost: float = 0.0

    def __post_init__(self) -> None:
        self._began = self._due_from = self.clock()
        self._retry_from = float("-inf")
        self._stalls = Stalls(self.checkpoints.path)

    def after_step(self, state: RunState) -> None:
        """Count a step, save if it is time, and raise `StopRequested` if a stop was asked for."""
        self._steps += 1
        if self.due() and not self.stop():  # who stops saves at the end anyway
            self._attempt(state)
        self.stop.check()

    def due(self) -> bool:
        """Whether it is time to save."""
        now = self.clock()
        if self._failures:
            return now >= self._retry_from
        by_steps = self.saving.every_steps is not None and self._steps >= self.saving.every_steps
        return by_steps or now - self._due_from >= self.interval

    @property
    def interval(self) -> float:
        """Seconds between two saves."""
        seconds = self.saving.every_seconds
        if seconds is None:
            return float("inf")
        return max(seconds, COST_FACTOR * self._cost) if seconds == Saving.every_seconds else seconds

    def finish(self, state: RunState) -> int:
        """Save the ended run as the only generation.

        Raises
        ------
        StorageError, OwnershipLostError
        """
        return self._insist(state, finished=True)

    def interrupted(self, state: RunState) -> None:
        """Save what was done since the last save, because a signal or the clock ends the run.

        Raises
        ------
        StorageError, OwnershipLostError
        NumericError
            If three such runs in a row, each longer than the interval, got nowhere.
        """
        if self._steps:
            self._insist(state)
            return
        fruitless = self.generation is None and self.clock() - self._began > self.interval
        if fruitless and self._stalls.add() >= FRUITLESS:
            raise NumericError(
                f"{FRUITLESS} runs in a row were stopped before one step was done",
                where=str(self.checkpoints.path),
                hint="give the run more time, or smaller steps (--batch-size)",
            )

    def _insist(self, state: RunState, *, finished: bool = False) -> int:
        while (number := self._attempt(state, finished=finished)) is None:
            disk.current().pause(1.0)
        return number

    def _attempt(self, state: RunState, *, finished: bool = False) -> int | None:
        began = self.clock()
        try:
            self.companions.flush()
            number = self.checkpoints.save(state, finished=finished, extra=self.companions.extra())
        except OwnershipLostError:
            raise
        except _FAULTS as error:
            self._failed(error)
            return None
        self._succeeded(number, self.clock() - began)
        return number

    def _succeeded(self, number: int, seconds: float) -> None:
        first = self.generation is None
        self.generation, self._steps, self._failures = number, 0, 0
        self._cost, self._due_from = max(seconds, self._cost / 2), self.clock()
        self.stop.saved(seconds)
        self.companions.saved()
        if first:
            self._stalls.clear()
        self.listener(Saved(number, seconds))

    def _failed(self, error: NmfstreamError) -> None:
        hopeless = self.generation is None and isinstance(error, AccessDeniedError | OutputExistsError)
        self._failures += 1
        if hopeless or (isinstance(error, StorageError) and self._failures >= ATTEMPTS):
            raise error
        if self._failures >= ATTEMPTS:
            raise StorageError(error.what, where=error.where, hint=error.hint) from error
        self._retry_from = self.clock() + min(RETRY_SECONDS, self.interval)
        self.listener(Note(f"not saved ({error}); the run goes on and tries again", warning=True))


class Stalls:
    """Counts interrupted runs that saved nothing, in ``PATH.stalls`` beside the checkpoint."""

    def __init__(self, checkpoint: Path) -> None:
        self.path = checkpoint.with_name(checkpoint.name + ".stalls")

    def add(self) -> int:
        """Count one more; how many there are in a row."""
        count = self._read() + 1
        durable.write_whole(self.path, json.dumps({"runs": count}).encode(), overwrite=True)
        return count

    def clear(self) -> None:
        """A run got somewhere."""
        durable.remove(self.path)

    def _read(self) -> int:
        try:
            return int(json.loads(durable.read_bytes(self.path))["runs"])
        except (InputAbsentError, ValueError, KeyError, TypeError):
            return 0
