"""Where the program begins: until a command begins, Ctrl-C ends it as it ends any other, without a word."""

from __future__ import annotations

import signal
from typing import NoReturn


def run() -> NoReturn:
    """The console script ``nmfstream``."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from nmfstream.cli.main import run as run_command

    run_command()
