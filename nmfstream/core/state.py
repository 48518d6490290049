"""All of a run between two steps is one value."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from nmfstream.types import Array

_KINDS: dict[str, type[SolverState]] = {}


@dataclass
class SolverState:
    """Base of what a solver keeps between two steps; a dataclass of arrays, numbers, texts and lists of these.

    Subclasses name themselves with ``kind``, by which a checkpoint finds the class again. ``H`` is there from
    the first step on (None before).
    """

    kind: ClassVar[str] = ""
    H: Array | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.kind:
            _KINDS[cls.kind] = cls


@dataclass
class PassRecord:
    """One row of the history: what a pass over the data did."""

    name: str
    rows: int
    seconds: float
    loss: float
    """Objective a row, mean over the pass (NaN where a pass does not know it)."""
    H_change: float
    """Relative change of H over the pass, Frobenius."""
    learns: bool = True


@dataclass
class RunState:
    """A run between two steps.

    Attributes
    ----------
    solver : SolverState
        What the algorithm keeps: H, sufficient statistics in float64, monitor, candidates.
    stage : int
        Number of the stage that comes next or is under way.
    row : int
        Rows of that stage that are done (for a resident stage: steps done).
    n_iter : int
        Passes over the data that updated H (scikit-learn's ``n_iter_``).
    n_steps : int
        Updates of H from a batch (scikit-learn's ``n_steps_``).
    rows_read : int
        Rows read so far, initialisation included: passes are rows_read / n_samples.
    loss : float
        Last known objective: a row's mean (few-pass solvers) or the smoothed batch cost (mu).
    stop_reason : str or None
        Why the run ended, in words; None while it goes on.
    random_state : dict or None
        State of the generator that draws row by row (numpy ``RandomState.get_state(legacy=False)``).
    history : list of PassRecord
        One record a pass.
    """

    solver: SolverState
    stage: int = 0
    row: int = 0
    n_iter: int = 0
    n_steps: int = 0
    rows_read: int = 0
    loss: float = float("nan")
    stop_reason: str | None = None
    random_state: dict[str, Any] | None = None
    history: list[PassRecord] = field(default_factory=list)


def pack(state: RunState) -> tuple[dict[str, Any], dict[str, Array]]:
    """Split a state into plain JSON values and named arrays.

    Returns
    -------
    values : dict
        JSON-serialisable; an array's place holds ``{"array": name}``.
    arrays : dict of ndarray
        The arrays themselves (not copied).
    """
    arrays: dict[str, Array] = {}

    def plain(value: Any, path: str) -> Any:
        if isinstance(value, np.ndarray):
            arrays[path] = value
            return {"array": path}
        if dataclasses.is_dataclass(value):
            names = [f.name for f in dataclasses.fields(value)]
            return {n: plain(getattr(value, n), f"{path}.{n}" if path else n) for n in names}
        if isinstance(value, dict):
            return {str(k): plain(v, f"{path}.{k}") for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [plain(v, f"{path}.{i}") for i, v in enumerate(value)]
        if isinstance(value, np.generic):
            return value.item()
        return value

    values = plain(state, "")
    values["solver_kind"] = type(state.solver).kind
    return values, arrays


def unpack(values: dict[str, Any], arrays: dict[str, Array]) -> RunState:
    """The inverse of `pack`.

    Raises
    ------
    KeyError
        For a solver kind, a field or an array that is not there.
    """

    def restore(value: Any) -> Any:
        if isinstance(value, dict):
            if set(value) == {"array"}:
                return arrays[value["array"]]
            return {k: restore(v) for k, v in value.items()}
        return [restore(v) for v in value] if isinstance(value, list) else value

    fields = {k: restore(v) for k, v in values.items() if k != "solver_kind"}
    fields["solver"] = _KINDS[values["solver_kind"]](**fields["solver"])
    fields["history"] = [PassRecord(**r) for r in fields["history"]]
    return RunState(**fields)
