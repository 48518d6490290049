"""Every error is one line on standard error (what, where, what to do) and an exit code."""

from __future__ import annotations

import errno
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

import click

from nmfstream.cli.signals import Terminated, die
from nmfstream.errors import RESUME, InterruptedRunError, NmfstreamError

BUG, USAGE, IO_FAILED, CTRL_C, PIPE_CLOSED = 1, 2, 74, 130, 141
_NUMERIC_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")


def guarded(call: Callable[[], object], command: str, args: Sequence[str] = (), *, debug: bool) -> int:
    """Run a command; report what went wrong.

    Parameters
    ----------
    call : callable
    command : str
        As it was called, for the beginning of the line.
    args : sequence of str
        All that was given to the program, for the command that goes on with an interrupted run.
    debug : bool
        Print the traceback as well.

    Returns
    -------
    int
        The exit code.
    """
    try:
        call()
        _flush()
    except Terminated as end:
        die(end.number)
    except click.exceptions.Exit as done:
        return _after_exit(done.exit_code)
    except BaseException as error:
        return _report(_with_command(error, args), command, debug=debug)
    return 0


def _with_command(error: BaseException, args: Sequence[str]) -> BaseException:
    """An interrupted run's error that says the very command to go on with, not how to make it."""
    if isinstance(error, InterruptedRunError) and error.hint == RESUME:
        more = [] if "--resume" in args else ["--resume"]
        error.hint = f"go on with: {shlex.join(['nmfstream', *args, *more])}"
    return error


def _after_exit(code: int) -> int:
    try:
        _flush()
    except OSError as error:
        return _report(error, "nmfstream", debug=False)
    return code


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _report(error: BaseException, command: str, *, debug: bool) -> int:
    code, text = described(error)
    silence_stdout()
    with suppress(OSError, ValueError):
        if debug and code not in (PIPE_CLOSED, USAGE):
            import traceback

            traceback.print_exception(error)
        if text:
            print(f"{command}: {text}", file=sys.stderr, flush=True)
    return code


def described(error: BaseException) -> tuple[int, str]:
    """Exit code and line (without the program's name) of an error; an empty line says nothing."""
    if isinstance(error, NmfstreamError):
        return error.exit_code, str(error)
    for kind, answer in _ANSWERS:
        if isinstance(error, kind):
            return answer(error)
    name = f"{type(error).__name__}: {error}".rstrip(": ")
    return BUG, f"unexpected {_one_line(name)}; this is a bug: run it again with --debug and report what it prints"


def _usage(error: click.ClickException) -> tuple[int, str]:
    context = getattr(error, "ctx", None)
    helped = context.command_path if context is not None else "nmfstream"
    return USAGE, f"{_usage_text(error)}; see '{helped} --help'"


def _usage_text(error: click.ClickException) -> str:
    if isinstance(error, click.NoSuchOption):
        close = (error.possibilities or [])[:1]
        return f"no such option {error.option_name}" + (f"; did you mean {close[0]}?" if close else "")
    if isinstance(error, click.MissingParameter):
        return f"{_missing_name(error)} is missing"
    if isinstance(error, click.BadParameter):
        return f"{_bad_name(error)}: {_one_line(error.message)}"
    text = _one_line(error.format_message())
    return text[:1].lower() + text[1:]


def _missing_name(error: click.MissingParameter) -> str:
    if error.param is None:
        return "an argument"
    metavar = error.param.metavar or error.param.human_readable_name
    return f"{error.param.opts[0]} {metavar}" if isinstance(error.param, click.Option) else metavar


def _bad_name(error: click.BadParameter) -> str:
    if error.param is None or error.ctx is None:
        return str(error.param_hint or "argument")
    source = error.ctx.get_parameter_source(error.param.name or "")
    name = _unquoted(error.param.get_error_hint(error.ctx))
    found = {
        click.core.ParameterSource.DEFAULT_MAP: f"{name} in {error.ctx.meta.get('nmfstream.config', 'the file')}",
        click.core.ParameterSource.ENVIRONMENT: f"{name} from the environment",
    }
    return found.get(source, name) if source is not None else name


def _unquoted(hint: str) -> str:
    return hint.replace("'", "")


def _one_line(text: str) -> str:
    return " ".join(str(text).split()).rstrip(".")


def _system(error: OSError) -> tuple[int, str]:
    if error.errno == errno.EPIPE:
        return PIPE_CLOSED, ""
    text = os.strerror(error.errno) if error.errno else _one_line(str(error))
    where = f"{error.filename}: " if error.filename else "standard output: " if error.errno == errno.ENOSPC else ""
    return IO_FAILED, f"{where}{text}; free some space or see to the device, then run it again"


_ANSWERS: tuple[tuple[type[BaseException], Callable[..., tuple[int, str]]], ...] = (
    (click.ClickException, _usage),
    (KeyboardInterrupt, lambda e: (CTRL_C, "stopped by Ctrl-C")),
    (click.Abort, lambda e: (CTRL_C, "stopped by Ctrl-C")),
    (MemoryError, lambda e: (IO_FAILED, "the system gave no more memory; give a smaller --memory")),
    (OSError, _system),
)


def silence_stdout() -> None:
    """Let the interpreter's last flush go nowhere, so that it neither fails nor speaks."""
    with suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
        return
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def leave(code: int) -> NoReturn:
    """End the process without taking it apart, which takes a tenth of a second: outputs are whole, threads are idle."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)


def own_the_process() -> None:
    """Settings of a process that is all ours: threads are ours alone, libraries' warnings are not for the user.

    Before numpy is imported: a BLAS that never starts threads needs neither their memory nor their start.
    """
    for name in _NUMERIC_THREADS:
        os.environ[name] = "1"
    if not sys.warnoptions:
        import warnings

        warnings.simplefilter("ignore")
