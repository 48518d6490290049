"""``nmfstream completion``: the script that teaches a shell to complete our commands, options and files."""

from __future__ import annotations

from typing import Any

import click

from nmfstream.cli import options as o
from nmfstream.cli.report import finish, out
from nmfstream.cli.settings import Command

_COMPLETE = "_NMFSTREAM_COMPLETE"
_INSTALL = {
    "bash": "nmfstream completion bash > ~/.local/share/bash-completion/completions/nmfstream",
    "zsh": "nmfstream completion zsh > ~/.zfunc/_nmfstream",
    "fish": "nmfstream completion fish > ~/.config/fish/completions/nmfstream.fish",
}


@click.command(cls=Command, name="completion", example="\n".join(_INSTALL.values()))
@click.argument("shell", type=click.Choice(list(_INSTALL)), metavar="bash|zsh|fish")
@o.common_options
def completion(shell: str, **given: Any) -> None:
    """Print the completion script for SHELL: put it where the shell looks for it, or `source` it."""
    from click.shell_completion import get_completion_class

    maker = get_completion_class(shell)
    assert maker is not None
    script = maker(click.Command("nmfstream"), {}, "nmfstream", _COMPLETE)
    text = script.source_template % script.source_vars()
    if not given["as_json"]:
        out(text)
    finish(given, "completion", {"shell": shell, "script": text}, "")


def complete(commands: click.Command, instruction: str) -> int:
    """Answer a shell that asks for completions."""
    from click.shell_completion import shell_complete

    return shell_complete(commands, {}, "nmfstream", _COMPLETE, instruction)
