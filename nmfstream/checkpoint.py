"""Save and load a run's state: a folder of write-once generations, of which the newest valid one counts.

A generation is written under a temporary name, synced, read again and hashed, and then linked to its number's name:
where that exists, another run owns the output (compare and set). A run that takes over first gives the newest
generation a second, higher name, so that the former owner, should it wake, finds its next name taken.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from nmfstream import checkpoint_format as form
from nmfstream.checkpoint_reading import ATTEMPTS, file_of, first_valid, generations, lost_work, names_in, run_of
from nmfstream.checkpoint_reading import Saved as Saved
from nmfstream.checkpoint_reading import is_checkpoint as is_checkpoint
from nmfstream.checkpoint_reading import read_components as read_components
from nmfstream.core.state import RunState, pack
from nmfstream.errors import CheckpointMismatchError, InputAbsentError, NmfstreamError, OutputExistsError, StorageError
from nmfstream.fingerprint import differences
from nmfstream.ownership import Lease, token
from nmfstream.run.events import Listener, Note, silent
from nmfstream.storage import durable

KEPT = 2
"""Generations that stay while a run goes on."""

MAY_CHANGE = frozenset({"max_iter", "tol", "max_no_improvement"})
"""Parameters that a resumed run may be given another value of."""

STREAM = "stream"
"""In the place of the data's fingerprint, where they come once: such a run cannot be resumed, only learnt on from."""


