"""A long fit as a process, to send signals to."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cli.helpers import PROGRAM

FIT = ["fit", "x.npy", "-o", "m.h5", "-k", "3", "--solver", "mu", "--batch-size", "20", "--tol", "0", "--seed", "0",
       "--max-no-improvement", "none", "--no-progress"]  # fmt: skip
FOREVER = [*FIT, "--max-iter", "1000000"]


def wait_for(true: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


@contextmanager
def started(
    args: list[str], folder: Path, ignored: tuple[int, ...] = (), env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    def prepare() -> None:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)

    process = subprocess.Popen(
        [*PROGRAM, *args],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=prepare,
        env={**os.environ, **(env or {})},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def saved(folder: Path, name: str = "m.h5.ckpt") -> list[Path]:
    return sorted((folder / name).glob("*.gen"))


@contextmanager
def under_way(
    folder: Path, args: list[str] = FOREVER, every: str = "50steps", **kwargs: object
) -> Iterator[subprocess.Popen[str]]:
    """A fit that has saved at least once."""
    with started([*args, "--checkpoint-every", every, "--resume"], folder, **kwargs) as process:  # type: ignore[arg-type]
        wait_for(lambda: saved(folder) or process.poll() is not None)
        assert process.poll() is None, process.communicate()[1]
        yield process
