"""``nmfstream info``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import click

from nmfstream.cli import options as o
from nmfstream.cli.report import finish, out, plain
from nmfstream.cli.settings import Command
from nmfstream.units import size_text


@click.command(cls=Command, name="info", example="nmfstream info counts.h5/X --shards 4")
@click.argument("paths", nargs=-1, required=True, type=o.Store(), metavar="PATH...")
@click.option("--shards", type=o.POSITIVE, metavar="N", help="Suggest N ranges for transform --rows.")
@click.option("--transpose", is_flag=True, help="Samples are columns of what is stored.")
@click.option("--allow-external", is_flag=True, help="Follow HDF5's links and raw data outside the file.")
@o.common_options
def info(**given: Any) -> None:
    """Say what each PATH is: a store, a model, a checkpoint or W; metadata alone are read."""
    from nmfstream.run.inform import inform
    from nmfstream.stores.protocols import Opening

    opening = Opening(transpose=given["transpose"], missing_chunks="fill", allow_external=given["allow_external"])
    found = [plain(inform(path, opening, given["shards"])) for path in given["paths"]]
    if not given["as_json"]:
        out("\n".join("\n".join(_LINES[about["kind"]](about)) + "\n" for about in found))
    finish(given, "info", {"paths": found}, "")


def _store(about: dict[str, Any]) -> Iterator[str]:
    if "matrices" in about:
        yield f"{about['path']}: {len(about['matrices'])} matrices; name one of them"
        for one in about["matrices"]:
            kind = "" if one["kind"] == "dense" else f" {one['kind']}"
            yield f"  {about['path']}/{one['path']}  {_by(one['shape'])} {one['dtype']}{kind}"
        return
    yield from _matrix(about["path"], about["matrix"])
    for start, stop in about.get("shards", ()):
        yield f"  --rows {start}:{stop}"
    for range_ in about.get("missing_rows", ()):
        yield f"  missing rows {range_[0]}:{range_[1]}; nmfstream transform --rows {range_[0]}:{range_[1]} writes them"


def _matrix(path: str, m: dict[str, Any]) -> Iterator[str]:
    filled = "" if m["nnz"] is None else f", {m['nnz']} stored entries ({_share(m)})"
    yield f"{path}: {m['shape'][0]} rows x {m['shape'][1]} features, {m['dtype']}, {m['kind']}{filled}"
    chunks = "" if m["chunks"] is None else f", chunks of {_by(m['chunks'])}"
    filters = f", {'+'.join(m['filters'])}" if m["filters"] else ""
    sizes = f"{size_text(m['stored_bytes'])} on disk, {size_text(m['raw_bytes'])} decoded"
    yield f"  {m['format']}, {m['layout']}{chunks}{filters}; {sizes}"
    names = f"{m['n_feature_names']} feature names" if m["n_feature_names"] else "no feature names"
    yield f"  {names}; {'checksums' if m['checksums'] else 'no checksums'}"
    for warning in m["warnings"]:
        yield f"  note: {warning}"


def _model(about: dict[str, Any]) -> Iterator[str]:
    shape = f"{about['n_components']} components x {about['n_features']} features"
    yield f"{about['path']}: model of {shape}, {about['dtype']}"
    yield f"  solver {about.get('solver')}, beta_loss {about.get('beta_loss')}{_loss(about)}"
    reason = about.get("stop_reason") or "no stop reason"
    yield f"  {about.get('n_iter')} passes, {about.get('n_steps')} steps; {reason}"
    yield f"  {'with' if about['feature_names'] else 'no'} feature names"
    yield from _history(about["history"])


def _checkpoint(about: dict[str, Any]) -> Iterator[str]:
    end = "finished" if about["finished"] else f"in stage {about['stage']}, row {about['row']}; --resume goes on"
    yield f"{about['path']}: checkpoint, generation {about['generation']}, {end}"
    H = "no components yet" if about["components"] is None else f"{_by(about['components'])} components"
    yield f"  {H}, {about['n_iter']} passes, {about['n_steps']} steps"
    yield from _history(about["history"])


def _history(records: list[dict[str, Any]]) -> Iterator[str]:
    for r in records:
        yield f"  {r['name']}: {r['rows']} rows, {r['seconds']:.2f} s{_loss(r)}"


def _loss(about: dict[str, Any]) -> str:
    return "" if about.get("loss") is None else f", loss {about['loss']:.6g} a row"


def _by(shape: list[int]) -> str:
    return " x ".join(map(str, shape))


def _share(m: dict[str, Any]) -> str:
    cells = m["shape"][0] * m["shape"][1]
    return f"{m['nnz'] / cells:.2%}" if cells else "empty"


_LINES: dict[str, Callable[[dict[str, Any]], Iterator[str]]] = {
    "store": _store,
    "model": _model,
    "checkpoint": _checkpoint,
}
