"""The entry point: a table of commands, each imported only when it is called."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any, NoReturn, TypeAlias

import click

from nmfstream.cli.errors import guarded, leave, own_the_process
from nmfstream.cli.settings import Command, suggest
from nmfstream.cli.signals import dying_tidily

COMMANDS = {
    "fit": ("nmfstream.cli.fit:fit", "Learn H (and W) from data of any size."),
    "transform": ("nmfstream.cli.transform:transform", "Solve for W with a model."),
    "inverse-transform": ("nmfstream.cli.inverse_transform:inverse_transform", "Give WH back as data."),
    "score": ("nmfstream.cli.score:score", "Print loss, relative error and explained deviance."),
    "top": ("nmfstream.cli.top:top", "Print each component's strongest features."),
    "info": ("nmfstream.cli.info:info", "Say what a store, model, checkpoint or W is."),
    "convert": ("nmfstream.cli.convert:convert", "Rewrite data out of core in another format or layout."),
    "completion": ("nmfstream.cli.completion:completion", "Print the completion script for a shell."),
}
_COMPLETE = "_NMFSTREAM_COMPLETE"


Resolved: TypeAlias = tuple[str | None, click.Command | None, list[str]]


class Table(click.Group):
    """Commands by name, imported when called; the overview needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name][0].split(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Resolved:
        """Find the command that is called, or say which was meant."""
        if not args[0].startswith("-") and args[0] not in COMMANDS:
            hint = suggest(args[0], COMMANDS, "commands are")
            raise click.UsageError(f"no command is called {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the overview."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example."""
        Command.format_epilog(self, ctx, formatter)  # type: ignore[arg-type]

    example = (
        "nmfstream fit counts.h5/X -o topics.h5 -k 20 --beta-loss kullback-leibler\n"
        "nmfstream transform counts.h5/X -m topics.h5 -o weights.npy"
    )


def _version(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if wanted:
        from nmfstream import __version__

        click.echo(f"nmfstream {__version__}")
        ctx.exit()


@click.command(
    cls=Table,
    name="nmfstream",
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version."
)
def nmfstream() -> None:
    """Non-negative matrix factorization of data larger than memory: streaming, resumable, in few passes.

    Data are named STORE[/DATASET]: x.npy, x.npz/counts, d.h5/group/X, d.zarr/X, c.h5ad/layers/counts, c.loom,
    or - for standard input.
    """


def main(args: list[str]) -> int:
    """Run a command line; returns the exit code."""
    if _COMPLETE in os.environ:
        from nmfstream.cli.completion import complete

        return int(complete(nmfstream, os.environ[_COMPLETE]))
    if args[:1] == ["help"]:
        args = [*args[1:], "--help"]
    name = next((a for a in args if not a.startswith("-")), "")
    command = f"nmfstream {name}" if name in COMMANDS else "nmfstream"
    return guarded(lambda: _invoke(args), command, args, debug="--debug" in args)


def _invoke(args: list[str]) -> Any:
    if not args:
        raise click.UsageError(f"a command is missing: one of {', '.join(COMMANDS)}")
    with dying_tidily(), nmfstream.make_context("nmfstream", list(args)) as ctx:
        return nmfstream.invoke(ctx)


def run() -> NoReturn:
    """The console script ``nmfstream``."""
    own_the_process()
    leave(main(sys.argv[1:]))
