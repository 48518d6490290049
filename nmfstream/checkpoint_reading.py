"""Find and read the generations of a checkpoint."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nmfstream import checkpoint_format as form
from nmfstream.core.solvers import bring_state
from nmfstream.core.state import RunState, unpack
from nmfstream.errors import CheckpointMismatchError, DataError, InputAbsentError, NmfstreamError, StorageError
from nmfstream.storage import durable
from nmfstream.types import Array

SUFFIX = ".gen"
ATTEMPTS = 5
HOSTILE = (form.DamagedError, ValueError, KeyError, TypeError, AttributeError, RecursionError, MemoryError)
"""What reading a file that someone forged may raise."""


@dataclass(frozen=True)
class Saved:
    """A generation that was read.

    Attributes
    ----------
    generation : int
    state : RunState
    finished : bool
        The run had ended and its outputs had their names.
    extra : dict
        As the caller gave it to `Checkpoints.save`.
    header : dict
        All that the file says besides the state.
    """

    generation: int
    state: RunState
    finished: bool
    extra: dict[str, Any]
    header: dict[str, Any]


def generations(path: Path) -> list[int]:
    """Numbers of the generations in a folder, unordered."""
    stems = [name.removesuffix(SUFFIX) for name in names_in(path) if name.endswith(SUFFIX)]
    return [int(stem) for stem in stems if stem.isascii() and stem.isdigit()]


def is_checkpoint(path: Path) -> bool:
    """Whether a path is a folder with generations, or one of them."""
    return bool(generations(path)) or (path.suffix == SUFFIX and durable.exists(path))


def file_of(path: Path, number: int) -> Path:
    """Where a generation lies."""
    return path / f"{number:08d}{SUFFIX}"


def names_in(folder: Path) -> list[str]:
    """Names in a folder; none where there is no folder."""
    try:
        return durable.names(folder)
    except InputAbsentError:
        return []
    except StorageError as error:
        if isinstance(error.__cause__, NotADirectoryError):
            return []
        raise


def first_valid(path: Path, numbers: list[int]) -> tuple[Saved | None, dict[int, str]]:
    """The first generation in the order given that is valid, and why those before are not.

    Raises
    ------
    CheckpointMismatchError
        If every one is damaged, or one is of a later format.
    StorageError
        If none can be read.
    """
    faults: dict[int, str] = {}
    unread: list[StorageError] = []
    for number in numbers:
        try:
            return load(file_of(path, number), number), faults
        except form.NewerVersionError as error:
            hint = "install a newer nmfstream"
            raise CheckpointMismatchError(str(error), where=str(file_of(path, number)), hint=hint) from error
        except StorageError as error:
            unread.append(error)
            faults[number] = str(error)
        except HOSTILE as error:
            faults[number] = str(error) if isinstance(error, form.DamagedError) else "its content makes no sense"
    if unread:
        raise unread[0]
    if numbers:
        what = "no generation can be used: " + ", ".join(f"{n}: {why}" for n, why in faults.items())
        raise CheckpointMismatchError(what, where=str(path), hint="restore it from a copy, or begin with --overwrite")
    return None, faults


def lost_work(path: Path, number: int, why: str, saved: Saved | None) -> str:
    """What it means that a generation cannot be used, in words."""
    rest = ""
    if saved is not None:
        state = saved.state
        at = f"generation {saved.generation} (stage {state.stage}, row {state.row})"
        rest = f"; going on from {at}, later work is done again"
    return f"{file_of(path, number)}: not used, {why}{rest}"


def load(path: Path, number: int = 0) -> Saved:
    """Read one generation.

    Raises
    ------
    DamagedError, NewerVersionError, StorageError
        Also `ValueError`, `KeyError`, `TypeError` where a valid file makes no sense.
    """
    with durable.view(path) as file:
        layout = form.read_layout(file)
        bring_state(str(layout.values["state"].get("solver_kind")))
        state = unpack(layout.values["state"], form.read_arrays(file, layout))
    header = {name: value for name, value in layout.values.items() if name != "state"}
    for name in ("identity", "fingerprint", "extra"):
        header[name] = dict(header[name])
    return Saved(number or int(header["generation"]), state, bool(header["finished"]), header["extra"], header)


def run_of(path: Path) -> str:
    """Token of the run that wrote a generation; empty where it cannot be read."""
    try:
        with durable.view(path) as file:
            return str(form.read_layout(file).values.get("run", ""))
    except (form.DamagedError, form.NewerVersionError, NmfstreamError):
        return ""


def read_components(path: str | Path) -> tuple[Array, dict[str, Any]]:
    """H of the newest valid generation of a checkpoint, for use as a model.

    Parameters
    ----------
    path : str or Path
        The checkpoint's folder, or one of its generations.

    Returns
    -------
    H : ndarray of shape (n_components, n_features)
    attributes : dict
        "parameters", "n_iter", "n_steps", "loss", "stop_reason", "history" (tuple of `PassRecord`),
        "data_fingerprint", "numeric_fingerprint" and what the run stored in `Saved.extra`.

    Raises
    ------
    DataError
        If it is no checkpoint, or has no components yet.
    CheckpointMismatchError, InputAbsentError, StorageError
    """
    saved = load_newest(Path(path))
    state = saved.state
    H = state.solver.H
    if not isinstance(H, np.ndarray) or H.ndim != 2 or not (H >= 0).all():  # drawn, but not yet made a start of
        hint = "let the run go on until its first pass has begun"
        raise DataError("the checkpoint has no components yet", where=str(path), hint=hint)
    return H, {
        **saved.extra,
        "parameters": saved.header["identity"],
        "n_iter": state.n_iter,
        "n_steps": state.n_steps,
        "loss": state.loss,
        "stop_reason": state.stop_reason or "not finished",
        "history": tuple(state.history),
        "data_fingerprint": saved.header["data"],
        "numeric_fingerprint": saved.header["fingerprint"],
    }


def load_newest(path: Path) -> Saved:
    """The newest valid generation, while another process may be saving."""
    for _ in range(ATTEMPTS):
        found = sorted(generations(path), reverse=True)
        with suppress(InputAbsentError):
            saved, _faults = first_valid(path, found) if found else (_single(path), {})
            if saved is not None:
                return saved
    raise InputAbsentError("no generation of the checkpoint is there", where=str(path), hint="check the path")


def _single(path: Path) -> Saved:
    try:
        if durable.is_folder(path):
            raise form.DamagedError("it has no generation")
        return load(path)
    except form.NewerVersionError as error:
        raise CheckpointMismatchError(str(error), where=str(path), hint="install a newer nmfstream") from error
    except HOSTILE as error:
        raise DataError(f"no checkpoint: {error}", where=str(path), hint="give a model or a checkpoint") from error
