"""What the machine has: memory that a run may use and that it uses now."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

LARGEST_DEFAULT = 4 << 30


def default_memory() -> int:
    """A quarter of the machine's or the cgroup's memory in bytes, 4 GiB at most."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(min([machine, *_cgroup_limits()]) // 4, LARGEST_DEFAULT)


def _cgroup_limits() -> list[int]:
    names = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
    return [limit for name in names if (limit := _number(Path(name))) is not None]


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def resident() -> int:
    """Bytes of this process that are resident now."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def peak() -> int:
    """Most bytes of this process that were ever resident (not its parent's, which ``getrusage`` may report)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return resident()


def give_back_freed() -> None:
    """Have the C library return what was freed, so that `resident` says what is in use; glibc alone can."""
    trim = _of_libc("malloc_trim")
    if trim is not None:
        trim(0)


def _of_libc(name: str) -> Any:
    import ctypes

    return getattr(ctypes.CDLL(None), name, None)


LARGE = 8 << 20
"""Bytes from which an allocation is given back to the system as soon as it is freed."""


def give_back_memory() -> None:
    """Have the C library return large blocks at once: glibc learns not to, and a peak would outlast its cause.

    For processes that are all ours. Where the library has no ``mallopt``, nothing happens.
    """
    mallopt = _of_libc("mallopt")
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE)
        mallopt(M_TRIM_THRESHOLD, LARGE)


M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1
