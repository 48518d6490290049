"""Where the program begins: until its parts are loaded, Ctrl-C ends it as it ends any other, without a word."""

from __future__ import annotations

import signal
from typing import NoReturn


def run() -> NoReturn:
    """The console script ``nmfstream``."""
    inherited = signal.getsignal(signal.SIGINT)
    if inherited is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from nmfstream.cli.main import run as run_command

    signal.signal(signal.SIGINT, inherited)
    run_command()
