"""Options that commands share: how their values are written, and the configuration they become."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

import click

from nmfstream.cli.settings import read_config

if TYPE_CHECKING:
    from nmfstream.config import Inputs, Resources, Saving

    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType

F = TypeVar("F", bound=Callable[..., Any])

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {u + end: 1024**i for i, u in enumerate("KMGT", 1) for end in ("", "IB")}
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BETAS = {"frobenius": 2.0, "kullback-leibler": 1.0, "itakura-saito": 0.0}


class Nothing(Enum):
    """The word ``none``, as opposed to an option that was not given."""

    NONE = "none"


class Size(ParamType):
    """Bytes: ``300MiB``, ``4GB``, ``2G`` (as GiB), or a plain number."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", str(value).strip())
        if found is None or found[2].upper() not in _UNITS:
            self.fail(f"{value!r} is not a size; write for example 300MiB or 4GB", param, ctx)
        return int(float(found[1]) * _UNITS[found[2].upper()])


class Duration(ParamType):
    """Seconds: ``90s``, ``5m``, ``1h30m``, ``1-12:00:00`` or ``12:00:00``, or a plain number."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds."""
        seconds = _seconds(str(value).strip().lower())
        if seconds is None or not seconds > 0:
            self.fail(f"{value!r} is not a time; write for example 90s, 5m or 1h30m", param, ctx)
        return seconds


def _seconds(text: str) -> float | None:
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if found := re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d)(?::(\d\d))?", text):
        days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
        return days * 86400.0 + hours * 3600 + minutes * 60 + seconds
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    return sum(float(n) * _SECONDS[u] for n, u in parts) if parts and "".join(map("".join, parts)) == text else None


class Interval(ParamType):
    """Between two checkpoints: a time, ``200steps``, or ``none``; becomes (seconds, steps)."""

    name = "interval"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Pair of seconds and steps."""
        if isinstance(value, tuple):
            return value
        if str(value).lower() == "none":
            return None, None
        if found := re.fullmatch(r"([1-9]\d*)\s*steps?", str(value).strip()):
            return None, int(found[1])
        seconds = _seconds(str(value).strip().lower())
        if seconds is None or not seconds > 0:
            self.fail(f"{value!r} is not an interval; write for example 5m, 200steps or none", param, ctx)
        return seconds, None


class Number(ParamType):
    """A number within bounds.

    Parameters
    ----------
    kind : type
        int or float.
    low, high : float
        Bounds; both belong to it unless `below` leaves the upper one out.
    """

    def __init__(self, kind: type, low: float = 0, high: float = math.inf, *, below: bool = False) -> None:
        self.kind, self.low, self.high, self.below = kind, low, high, below
        self.name = "n" if kind is int else "x"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number."""
        try:
            number = self.kind(str(value))
        except ValueError:
            number = math.nan
        inside = self.low <= number < self.high if self.below else self.low <= number <= self.high
        if not inside or number == math.inf:
            self.fail(f"{value!r} is not {self._described()}", param, ctx)
        return number

    def _described(self) -> str:
        what = "a whole number" if self.kind is int else "a number"
        if self.high == math.inf:
            return f"{what} of {self.low} or more"
        return f"{what} from {self.low} to {'below ' if self.below else ''}{self.high}"


class Beta(ParamType):
    """β of the divergence: its name or the number."""

    name = "beta"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """β."""
        if str(value).lower() in _BETAS:
            return _BETAS[str(value).lower()]
        try:
            beta = float(value)
        except ValueError:
            beta = float("nan")
        if not abs(beta) < float("inf"):
            from nmfstream.cli.settings import suggest

            self.fail(f"{value!r} is no loss; {suggest(str(value), _BETAS, 'write a number or one of')}", param, ctx)
        return beta


class OrNone(ParamType):
    """Another type, or the word ``none``."""

    def __init__(self, inner: ParamType) -> None:
        self.inner = inner
        self.name = f"{inner.name}|none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The inner type's value, or `Nothing.NONE`."""
        if value is Nothing.NONE or str(value).lower() == "none":
            return Nothing.NONE
        return self.inner.convert(value, param, ctx)


class Rows(ParamType):
    """A run of rows ``START:STOP``, from 0, STOP excluded."""

    name = "start:stop"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """The bounds."""
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"(\d*):(\d+)", str(value).strip())
        if found is None or int(found[1] or 0) > int(found[2]):
            self.fail(f"{value!r} is no run of rows; write START:STOP as in 0:50000", param, ctx)
        return int(found[1] or 0), int(found[2])


class Store(ParamType):
    """``STORE[/DATASET]``, or - ; completed as a file name."""

    name = "store"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """As given; never empty."""
        if not str(value).strip():
            self.fail("the name is empty; write STORE[/DATASET]", param, ctx)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        """File names."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(incomplete, type="file")]


class File(Store):
    """A path."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A `Path`."""
        from pathlib import Path

        return Path(super().convert(value, param, ctx)).expanduser()


class ModelFile(File):
    """The file that a model is written to."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A `Path` whose suffix says HDF5."""
        path = super().convert(value, param, ctx)
        if path.suffix not in (".h5", ".hdf5"):
            self.fail(f"a model is an HDF5 file: name it {str(path.with_suffix('.h5'))!r}", param, ctx)
        return path


POSITIVE = Number(int, 1)
COUNT = Number(int)
WEIGHT = Number(float)
SHARE = Number(float, 0, 1)


