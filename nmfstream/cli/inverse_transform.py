"""``nmfstream inverse-transform``."""

from __future__ import annotations

from typing import Any

import click

from nmfstream.cli import options as o
from nmfstream.cli.report import counted, finish
from nmfstream.cli.settings import Command


@click.command(
    cls=Command, name="inverse-transform", example="nmfstream inverse-transform W.npy -m topics.h5 -o reconstructed.npy"
)
@click.argument("data", nargs=-1, required=True, type=o.Store(), metavar="W...")
@o.model_option
@click.option("-o", "--output", type=o.Store(), metavar="X", help="Where WH goes; - : standard output.")
@click.option("--output-format", type=click.Choice(["npy", "csv", "tsv", "jsonl"]), help="Of standard output.")
@click.option("--overwrite", is_flag=True, help="Replace an output that exists.")
@o.data_options
@o.resource_options
@o.common_options
def inverse_transform(**given: Any) -> None:
    """Give WH back: the data that W (as `transform` wrote it) and a model stand for."""
    from nmfstream.cli.meter import duration
    from nmfstream.cli.progress import listener
    from nmfstream.run.inverse import InverseConfig
    from nmfstream.run.inverse import inverse_transform as run
    from nmfstream.run.stream_output import Destination

    o.refuse_json_beside_data(given)
    output = o.output_of(given)
    to = Destination(output, o.output_format(given), "X", given["overwrite"])
    config = InverseConfig(o.inputs(given), given["model"], to, o.resources(given))
    with listener(given) as hear:
        report = run(config, hear)
    values = {"model": given["model"], "output": output, "rows": report.rows, "n_features": report.n_features}
    where = "" if output == "-" else f"; wrote {output}"
    words = f"{counted(report.rows, 'row')} of {report.n_features} features in {duration(report.seconds)}{where}"
    finish(given, "inverse-transform", {**values, "seconds": report.seconds}, words)
