"""``nmfstream top``."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from nmfstream.cli import options as o
from nmfstream.cli.report import finish, out
from nmfstream.cli.settings import Command

if TYPE_CHECKING:
    from nmfstream.run.top import Component


@click.command(cls=Command, name="top", example="nmfstream top topics.h5 -n 10")
@click.argument("model", type=o.Store(), metavar="MODEL")
@click.option(
    "-n", "--features", "n", type=o.POSITIVE, metavar="N", default=10, show_default=True, help="Features a component."
)
@click.option("--names", type=o.File(), metavar="FILE", help="Feature names, one a line, where the model has none.")
@click.option(
    "--format",
    "layout",
    type=click.Choice(["table", "csv", "tsv"]),
    default="table",
    show_default=True,
    help="How it is laid out.",
)
@o.common_options  # fmt: skip
def top(**given: Any) -> None:
    """Print each component's strongest features: name, weight, and share of the component's sum."""
    from nmfstream.model import read_model
    from nmfstream.run.top import top as run

    names = None if given["names"] is None else _read_names(given["names"])
    components = run(read_model(given["model"]), given["n"], names)
    if not given["as_json"]:
        out(_LAYOUTS[given["layout"]](components))
    values = [{**vars(c), "features": [f._asdict() for f in c.features]} for c in components]
    finish(given, "top", {"model": given["model"], "components": values}, "")


def _read_names(path: Any) -> tuple[str, ...]:
    from nmfstream.storage import durable

    data = durable.read_bytes(path)
    if data[:2] == b"\x1f\x8b":
        import gzip

        data = gzip.decompress(data)
    return tuple(data.decode("utf-8", "replace").splitlines())


def _table(components: list[Component]) -> str:
    rows = [
        (f"{c.index if not i else ''}", f.name, f"{f.weight:.4g}", f"{f.share:.1%}")
        for c in components
        for i, f in enumerate(c.features)
    ]
    head = ("component", "feature", "weight", "share")
    wide = [max(len(row[i]) for row in (head, *rows)) for i in range(4)]
    lines = (f"{a:>{wide[0]}}  {b:<{wide[1]}}  {c:>{wide[2]}}  {d:>{wide[3]}}".rstrip() for a, b, c, d in (head, *rows))
    return "\n".join(lines) + "\n"


def _separated(delimiter: str, components: list[Component]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerow(("component", "rank", "column", "feature", "weight", "share"))
    for c in components:
        for rank, f in enumerate(c.features, 1):
            writer.writerow((c.index, rank, f.column, f.name, repr(f.weight), repr(f.share)))
    return text.getvalue()


_LAYOUTS: dict[str, Callable[[list[Component]], str]] = {
    "table": _table,
    "csv": partial(_separated, ","),
    "tsv": partial(_separated, "\t"),
}
