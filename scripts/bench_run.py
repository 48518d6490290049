"""Commands as fresh processes: seconds, peak memory, and ratios whose two sides take turns."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-c", "from nmfstream.cli.main import run; raise SystemExit(run())"]

# A child counts its parent's size as its own until it becomes another program: so a small parent starts it.
_LAUNCHER = """
import json, os, sys, time
out = os.dup(1)
began = time.perf_counter()
pid = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(pid, 0)
with open(sys.argv[1], "w") as report:
    report.write(json.dumps([time.perf_counter() - began, usage.ru_maxrss * 1024, os.waitstatus_to_exitcode(status)]))
"""


@dataclass(frozen=True)
class Finished:
    """A command that ended well."""

    seconds: float
    peak: int
    """Most bytes that were resident."""
    stdout: bytes

    @property
    def json(self) -> dict[str, Any]:
        """The object it printed."""
        values: dict[str, Any] = json.loads(self.stdout)
        return values


def measured(arguments: Sequence[str | Path], stdin: Path | None = None) -> Finished:
    """Run a program to its end; RuntimeError with its last words where it fails."""
    report = Path(f"/tmp/nmfstream-bench-{time.time_ns()}.json")
    launch = [sys.executable, "-S", "-E", "-c", _LAUNCHER, str(report), *map(str, arguments)]
    source = stdin.open("rb") if stdin is not None else subprocess.DEVNULL
    done = subprocess.run(launch, stdin=source, capture_output=True)
    seconds, peak, code = json.loads(report.read_text())
    report.unlink()
    if code:
        raise RuntimeError(f"{' '.join(map(str, arguments[3:]))}: exit {code}: {done.stderr.decode()[-500:]}")
    return Finished(seconds, peak, done.stdout)


def nmfstream(*arguments: Any, stdin: Path | None = None) -> Finished:
    """`nmfstream` with these arguments, without a progress bar."""
    return measured([*COMMAND, *map(str, arguments)], stdin)


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    name: str
    measured: str
    goal: str = ""
    reached: bool | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def in_turn(repeats: int, *sides: Callable[[], float]) -> list[float]:
    """Median seconds of each side; the sides take turns, so that what disturbs one disturbs the other."""
    taken: list[list[float]] = [[] for _ in sides]
    for _ in range(repeats):
        for seconds, side in zip(taken, sides):
            seconds.append(side())
    return [statistics.median(seconds) for seconds in taken]


def clock(action: Callable[[], Any]) -> float:
    """Seconds that it takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


_WARM = """
import sys
from importlib import import_module
from pathlib import Path
from bench_run import clock
action = getattr(import_module(sys.argv[1]), sys.argv[2])
action(Path(sys.argv[3]))
print(clock(lambda: action(Path(sys.argv[3]))))
"""


def warm(module: str, name: str, path: Path) -> float:
    """Seconds of a function of a file in a process of its own, after a first call that loads what it needs."""
    command = [sys.executable, "-c", _WARM, module, name, str(path)]
    return float(subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).parent).stdout)


def at_most(name: str, ratio: float, goal: float, unit: str = "× floor", **details: Any) -> Figure:
    """A figure that must not exceed its goal."""
    return Figure(name, f"{ratio:.2f} {unit}", f"≤ {goal:g} {unit}", ratio <= goal, details)


def at_least(name: str, ratio: float, goal: float, unit: str = "×", **details: Any) -> Figure:
    """A figure that must reach its goal."""
    return Figure(name, f"{ratio:.2f} {unit}", f"≥ {goal:g} {unit}", ratio >= goal, details)


def markdown(figures: Sequence[Figure]) -> str:
    """The table for the README."""
    marks = {True: "yes", False: "**no**", None: ""}
    rows = [f"| {f.name} | {f.measured} | {f.goal} | {marks[f.reached]} |" for f in figures]
    return "\n".join(["| figure | measured | to reach | reached |", "|---|---|---|---|", *rows, ""])
