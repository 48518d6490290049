"""Where an option's value comes from: command line, NMFSTREAM_* environment, --config FILE.toml, default."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from nmfstream.errors import InputAbsentError, UsageError
from nmfstream.run.machine import give_back_memory

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PREFIX = "NMFSTREAM"
_NOT_SETTABLE = ("help", "config", "version")


class Command(click.Command):
    """A command whose options may be set by the environment and by a file, and whose help shows an example.

    Parameters
    ----------
    example : str
        A command line that runs; shown at the end of the help.
    """

    def __init__(self, *args: Any, example: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = example
        for option in self.params:
            if isinstance(option, click.Option) and option.name not in _NOT_SETTABLE and option.envvar is None:
                option.envvar = _variables(_snake(self.name), option)

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; from here on large blocks of memory are returned when they are freed."""
        give_back_memory()
        return super().invoke(ctx)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example."""
        if self.example:
            with formatter.section("Example"):
                for line in self.example.splitlines():
                    formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


def _variables(command: str, option: click.Option) -> list[str]:
    """The environment variables of an option, the command's own first: one for each name that it goes by."""
    written = [_snake(name.lstrip("-")) for name in option.opts if name.startswith("--")]
    names = dict.fromkeys([option.name or "", *written])
    return [f"{PREFIX}_{before}{name}".upper() for before in (f"{command}_", "") for name in names]


def read_config(ctx: click.Context, param: click.Parameter, path: str | None) -> None:
    """Callback of ``--config``: the command's table becomes its defaults.

    Raises
    ------
    UsageError
        For a table or key that does not exist, with the nearest one that does.
    """
    if path is None or ctx.resilient_parsing:
        return
    tables = _load(path)
    root = ctx.find_root().command
    if not isinstance(root, click.Group):
        return
    known = root.list_commands(ctx)
    for table, values in tables.items():
        if not isinstance(values, dict):
            raise UsageError(
                f"{table!r} stands outside a table",
                where=path,
                hint=f"put it under the command's, as in [{ctx.info_name}]",
            )
        command = root.get_command(ctx, _dashed(table)) if _dashed(table) in known else None
        if command is None:
            raise UsageError(f"no command is called {table!r}", where=path, hint=suggest(table, known, "tables are"))
        settings = _checked(command, values, f"{path} [{table}]")
        if command.name == ctx.command.name:
            ctx.default_map = settings
    ctx.meta["nmfstream.config"] = path


def _load(path: str) -> dict[str, Any]:
    import tomllib

    try:
        with open(path, "rb") as file:  # noqa: PTH123  (pathlib would be imported for this alone)
            return tomllib.load(file)
    except FileNotFoundError as error:
        raise InputAbsentError("no such file", where=path, hint="give --config an existing TOML file") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"not TOML ({error})", where=path, hint="write a table per command, as in [fit]") from error
    except UnicodeDecodeError as error:
        raise UsageError("not TOML (not UTF-8 text)", where=path, hint="write a table per command") from error


def _checked(command: click.Command, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    names = setting_names(command)
    for key in values:
        if _snake(key) not in names:
            shown = sorted({n.replace("_", "-") for n in names})
            raise UsageError(f"no setting is called {key!r}", where=where, hint=suggest(key, shown, "settings are"))
    return {names[_snake(key)]: value for key, value in values.items()}


def setting_names(command: click.Command) -> dict[str, str]:
    """Every key that a file may hold for a command, and the parameter it sets."""
    found = {}
    for param in command.params:
        if param.name in _NOT_SETTABLE or param.name is None:
            continue
        found[param.name] = param.name
        if isinstance(param, click.Option):
            found.update({_snake(opt.lstrip("-")): param.name for opt in param.opts})
    return found


def suggest(given: str, known: Iterable[str], those: str) -> str:
    """``did you mean 'x'?``, or what there is."""
    from difflib import get_close_matches

    known = list(known)
    close = get_close_matches(given, known, 2, 0.6)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else f"{those} {', '.join(known)}"


def _snake(name: str | None) -> str:
    return (name or "").replace("-", "_")


def _dashed(name: str) -> str:
    return name.replace("_", "-")
