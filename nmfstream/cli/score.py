"""``nmfstream score``."""

from __future__ import annotations

from typing import Any

import click

from nmfstream.cli import options as o
from nmfstream.cli.report import counted, finish, out
from nmfstream.cli.settings import Command


@click.command(cls=Command, name="score", example="nmfstream score counts.h5/X -m topics.h5")
@o.data_argument()
@o.model_option
@o.data_options
@o.resource_options
@o.common_options
def score(**given: Any) -> None:
    """Print how well a model fits DATA: loss a row, relative error and explained deviance.

    \b
    loss                β-divergence D(X|WH) and penalties, mean a row
    relative error      Frobenius: |X-WH|/|X|; else D(X|WH)/sum(X)
    explained deviance  1 - D(X|WH)/D(X|column means)
    """
    from nmfstream.cli.meter import duration
    from nmfstream.cli.progress import listener
    from nmfstream.run.score import ScoreConfig
    from nmfstream.run.score import score as run

    with listener(given) as hear:
        report = run(ScoreConfig(o.inputs(given), given["model"], o.resources(given)), hear)
    figures = ("loss", "relative_error", "explained_deviance")
    if not given["as_json"]:
        out("".join(f"{name.replace('_', ' '):<19} {getattr(report, name):.6g}\n" for name in figures))
    values = {
        name: getattr(report, name) for name in (*figures, "divergence", "rows", "unfinished", "clipped", "seconds")
    }
    words = f"{counted(report.rows, 'row')} in 1 pass and {duration(report.seconds)}"
    words += f"; {counted(report.clipped, 'negative value')} clipped" if report.clipped else ""
    finish(given, "score", {"model": given["model"], **values}, words)
