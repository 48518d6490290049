"""`nmfstream info`: what a path is, from metadata alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nmfstream.checkpoint_reading import is_checkpoint, load_newest
from nmfstream.errors import UsageError
from nmfstream.model import describe_model, is_model
from nmfstream.stores.protocols import Opening


def inform(spec: str, opening: Opening, shards: int | None = None) -> dict[str, Any]:
    """What a store, W, model or checkpoint is.

    Parameters
    ----------
    spec : str
    opening : Opening
    shards : int, optional
        Suggest so many chunk-aligned ranges for ``--rows`` (stores).

    Returns
    -------
    dict
        ``path`` and ``kind`` (store, model, checkpoint), then what there is to say, in plain values.

    Raises
    ------
    NmfstreamError
    """
    path = Path(spec)
    for kind, fits, describe in _KINDS:
        if fits(path):
            if shards is not None:
                raise UsageError(f"a {kind} has no shards", where=spec, hint="give --shards with data")
            return {"path": spec, "kind": kind, **describe(path)}
    from nmfstream.stores.describe import describe as describe_store

    return {"path": spec, "kind": "store", **describe_store(spec, opening, shards=shards)}


def _describe_checkpoint(path: Path) -> dict[str, Any]:
    saved = load_newest(path)
    state, H = saved.state, saved.state.solver.H
    return {
        "generation": saved.generation,
        "finished": saved.finished,
        "stage": state.stage,
        "row": state.row,
        "n_iter": state.n_iter,
        "n_steps": state.n_steps,
        "loss": state.loss,
        "components": None if H is None else list(H.shape),
        "parameters": saved.header.get("identity", {}),
        "history": [vars(record) for record in state.history],
    }


_KINDS = (
    ("checkpoint", is_checkpoint, _describe_checkpoint),
    ("model", is_model, describe_model),
)
