"""`nmfstream info`: what a path is, from metadata alone."""

from __future__ import annotations

from dataclasses import asdict
from itertools import pairwise
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
    return {"path": spec, "kind": "store", **_describe_store(spec, opening, shards)}


def _describe_store(spec: str, opening: Opening, shards: int | None) -> dict[str, Any]:
    from nmfstream.stores.describe import candidates, describe
    from nmfstream.stores.registry import split
    from nmfstream.stores.shards import missing_rows

    found = candidates(spec, opening)
    if len(found) > 1 and shards is None:
        return {"matrices": [asdict(one) for one in found]}
    about: dict[str, Any] = {"matrix": asdict(describe(spec, opening))}
    if missing := missing_rows(split(spec)[0]):
        about["missing_rows"] = [list(bounds) for bounds in missing]
    return about if shards is None else {**about, "shards": suggest_shards(spec, opening, shards)}


def suggest_shards(spec: str, opening: Opening, n: int) -> list[list[int]]:
    """At most `n` ranges of rows that begin and end at chunks of the store, as even as these allow."""
    from nmfstream.stores.registry import open_reader

    with open_reader(spec, opening) as reader:
        return [list(bounds) for bounds in aligned_ranges(reader.shape[0], reader.chunk_rows, n)]


def aligned_ranges(n_rows: int, chunk_rows: int, n: int) -> list[tuple[int, int]]:
    """Cut rows into at most `n` non-empty ranges at multiples of `chunk_rows`."""
    chunks = -(-n_rows // chunk_rows)
    cuts = [min(i * chunks // n * chunk_rows, n_rows) for i in range(n)] + [n_rows]
    return [(a, b) for a, b in pairwise(cuts) if a < b]


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