def grouped(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator, in this order in the help."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def data_argument(*, required: bool = True) -> Callable[[F], F]:
    """DATA…: one or more stores."""
    return click.argument("data", nargs=-1, required=required, type=Store(), metavar="DATA...")


data_options = grouped(
    click.option("--transpose", is_flag=True, help="Samples are columns of what is stored."),
    click.option("--dtype", type=click.Choice(["auto", "float32", "float64"]), default="auto", show_default=True,
                 help="Type to compute in (auto: float64 stays, all else float32)."),
    click.option("--missing-chunks", type=click.Choice(["error", "fill"]), default="error", show_default=True,
                 help="Chunks that the store does not hold."),
    click.option("--negative", type=click.Choice(["error", "clip"]), default="error", show_default=True,
                 help="Values below zero."),
    click.option("--allow-external", is_flag=True, help="Follow HDF5's links and raw data outside the file."),
    click.option("--input-format", type=click.Choice(["npy", "csv", "tsv"]), default="npy", show_default=True,
                 help="What standard input (-) holds."),
)  # fmt: skip

resource_options = grouped(
    click.option("--threads", type=POSITIVE, metavar="N", help="Cores to use [default: all]."),
    click.option("--memory", type=Size(), metavar="SIZE",
                 help="Peak resident size [default: a quarter of the machine's, 4GiB at most]."),
    click.option("--scratch", type=File(), metavar="DIR", help="Where to put what can be rebuilt."),
)  # fmt: skip

output_options = grouped(
    click.option("--checkpoint-every", type=Interval(), default="5m", show_default=True, metavar="5m|200steps",
                 help="How often it is saved."),
    click.option("--resume", is_flag=True, help="Go on where an earlier run stopped; begin where there is none."),
    click.option("--overwrite", is_flag=True, help="Replace outputs that exist."),
    click.option("--max-time", type=Duration(), metavar="TIME", help="Save and stop with 75 after this time."),
)  # fmt: skip

saving_options = grouped(
    click.option("--checkpoint", type=File(), metavar="PATH",
                 help="Where the run is saved [default: the output's name with .ckpt]."),
    output_options,
    click.option("--strict", is_flag=True, help="Refuse to resume where the bits of the result could differ."),
)  # fmt: skip

metrics_option = click.option("--metrics", type=File(), metavar="FILE.jsonl", help="Append figures as JSON lines.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object to standard output.")
model_option = click.option("-m", "--model", required=True, type=Store(), metavar="MODEL.h5",
                            help="Model or checkpoint.")  # fmt: skip

common_options = grouped(
    json_option,
    click.option("-q", "--quiet", is_flag=True, help="Only warnings and errors."),
    click.option("-v", "--verbose", is_flag=True, help="Say more."),
    click.option("--progress/--no-progress", default=None, help="A bar on a terminal, a line every 30 s elsewhere."),
    click.option("--debug", is_flag=True, help="Show the traceback of an error."),
    click.option("--config", metavar="FILE.toml", is_eager=True, expose_value=False, callback=read_config,
                 type=Store(), envvar="NMFSTREAM_CONFIG", help="Settings, one table per command."),
    click.help_option("-h", "--help"),
)  # fmt: skip


def inputs(given: dict[str, Any]) -> Inputs:
    """The data of a command, from its options."""
    from nmfstream.config import Inputs

    return Inputs(
        data=tuple(given["data"]),
        transpose=given["transpose"],
        missing_chunks=given["missing_chunks"],
        negative=given["negative"],
        allow_external=given["allow_external"],
        dtype=given["dtype"],
        input_format=given["input_format"],
    )


def resources(given: dict[str, Any]) -> Resources:
    """What the machine gives, from the options."""
    from nmfstream.config import Resources

    return Resources(given["threads"], given["memory"], given["scratch"])


def saving(given: dict[str, Any]) -> Saving:
    """Checkpoints and time, from the options."""
    from nmfstream.config import Saving

    seconds, steps = given["checkpoint_every"]
    return Saving(
        path=given.get("checkpoint"),
        every_seconds=seconds,
        every_steps=steps,
        resume=given["resume"],
        overwrite=given["overwrite"],
        strict=given.get("strict", False),
        max_time=given["max_time"],
    )


def given_values(given: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """The options of these names that were given, with ``none`` as None."""
    values = {name: given[name] for name in names if given[name] is not None}
    return {name: None if value is Nothing.NONE else value for name, value in values.items()}


def output_of(given: dict[str, Any]) -> str:
    """``-o``; standard output where the data are standard input.

    Raises
    ------
    UsageError
    """
    from nmfstream.errors import UsageError

    data, output = tuple(given["data"]), given["output"]
    if output is None and data != ("-",):
        hint = "name a store as in -o W.npy, or - for standard output"
        raise UsageError("the output is missing", where="-o", hint=hint)
    return output or "-"


def output_format(given: dict[str, Any]) -> str:
    """``--output-format``; what comes in as text goes out as text where nobody says."""
    if given["output_format"] is not None:
        return str(given["output_format"])
    text = tuple(given["data"]) == ("-",) and output_of(given) == "-"
    return str(given["input_format"]) if text else "npy"


def refuse_json_beside_data(given: dict[str, Any]) -> None:
    """One of the two has standard output for itself.

    Raises
    ------
    UsageError
    """
    from nmfstream.errors import UsageError

    if given["as_json"] and output_of(given) == "-":
        raise UsageError("standard output is taken by the data", where="--json", hint="write the data with -o FILE")