class Checkpoints:
    """The checkpoint of one run.

    Parameters
    ----------
    path : Path
        Folder; it exists once the first generation is durable.
    identity : dict
        Parameters of the run, plain values by name: all but `MAY_CHANGE` must be equal to resume.
    fingerprint : dict of str
        See `nmfstream.fingerprint.numeric_fingerprint`.
    data : str
        Fingerprint of the data.
    listener : callable, optional
        Hears notes on what was lost or differs.
    strict : bool
        Refuse to go on under another numeric fingerprint.
    lease : Lease, optional
    """

    def __init__(
        self,
        path: Path,
        *,
        identity: dict[str, Any],
        fingerprint: dict[str, str],
        data: str,
        listener: Listener = silent,
        strict: bool = False,
        lease: Lease | None = None,
    ) -> None:
        self.path = path
        self.identity = json.loads(json.dumps(identity))  # as it will be read again
        self.fingerprint, self.data = fingerprint, data
        self.lease = lease or Lease(path)
        self._listener, self._strict = listener, strict
        self._run = token()
        self._number = 0
        self._bad: set[int] = set()
        self._tried: set[int] = set()
        self._earlier: list[dict[str, str]] = []

    def open(
        self,
        *,
        resume: bool,
        overwrite: bool = False,
        after: bool = False,
        check: Callable[[], None] = lambda: None,
    ) -> Saved | None:
        """Take the lease, and find what there is to resume.

        Parameters
        ----------
        resume, overwrite : bool
            As the options. With both, what matches is resumed and anything else discarded.
        after : bool
            The run starts from what is there: unless it is resumed it stays until newer generations replace it.
        check : callable
            Called while waiting for another owner's silence; may raise.

        Returns
        -------
        saved : Saved or None
            None: begin.

        Raises
        ------
        OutputExistsError
            If another run holds the output, or there is a checkpoint and neither option is given.
        CheckpointMismatchError
        """
        self.lease.acquire(check)
        try:
            return self._settle(resume, overwrite, after)
        except BaseException:
            self.lease.release()
            raise

    def start(self) -> None:
        """Show from a thread that the run lives."""
        self.lease.start()

    def close(self) -> None:
        """Give the lease back."""
        self.lease.release()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def newest(self) -> Saved | None:
        """The newest valid generation; None where there is none at all.

        Raises
        ------
        CheckpointMismatchError
            If every generation is damaged, or the newest is of a later format.
        StorageError
            If none can be read.
        """
        found = sorted(generations(self.path), reverse=True)
        self._number = max(found, default=0)
        saved, faults = first_valid(self.path, found)
        self._bad.update(faults)
        for number, why in faults.items():
            self._listener(Note(lost_work(self.path, number, why, saved), warning=True))
        if saved is not None:
            self._earlier = saved.header.get("earlier", [])
        return saved

    def save(self, state: RunState, *, finished: bool = False, extra: dict[str, Any] | None = None) -> int:
        """Make a state durable as the next generation.

        Parameters
        ----------
        state : RunState
        finished : bool
            Only this generation stays.
        extra : dict, optional
            Plain values that come back in `Saved.extra`.

        Returns
        -------
        generation : int

        Raises
        ------
        OwnershipLostError
            If another run took over; nothing of this state counts.
        StorageError, AccessDeniedError, OutputExistsError
            If it cannot be written; the older generations are as they were, and `save` may be called again.
        """
        self.lease.require()
        self._adopt()
        number = self._number + 1
        folder = self.path if durable.is_folder(self.path) else durable.temporary_name(self.path)
        values, arrays = pack(state)
        header = {**self._header(number), "finished": finished, "extra": extra or {}, "state": values}
        try:
            durable.make_folder(folder)
            self._commit(folder, number, self._write(folder, number, header, arrays))
        except Exception as error:
            if folder != self.path:
                with suppress(NmfstreamError):
                    durable.remove_tree(folder)
            if isinstance(error, InputAbsentError):  # the file in progress is gone: who took over removes it
                self.lease.require()
                raise StorageError(error.what, where=error.where, hint=error.hint) from error
            raise
        self._number = number
        self._retire(1 if finished else KEPT)
        return number

    def discard(self) -> None:
        """Remove every generation, the newest last."""
        for number in sorted(generations(self.path)):
            durable.remove(file_of(self.path, number))
        self._sweep()
        with suppress(NmfstreamError):
            durable.sync_folder(self.path)
            durable.remove_folder(self.path)
        self._number, self._bad = 0, set()

    def _settle(self, resume: bool, overwrite: bool, after: bool) -> Saved | None:
        if durable.exists(self.path) and not durable.is_folder(self.path):
            raise OutputExistsError("is no checkpoint", where=str(self.path), hint="choose another --checkpoint")
        self._sweep()
        if not generations(self.path):
            return None
        if resume:
            try:
                return self._resumed()
            except CheckpointMismatchError:
                if not overwrite:
                    raise
        elif not (overwrite or after):
            goes_on = f"--from {self.path}" if self.data == STREAM else "--resume"
            hint = f"{goes_on} goes on with it, --overwrite discards it"
            raise OutputExistsError("there is a checkpoint", where=str(self.path), hint=hint)
        if after:
            self._number = max(generations(self.path))
        else:
            self.discard()
        return None

    def _matching(self) -> Saved | None:
        saved = self.newest()
        if saved is None:
            return None
        changed = changes(saved.header["identity"], self.identity)
        if saved.header["data"] != self.data:
            changed.append(f"data: {saved.header['data']} then, {self.data} now")
        if changed:
            hint = "use the same parameters and data, or another output, or --overwrite"
            raise CheckpointMismatchError("the checkpoint differs: " + ", ".join(changed), where=self._where, hint=hint)
        self._compare_fingerprint(saved.header["fingerprint"])
        return saved

    @property
    def _where(self) -> str:
        return str(self.path)

    def _compare_fingerprint(self, before: dict[str, str]) -> None:
        changed = ", ".join(differences(before, self.fingerprint))
        if not changed:
            return
        if self._strict:
            hint = "resume where it was begun, or leave out --strict"
            raise CheckpointMismatchError(f"other software or CPU: {changed}", where=self._where, hint=hint)
        self._earlier = [*self._earlier, before]
        self._listener(Note(f"{self._where}: results may differ in their last bits: {changed}", warning=True))

    def _resumed(self) -> Saved | None:
        """What there is to resume, with the next name taken so that a former owner finds it taken."""
        for _ in range(ATTEMPTS):
            with suppress(InputAbsentError):  # another run's work removes what was just found
                saved = self._matching()
                if saved is None or saved.finished or self._fenced(saved):
                    return saved
        raise self.lease.lost()

    def _fenced(self, saved: Saved) -> bool:
        fence = file_of(self.path, self._number + 1)
        try:
            durable.second_name(file_of(self.path, saved.generation), fence)
        except FileExistsError:
            if not durable.exists(fence):
                raise
            return False  # the former owner was faster: go on from what it saved
        self._number += 1
        return True

    def _header(self, number: int) -> dict[str, Any]:
        return {
            "generation": number,
            "run": self._run,
            "host": self.lease.owner.host,
            "job": self.lease.owner.job,
            "written": time.time(),
            "identity": self.identity,
            "data": self.data,
            "fingerprint": self.fingerprint,
            "earlier": self._earlier,
        }

    def _write(self, folder: Path, number: int, header: dict[str, Any], arrays: dict[str, Any]) -> Path:
        file = durable.temporary(file_of(folder, number))
        try:
            digest = form.write(file, header, arrays)
            file.sync()
            file.close()
            self._read_back(file.path, digest)
        except Exception:
            durable.discard(file)
            raise
        return file.path

    @staticmethod
    def _read_back(path: Path, digest: bytes) -> None:
        with durable.view(path) as file:
            try:
                same = form.digest(file) == digest
            except form.DamagedError:
                same = False
        if not same:
            raise StorageError("what was read back is not what was written", where=str(path), hint="check the device")

    def _commit(self, folder: Path, number: int, written: Path) -> None:
        self.lease.require()
        self._tried.add(number)
        try:
            durable.publish(written, file_of(folder, number))
            if folder != self.path:
                durable.publish_tree(folder, self.path)
        except Exception as error:
            with suppress(NmfstreamError):
                durable.remove(written)
            if isinstance(error, FileExistsError) and durable.exists(file_of(self.path, number)):
                raise self.lease.lost() from error
            raise
        if max(generations(self.path), default=number) != number:
            # The name was free again because its owner, who took over, had gone on far beyond it.
            raise self.lease.lost()
        self.lease.require()

    def _adopt(self) -> None:
        """Count what an attempt that reported a failure had linked all the same: a name is never used twice."""
        number = max(generations(self.path), default=0)
        if number <= self._number:
            return
        run = run_of(file_of(self.path, number))
        if run != self._run and (run or number not in self._tried):
            raise self.lease.lost()
        self._bad.add(number)  # what failed to sync proves nothing
        self._number = number

    def _retire(self, kept: int) -> None:
        """Remove what is older than the `kept` newest good generations; a failure is the next save's to repair."""
        with suppress(NmfstreamError):
            seen: set[tuple[int, int]] = set()
            for number in sorted(generations(self.path), reverse=True):
                if len(seen) >= kept:
                    durable.remove(file_of(self.path, number))
                elif number not in self._bad:
                    seen.add(durable.identity(file_of(self.path, number)))

    def _sweep(self) -> None:
        """Remove what dead runs left half-written; the lease is ours, so nobody else writes."""
        beside = f".{self.path.name}."
        for folder, start in ((self.path, "."), (self.path.parent, beside)):
            for name in names_in(folder):
                if name.startswith(start) and name.endswith(".tmp"):
                    durable.remove_tree(folder / name)


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Parameters that are not what they were, in words."""
    names = sorted((set(before) | set(now)) - MAY_CHANGE)
    pairs = [(name, before.get(name), now.get(name)) for name in names]
    return [f"{name}: {a} then, {b} now" for name, a, b in pairs if a != b]
