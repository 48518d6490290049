"""What a run will take, from shapes alone: blocks, buffers, bytes to read, memory. Pure functions.

The plan of the arithmetic (blocks, batches, sample) follows from shape and parameters; the budget decides only
how much of the store is read ahead. So every sufficient budget gives the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from nmfstream.errors import UsageError

MiB = 1 << 20
PORTION_BYTES = 32 * MiB
"""Bytes of X that one buffer holds where the budget allows: enough to hide a batch's end behind reading."""
N_BUFFERS = 3
SLACK = 8 * MiB
"""What the allocator keeps beyond what is asked of it."""


class Layout(NamedTuple):
    """What the plan has to know of a store.

    Attributes
    ----------
    n_rows : int
    row_bytes : float
        Bytes a row in memory, in the model's type (mean of a sparse store).
    unit_rows : int
        Rows of the largest batch.
    unit_bytes : int
        Bytes of the largest batch.
    stripe_bytes : int
        Bytes of the rows that are decoded together.
    task_bytes : int
        Temporary bytes of one reading task.
    """

    n_rows: int
    row_bytes: float
    unit_rows: int
    unit_bytes: int
    stripe_bytes: int
    task_bytes: int


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes by purpose, and how the store is read within them.

    Attributes
    ----------
    parts : mapping of str to int
        Bytes by purpose; their sum is the predicted peak.
    portion_bytes : int
        Of X, decoded into one buffer.
    n_buffers : int
    """

    parts: Mapping[str, int]
    portion_bytes: int
    n_buffers: int

    @property
    def peak(self) -> int:
        """Predicted peak of the process in bytes."""
        return sum(self.parts.values())


def plan_memory(
    layout: Layout, fixed: Mapping[str, int], threads: int, memory: int, *, resident_rows_bytes: int = 0
) -> MemoryPlan:
    """Fit the buffers into what the fixed parts leave of the budget.

    Parameters
    ----------
    layout : Layout
    fixed : mapping of str to int
        Bytes that no choice changes: interpreter and libraries, H and statistics, W of a batch, sample.
    threads : int
    memory : int
        The budget in bytes.
    resident_rows_bytes : int
        Bytes of a sample that is kept while passes read.

    Raises
    ------
    UsageError
        If the smallest buffers do not fit; names the smallest budget that works.
    """
    parts = {**fixed, "decoding": threads * layout.task_bytes, "slack": SLACK}
    if resident_rows_bytes:
        parts["sample"] = resident_rows_bytes
    room = memory - sum(parts.values())
    for portion, buffers in _choices(layout):
        held = buffers * buffer_bytes(layout, portion)
        if held <= room:
            return MemoryPlan({**parts, "buffers": held}, portion, buffers)
    portion, buffers = _choices(layout)[-1]
    smallest = sum(parts.values()) + buffers * buffer_bytes(layout, portion)
    raise UsageError(
        f"--memory {_mib(memory)} is too small for this run",
        hint=f"the smallest that works is --memory {_mib(smallest)} ({_largest(parts, held)})",
    )


def _choices(layout: Layout) -> list[tuple[int, int]]:
    """(bytes a portion, buffers), best first; the last is one batch in each of two buffers."""
    sizes = [PORTION_BYTES >> i for i in range(5)]
    larger = [size for size in sizes if size > layout.unit_bytes]
    return [(size, N_BUFFERS) for size in larger] + [(size, 2) for size in larger] + [(layout.unit_bytes, 2)]


def buffer_bytes(layout: Layout, portion: int) -> int:
    """Bytes of one buffer: whole batches, and the stripe of chunks that their end cuts."""
    batches = max(portion // max(1, layout.unit_bytes), 1) * layout.unit_bytes
    whole = max(batches, layout.stripe_bytes + layout.unit_bytes if layout.stripe_bytes > batches else 0)
    return min(whole + layout.stripe_bytes, int(layout.n_rows * layout.row_bytes))


def _mib(size: int) -> str:
    return f"{-(-size // MiB)}MiB"


def _largest(parts: Mapping[str, int], buffers: int) -> str:
    every = {**parts, "buffers": buffers}
    name = max(every, key=lambda part: every[part])
    advice = ", a smaller --sample-rows needs less" if name == "sample" else ""
    return f"{_mib(every[name])} of it for {name}{advice}"
