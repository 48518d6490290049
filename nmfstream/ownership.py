"""Who works on an output: a lease that makes the common case of two runs on one output fail early.

The lease of ``NAME`` is a folder ``NAME.lease`` of write-once files, one an epoch; the highest is in force. Its
owner counts up a heartbeat in it. Nothing is locked, and clocks of two machines are never compared. What a run
commits is protected by its write-once name, not by the lease alone.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeVar

from nmfstream.errors import InputAbsentError, NmfstreamError, OutputExistsError, StorageError
from nmfstream.storage import disk, durable

E = TypeVar("E", bound=OutputExistsError)

BEAT_SECONDS = 20.0
PATIENCE_SECONDS = 120.0
_BEAT_DIGITS = 20
_POLL_SECONDS = 2.0
_ATTEMPTS = 100
_DYING_SECONDS, _DYING_POLLS = 0.1, 10
_JOB_VARIABLES = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "OAR_JOB_ID", "FLUX_JOB_ID", "COBALT_JOBID")
_here: set[str] = set()
"""Tokens of the leases that this process holds."""


class OwnershipLostError(OutputExistsError):
    """Another run owns the output by now: nothing more may be written to it."""


@dataclass(frozen=True)
class Owner:
    """A process, so that another can tell whether it still lives.

    Attributes
    ----------
    host : str
    place : str
        Machine and process namespace: process numbers are comparable where it is the same.
    boot : str
        Differs after a restart of the machine.
    pid : int
    started : str
        The process's start time in the kernel's ticks (a number may be used again).
    job : str
        The batch system's job id, or empty.
    token : str
        Differs for every lease.
    """

    host: str
    place: str
    boot: str
    pid: int
    started: str
    job: str
    token: str

    @classmethod
    def current(cls) -> Owner:
        """This process."""
        job = next((os.environ[v] for v in _JOB_VARIABLES if os.environ.get(v)), "")
        return cls(socket.gethostname(), _place(), _boot(), os.getpid(), _started(os.getpid()), job, token())

    def lives(self, seen_by: Owner) -> bool | None:
        """Whether this owner is alive as far as another can tell; None: unknown."""
        if self.place == seen_by.place:
            return self.boot == seen_by.boot and self._lives_here(seen_by)
        return False if self.job and self.job == seen_by.job else None

    def _lives_here(self, seen_by: Owner) -> bool:
        if self.pid == seen_by.pid and self.started == seen_by.started:
            return self.token in _here
        return durable.alive(self.pid) and _started(self.pid) == self.started

    def __str__(self) -> str:
        job = f", job {self.job}" if self.job else ""
        return f"host {self.host}, pid {self.pid}{job}"


class Grip(NamedTuple):
    """A lease file as it was read."""

    epoch: int
    content: bytes

    @property
    def owner(self) -> Owner | None:
        """Whose it is; None where the content is damaged."""
        try:
            return Owner(**json.loads(self.content[_BEAT_DIGITS:]))
        except (ValueError, TypeError, RecursionError):
            return None


class Lease:
    """The lease of one output.

    Parameters
    ----------
    output : Path
        The lease is the folder of this name with ``.lease`` added.
    owner : Owner, optional
        This process.
    """

    def __init__(self, output: Path, owner: Owner | None = None) -> None:
        self.output = output
        self.folder = output.with_name(output.name + ".lease")
        self.owner = owner or Owner.current()
        self._epoch = 0
        self._beat = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self, check: Callable[[], None] = lambda: None) -> None:
        """Take the lease, from a dead owner at once, from a silent one after two minutes.

        Parameters
        ----------
        check : callable
            Called while waiting; may raise.

        Raises
        ------
        OutputExistsError
            If a living run holds it; says which.
        """
        for _ in range(_ATTEMPTS):
            grip = self._current()
            if grip is not None and self._alive(grip, check):
                raise self._held(grip, OutputExistsError)
            if self._claim(1 if grip is None else grip.epoch + 1):
                return
        raise self._held(grip, OutputExistsError)

    def owned(self) -> bool:
        """Whether this lease is still the one in force."""
        grip = self._current()
        return grip is not None and grip.epoch == self._epoch and grip.owner == self.owner

    def require(self) -> None:
        """Raise unless this lease is still in force.

        Raises
        ------
        OwnershipLostError
            If another run has it.
        StorageError
            If its folder is gone, which may be the network's fault and pass.
        """
        if self.owned():
            return
        if self._current() is None:
            raise StorageError("the run's lease is gone", where=str(self.folder), hint="check the folder")
        raise self.lost()

    def lost(self) -> OwnershipLostError:
        """The error that says who took over."""
        return self._held(self._current(), OwnershipLostError)

    def beat(self) -> None:
        """Show that the owner lives; a failure is the next beat's to repair."""
        self._beat += 1
        with suppress(NmfstreamError, OSError), durable.reopen(self._file(self._epoch)) as file:
            file.pwrite(self._digits(), 0)
            file.sync()

    def start(self) -> None:
        """Beat every `BEAT_SECONDS` from a thread until `release`."""
        self._thread = threading.Thread(target=self._beating, name="lease", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Give the lease back; leaves nothing behind unless another took it."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(1.0)
        _here.discard(self.owner.token)
        if self._epoch:
            with suppress(NmfstreamError, OSError):
                self._remove_up_to(self._epoch)
                disk.current().rmdir(str(self.folder))

    def _beating(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            self.beat()

    def _held(self, grip: Grip | None, kind: type[E]) -> E:
        holder = grip.owner if grip is not None else None
        whose = f"held by another run ({holder})" if holder is not None else "taken over by another run"
        return kind(whose, where=str(self.output), hint="wait for it or choose another output")

    def _alive(self, grip: Grip, check: Callable[[], None]) -> bool:
        owner = grip.owner
        known = None if owner is None else owner.lives(self.owner)
        for _ in range(_DYING_POLLS):  # a process that was just killed takes a moment to be gone
            if known and owner is not None:
                disk.current().pause(_DYING_SECONDS)
                known = owner.lives(self.owner)
        return self._beats(grip, check) if known is None else known

    def _beats(self, grip: Grip, check: Callable[[], None]) -> bool:
        """Watch a lease for as long as a living owner could stay silent, by this machine's clock alone."""
        clock = disk.current()
        end = clock.now() + PATIENCE_SECONDS
        while clock.now() < end:
            check()
            clock.pause(_POLL_SECONDS)
            now = self._current()
            if now != grip:
                return now is not None
        return False

    def _current(self) -> Grip | None:
        for _ in range(3):  # a listed file may be gone before it is read
            epochs = [int(n) for n in _names(self.folder) if n.isdigit()]
            if not epochs:
                return None
            with suppress(InputAbsentError):
                return Grip(max(epochs), durable.read_bytes(self._file(max(epochs))))
        return None

    def _claim(self, epoch: int) -> bool:
        durable.make_folder(self.folder)
        content = self._digits() + json.dumps(asdict(self.owner)).encode()
        try:
            durable.write_whole(self._file(epoch), content)
        except (FileExistsError, FileNotFoundError):
            return False
        self._epoch = epoch
        _here.add(self.owner.token)
        self._remove_up_to(epoch - 1)
        return True

    def _remove_up_to(self, epoch: int) -> None:
        for name in _names(self.folder):
            if name.endswith(".tmp") or (name.isdigit() and int(name) <= epoch):
                durable.remove(self.folder / name)

    def _digits(self) -> bytes:
        return f"{self._beat:0{_BEAT_DIGITS}d}".encode()

    def _file(self, epoch: int) -> Path:
        return self.folder / f"{epoch:08d}"


def token() -> str:
    """A name that nobody else has."""
    return secrets.token_hex(8)


def _names(folder: Path) -> list[str]:
    try:
        return durable.names(folder)
    except InputAbsentError:
        return []


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


@cache
def _place() -> str:
    try:
        namespace = os.readlink("/proc/self/ns/pid")  # noqa: PTH115
    except OSError:
        namespace = ""
    return f"{socket.gethostname()} {_text('/etc/machine-id')} {namespace}"


@cache
def _boot() -> str:
    return _text("/proc/sys/kernel/random/boot_id")


def _started(pid: int) -> str:
    """A process's start; empty where there is none, or where it is dead and only not yet buried."""
    fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] not in "ZX" else ""
