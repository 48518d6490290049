"""Small runs that save, for the suites that disturb them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from nmfstream import ownership
from nmfstream.checkpoint import Checkpoints, Saved
from nmfstream.core.state import RunState, SolverState
from nmfstream.ownership import Lease, Owner

PATH = Path("/out/model.h5.ckpt")
IDENTITY: dict[str, Any] = {"n_components": 2, "beta_loss": 2.0, "solver": "mu", "random_state": 0, "max_iter": 5}
FINGERPRINT = {"cpu": "a", "numpy": "1"}
DATA = "2 x 3 float64 ab12"


@dataclass
class CounterState(SolverState):
    """As many numbers as a solver has: their values follow from a count."""

    kind: ClassVar[str] = "counter for tests"
    A: Any = None
    names: list[str] = field(default_factory=list)


def state_of(count: int, n: int = 6, names: list[str] | None = None) -> RunState:
    H = np.full((2, n), float(count), np.float32)
    return RunState(CounterState(H, np.arange(n) + count, names or []), stage=1, row=count, n_steps=count)


def count_of(saved: Saved | None) -> int:
    """The count whose state this is, all of it; 0 for none."""
    if saved is None:
        return 0
    state, count = saved.state, saved.state.row
    expected = state_of(count, state.solver.H.shape[1])  # type: ignore[union-attr]
    np.testing.assert_array_equal(state.solver.H, expected.solver.H)
    np.testing.assert_array_equal(state.solver.A, expected.solver.A)  # type: ignore[attr-defined]
    assert state.n_steps == count
    return count


def owner_on(host: str, pid: int = 1, job: str = "") -> Owner:
    return Owner(host, host, "boot", pid, "1", job, ownership.token())


def checkpoints(path: Path = PATH, **changed: Any) -> Checkpoints:
    given = {"identity": IDENTITY, "fingerprint": FINGERPRINT, "data": DATA}
    return Checkpoints(path, **(given | changed))


def checkpoints_on(host: str, path: Path = PATH, **changed: Any) -> Checkpoints:
    return checkpoints(path, lease=Lease(path, owner_on(host)), **changed)


def die() -> None:
    """What the end of the process means for what it held."""
    ownership._here.clear()
