"""What a fit plans, makes and reports, of a store and of a stream alike."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nmfstream.config import FitConfig
from nmfstream.core.parameters import Parameters
from nmfstream.core.state import RunState
from nmfstream.errors import UsageError
from nmfstream.fingerprint import numeric_fingerprint
from nmfstream.model import Model, check_feature_names, flat_parameters, read_model, write_model
from nmfstream.plan import MemoryPlan
from nmfstream.run.solving import Quality
from nmfstream.types import Array

LIBRARIES = ("nmfstream", "numpy", "scipy", "h5py", "zarr", "numba")


@dataclass(frozen=True)
class FitPlan:
    """What a fit is going to do.

    Attributes
    ----------
    solver : str
    dtype : str
    n_samples, n_features : int
    batch_rows, block_rows, sample_rows : int
    threads : int
    memory : MemoryPlan
    stored_bytes : int
        Bytes on disk of one pass.
    max_passes : int
    """

    solver: str
    dtype: str
    n_samples: int
    n_features: int
    batch_rows: int
    block_rows: int
    sample_rows: int
    threads: int
    memory: MemoryPlan
    stored_bytes: int
    max_passes: int


@dataclass
class FitReport:
    """What a fit did.

    Attributes
    ----------
    model : Model or None
        None for a plan (``dry_run``).
    plan : FitPlan
    rows : int
        Rows of the data.
    passes : float
        Reads of all rows, initialisation included.
    seconds : float
        Of this process; of which the sample fit took `sample_seconds`.
    nothing_to_do : bool
        A resumed run found all done.
    clipped, revived : int
        Negative values set to zero; dead components put back to life.
    quality : Quality or None
        Of W, where it was solved row by row.
    """

    model: Model | None
    plan: FitPlan
    rows: int
    passes: float = 0.0
    seconds: float = 0.0
    sample_seconds: float = 0.0
    nothing_to_do: bool = False
    clipped: int = 0
    revived: int = 0
    quality: Quality | None = None


def make_model(
    state: RunState, parameters: Parameters, solver: str, dtype: Any, names: Sequence[str] | None, data: str
) -> Model:
    """The model that a state amounts to."""
    H = state.solver.H
    assert H is not None
    components: Array = np.ascontiguousarray(H, dtype)
    return Model(
        components=components,
        parameters=flat_parameters(parameters, solver),
        feature_names=None if names is None else tuple(names),
        n_iter=state.n_iter,
        n_steps=state.n_steps,
        loss=state.loss,
        stop_reason=state.stop_reason or "",
        data_fingerprint=data,
        numeric_fingerprint=numeric_fingerprint(),
        versions=_versions(),
        history=tuple(state.history),
    )


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit_model(config: FitConfig, model: Model) -> None:
    """Write the model under its name, in the place of an older one where that was allowed."""
    write_model(Path(str(config.model)), model, overwrite=config.saving.overwrite or config.saving.resume)


def continued(config: FitConfig, parameters: Parameters, n_features: int, names: Any = None) -> Parameters:
    """The parameters with H of ``--from`` as their start.

    Raises
    ------
    UsageError
        If another number of components is asked for, or another start.
    DataError
        If the model is of other features.
    """
    if config.continue_from is None:
        return parameters
    model = read_model(config.continue_from)
    check_feature_names(model, names, n_features, config.continue_from)
    if parameters.objective.n_components != model.n_components:
        raise UsageError(
            f"the model has {model.n_components} components, not {parameters.objective.n_components}",
            where="-k",
            hint="leave -k out: --from says how many",
        )
    if parameters.start.init not in (None, "custom") or config.h_init is not None:
        raise UsageError("--from is the start", where="--init", hint="leave --init and --h-init out")
    return replace(parameters, start=replace(parameters.start, init="custom", H=model.components))


def goes_on_from(config: FitConfig, checkpoint: Path) -> bool:
    """Whether ``--from`` names this run's checkpoint: what it holds stays until there is something newer."""
    return config.continue_from is not None and os.path.realpath(config.continue_from) == os.path.realpath(checkpoint)
