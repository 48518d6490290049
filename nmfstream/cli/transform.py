"""``nmfstream transform``."""

from __future__ import annotations

from typing import Any

import click

from nmfstream.cli import options as o
from nmfstream.cli.report import counted, finish
from nmfstream.cli.settings import Command

LISTED = 3
"""Ranges still missing that the last line names."""

_EXAMPLE = """nmfstream transform counts.h5/X -m topics.h5 -o W.npy
cat a.npy b.npy | nmfstream transform -m topics.h5 - | consumer"""


@click.command(cls=Command, name="transform", example=_EXAMPLE)
@o.data_argument()
@o.model_option
@click.option("-o", "--output", type=o.Store(), metavar="W", help="Where W goes; - : standard output.")
@click.option("--output-format", type=click.Choice(["npy", "csv", "tsv", "jsonl"]),
              help="Of standard output [default: npy; csv or tsv where the input is].")  # fmt: skip
@click.option("--rows", type=o.Rows(), metavar="START:STOP", help="These rows only, into an output shared by jobs.")
@click.option("--tol", type=o.WEIGHT, metavar="X", help="Stop of a row [default: 1e-5; float64: 1e-9].")
@click.option("--max-iter", type=o.POSITIVE, metavar="N", help="Most iterations of a row.")
@o.data_options
@o.resource_options
@o.saving_options
@o.metrics_option
@o.common_options
def transform(**given: Any) -> None:
    """Solve for W: each row of DATA by itself, to optimality."""
    from nmfstream.cli.progress import listener
    from nmfstream.config import TransformConfig

    o.refuse_json_beside_data(given)
    config = TransformConfig(
        inputs=o.inputs(given),
        model=given["model"],
        output=o.output_of(given),
        output_format=o.output_format(given),
        resources=o.resources(given),
        saving=o.saving(given),
        **{name: given[name] for name in ("rows", "tol", "max_iter", "metrics")},
    )
    run = _runner(config.inputs.data)
    with listener(given) as hear:
        report = run(config, hear)
    finish(given, "transform", _values(report, given, config.output), _words(report, config.output))


def _runner(data: tuple[Any, ...]) -> Any:
    if data == ("-",):
        from nmfstream.run.stream_transform import stream_transform

        return stream_transform
    from nmfstream.run.transform import transform as run

    return run


def _values(report: Any, given: dict[str, Any], output: str | None) -> dict[str, Any]:
    return {
        "model": given["model"],
        "output": output,
        "rows": report.rows,
        "rows_solved": report.quality.rows,
        "unfinished": report.quality.unfinished,
        "worst_residual": report.quality.worst,
        "worst_row": report.quality.worst_row if report.quality.worst_row >= 0 else None,
        "clipped": report.clipped,
        "missing_rows": report.missing,
        "seconds": report.seconds,
    }


def _words(report: Any, output: str | None) -> str:
    from nmfstream.cli.meter import duration

    if report.rows and not report.quality.rows:
        return f"nothing to do: {_written(report, output)} had been written before{_still_missing(report)}"
    clipped = f"; {counted(report.clipped, 'negative value')} clipped" if report.clipped else ""
    where = "" if output == "-" else f"; wrote {_written(report, output)}{_still_missing(report)}"
    return f"{counted(report.quality.rows, 'row')} solved in 1 pass and {duration(report.seconds)}{clipped}{where}"


def _written(report: Any, output: str | None) -> str:
    """The output, or the rows of it that this job of several is about."""
    return f"{output}" if report.shard is None else f"rows {report.shard[0]}:{report.shard[1]} of {output}"


def _still_missing(report: Any) -> str:
    if report.shard is None:
        return ""
    if not report.missing:
        return "; all its rows are there"
    listed = ", ".join(f"{a}:{b}" for a, b in report.missing[:LISTED])
    more = len(report.missing) - LISTED
    return f"; still missing: {listed}" + (f" and {more} more" if more > 0 else "")
