"""``nmfstream convert``."""

from __future__ import annotations

from typing import Any

import click

from nmfstream.cli import options as o
from nmfstream.cli.report import counted, finish
from nmfstream.cli.settings import Command

_EXAMPLE = """nmfstream convert counts.h5/X -o counts.zarr/X
cat a.npy b.npy | nmfstream convert - -o both.zarr"""


@click.command(cls=Command, name="convert", example=_EXAMPLE)
@o.data_argument()
@click.option(
    "-o",
    "--output",
    type=o.Store(),
    required=True,
    metavar="STORE",
    help="Where the data go; - : NPY on standard output.",
)
@click.option("--chunk-rows", type=o.POSITIVE, metavar="N", help="Rows a chunk [default: about 4 MiB].")
@o.data_options
@o.resource_options
@o.output_options
@o.common_options
def convert(**given: Any) -> None:
    """Rewrite DATA out of core: in another format, by rows, in larger chunks; sparse stays sparse where it can."""
    from nmfstream.cli.meter import duration
    from nmfstream.cli.progress import listener
    from nmfstream.run.convert import ConvertConfig
    from nmfstream.run.convert import convert as run

    o.refuse_json_beside_data(given)
    config = ConvertConfig(
        inputs=o.inputs(given),
        output=given["output"],
        chunk_rows=given["chunk_rows"],
        saving=o.saving(given),
        resources=o.resources(given),
    )
    with listener(given) as hear:
        report = run(config, hear)
    names = ("rows", "rows_written", "n_features", "nnz", "dtype", "clipped", "seconds")
    values = {"output": given["output"], **{name: getattr(report, name) for name in names}}
    if report.rows and not report.rows_written:
        finish(given, "convert", values, f"nothing to do: {given['output']} had been written before")
        return
    stored = "" if report.nnz is None else f", {report.nnz} stored entries"
    shape = f"{counted(report.rows, 'row')} of {report.n_features} features ({report.dtype}{stored})"
    clipped = f"; {counted(report.clipped, 'negative value')} clipped" if report.clipped else ""
    where = "" if given["output"] == "-" else f"; wrote {given['output']}"
    finish(given, "convert", values, f"{shape} in 1 pass and {duration(report.seconds)}{clipped}{where}")
