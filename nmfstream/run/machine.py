"""What the machine has: memory that a run may use and that it uses now."""

from __future__ import annotations

import os
from pathlib import Path

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
